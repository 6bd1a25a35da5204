"""Align ranks' clocks on the ends of synchronising collectives, never on their starts.

All ranks of such an operation end within microseconds of each other, while they may start milliseconds apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .matching import SYNCHRONISING, Matching


@dataclass
class Clock:
    """How one rank's clock was aligned: aligned time = own time + `offset_ns`."""

    method: str
    offset_ns: int
    residual_ns: int | None
    anchors: int


def align(ranks: Sequence[int], matching: Matching) -> dict[int, Clock]:
    """Return each rank's clock; the lowest rank is the reference.

    Ranks that share no operation with the reference are aligned through others; where there is none, the
    method is `none` and the offset 0. The offset is the median difference of ends, the residual what is left
    at worst.
    """
    ends = _ends(matching)
    reference = min(ranks)
    clocks = {reference: Clock("reference", 0, 0, 0)}
    waiting = sorted(set(ranks) - {reference})
    while waiting:
        anchors = {rank: _anchors(rank, ends, clocks) for rank in waiting}
        best = max(waiting, key=lambda rank: (len(anchors[rank]), -rank))
        if not anchors[best]:
            break
        apart = np.array(anchors[best])
        offset = int(np.median(apart))
        residual = int(np.abs(apart - offset).max())
        clocks[best] = Clock("collective_ends", offset, residual, len(apart))
        waiting.remove(best)
    return clocks | {rank: Clock("none", 0, None, 0) for rank in waiting}


def _ends(matching: Matching) -> list[dict[int, int]]:
    """Return the end on each rank of every operation that synchronises."""
    return [
        {rank: parts[0].end_ns for rank, parts in operation.items()}
        for operation in matching.operations.values()
        if all(len(p) == 1 and p[0].operation in SYNCHRONISING for p in operation.values())
    ]


def _anchors(rank: int, ends: Sequence[Mapping[int, int]], clocks: Mapping[int, Clock]) -> list[int]:
    """Return, for every operation of `rank` and an aligned one, how far ahead the aligned ranks' ends are."""
    anchors = []
    for operation in ends:
        aligned = [end + clocks[r].offset_ns for r, end in operation.items() if r in clocks]
        if aligned and rank in operation:
            anchors.append(int(np.median(np.array(aligned) - operation[rank])))
    return anchors
