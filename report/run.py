"""What the report of a run shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..schemas import Results
from .blame import by_flags, by_last, said
from .causes import causes
from .collectives import collectives, replayed
from .fabric import fabric
from .facts import facts, warnings
from .flags import NOBODY, Flags, by_flag, cause, flags
from .gpus import gpus
from .light import Light
from .links import links
from .messages import messages
from .page import Head
from .path import critical_path
from .text import count_text, short, size_text, time_text
from .traffic import traffic
from .view import Progress, View, drawn, micro
from .waits import by_policy, waits

_WAITS = ("rank", "flag", "flag_name", "policy", "start_ps", "end_ps", "polls", "released_by")
_FLAGS_NOTE = (
    "A flag lives in the memory of the GPU that waits for it. Waits that lasted no time are counted too; waits "
    "that the GPU's own streams, launches and events released are left out. Waits may overlap."
)


def run_report(
    results: Results, path: Sequence[Mapping[str, Any]] | None, progress: Progress | None = None
) -> tuple[Head, list[View]]:
    """Return the head and the views of a run; `path` is its critical path, where it is known."""
    table = results.read("gpus")
    makespan = int(table["end_ps"].to_numpy().max(initial=0))
    found, link_table = _flags(results), results.read("links")
    box_gpus = int(results.summary.get("gpus_a_box") or 1)
    parts = (
        lambda: critical_path(path) if path else None,
        lambda: causes(results.confirmed),
        lambda: _gpus(results, table, makespan, found),
        lambda: flags(found, _FLAGS_NOTE) if found else None,
        lambda: _waits(results),
        lambda: fabric(link_table, makespan, box_gpus),
        lambda: links(link_table, results.read("link_use"), makespan),
        lambda: _traffic(results, table.num_rows, box_gpus),
        lambda: _messages(results),
        lambda: collectives(replayed(results.read("collectives"), Light(link_table, box_gpus))),
    )
    return _head(results, table, makespan), drawn(parts, progress)


def _flags(results: Results) -> Flags | None:
    """Return the waits by flag; None where the run recorded none."""
    if "waits" not in results.tables():
        return None
    waits = results.read("waits", _WAITS)
    released = waits["released_by"].to_numpy()
    releaser = np.full(len(released), NOBODY, np.int64)
    if "messages" in results.tables():
        source = results.read("messages", ["source_rank"])["source_rank"].to_numpy()
        known = released >= 0
        releaser[known] = source[released[known]]
    waited = waits["end_ps"].to_numpy() - waits["start_ps"].to_numpy()
    return by_flag(waits, waited, releaser)


def _gpus(results: Results, table: pa.Table, makespan_ps: int, found: Flags | None) -> View | None:
    rank, compute, exposed = (table[c].to_numpy() for c in ("rank", "compute_ps", "exposed_ps"))
    more = {
        "ended at (µs)": micro(table["end_ps"]),
        "sent (bytes)": table["sent_bytes"].to_pylist(),
        "received (bytes)": table["received_bytes"].to_pylist(),
        "writes": table["writes"].to_pylist(),
        "flag reads": table["flag_reads"].to_pylist(),
    }
    rows = results.read("collectives", ["collective", "rank", "operation", "start_ps"])
    late = by_last(rows, "start_ps", ["collective"], 1)
    why = ""
    if exposed.any():
        longest = int(rank[int(exposed.argmax())])
        why = said(late, longest, int(exposed.max())) or (cause(found, longest) if found else "")
    return gpus(rank, compute, exposed, makespan_ps, more, why, late or (by_flags(found) if found else {}))


def _traffic(results: Results, size: int, box_gpus: int) -> View | None:
    if "messages" not in results.tables():
        return None
    table = results.read("messages", ["source_rank", "destination_rank", "size_bytes"])
    source, destination, size_bytes = (column.to_numpy() for column in table.columns)
    return traffic(source, destination, size_bytes, size, box_gpus)


def _messages(results: Results) -> View | None:
    if "messages" not in results.tables():
        return None
    names = ["source_rank", "destination_rank", "size_bytes", "post_ps", "arrival_ps"]
    source, destination, size, post, arrival = (c.to_numpy() for c in results.read("messages", names).columns)
    away = source != destination
    return messages(size[away], (arrival - post)[away])


def _waits(results: Results) -> View | None:
    if "waits" not in results.tables():
        return None
    return waits(by_policy(results.read("waits", ["policy", "start_ps", "end_ps", "arrival_ps", "polls"])))


def _head(results: Results, table: pa.Table, makespan_ps: int) -> Head:
    summary, manifest = results.summary, results.manifest
    sent, reads = (int(table[c].to_numpy().sum()) for c in ("sent_bytes", "flag_reads"))
    told = [
        ("makespan", time_text(makespan_ps)),
        ("GPUs", f"{table.num_rows:,}"),
        ("payload sent", size_text(sent)),
        ("flag reads", f"{reads:,}"),
        *facts(summary),
    ]
    asked = (("on", summary.get("fabric")), ("in mode", summary.get("mode")))
    where = "".join(f" {word} {short(str(value))}" for word, value in asked if value)
    return Head(
        results.path.resolve().name,
        f"{count_text(table.num_rows, 'GPU')}{where} took {time_text(makespan_ps)}.",
        told,
        warnings(summary),
        {"Summary (JSON)": summary, "Manifest (JSON)": manifest},
    )
