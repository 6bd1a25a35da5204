"""Whether the dependencies of one rank go in a circle."""

from graphlib import CycleError, TopologicalSorter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_Ints = npt.NDArray[np.int64]


def find_cycle(spans: pa.Table, dependencies: pa.Table) -> list[int]:
    """Return the spans of one cycle, the first again at its end; empty where there is none.

    Every span has two events, its start and its end: a span starts before it ends, `launch` orders two
    starts, `sync` two ends, and the other kinds an end and a start; so a call may launch a kernel and wait
    for it. Edges that name no known span, and rows that lack a value, are left out.
    """
    spans = spans.select(["span", "start_ns", "end_ns"]).drop_null().sort_by("span")
    ids = spans["span"].to_numpy()
    edges = dependencies.select(["before", "after", "kind"]).drop_null()
    if not len(ids) or not edges.num_rows:
        return []
    before, after = (np.searchsorted(ids, edges[name].to_numpy()) for name in ("before", "after"))
    kind = edges["kind"].to_numpy()
    held = _holds(ids, before, edges["before"].to_numpy()) & _holds(ids, after, edges["after"].to_numpy())
    own = 2 * np.arange(len(ids))
    source = np.concatenate([own, (2 * before + (kind != "launch"))[held]])
    target = np.concatenate([own + 1, (2 * after + (kind == "sync"))[held]])
    time = np.column_stack([spans["start_ns"].to_numpy(), spans["end_ns"].to_numpy()]).ravel()
    near = _suspects(time, source, target)
    graph: TopologicalSorter[int] = TopologicalSorter()
    for first, second in zip(source[near].tolist(), target[near].tolist(), strict=True):
        graph.add(second, first)
    try:
        graph.prepare()
    except CycleError as error:
        return [int(ids[event // 2]) for event in error.args[1]]
    return []


def _holds(ids: _Ints, index: _Ints, wanted: _Ints) -> npt.NDArray[np.bool_]:
    return np.equal(ids[np.minimum(index, len(ids) - 1)], wanted)


def _suspects(time: _Ints, source: _Ints, target: _Ints) -> npt.NDArray[np.bool_]:
    """Return which edges can be in a cycle: those within the time that edges back in time (or ties) span.

    A cycle comes down again through every time that it rises through, so it lies in the union of the
    intervals of its edges that do not rise.
    """
    low, high = time[target], time[source]
    falls = low <= high
    order = np.argsort(low[falls], kind="stable")
    lows, reach = low[falls][order], np.maximum.accumulate(high[falls][order])
    if not len(lows):
        return falls

    def inside(when: _Ints) -> npt.NDArray[np.bool_]:
        index = np.searchsorted(lows, when, side="right") - 1
        return (index >= 0) & (when <= reach[np.maximum(index, 0)])

    return inside(low) & inside(high)
