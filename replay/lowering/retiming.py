"""A rank's work with other durations: factors by item, whole steps drawn; then the times that follow from them.

What an item waited for and the slack that it kept after it stay as captured; collectives keep their duration. With
no change every time is the captured one.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

from .items import Edge, Item, Lane, RankWork, finish_ns

Factor = Callable[[Item], Fraction]


def scaled_work(work: RankWork, factor: Factor) -> RankWork:
    """Return `work` with every item's compute times its factor; `work` itself where all factors are one."""
    factors = {id(item): factor(item) for item in work.items() if not item.parts}
    if all(value == 1 for value in factors.values()):
        return work
    found, twins = _copy(work)
    for item in work.items():
        value, twin = factors.get(id(item), Fraction(1)), twins[id(item)]
        if item.steps:
            twin.factor = item.factor * value
        else:
            twin.busy_ns = item.busy_ns * value.numerator // value.denominator
    retime(work, found)
    return found


def replaced_work(work: RankWork, durations: dict[int, tuple[int, int]]) -> RankWork:
    """Return `work` with (gap_ns, busy_ns) of items, by `id`, replaced."""
    found, twins = _copy(work)
    for item in work.items():
        if item_durations := durations.get(id(item)):
            gap, busy = item_durations
            twin = twins[id(item)]
            if item.gap_ns >= 0 <= gap:
                twin.gap_ns = gap
            twin.busy_ns = busy
    retime(work, found)
    return found


def stretched_work(work: RankWork, busy_ns: Mapping[int, int], lengths_ns: Mapping[int, int]) -> RankWork:
    """Return `work` with other compute, and of items with writes or waits other durations, both by `id`."""
    found, twins = _copy(work)
    for item in work.items():
        twins[id(item)].busy_ns = busy_ns.get(id(item), item.busy_ns)
    retime(work, found, lengths_ns)
    return found


def retime(old: RankWork, new: RankWork, lengths_ns: Mapping[int, int] | None = None) -> None:
    """Set the times of `new` from its gaps and compute; `old` is the same work as captured.

    `lengths_ns`: of items of `old` with writes, waits or collectives, by `id`; default: as captured.
    """
    lengths_ns = lengths_ns or {}
    ready, released = _predecessors(old), _predecessors(old, at_end=True)
    twins = {id(a): b for a, b in zip(old.items(), new.items(), strict=True)}
    for lane, at, ends in _order(old):
        item = lane.items[at]
        if ends:
            _end(item, released.get(id(item), []), twins, lengths_ns)
        else:
            _begin(item, lane.items[at - 1] if at else None, ready.get(id(item), []), twins)


def _begin(item: Item, previous: Item | None, ready: list[tuple[Item, bool]], twins: dict[int, Item]) -> None:
    """Begin an item: what let it go moves it, by as much as its gap is another one."""
    twin = twins[id(item)]
    before = ([finish_ns(previous)] if previous else []) + [_time(*edge) for edge in ready]
    if before:
        after = [finish_ns(twins[id(previous)])] if previous else []
        after += [_time(twins[id(edge[0])], edge[1]) for edge in ready]
        twin.begin_ns = max(after) + item.begin_ns - max(before) + twin.gap_ns - item.gap_ns
        if previous:
            twin.begin_ns = max(twin.begin_ns, finish_ns(twins[id(previous)]))
    shift_ns = twin.begin_ns - item.begin_ns
    twin.steps = item.steps.later(shift_ns)
    twin.start_ns = twin.begin_ns


def _end(
    item: Item, released: list[tuple[Item, bool]], twins: dict[int, Item], lengths_ns: Mapping[int, int]
) -> None:
    """End an item: its compute after it began, or after what held its end."""
    twin = twins[id(item)]
    if item.steps or item.parts:
        twin.end_ns = twin.begin_ns + lengths_ns.get(id(item), finish_ns(item) - item.begin_ns)
        return
    twin.end_ns = twin.begin_ns + twin.busy_ns
    if released:
        freed_ns = max(_time(*edge) for edge in released)
        late_ns = min(0, finish_ns(item) - freed_ns)  # clocks that disagree: the release seems to come after
        held_ns = max(_time(twins[id(before)], start) for before, start in released) + late_ns
        twin.end_ns = max(twin.begin_ns, held_ns) + twin.busy_ns


def _time(item: Item, from_start: bool) -> int:
    return item.begin_ns if from_start else finish_ns(item)


def _predecessors(work: RankWork, at_end: bool = False) -> dict[int, list[tuple[Item, bool]]]:
    found: dict[int, list[tuple[Item, bool]]] = {}
    for edge in work.edges:
        if edge.holds_end == at_end:
            found.setdefault(id(edge.after), []).append((edge.before, edge.from_start))
    return found


def _order(work: RankWork) -> list[tuple[Lane, int, bool]]:
    """Return (lane, index, whether its end) of all begins and ends, each after what it waits for.

    A call launches a kernel at its begin and may wait for that kernel at its end: the two are apart.
    """
    before: dict[tuple[int, bool], list[tuple[int, bool]]] = {}
    for edge in work.edges:
        before.setdefault((id(edge.after), edge.holds_end), []).append((id(edge.before), not edge.from_start))
    at, done, order = [0] * len(work.lanes), set[tuple[int, bool]](), list[tuple[Lane, int, bool]]()
    moved = True
    while moved:
        moved = False
        for number, lane in enumerate(work.lanes):
            while at[number] < 2 * len(lane.items):
                index, ends = at[number] // 2, at[number] % 2 == 1
                point = (id(lane.items[index]), ends)
                if any(other not in done for other in before.get(point, [])):
                    break
                done.add(point)
                order.append((lane, index, ends))
                at[number] += 1
                moved = True
    left = [
        (lane, i // 2, i % 2 == 1)
        for lane, first in zip(work.lanes, at, strict=True)
        for i in range(first, 2 * len(lane.items))
    ]
    return order + sorted(left, key=lambda point: (point[0].items[point[1]].begin_ns, point[2]))


def _copy(work: RankWork) -> tuple[RankWork, dict[int, Item]]:
    """Return the work with items of its own, and each item's twin by `id`."""
    twins = {id(item): replace(item) for item in work.items()}
    lanes = [Lane(lane.name, [twins[id(item)] for item in lane.items]) for lane in work.lanes]
    edges = [Edge(twins[id(e.before)], twins[id(e.after)], e.from_start, e.holds_end) for e in work.edges]
    return RankWork(work.rank, work.place, lanes, edges, work.step_windows), twins
