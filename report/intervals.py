"""Intervals of time."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def union_length(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Return (groups,) the length of the union of each group's intervals [start, end)."""
    length = np.zeros(groups, np.int64)
    if not len(group):
        return length
    order = np.lexsort((start, group))
    group, start, end = group[order].astype(np.int64), start[order] - start.min(), end[order] - start.min()
    # Each group on a stretch of its own, so that one running maximum serves all.
    stride = int(end.max()) + 1
    seen = np.maximum.accumulate(end + group * stride) - group * stride
    before = np.concatenate(([0], np.where(group[1:] == group[:-1], seen[:-1], 0)))
    np.add.at(length, group, np.maximum(end - np.maximum(start, before), 0))
    return length
