"""Lengths of unions of intervals, a group at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]


def union_length(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Return (groups,) the length of the union of each group's intervals; overlap counts once."""
    order = np.lexsort((start, group))
    group, start, end = group[order], start[order], end[order]
    offset = group.astype(np.int64) * (
        int(end.max(initial=0)) + 1
    )  # keeps groups apart in one running maximum
    reach = np.maximum.accumulate(end + offset) if len(end) else end
    covered = np.concatenate(([0], reach[:-1])) if len(end) else end
    fresh = np.maximum(0, end + offset - np.maximum(covered, start + offset))
    return np.bincount(group, fresh, groups).astype(np.int64)
