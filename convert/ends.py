"""Match collectives of two ranks by the times at which they end, where their orders cannot tell."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .parts import Part

END_SPREAD_NS = 100_000
"""Ends of one operation agree within 1 to 7 us on one host; this leaves room for hosts and timer steps."""
CLOCK_SPREAD_NS = 50_000_000
"""Hosts' clocks were seen up to 11 ms apart; an alignment is looked for within this."""
DRIFT_PARTS = 10_000
"""Two hosts' crystals drift apart by less than one part in this many (100 ppm)."""

Rows = Mapping[int, Sequence[Part]]


def ends_agree(rows: Sequence[Sequence[Part]]) -> bool:
    """Say whether, up to each rank's clock, all parts in the same place of `rows` end together."""
    if len(rows[0]) < 2:
        return True
    ends = np.array([[part.end_ns for part in row] for row in rows])
    shortest = np.array([[part.end_ns - part.start_ns for part in row] for row in rows]).min(axis=0)
    apart = ends - ends[0]
    apart = apart - np.round(np.median(apart, axis=1, keepdims=True)).astype(np.int64)
    drifted = np.abs(ends[0] - int(np.median(ends[0]))) // DRIFT_PARTS
    return bool((np.abs(apart) <= END_SPREAD_NS + shortest // 100 + drifted).all())


def number_by_ends(rows: Rows, communicators: Sequence[Rows]) -> None:
    """Match each rank's parts with the longest row's by their ends, and number operations in that order.

    Sets each part's sequence. Clocks are compared over all `communicators`, of which `rows` is one.
    """
    base = max(rows, key=lambda rank: (len(rows[rank]), -rank))
    places = [(part.end_ns, [part]) for part in rows[base]]  # ends on the base's clock
    for rank, row in rows.items():
        if rank != base:
            _place(places, row, clock_offset(base, rank, communicators))
    for sequence, (_, members) in enumerate(sorted(places, key=lambda place: place[0])):
        for part in members:
            part.sequence = sequence


def _place(places: list[tuple[int, list[Part]]], row: Sequence[Part], offset: int) -> None:
    """Put each part of a rank into the place that it ends with, or into a new one."""
    places.sort(key=lambda place: place[0])
    ends = [end for end, _ in places]
    taken: set[int] = set()
    new = []
    for part in row:
        near = [i for i in _near(ends, part, offset) if i not in taken and _together(places[i], part, offset)]
        if near:
            index = min(near, key=lambda i: abs(ends[i] - part.end_ns - offset))
            places[index][1].append(part)
            taken.add(index)
        else:
            new.append((part.end_ns + offset, [part]))
    places += new


def clock_offset(base: int, rank: int, communicators: Sequence[Rows]) -> int:
    """Return what, added to `rank`'s times, makes most of its operations end with `base`'s."""
    apart = sorted(gap for rows in communicators for gap in _gaps(rows.get(base, ()), rows.get(rank, ())))
    if not apart:
        return 0
    values = np.array(apart)
    counts = np.searchsorted(values, values + END_SPREAD_NS, side="right") - np.arange(len(values))
    best = np.flatnonzero(counts == counts.max()).tolist()
    start = min(best, key=lambda i: abs(apart[i]))
    return int(np.median(values[start : start + counts[start]]))


def _gaps(one: Sequence[Part], other: Sequence[Part]) -> Iterator[int]:
    """Yield the differences of ends of all pairs that may be one operation."""
    reference = sorted(one, key=lambda part: part.end_ns)
    ends = [part.end_ns for part in reference]
    for part in other:
        low = bisect_left(ends, part.end_ns - CLOCK_SPREAD_NS)
        high = bisect_right(ends, part.end_ns + CLOCK_SPREAD_NS)
        yield from (ends[i] - part.end_ns for i in range(low, high) if compatible(reference[i], part))


def _near(ends: Sequence[int], part: Part, offset: int) -> range:
    reach = max(END_SPREAD_NS, (part.end_ns - part.start_ns) // 100)
    return range(
        bisect_left(ends, part.end_ns + offset - reach), bisect_right(ends, part.end_ns + offset + reach)
    )


def _together(place: tuple[int, Sequence[Part]], part: Part, offset: int) -> bool:
    """Say whether a part may belong to a place: they end within END_SPREAD_NS or 1 % of their time."""
    end, members = place
    shorter = min(one.end_ns - one.start_ns for one in (*members, part))
    close = abs(end - part.end_ns - offset) <= max(END_SPREAD_NS, shorter // 100)
    return close and compatible(members[0], part)


def kind(part: Part) -> str:
    """Return the operation without the difference that only the splits make."""
    return "all_to_all" if part.operation == "all_to_allv" else part.operation


def compatible(one: Part, other: Part) -> bool:
    """Say whether two ranks' parts can be of one operation."""
    if "unknown" in (one.operation, other.operation):
        return True
    if kind(one) != kind(other):
        return False
    sized = one.operation in ("all_reduce", "broadcast") and one.size_bytes and other.size_bytes
    return not sized or one.size_bytes == other.size_bytes
