"""A captured PyTorch job -> host work, collectives and how they are joined.

A rank's ring tells of every collective and user-scope event (the light level); its windows add the operators that
its host ran during a few steps. Host threads are lanes. Where a rank has windows only, they tell all.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..schemas import InputError, TraceWriter
from . import captured_gpu, captured_nccl, captured_telemetry
from .captured_light import HOST_TRUTH, join_ring
from .captured_record import gap_text, mark_rows, read_record
from .captured_ring import missing
from .captured_window import CALL, Rank, join_by_order, number_by_flights, read_window, top_level
from .clocks import Clock, align
from .job import MOST_RANKS
from .matching import Matching, match
from .member import member
from .parts import Part

_PART_COLUMNS = (
    *("span", "sequence", "operation", "dtype", "size_bytes", "in_split_bytes", "out_split_bytes", "peer"),
    *("algorithm", "protocol", "channels", "launch_ns", "start_ns", "end_ns"),
)


def convert(folder: Path, manifest: dict[str, Any], writer: TraceWriter) -> None:
    """Write every rank of the PyTorch capture in `folder` that recorded anything.

    Raises InputError where none has, or a file cannot be read.
    """
    if manifest["backend"] == "gpu":
        captured_gpu.convert(folder, manifest, writer)
        return
    ranks = [_read_rank(folder, entry) for entry in manifest["ranks"]]
    ranks = [rank for rank in ranks if rank.spans]
    if not ranks:
        raise InputError(f"{folder}: no rank recorded anything ({gap_text(manifest)}); capture again")
    world_size = ranks[0].record["world_size"]
    if type(world_size) is not int or not 0 < world_size <= MOST_RANKS:
        raise InputError(
            f"{folder}: a rank's record says {str(world_size)[:40]} ranks: it is damaged; copy it again"
        )
    cut = _leave_out_unfinished(ranks)
    matching = match({rank.record["rank"]: rank.parts for rank in ranks}, world_size)
    clocks = _clocks(ranks, matching)
    sampled, notes = captured_telemetry.tables(folder, {rank.record["rank"]: rank.record for rank in ranks})
    for rank in ranks:
        _write(writer, manifest, rank, matching, clocks[rank.record["rank"]])
        for table, columns in sampled.get(rank.record["rank"], {}).items():
            writer.write(table, rank.record["rank"], columns)
    seen = (*matching.operations.items(), *matching.pairs.items())
    unmatched = [f"{name} {n}" for (name, n), by in seen if len(by) == 1]
    copied = ("backend", "command", "date", "exit_code", "oversubscribed", "failures")
    writer.notes.update({
        "source": "eidola capture of PyTorch",
        **{key: manifest[key] for key in copied},
        "truth": HOST_TRUTH,
        "world_size": world_size,
        "missing_ranks": sorted(set(range(world_size)) - {rank.record["rank"] for rank in ranks}),
        "gaps": [{"rank": r.record["rank"], **gap} for r in ranks for gap in r.record["gaps"]],
        "unfinished_operations_left_out": cut,
        "earlier_restarts": len(manifest["earlier_restarts"]),
        "seen_on_one_rank_only": unmatched,
        "operators": _operators(ranks),
        "notes": [f"rank {r.record['rank']}: {note}" for r in ranks for note in r.notes] + notes,
    })  # fmt: skip


def _read_rank(folder: Path, entry: dict[str, Any]) -> Rank:
    record = read_record(member(folder, entry["file"]))
    windows = [span for w in record["windows"] for span in read_window(member(folder, w["trace"]))]
    if record["calls"]:
        rank = join_ring(record, member(folder, record["calls"]), windows)
        if (dump := captured_nccl.find_dump(folder, record)) is not None:
            joined = captured_nccl.join(dump, rank.pairs)
            rank.shown, rank.notes = captured_nccl.annotations(joined), joined.notes
        if lost := sum(missing(member(folder, record[name])) for name in ("calls", "marks")):
            rank.notes.append(f"{lost} records of its rings are not there: never finished, or damaged")
        return rank
    calls = sorted((s for s in windows if s.name.startswith(CALL)), key=lambda s: s.start_ns)
    rank = Rank(record, top_level(windows), calls)
    join_by_order(rank)
    if record.get("flight"):
        number_by_flights(rank, member(folder, record["flight"]))
    return rank


def _leave_out_unfinished(ranks: Iterable[Rank]) -> int:
    """Leave out what a killed rank had not finished when it ended, on all ranks; return how many parts.

    Its peers saw such an operation fail, or never end.
    """
    killed = [rank for rank in ranks if rank.record.get("sealed", "") is None]
    left_out = 0
    for dead in killed:
        finished = {(p.group.name, p.sequence, p.operation) for p in dead.parts}
        for rank in ranks:
            kept = []
            for part in rank.parts:
                members = part.group.ranks or ()
                shared = dead.record["rank"] in members and part.operation not in ("send", "recv")
                after = part.end_ns >= dead.record["gaps"][-1]["start_ns"]
                lost = shared and after and (part.group.name, part.sequence, part.operation) not in finished
                left_out += lost
                kept += [] if lost else [part]
            rank.parts = kept
    return left_out


def _clocks(ranks: Sequence[Rank], matching: Matching) -> dict[int, Clock]:
    """Return each rank's clock: one host's ranks share it; hosts are aligned on the ends of collectives."""
    if len({rank.record.get("host") for rank in ranks}) == 1:
        return {rank.record["rank"]: Clock("reference", 0, 0, 0) for rank in ranks}
    return align([rank.record["rank"] for rank in ranks], matching, drift=False)


def _operators(ranks: Iterable[Rank]) -> str:
    windows = [len(rank.record["windows"]) for rank in ranks]
    return f"in {min(windows)} to {max(windows)} windows a rank" if any(windows) else "not recorded"


def _write(
    writer: TraceWriter, manifest: dict[str, Any], rank: Rank, matching: Matching, clock: Clock
) -> None:
    number, machine = rank.record["rank"], manifest["machine"]
    writer.write("ranks", number, {
        "backend": [manifest["backend"]],
        "host": [rank.record.get("host") or machine.get("host")],
        "vendor": [machine.get("cpu_vendor")],
        "model": [machine.get("cpu_model")],
        "software": [json.dumps(manifest["versions"], sort_keys=True)],
    })  # fmt: skip
    writer.write("clocks", number, {
        "method": [clock.method], "offset_ns": [clock.offset_ns], "drift_ppb": [0],
        "residual_ns": [clock.residual_ns], "anchors": [clock.anchors],
    })  # fmt: skip
    own = [m for m in matching.members if m.rank == number]
    writer.write("communicators", number, {
        name: [getattr(m, name) for m in own] for name in ("communicator", "group_rank", "group_size", "name")
    })  # fmt: skip
    writer.write("spans", number, _span_columns(rank, clock.offset_ns))
    writer.write("dependencies", number, {
        "before": [before for before, _, _ in rank.edges],
        "after": [after for _, after, _ in rank.edges],
        "kind": [kind for _, _, kind in rank.edges],
        "origin": ["inferred"] * len(rank.edges),
    })  # fmt: skip
    writer.write("collectives", number, _collective_columns(rank.parts, clock.offset_ns))


def _span_columns(rank: Rank, offset_ns: int) -> dict[str, list[Any]]:
    """Return the rank's spans, then its steps, phases and gaps as annotations."""
    rows = [(f"thread {s.tid}", s.kind, s.name, s.launch_ns, s.start_ns, s.end_ns) for s in rank.spans]
    rows += rank.shown
    rows += mark_rows(rank.record, max(span.end_ns for span in rank.spans))
    lanes, kinds, names, *times = zip(*rows, strict=True)
    shifted = [[None if t is None else t + offset_ns for t in column] for column in times]
    return {
        "span": list(range(len(rows))),
        "lane": list(lanes),
        "kind": list(kinds),
        "name": list(names),
        **dict(zip(("launch_ns", "start_ns", "end_ns"), shifted, strict=True)),
    }


def _collective_columns(parts: Sequence[Part], offset_ns: int) -> dict[str, list[Any]]:
    columns = {name: [getattr(part, name) for part in parts] for name in _PART_COLUMNS}
    for name in ("launch_ns", "start_ns", "end_ns"):
        columns[name] = [None if time is None else time + offset_ns for time in columns[name]]
    return {**columns, "communicator": [part.communicator for part in parts]}
