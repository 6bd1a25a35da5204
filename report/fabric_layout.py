"""Where the nodes of a fabric stand in its picture: GPUs at the bottom, what is further from them above.

Up to 64 GPUs each is drawn; above that a box stands for what it holds, and neighbours share a place where a kind of
node has more than 32: nothing is left out.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
_WHOLE = 64  # GPUs up to which each is drawn
_ROW = 32  # places of a kind, beyond
_INSIDE = {"nvswitch", "nic", "socket", "pcie switch", "pcie up", "pcie down"}  # `nic 3.1` belongs to box 3
_LONG = 200  # characters of a name that are read for its kind and number


@dataclass(frozen=True)
class Place:
    """What is drawn as one: its name, the kind of its members and how many they are, and where it stands."""

    name: str
    kind: str
    members: int
    x: float = 0.0
    y: int = 0


def kind(name: str) -> str:
    """Return what a node is: its name without the numbers at its end."""
    return name.rstrip("0123456789./ ")


def lay_out(
    source: Sequence[str], destination: Sequence[str], box_gpus: int
) -> tuple[list[Place], Ints, Ints]:
    """Return the places, and the places (L,) of the ends of each link.

    Nodes are those that links name; `box_gpus` consecutive GPUs share a box.
    """
    names = list(dict.fromkeys((*source, *destination)))
    gpus = {name: int(name[4:]) for name in names if is_gpu(name)}
    names.sort(key=lambda name: gpus.get(name, len(names)))
    group, places = _groups(names, gpus, box_gpus)
    at = {name: group[i] for i, name in enumerate(names)}
    ends = np.array([at[name] for name in source]), np.array([at[name] for name in destination])
    level = _levels(len(places), [i for i, p in enumerate(places) if p.kind in ("gpu", "box")], *ends)
    across = _across(level, *ends)
    placed = [
        Place(p.name, p.kind, p.members, x, int(y)) for p, x, y in zip(places, across, level, strict=True)
    ]
    return placed, *ends


def is_gpu(name: str) -> bool:
    """Whether a node is a GPU, by its name."""
    return name.startswith("gpu ") and name[4:].isascii() and name[4:].isdigit() and len(name) < 20


def _groups(names: Sequence[str], gpus: dict[str, int], box_gpus: int) -> tuple[list[int], list[Place]]:
    """Return the place of each node, and the places, without where they stand."""
    boxed = len(gpus) > _WHOLE and box_gpus > 1
    kinds: dict[str, list[list[int]]] = defaultdict(list)  # by kind: the nodes of each member
    boxes: dict[int, list[int]] = defaultdict(list)
    for node, name in enumerate(names):
        box = stands_in_box(name, box_gpus) if boxed else None
        if box is None:
            kinds[kind(name[:_LONG])].append([node])
        else:
            boxes[box].append(node)
    if boxes:
        kinds["box"] = [boxes[box] for box in sorted(boxes)]
    group = [0] * len(names)
    places: list[Place] = []
    for what, members in kinds.items():
        most = _WHOLE if len(gpus) <= _WHOLE else _ROW
        each = -(-len(members) // most)
        for first in range(0, len(members), each):
            joined = members[first : first + each]
            for node in (node for nodes in joined for node in nodes):
                group[node] = len(places)
            ends = [f"box {first + i}" if what == "box" else names[joined[i][0]] for i in (0, -1)]
            ends[1] = f"box {first + len(joined) - 1}" if what == "box" else ends[1]
            name = ends[0] if len(joined) == 1 else f"{ends[0]} to {ends[1][len(what) :].strip() or ends[1]}"
            places.append(Place(name, what, len(joined)))
    return group, places


def stands_in_box(name: str, box_gpus: int) -> int | None:
    """Return the box that a node stands in, by its name; None for what is between boxes."""
    if is_gpu(name):
        return int(name[4:]) // box_gpus
    what = kind(name[:_LONG])
    number = name[len(what) :].strip().split(".")[0]
    return int(number) if what in _INSIDE and number.isascii() and number.isdigit() else None


def _levels(size: int, low: Sequence[int], source: Ints, destination: Ints) -> Ints:
    """Return how many links each place is from GPUs; what no link reaches counts as a GPU."""
    level = np.full(size, -1, np.int64)
    level[low] = 0
    for height in range(1, size):
        found = np.unique(destination[(level[source] == height - 1) & (level[destination] < 0)])
        if not len(found):
            break
        level[found] = height
    reached: Ints = np.maximum(level, 0)
    return reached


def _across(level: Ints, source: Ints, destination: Ints) -> list[float]:
    """Return where each place stands from 0 to 1: levels are ordered by the middle of what they link to below."""
    x = np.full(len(level), np.nan)
    for height in range(int(level.max(initial=0)) + 1):
        row = np.flatnonzero(level == height)
        linked = (level[source] == height) & ~np.isnan(x[destination])
        count = np.bincount(source[linked], minlength=len(level))
        total = np.bincount(source[linked], x[destination[linked]], len(level))
        middle = np.where(count[row] > 0, total[row] / np.maximum(count[row], 1), 2.0)
        row = row[np.argsort(middle, kind="stable")]
        x[row] = (np.arange(len(row)) + 0.5) / len(row)
    return [float(each) for each in x]
