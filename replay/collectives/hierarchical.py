"""Hierarchical: one phase inside the boxes, one between them on each rail, with whole buffers.

All-reduce: reduce-scatter in the box, ring all-reduce of each slice over the boxes, all-gather in the box.
All-to-all: everyone hands each local GPU what is for its rail, in all boxes; that one sends it across.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..fabric import Ints
from . import direct, ring
from .operation import Operation, Track
from .work import Work


def all_reduce(work: Work) -> list[Track]:
    """Slices by place in the box; each is reduced over the boxes by a ring of its own."""
    boxes = work.boxes()
    n, size = len(boxes[0]), work.operation.size_bytes
    big, small, large = work.slices(size, n)
    track: Track = [[] for _ in work.members]
    if n > 1:
        for box in boxes:
            _phase(
                work, track, box, replace(work.operation, operation="reduce_scatter"), direct.reduce_scatter
            )
    for place in range(n if len(boxes) > 1 else 0):
        part = replace(work.operation, size_bytes=big if place < large else small)
        _phase(work, track, [box[place] for box in boxes], part, ring.all_reduce)
    if n > 1:
        for box in boxes:
            _shares(work, track, box, [big if p < large else small for p in range(n)])
    return [track]


def _phase(
    work: Work, track: Track, ranks: list[int], operation: Operation, algorithm: Callable[[Work], list[Track]]
) -> None:
    """Append to `track` what `algorithm` does among some of the ranks."""
    part = work.among(ranks, operation)
    (made,) = algorithm(part)
    for rank, calls in zip(ranks, made, strict=True):
        track[rank] += calls


def _shares(work: Work, track: Track, box: list[int], slices: list[int]) -> None:
    """Write each member's slice to all others of its box."""
    part = work.among(box, work.operation)
    flag = part.flags(1, "all_gather")
    for p, rank in enumerate(box):
        ops = [*part.step(0), *(part.write(i, slices[p]) for i in range(1, len(box)))]
        ops.append(part.wait(0, len(box) - 1))
        track[rank].append(part.call(ops, group=part.group(), position=p, flags=flag))


def all_to_all(work: Work) -> list[Track]:
    """Two exchanges, each posted at once: in the box by rail, then on the rails."""
    boxes, split = work.boxes(), split_of(work)
    track: Track = [[] for _ in work.members]
    n = len(boxes[0])
    table = np.array(boxes)
    for box in boxes:
        inside = np.array([[split[p, table[:, q]].sum() for q in range(n)] for p in box], np.int64)
        _exchange(work, track, box, inside)
    for place in range(n if len(boxes) > 1 else 0):
        rail = [box[place] for box in boxes]
        across = np.array([[split[box, to].sum() for to in rail] for box in boxes], np.int64)
        _exchange(work, track, rail, across)
    return [track]


def _exchange(work: Work, track: Track, ranks: list[int], split: Ints) -> None:
    if len(ranks) > 1:
        operation = replace(work.operation, operation="all_to_allv", split_bytes=split)
        _phase(work, track, ranks, operation, direct.all_to_all)


def split_of(work: Work) -> Ints:
    """Return the bytes from each member to each, of an all_to_all too."""
    if work.operation.split_bytes is not None:
        return work.operation.split_bytes
    big, small, large = work.slices(work.operation.size_bytes, work.size)
    row = np.array([big if q < large else small for q in range(work.size)], np.int64)
    return np.tile(row, (work.size, 1))
