"""Whether the dependencies of one rank go in a circle."""

from graphlib import CycleError, TopologicalSorter
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
        found = [span for span, _ in groupby(int(ids[event // 2]) for event in error.args[1])]
        return found if len(found) > 1 and found[0] == found[-1] else [*found, found[0]]
    return []


def edge_back(cycle: list[int], spans: pa.Table, dependencies: pa.Table) -> int | None:
    """Return the row of the edge that goes back furthest in time among those of a cycle of `find_cycle`."""
    steps = set(pairwise(cycle))
    edges = dependencies.select(["before", "after"])
    near = pc.and_(
        *(pc.is_in(edges[name], value_set=pa.array(cycle, pa.int64())) for name in edges.column_names)
    )
    rows = np.flatnonzero(near.fill_null(False).to_numpy(zero_copy_only=False))
    pairs = zip(
        rows.tolist(), *(edges[name].take(rows).to_pylist() for name in edges.column_names), strict=True
    )
    held = spans.select(["span", "start_ns"]).filter(
        pc.is_in(spans["span"], value_set=pa.array(cycle, pa.int64()))
    )
    start = dict(zip(*(held[name].to_pylist() for name in held.column_names), strict=True))
    back = {row: start[b] - start[a] for row, b, a in pairs if (b, a) in steps}
    return max(back, key=lambda row: back[row], default=None)


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
