"""Small traces written by hand, and what came of lowering and running them."""

from pathlib import Path

import numpy as np

from eidola.replay import Fabric, FabricBuilder, Lowered, Outcome, lower, run
from eidola.schemas import Trace, TraceWriter


def ideal(gpus: int) -> Fabric:
    return FabricBuilder("ideal", gpus).build()


def span(number, lane, start, end, kind="kernel", name=None):
    return {
        "span": number,
        "lane": lane,
        "kind": kind,
        "name": name or f"s{number}",
        "start_ns": start,
        "end_ns": end,
    }


def edge(before, after, kind="event"):
    return {"before": before, "after": after, "kind": kind, "origin": "measured"}


def data(peer, time, size, **more):
    return {"peer": peer, "issue_ns": time, "size_bytes": size, "kind": "data", "origin": "measured", **more}


def raised(peer, time, flag, value, kind="flag", **more):
    return {
        **data(peer, time, 8),
        "kind": kind,
        "flag": flag,
        "value": value,
        **more,
    }


def waited(flag, expected, start, end, **more):
    return {"flag": flag, "expected": expected, "start_ns": start, "end_ns": end, **more}


def collective(
    span, sequence, start, end, operation="all_reduce", size=1 << 20, communicator="world", **more
):
    return {
        "span": span,
        "communicator": communicator,
        "sequence": sequence,
        "operation": operation,
        "size_bytes": size,
        "start_ns": start,
        "end_ns": end,
        **more,
    }


def member(position, size, communicator="world"):
    return {"communicator": communicator, "group_rank": position, "group_size": size}


def write_trace(path: Path, ranks: dict[int, dict[str, list[dict]]]) -> Trace:
    """Write rows by rank and table; each rank gets its row in `ranks`."""
    with TraceWriter(path, overwrite=True) as writer:
        for rank, tables in ranks.items():
            writer.write("ranks", rank, {"backend": ["host"]})
            for name, rows in tables.items():
                columns = dict.fromkeys(key for row in rows for key in row)
                writer.write(name, rank, {key: [row.get(key) for row in rows] for key in columns})
    return Trace(path)


def replayed(trace: Trace, fabric: Fabric | None = None, **options) -> tuple[Lowered, Outcome]:
    fabric = fabric or ideal(len(trace.ranks()))
    lowered = lower(trace, fabric, **options)
    return lowered, run(lowered.program, fabric)


def times_ns(outcome: Outcome, gpu: int = 0) -> dict[int, tuple[int, int]]:
    """Simulated start and end of each span of one GPU, on the captured clock, to the nanosecond."""
    program, (start, end) = outcome.program, outcome.activity_times
    columns = program.activities
    mine = np.flatnonzero(program.agent_endpoint[columns["agent"]] == gpu)
    return {
        int(columns["source"][i]): (
            program.epoch_ns + int(start[i]) // 1000,
            program.epoch_ns + int(end[i]) // 1000,
        )
        for i in mine
    }
