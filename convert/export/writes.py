"""A trace -> a CSV list of its peer writes in order of time, for a simulator that injects them.

A row is what a gem5 that stands in for peer GPUs registers before a run and fires at its time: when, from which
GPU, to which address, how many bytes, which value. The trace names buffers, not addresses: the regions of each
destination, and its flags that no region holds, get addresses of their own, one behind the other.
"""

import csv
import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ...schemas import Results, Trace
from ...schemas.errors import InputError
from .registry import Export, Progress, Source
from .report import ExportReport

COLUMNS = (
    "wakeup_ns", "source_gpu", "destination_gpu", "address", "size_bytes", "value", "kind", "flag", "region",
    "offset_bytes",
)  # fmt: skip
BASE = 0x1_0000_0000
PAGE_BYTES = 4096
FLAG_BYTES = 64
"""A flag without a region has a cache line to itself, as those do that one GPU polls and another writes."""
_FLAGS = None


def write(source: Source, path: Path, report: ExportReport, progress: Progress) -> None:
    """Write the list of `source`, a trace, to the file `path`. Raises InputError where it has no writes."""
    if isinstance(source, Results):
        raise InputError(f"{source.path} is a run; give a trace")
    ranks = source.ranks()
    bases, origin_ns = _layout(source, ranks, progress)
    rows = heapq.merge(
        *(_rows(source, rank) for rank in ranks), key=lambda row: (row["issue_ns"], row["rank"])
    )
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for row in rows:
            out.writerow(_line(row, bases, origin_ns))
            report.written["writes"] += 1
    report.lost.append("spans, waits and collectives: the list has writes only")
    report.notes.append(
        f"wakeup_ns counts from {origin_ns} ns of the trace's clock, and is the issue, not the arrival"
    )


EXPORT = Export(write)


def _layout(
    trace: Trace, ranks: list[int], progress: Progress
) -> tuple[dict[tuple[int, str | None], int], int]:
    """Return the base address of each (destination, region), and the trace's first time."""
    ends: dict[tuple[int, str | None], int] = {}
    first: list[int] = []
    for done, rank in enumerate(ranks):
        progress("laying out buffers", done, len(ranks))
        first += pc.min_max(trace.read("spans", ["start_ns"], [rank])["start_ns"]).as_py().values()
        table = trace.read(
            "writes", ["peer", "region", "offset_bytes", "size_bytes", "flag", "issue_ns"], [rank]
        )
        first.append(pc.min(table["issue_ns"]).as_py())
        for batch in table.to_batches(1 << 14):
            for row in batch.to_pylist():
                key, offset = _place(row)
                ends[key] = max(ends.get(key, 0), offset + row["size_bytes"])
    if not ends:
        raise InputError(f"{trace.path} has no peer writes; capture a kernel that writes to its peers")
    bases: dict[tuple[int, str | None], int] = {}
    at: dict[int, int] = {}
    for destination, region in sorted(ends, key=lambda key: (key[0], key[1] is not None, key[1] or "")):
        bases[destination, region] = at.setdefault(destination, BASE)
        at[destination] += -(-max(ends[destination, region], 1) // PAGE_BYTES) * PAGE_BYTES
    return bases, min(time for time in first if time is not None)


def _place(row: dict[str, Any]) -> tuple[tuple[int, str | None], int]:
    """Return the (destination, region) and the offset that a write goes to."""
    if row["region"] is None and row["flag"] is not None and row["offset_bytes"] is None:
        return (row["peer"], _FLAGS), row["flag"] * FLAG_BYTES
    return (row["peer"], row["region"] or ""), row["offset_bytes"] or 0


def _rows(trace: Trace, rank: int) -> Iterator[dict[str, Any]]:
    for batch in trace.read("writes", ranks=[rank]).sort_by("issue_ns").to_batches(1 << 12):
        yield from batch.to_pylist()


def _line(row: dict[str, Any], bases: dict[tuple[int, str | None], int], origin_ns: int) -> list[Any]:
    key, offset = _place(row)
    return [
        row["issue_ns"] - origin_ns, row["rank"], row["peer"], hex(bases[key] + offset), row["size_bytes"],
        row["value"], row["kind"], row["flag"], row["region"], row["offset_bytes"],
    ]  # fmt: skip
