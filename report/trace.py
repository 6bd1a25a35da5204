"""What the report of a trace shows."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..schemas import Trace
from ..schemas.flags import flag_name, flag_writers
from ..schemas.intervals import union_length
from .blame import by_flags, by_last, said
from .collectives import captured, collectives
from .facts import backend_warning
from .flags import NOBODY, Flags, by_flag, cause, flags
from .gpus import gpus
from .launches import launches
from .messages import messages
from .page import Head
from .text import count_text, size_text, time_text
from .traffic import traffic
from .view import Progress, View, drawn
from .waits import by_policy, waits

Ints = npt.NDArray[np.int64]
_LAUNCHED = ("rank", "lane", "kind", "name", "launch_ns", "start_ns", "end_ns")
_WORK = ("kernel", "copy", "phase")
_FLAGS_NOTE = (
    "As the capture saw it: a wait ends with the read that saw the value, and reads are those that the waiter "
    "counted. Who raised it: the rank whose writes to the flag the trace holds, where that is one rank."
)


def trace_report(trace: Trace, progress: Progress | None = None) -> tuple[Head, list[View]]:
    """Return the head and the views of a trace."""
    ranks, rows = trace.read("ranks"), trace.read("collectives")
    writes = trace.read("writes", ["rank", "peer", "size_bytes", "flag"])
    spans = trace.read("spans", ["rank", "span", "kind", "start_ns", "end_ns"])
    found = _flags(trace)
    parts = (
        lambda: _gpus(trace, ranks, spans, rows, found),
        lambda: flags(found, _FLAGS_NOTE),
        lambda: launches(trace.read("spans", _LAUNCHED)),
        lambda: _waits(trace),
        lambda: _traffic(writes),
        lambda: messages(_sizes(writes), None),
        lambda: collectives(captured(rows)),
    )
    return _head(trace, ranks, spans, writes, rows), drawn(parts, progress)


def _flags(trace: Trace) -> Flags:
    waits = trace.read(
        "waits", ["rank", "flag", "start_ns", "end_ns", "polls"], filters=pc.field("end_ns").is_valid()
    )
    waited = 1000 * (waits["end_ns"].to_numpy() - waits["start_ns"].to_numpy())
    writers = {(row["peer"], row["flag"]): row for row in flag_writers(trace).to_pylist()}
    by = [writers.get(key) for key in zip(waits["rank"].to_pylist(), waits["flag"].to_pylist(), strict=True)]
    names = pa.array([flag_name(row) if row else None for row in by], pa.string())
    table = waits.append_column("flag_name", names).append_column(
        "policy", pa.nulls(waits.num_rows, pa.string())
    )
    return by_flag(table, waited, np.array([row["rank"] if row else NOBODY for row in by], np.int64))


def _gpus(trace: Trace, ranks: pa.Table, spans: pa.Table, rows: pa.Table, found: Flags) -> View | None:
    """Return computing and waiting by rank: waiting is inside a collective or a captured wait, and in no kernel."""
    rank = np.sort(ranks["rank"].to_numpy())
    place, size = {int(r): at for at, r in enumerate(rank)}, len(rank)
    waits = trace.read("waits", ["rank", "span", "start_ns", "end_ns"], filters=pc.field("end_ns").is_valid())
    busy = _placed(_computing(spans, rows, waits), place)
    parts = (busy, _placed(rows, place), _placed(waits, place))
    of_rank, start, end = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not len(of_rank):
        return None
    computing = union_length(*busy, size)
    waiting = union_length(of_rank, start, end, size) - computing
    late = by_last(rows, "start_ns", ["communicator", "operation", "sequence"], 1000)
    longest = int(rank[int(waiting.argmax())])
    why, on = said(late, longest, 1000 * int(waiting.max())) or cause(found, longest), late or by_flags(found)
    return gpus(rank, 1000 * computing, 1000 * waiting, _window_ps(spans, rows, waits), {}, why, on, "trace")


def _computing(spans: pa.Table, rows: pa.Table, waits: pa.Table) -> pa.Table:
    """Return the spans that compute: kernels, copies and phases that are no collective and hold no wait."""
    work = spans.filter(pc.field("kind").isin(_WORK))
    for other in (rows, waits):
        known = other.select(["rank", "span"]).filter(pc.field("span").is_valid())
        work = work.join(known, ["rank", "span"], join_type="left anti")
    return work


def _window_ps(*tables: pa.Table) -> int:
    """Return the time from the first start to the last end in all tables."""
    held = [table for table in tables if table.num_rows]
    if not held:
        return 0
    first = min(pc.min(table["start_ns"]).as_py() for table in held)
    return 1000 * int(max(pc.max(table["end_ns"]).as_py() for table in held) - first)


def _placed(table: pa.Table, place: dict[int, int]) -> tuple[Ints, Ints, Ints]:
    rank = np.array([place.get(r, 0) for r in table["rank"].to_pylist()], np.int64)
    return rank, table["start_ns"].to_numpy(), table["end_ns"].to_numpy()


def _traffic(writes: pa.Table) -> View | None:
    if not writes.num_rows:
        return None
    source, destination = (writes[c].to_numpy() for c in ("rank", "peer"))
    size = writes["size_bytes"].fill_null(0).to_numpy()
    return traffic(source, destination, size, int(max(source.max(), destination.max())) + 1)


def _sizes(writes: pa.Table) -> Ints:
    """Return the sizes, where they are known, of writes to other ranks."""
    known = writes.filter((pc.field("rank") != pc.field("peer")) & pc.field("size_bytes").is_valid())
    sizes: Ints = known["size_bytes"].to_numpy()
    return sizes


def _waits(trace: Trace) -> View | None:
    table = trace.read("waits", ["start_ns", "end_ns", "polls"], filters=pc.field("end_ns").is_valid())
    start, end = (1000 * table[name].to_numpy() for name in ("start_ns", "end_ns"))
    policy = ["captured"] * table.num_rows
    return waits(by_policy(pa.table({"policy": pa.array(policy, pa.string()), "start_ps": start, "end_ps": end,
                                     "polls": table["polls"]})))  # fmt: skip


def _head(trace: Trace, ranks: pa.Table, spans: pa.Table, writes: pa.Table, rows: pa.Table) -> Head:
    window = _window_ps(spans, rows)
    clocks = trace.read("clocks", ["method", "residual_ns"])
    residual = pc.max(clocks["residual_ns"]).as_py()
    facts = [
        ("ranks", f"{ranks.num_rows:,}"),
        ("window", time_text(window)),
        ("devices", _counted(ranks["model"].to_pylist())),
        ("backend", _counted(ranks["backend"].to_pylist())),
        ("hosts", f"{len(set(ranks['host'].to_pylist()) - {None}):,}" if ranks["host"].null_count == 0 else ""),
        ("spans", f"{spans.num_rows:,}"),
        ("collective records", f"{rows.num_rows:,}" if rows.num_rows else ""),
        ("peer writes", f"{writes.num_rows:,}" if writes.num_rows else ""),
        ("bytes written to peers", size_text(pc.sum(writes["size_bytes"]).as_py() or 0) if writes.num_rows else ""),
        ("clocks aligned by", _counted(clocks["method"].to_pylist())),
        ("largest clock residual", time_text(1000 * residual) if residual is not None else ""),
        ("made by", str(trace.manifest.get("generator", ""))),
    ]  # fmt: skip
    return Head(
        trace.path.resolve().name,
        f"A trace of {count_text(ranks.num_rows, 'rank')} over {time_text(window)}.",
        [(name, text) for name, text in facts if text],
        backend_warning(ranks["backend"].to_pylist()),
        {"What the converter noted (JSON)": trace.notes},
    )


def _counted(values: list[str | None]) -> str:
    """Say how often each value is there: `Tesla V100 (8), A100 (2)`; only the value, where all are the same."""
    counts = Counter(value for value in values if value)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count})" for value, count in counts.most_common())
