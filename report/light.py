"""The speed of light of a collective: no algorithm is faster on the fabric that the run had.

As SOL-ExecBench (arXiv:2603.19173) measures kernels against analytic bounds, collectives are measured against cuts:
whatever the algorithm, what a part of the group needs from the rest crosses the links between them (cut-set bound:
Zhou and Sun, "On the Computation Rate of All-Reduce", arXiv:2602.22482). The cuts tried are those around every GPU
and around every box; an oversubscribed network above the boxes can have a tighter one. The last byte also has a way
to go: the least latency from a member to the nearest other; and nothing is done before the farthest one has heard.
Headers are left out, so that the bound holds for any payload.
"""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import pyarrow as pa

from .fabric_layout import is_gpu, stands_in_box


class Light:
    """The bounds on one fabric: the results' `links`, and how many GPUs share a box (1: no boxes are known)."""

    def __init__(self, links: pa.Table, box_gpus: int) -> None:
        names = ("source", "destination", "rate_mb_per_s", "latency_ps")
        self._links = list(zip(*(links[name].to_pylist() for name in names), strict=True))
        self._box_gpus = box_gpus
        self._known: dict[tuple[int, ...], tuple[int, int]] = {}

    def bound_ps(self, operation: str, size_bytes: int | None, ranks: Sequence[int]) -> int | None:
        """Return the least own time; None where the fabric is ideal or what must cross a cut is not known.

        `size_bytes` is a rank's input buffer, as in the schema.
        """
        members, size = tuple(ranks), size_bytes or 0
        if not self._links or len(members) < 2 or crossing(operation, size, len(members), 1) is None:
            return None
        if members not in self._known:
            self._known[members] = self._latency_ps(members)
        near, far = self._known[members]
        busiest = 0
        for inside, entering, leaving in self._cuts(members):
            both = crossing(operation, size, len(members), inside)
            for must, rate in zip(both or (0, 0), (entering, leaving), strict=True):
                busiest = max(busiest, -(-must * 1_000_000 // rate) if rate else 0)
        return max(busiest + near, far)

    def _cuts(self, members: tuple[int, ...]) -> set[tuple[int, int, int]]:
        """Return the different (members inside, MB/s in, MB/s out) of the cuts around GPUs and boxes."""
        gpus, boxes = self._rates
        cuts = {(1, *gpus[rank]) for rank in members if rank in gpus}
        inside: dict[int, int] = defaultdict(int)
        for rank in members:
            inside[rank // self._box_gpus] += 1
        if self._box_gpus > 1 and len(inside) > 1:
            cuts |= {(count, *boxes[box]) for box, count in inside.items() if box in boxes}
        return cuts

    @cached_property
    def _rates(self) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
        """MB/s in and out of every GPU, and of every box."""
        gpu: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        box: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for source, destination, rate, _ in self._links:
            ends = stands_in_box(destination, self._box_gpus), stands_in_box(source, self._box_gpus)
            for way, name in enumerate((destination, source)):
                if is_gpu(name):
                    gpu[int(name[4:])][way] += rate
                here = ends[way]
                if here is not None and ends[0] != ends[1]:
                    box[here][way] += rate
        return {k: (v[0], v[1]) for k, v in gpu.items()}, {k: (v[0], v[1]) for k, v in box.items()}

    def _latency_ps(self, members: tuple[int, ...]) -> tuple[int, int]:
        """Return the least latency from the first member to the nearest other, and to the farthest."""
        others = {f"gpu {rank}" for rank in members[1:]}
        reached: dict[str, int] = {}
        ways = [(0, f"gpu {members[0]}")]
        while ways and others - reached.keys():
            spent, node = heapq.heappop(ways)
            if node in reached:
                continue
            reached[node] = spent
            if spent and is_gpu(node):
                continue  # GPUs do not forward
            for destination, latency in self._leaving.get(node, ()):
                if destination not in reached:
                    heapq.heappush(ways, (spent + latency, destination))
        found = [spent for name, spent in reached.items() if name in others]
        return (min(found), max(found)) if found else (0, 0)

    @cached_property
    def _leaving(self) -> dict[str, list[tuple[str, int]]]:
        leaving: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for source, destination, _, latency in self._links:
            leaving[source].append((destination, latency))
        return leaving


def crossing(operation: str, size_bytes: int, ranks: int, inside: int) -> tuple[int, int] | None:
    """Return the bytes that must (enter, leave) a part with `inside` of `ranks` members; None where nobody knows.

    `size_bytes` is a rank's input buffer. Of a rooted operation the part is one without the root; there is one, as
    cuts of all members are tried.
    """
    size, outside = size_bytes, ranks - inside
    if operation == "all_reduce":
        return size, size
    if operation in ("broadcast", "send", "recv"):
        return size, 0
    if operation == "reduce":
        return 0, size
    if operation == "all_gather":
        return outside * size, inside * size
    if operation == "reduce_scatter":
        return inside * size // ranks, outside * size // ranks
    if operation == "all_to_all":
        return inside * outside * size // ranks, inside * outside * size // ranks
    return (0, 0) if operation == "barrier" else None
