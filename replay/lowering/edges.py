"""Edges between a rank's lanes as flags: one slot a pair of lanes, counted in the order of the earlier lane.

An item's two points are its start and its end. A lane raises the slot at each point that the other lane needs to
see, in its own order, so that the k-th raise is a count of k. Waits that an earlier wait of the same lane already
implies, and raises that nobody needs then, are left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from .items import Edge, Item, RankWork

_START, _END = 0, 1


@dataclass
class Signals:
    """What one item raises and waits for: local slots, with counts for the waits, at its start and its end."""

    raise_at_start: list[int] = field(default_factory=list)
    raise_at_end: list[int] = field(default_factory=list)
    wait_at_start: list[tuple[int, int]] = field(default_factory=list)
    wait_at_end: list[tuple[int, int]] = field(default_factory=list)


NONE = Signals()


Pair = tuple[int, int]  # earlier lane, later lane


def number_pairs(works: Iterable[RankWork]) -> tuple[list[str], dict[int, dict[Pair, int]]]:
    """Give every pair of lanes that edges join a slot; return the slots' names, and by rank each pair's slot.

    Ranks share the slots of lanes that bear one name; threads, whose names are numbers of one process, are
    numbered anew on each rank.
    """
    named = {work.rank: (_labels(work), _pairs(work)) for work in works}
    names = sorted({f"{label[a]} -> {label[b]}" for label, pairs in named.values() for a, b in pairs})
    slot = {name: number for number, name in enumerate(names)}
    slots = {
        rank: {(a, b): slot[f"{label[a]} -> {label[b]}"] for a, b in pairs}
        for rank, (label, pairs) in named.items()
    }
    return names, slots


def _pairs(work: RankWork) -> list[Pair]:
    return sorted({(edge.before.lane, edge.after.lane) for edge in work.edges})


def _labels(work: RankWork) -> list[str]:
    threads = sorted(
        (lane.name for lane in work.lanes if lane.name.startswith("thread ")), key=lambda n: (len(n), n)
    )
    return [
        f"host thread {threads.index(lane.name)}" if lane.name in threads else lane.name
        for lane in work.lanes
    ]


def signals(work: RankWork, slots: dict[Pair, int]) -> dict[int, Signals]:
    """Return the signals of the items that have any, by `id(item)`; `slots` by pair of lanes."""
    position = {id(item): i for lane in work.lanes for i, item in enumerate(lane.items)}
    pairs: dict[tuple[int, int], list[Edge]] = {}
    for edge in work.edges:
        pairs.setdefault((edge.before.lane, edge.after.lane), []).append(edge)
    found: dict[int, Signals] = {}
    for pair, slot in slots.items():
        _connect(slot, pairs[pair], position, found)
    return found


def _connect(slot: int, edges: list[Edge], position: dict[int, int], found: dict[int, Signals]) -> None:
    """Turn the edges from one lane to another into raises and waits of `slot`."""
    points: dict[tuple[int, int], Item] = {}
    needs: dict[tuple[int, int], tuple[Item, tuple[int, int]]] = {}
    for edge in edges:
        source = (position[id(edge.before)], _START if edge.from_start else _END)
        target = (position[id(edge.after)], _END if edge.holds_end else _START)
        points[source] = edge.before
        if target not in needs or needs[target][1] < source:
            needs[target] = (edge.after, source)
    seen, kept = (-1, 0), []
    for target in sorted(needs):
        item, source = needs[target]
        if source > seen:
            kept.append((target, item, source))
            seen = source
    for count, (target, item, source) in enumerate(kept, start=1):
        before, after = (found.setdefault(id(i), Signals()) for i in (points[source], item))
        (before.raise_at_end if source[1] == _END else before.raise_at_start).append(slot)
        (after.wait_at_end if target[1] == _END else after.wait_at_start).append((slot, count))
