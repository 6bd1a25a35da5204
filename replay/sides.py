"""One side of a comparison: a run, what was captured of a run's operations, or a trace."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from ..schemas import Results, Trace, UsageError

_PER_RUN = frozenset(
    {
        "kind",
        "version",
        "generator",
        "hash",
        "results_hash",
        "results_hash_version",
        "tables",
        "command",
        "created",
        "elapsed_s",
    }
)
_TRACED = ("kernel", "phase", "copy", "host_call")


@dataclass(frozen=True)
class Side:
    """What a comparison needs, in picoseconds since the run's, or the capture's, first operation began.

    `activities`: rank, agent, kind, name, duration_ps, an agent's in order; `collectives`: rank, communicator,
    sequence, operation, start_ps, end_ps; `links`: link, value (busy); `flags`: rank, value (flag reads). A capture
    has no links, and flag reads only where it counted its polls.
    """

    label: str
    makespan_ps: int
    activities: pd.DataFrame
    collectives: pd.DataFrame
    links: pd.DataFrame | None = None
    flags: pd.DataFrame | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    hash: str = ""
    run: Results | None = None
    backends: tuple[str, ...] = ()  # what the ranks of a capture ran on


def _truthful(backends: Iterable[str], where: object) -> tuple[str, ...]:
    """Return the backends; raises UsageError where ranks took turns on a GPU: their times are the turns'."""
    found = tuple(sorted(set(backends)))
    if "timesliced" in found:
        raise UsageError(
            f"{where}: its ranks took turns on one GPU (backend timesliced), which tests hooks and formats; "
            "no run is compared with their times. Capture with a GPU a rank"
        )
    return found


def run_side(run: Results) -> Side:
    """Return a run as a side."""
    links = run.read("links", ["name", "busy_ps"]).to_pandas()
    reads = run.read("gpus", ["rank", "flag_reads"]).to_pandas()
    return Side(
        label=str(run.path),
        makespan_ps=int(pc.max(run.read("agents", ["end_ps"])["end_ps"]).as_py() or 0),
        activities=_activities(run, "start_ps", "end_ps", 1),
        collectives=_collectives(run, "start_ps", "end_ps", 1),
        links=links.rename(columns={"name": "link", "busy_ps": "value"})
        .groupby("link", as_index=False)
        .sum(),
        flags=reads.rename(columns={"flag_reads": "value"}),
        inputs=_flat({key: value for key, value in run.manifest.items() if key not in _PER_RUN}),
        hash=str(run.manifest.get("results_hash", "")),
        run=run,
    )


def captured_side(run: Results) -> Side:
    """Return what was captured of a run's own operations; raises UsageError where nothing was."""
    times = "captured_start_ns", "captured_end_ns"
    begin_ns = pc.min(run.read("activities", times[:1])[times[0]]).as_py()
    if begin_ns is None:
        raise UsageError(
            f"{run.path}: nothing in this run was captured; compare it with another run, or with a trace"
        )
    activities = _activities(run, *times, 1000, begin_ns)
    return Side(
        label="captured",
        makespan_ps=int(activities["end_ps"].max()),
        activities=activities,
        collectives=_collectives(run, *times, 1000, begin_ns),
        backends=_truthful(run.summary.get("backends", ()), run.path),
    )


def trace_side(trace: Trace) -> Side:
    """Return a trace as a side: its kernels, copies, phases, host calls, and collectives."""
    names = ["rank", "span", "lane", "kind", "name", "start_ns", "end_ns"]
    spans = trace.read("spans", names, filters=pc.field("kind").isin(_TRACED)).to_pandas()
    if not len(spans):
        raise UsageError(f"{trace.path}: the trace has no spans to compare with")
    names = ["rank", "span", "communicator", "sequence", "operation", "start_ns", "end_ns"]
    collectives = trace.read("collectives", names).to_pandas()
    mine = collectives[["rank", "span"]].dropna().drop_duplicates()
    spans = spans.rename(columns={"lane": "agent"}).merge(mine, how="left", indicator="part")
    spans["kind"] = spans["kind"].where(spans["part"] == "left_only", "collective")
    begin_ns = int(spans["start_ns"].min())
    activities = _in_order(_scaled(spans, "start_ns", "end_ns", 1000, begin_ns))
    collectives = _scaled(collectives, "start_ns", "end_ns", 1000, begin_ns).drop(columns="span")
    polls = trace.read("waits", ["rank", "polls"]).to_pandas().dropna().astype("int64")
    flags = (
        polls.rename(columns={"polls": "value"}).groupby("rank", as_index=False).sum() if len(polls) else None
    )
    ran_on = _truthful(trace.read("ranks", ["backend"])["backend"].to_pylist(), trace.path)
    makespan_ps = int(activities["end_ps"].max())
    return Side(str(trace.path), makespan_ps, activities, collectives, flags=flags, backends=ran_on)


def _activities(run: Results, start: str, end: str, unit_ps: int, begin: int = 0) -> pd.DataFrame:
    rows = _read(run, "activities", ["agent", "rank", "kind", "name"], start, end)
    agents = run.read("agents", ["name"])["name"].to_pandas()
    rows["agent"] = agents.to_numpy()[rows["agent"].to_numpy()]
    return _in_order(_scaled(rows, start, end, unit_ps, begin))


def _collectives(run: Results, start: str, end: str, unit_ps: int, begin: int = 0) -> pd.DataFrame:
    rows = _read(run, "collectives", ["rank", "communicator", "sequence", "operation"], start, end)
    return _scaled(rows, start, end, unit_ps, begin)


def _read(run: Results, table: str, columns: list[str], start: str, end: str) -> pd.DataFrame:
    """Read the rows that have both times; pandas would turn columns with nulls into floats, which lose ns."""
    there = pc.field(start).is_valid() & pc.field(end).is_valid()
    return pd.DataFrame(run.read(table, [*columns, start, end], there).to_pandas())


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort by start, so that operations of one name are counted in the order in which they ran."""
    keep = ["rank", "agent", "kind", "name", "start_ps", "end_ps", "duration_ps"]
    rows = rows.assign(duration_ps=rows["end_ps"] - rows["start_ps"])[keep]
    rows = rows.astype(
        dict.fromkeys(("agent", "kind", "name"), object)
    )  # pandas 3 cannot merge empty Arrow text
    return rows.sort_values("start_ps", kind="stable", ignore_index=True)


def _scaled(rows: pd.DataFrame, start: str, end: str, unit_ps: int, begin: int) -> pd.DataFrame:
    """Return the rows with their times as picoseconds since `begin`, which is in the times' unit."""
    times = {"start_ps": (rows[start] - begin) * unit_ps, "end_ps": (rows[end] - begin) * unit_ps}
    return rows.drop(columns=[start, end]).assign(**times)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
