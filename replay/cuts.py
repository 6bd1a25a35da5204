"""How much a fabric carries from one half to the other, and over how many paths pairs of GPUs reach each other."""

import random
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from ..schemas import UsageError
from ..schemas.compiled import compiler
from .fabric import Fabric, Ints

_compiled = compiler("cuts", [Path(__file__)]).jit()

_PAIRS = 200  # drawn for paths, unless there are fewer
_MANY = 1 << 60  # MB/s: more than any link


@dataclass(frozen=True)
class Cut:
    """What goes from one part of the GPUs to the rest at most, or back if that is less, over whatever paths.

    Rates are those of full packets, headers taken off; `each` divides by the GPUs of the smaller part.
    """

    name: str
    gpus: int  # of the smaller part
    mb_per_s: int

    @property
    def each_mb_per_s(self) -> float:
        """Rate for each GPU of the smaller part."""
        return self.mb_per_s / self.gpus


@dataclass(frozen=True)
class Paths:
    """Smallest, median and largest, over pairs of GPUs, of the paths to choose from and of the shortest's links."""

    pairs: int
    paths: tuple[int, float, int]
    links: tuple[int, float, int]


def bisection(fabric: Fabric) -> list[Cut]:
    """Return the cuts into halves that a fabric has by nature, the first half of the boxes against the rest first.

    Then even boxes against odd ones, and the first places of all boxes against the others; in a single box, the
    same with GPUs for boxes. Empty for an ideal fabric and for one GPU.
    """
    if fabric.ideal or fabric.gpus < 2:
        return []
    boxes = int(fabric.box.max()) + 1
    group, what = (fabric.box, "boxes") if 1 < boxes < fabric.gpus else (np.arange(fabric.gpus), "GPUs")
    halves = {
        f"first half of the {what}": group < (int(group.max()) + 1) // 2,
        f"even against odd {what}": group % 2 == 0,
    }
    place = np.arange(fabric.gpus) - np.searchsorted(fabric.box, fabric.box)
    if boxes > 1 and place.max() > 0:
        halves["first half of every box"] = place < (int(place.max()) + 1) // 2
    capacity = _usable(fabric)
    cuts = []
    for name, half in halves.items():
        flow = min(_flow(fabric, capacity, half), _flow(fabric, capacity, ~half))
        cuts.append(Cut(name, int(min(half.sum(), (~half).sum())), flow))
    return cuts


def _usable(fabric: Fabric) -> Ints:
    payload = np.maximum(fabric.payload_bytes, 1)
    header = np.where(fabric.payload_bytes > 0, fabric.header_bytes, 0)
    usable: Ints = fabric.rate_mb_per_s * payload // (payload + header)
    return usable


def _flow(fabric: Fabric, capacity: Ints, half: npt.NDArray[np.bool_]) -> int:
    """Return the largest flow from the GPUs in `half` to the others."""
    nodes, gpus = len(fabric.node_names), np.arange(fabric.gpus)
    source = np.concatenate((fabric.source, np.where(half, nodes, gpus)))
    target = np.concatenate((fabric.destination, np.where(half, gpus, nodes + 1)))
    rate = np.concatenate((capacity, np.full(fabric.gpus, _MANY)))
    # Arc 2 i is link i, arc 2 i + 1 its reverse, empty at first.
    tails = np.stack((source, target), 1).ravel()
    order = np.argsort(tails, kind="stable")
    first = np.searchsorted(tails[order], np.arange(nodes + 3))
    heads = np.stack((target, source), 1).ravel()
    left = np.stack((rate, np.zeros_like(rate)), 1).ravel()
    return int(_dinic(first, order, heads, left, nodes, nodes + 1))


@_compiled
def _dinic(first: Ints, order: Ints, heads: Ints, left: Ints, source: int, sink: int) -> int:
    """Return the maximum flow (Dinic 1970): shortest paths in rounds, each round without going back."""
    total = 0
    nodes = len(first) - 1
    path = np.empty(nodes, np.int64)
    while True:
        level = np.full(nodes, -1, np.int64)
        queue = np.empty(nodes, np.int64)
        queue[0], level[source], begin, end = source, 0, 0, 1
        while begin < end:
            node = queue[begin]
            begin += 1
            for at in range(first[node], first[node + 1]):
                arc = order[at]
                if left[arc] > 0 and level[heads[arc]] < 0:
                    level[heads[arc]] = level[node] + 1
                    queue[end] = heads[arc]
                    end += 1
        if level[sink] < 0:
            return total
        turn = first[:-1].copy()
        node, depth = source, 0
        while True:
            if node == sink:
                least = left[path[:depth]].min()
                total += least
                back = depth
                for i in range(depth):
                    left[path[i]] -= least
                    left[path[i] ^ 1] += least
                    if left[path[i]] == 0 and i < back:
                        back = i
                depth = back
                node = heads[path[depth] ^ 1]
            while turn[node] < first[node + 1]:
                arc = order[turn[node]]
                if left[arc] > 0 and level[heads[arc]] == level[node] + 1:
                    break
                turn[node] += 1
            if turn[node] < first[node + 1]:
                path[depth] = arc
                depth += 1
                node = heads[arc]
            elif depth == 0:
                break
            else:  # a dead end: back, and on with the next arc
                depth -= 1
                node = heads[path[depth] ^ 1]
                turn[node] += 1


def paths(fabric: Fabric) -> Paths | None:
    """Count the paths of every pair of GPUs, or of 200 drawn ones; None without links or pairs.

    Raises UsageError where some choice does not arrive: routes may, whatever other choices do.
    """
    if fabric.ideal or fabric.gpus < 2:
        return None
    n = fabric.gpus
    draw = random.Random(n)
    everyone = n * (n - 1) <= _PAIRS
    pairs = (
        [(a, b) for a in range(n) for b in range(n) if a != b]
        if everyone
        else [
            (a, b if b < a else b + 1)
            for a, b in ((draw.randrange(n), draw.randrange(n - 1)) for _ in range(_PAIRS))
        ]
    )
    found = [_between(fabric, a, b) for a, b in pairs]
    counts, lengths = [f[0] for f in found], [f[1] for f in found]
    return Paths(len(pairs), _spread(counts), _spread(lengths))


def _between(fabric: Fabric, source: int, goal: int) -> tuple[int, int]:
    """Return paths from one GPU to another, and links of the shortest.

    Raises UsageError where choices lead in a circle, or nowhere.
    """
    known = {goal: (1, 0)}
    onward: dict[int, list[int]] = {}
    way = [source]
    while way:
        node = way[-1]
        if node not in onward:
            onward[node] = [int(fabric.destination[link]) for link in set(fabric.next_links(node, goal))]
        after = next((n for n in onward[node] if n not in known), None)
        if (after is not None and after in onward) or not onward[node]:
            what = "lead back to it" if onward[node] else "do not exist"
            at = fabric.node_names[node if after is None else after]
            raise UsageError(
                f"fabric {fabric.name}: choices at {at} towards GPU {goal} {what}; check the rules"
            )
        if after is not None:
            way.append(after)
        else:
            ends = [known[n] for n in onward[node]]
            known[node] = sum(count for count, _ in ends), 1 + min(links for _, links in ends)
            way.pop()
    return known[source]


def _spread(values: list[int]) -> tuple[int, float, int]:
    return min(values), median(values), max(values)
