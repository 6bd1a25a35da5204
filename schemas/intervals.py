"""Lengths of unions of intervals, a group at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]


def union_length(group: Ints, start: Ints, end: Ints, groups: int) -> npt.NDArray[np.int64]:
    """Return (groups,) the length of the union of each group's intervals [start, end); overlap counts once."""
    length = np.zeros(groups, np.int64)
    if not len(group):
        return length
    order = np.lexsort((start, group))
    group, start, end = group[order].astype(np.int64), start[order], end[order]
    new = np.concatenate(([True], group[1:] != group[:-1]))
    first = start[np.flatnonzero(new)][np.cumsum(new) - 1]
    start, end = start - first, end - first  # groups may count from different times
    # Each group on a stretch of its own, so that one running maximum serves all.
    stride = int(end.max()) + 1
    seen = np.maximum.accumulate(end + group * stride) - group * stride
    before = np.where(new, 0, np.concatenate(([0], seen[:-1])))
    np.add.at(length, group, np.maximum(end - np.maximum(start, before), 0))
    return length
