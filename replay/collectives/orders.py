"""In which order rings visit the GPUs: along the links of a mesh, and from box to box on one rail a ring."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import permutations

import numpy as np

from ..fabric import Fabric, Ints

Pairs = frozenset[tuple[int, int]]
Cycle = tuple[int, ...]

_SAMPLE = 64  # hops looked at for a ring's slowest link: boxes of a fabric are alike
_TRIES = 5000  # cycles tried before the best packing so far is taken


def ring_order(fabric: Fabric, members: Sequence[int]) -> list[list[int]]:
    """Return one or more orders of `members` (endpoints), each a ring; several share the data.

    Inside a box: cycles along direct GPU-to-GPU links, where there are any, each link used as often as its width
    allows; otherwise the given order. Over several boxes: a ring for every place in the box that all boxes have;
    ring k enters the first box at place k. Boxes are visited forwards and backwards by turns, so that a hop between
    boxes stays on one rail; with an odd number of boxes the last hop, back to the first, does not.
    """
    boxes: dict[int, list[int]] = {}
    for member in members:
        boxes.setdefault(int(fabric.box[member]), []).append(member)
    if len(boxes) == len(members):
        return [list(members)]
    if len(boxes) == 1:
        return [[members[i] for i in cycle] for cycle in _cycles(fabric, members)]
    return _over_boxes(fabric, boxes)


def _over_boxes(fabric: Fabric, boxes: dict[int, list[int]]) -> list[list[int]]:
    first = {b: int(np.searchsorted(fabric.box, b)) for b in boxes}
    places = {b: [m - first[b] for m in box] for b, box in boxes.items()}
    common = sorted(set.intersection(*map(set, places.values())))
    if not common:
        return [[m for box in boxes.values() for m in box]]
    cycles = {b: _assign(_cycles(fabric, box), places[b], common) for b, box in boxes.items()}
    rings = []
    for k, place in enumerate(common):
        ring: list[int] = []
        for turn, (b, box) in enumerate(boxes.items()):
            cycle = cycles[b][k]
            at = cycle.index(places[b].index(place))
            path = [box[i] for i in cycle[at:] + cycle[:at]]
            ring += path[::-1] if turn % 2 else path
        rings.append(ring)
    return rings


def _assign(cycles: Sequence[Cycle], places: Sequence[int], starts: Sequence[int]) -> list[Cycle]:
    """Return a cycle for each start, used about equally often, so that no two rings leave the box at one place."""
    at = [places.index(start) for start in starts]

    def search(chosen: list[Cycle], ends: set[int], most: int) -> list[Cycle]:
        if len(chosen) == len(at):
            return chosen
        for cycle in sorted(cycles, key=chosen.count):
            end = cycle[cycle.index(at[len(chosen)]) - 1]
            free = end not in ends and chosen.count(cycle) < most
            if free and (found := search([*chosen, cycle], ends | {end}, most)):
                return found
        return []

    fair = -(-len(at) // len(cycles))
    spread = next(filter(None, (search([], set(), most) for most in range(fair, len(at) + 1))), None)
    return spread or [cycles[k % len(cycles)] for k in range(len(at))]


def _cycles(fabric: Fabric, members: Sequence[int]) -> tuple[Cycle, ...]:
    """Return cycles over one box's members, as indices into them."""
    inside = {m: i for i, m in enumerate(members)}
    width: dict[tuple[int, int], int] = {}
    for m in members if len(members) > 2 else ():
        for link in fabric.leaving(m):
            to = inside.get(int(fabric.destination[link]))
            if to is not None:
                width[inside[m], to] = width.get((inside[m], to), 0) + int(fabric.rate_mb_per_s[link])
    return _decompose(len(members), tuple(sorted(width.items())))


@lru_cache(maxsize=256)
def _decompose(size: int, width: tuple[tuple[tuple[int, int], int], ...]) -> tuple[Cycle, ...]:
    """Take cycles through all of `size` nodes out of a mesh, along its widest links first, until none is left."""
    left = dict(width)
    found: list[Cycle] = []
    for rate in sorted(set(left.values()), reverse=True):
        cycles = _pack(size, frozenset(pair for pair, w in left.items() if w >= rate))
        for cycle in cycles:
            for pair in _links(cycle):
                left[pair] -= rate
        found += cycles
    return tuple(found) or (tuple(range(size)),)


def _pack(size: int, pairs: Pairs) -> list[Cycle]:
    """Return as many cycles without a link in common as are found; depth first, the first of the best.

    Four GPUs that are all linked get all six cycles, two over each link: no three share none (Tillson, 1980).
    """
    if size == 4 and len(pairs) == 12:
        return [(0, *rest) for rest in permutations((1, 2, 3))]
    best: list[Cycle] = []
    most = min(sum(a == node for a, _ in pairs) for node in range(size))
    tries = _TRIES

    def search(taken: list[Cycle], left: Pairs) -> None:
        nonlocal best, tries
        if len(taken) > len(best):
            best = taken
        for cycle in _through_all(size, left):
            tries -= 1
            if tries < 0 or len(best) == most:
                return
            search([*taken, cycle], left - frozenset(_links(cycle)))

    search([], pairs)
    return best


def _through_all(size: int, pairs: Pairs) -> Iterator[Cycle]:
    """Yield the cycles through all nodes that leave node 0 over the first link which is part of any."""

    def extend(path: list[int]) -> Iterator[Cycle]:
        if len(path) == size:
            if (path[-1], 0) in pairs:
                yield tuple(path)
            return
        for node in range(size):
            if node not in path and (path[-1], node) in pairs:
                yield from extend([*path, node])

    for node in range(1, size):
        if (0, node) in pairs and (found := list(_limited(extend([0, node])))):
            yield from found
            return


def _limited(cycles: Iterator[Cycle]) -> Iterator[Cycle]:
    return (cycle for _, cycle in zip(range(_TRIES), cycles, strict=False))


def _links(cycle: Cycle) -> Iterator[tuple[int, int]]:
    return zip(cycle, cycle[1:] + cycle[:1], strict=True)


def ring_speeds(fabric: Fabric, orders: Sequence[Sequence[int]]) -> list[int]:
    """Return MB/s of payload for each ring: its part of the slowest link, which the rings over it share evenly.

    1 each in an ideal fabric and for a lone member.
    """
    if fabric.ideal or len(orders[0]) < 2:
        return [1] * len(orders)
    links = [np.unique(np.concatenate([fabric.route(a, b) for a, b in _hops(order)])) for order in orders]
    users = np.bincount(np.concatenate(links))
    return [max(1, int((_usable(fabric, used) // users[used]).min())) for used in links]


def _hops(order: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(order, [*order[1:], order[0]], strict=True))[:_SAMPLE]


def usable_mb_per_s(fabric: Fabric, link: int) -> int:
    """Return MB/s that a link carries in full packets."""
    return int(_usable(fabric, np.array([link]))[0])


def _usable(fabric: Fabric, links: Ints) -> Ints:
    """Return MB/s that links carry in full packets."""
    payload = np.maximum(fabric.payload_bytes[links], 1)
    header = np.where(fabric.payload_bytes[links] > 0, fabric.header_bytes[links], 0)
    usable: Ints = fabric.rate_mb_per_s[links] * payload // (payload + header)
    return usable
