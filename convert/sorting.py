"""Sorting, gathering and looking up arrays that need not fit in memory, some rows at a time."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .scratch import Scratch

SORTED_ROWS = 1 << 19
"""Rows sorted at a time, about: sorting takes several times the memory of what is sorted."""
_SAMPLED = 256  # rows that a part of SORTED_ROWS is told by

Array = npt.NDArray[np.integer]
Ints = npt.NDArray[np.int64]
K = TypeVar("K", bound=np.integer)


def row_type(rows: int) -> type[np.integer]:
    """Return the type of row numbers below `rows`."""
    return np.int32 if rows < 1 << 31 else np.int64


def parts(scratch: Scratch, keys: Array, chosen: Iterable[Array]) -> Iterator[Array]:
    """Yield the rows `chosen`, about SORTED_ROWS at a time: parts in order of `keys`, rows in a part as they are.

    `keys` is (n,); rows of one key are in one part, however many they are.
    """
    count = -(-len(keys) // SORTED_ROWS)
    step = max(1, len(keys) // (max(count, 1) * _SAMPLED))
    # Copied a block at a time: a view would touch all pages at once, when it is sorted.
    sample = np.sort(np.concatenate([keys[:0], *(keys[b][::step].copy() for b in scratch.blocks(len(keys)))]))
    cuts = np.unique(sample[np.arange(1, count) * len(sample) // max(count, 1)])
    held: list[list[Array]] = [[] for _ in range(len(cuts) + 1)]
    for rows in chosen:
        part = np.searchsorted(cuts, keys[rows], side="right")
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=len(held)))
        for number, own in enumerate(np.split(rows[order], ends[:-1])):
            if len(own):
                held[number].append(scratch.keep(own))
    for pieces in held:
        if pieces:
            yield np.concatenate(pieces)
            pieces.clear()
            scratch.release()


def order_of(
    scratch: Scratch, keys: Array, chosen: Iterable[Array], ties: Callable[[Array], tuple[Array, ...]]
) -> Array:
    """Return the rows `chosen` in order of `keys`, then of the keys that `ties` gives, then as they are."""
    kind = row_type(len(keys))
    order = scratch.empty(len(keys), kind)
    done = 0
    for rows in parts(scratch, keys, chosen):
        order[done : done + len(rows)] = rows[np.lexsort((*ties(rows)[::-1], keys[rows]))]
        done += len(rows)
    return order[:done]


def every(scratch: Scratch, rows: int) -> Iterator[Array]:
    """Yield all of the row numbers below `rows`, a block at a time."""
    for block in scratch.blocks(rows):
        yield np.arange(block.start, block.stop, dtype=row_type(rows))


def gathered(scratch: Scratch, values: npt.NDArray[K], rows: Array) -> npt.NDArray[K]:
    """Return `values` at `rows`."""
    if values.strides == (0,):
        return np.broadcast_to(values[0], len(rows)) if len(rows) else values[:0]
    out = scratch.empty(len(rows), values.dtype)
    for block in scratch.blocks(len(rows)):
        out[block] = values[rows[block]]
    return out


def collected(scratch: Scratch, found: Iterable[Array], most: int) -> Array:
    """Return the row numbers `found`, at most `most`, as one array."""
    out = scratch.empty(most, row_type(most))
    done = 0
    for rows in found:
        out[done : done + len(rows)] = rows
        done += len(rows)
    return out[:done]


def counted(values: Array) -> dict[int, int]:
    """Return how often each value is in (n,) `values`."""
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def grouped(scratch: Scratch, values: Array) -> dict[int, Array]:
    """Return the places of every value in (n,) `values`, ascending, by value."""
    counts = Counter[int]()
    for block in scratch.blocks(len(values)):
        counts.update(counted(values[block]))
    places = scratch.empty(len(values), row_type(len(values)))
    ends = dict(zip(counts, np.cumsum(list(counts.values())).tolist(), strict=True))
    groups = {value: places[end - counts[value] : end] for value, end in ends.items()}
    done = dict.fromkeys(counts, 0)
    for block in scratch.blocks(len(values)):
        found, which, sizes = np.unique(values[block], return_inverse=True, return_counts=True)
        order = np.argsort(which, kind="stable") + block.start
        for value, own in zip(found.tolist(), np.split(order, np.cumsum(sizes)[:-1]), strict=True):
            groups[value][done[value] : done[value] + len(own)] = own
            done[value] += len(own)
    return groups


class Lookup:
    """The rows of (n,) `keys`, some of them `chosen`, by their key; of several the last counts."""

    def __init__(self, scratch: Scratch, keys: Array, chosen: Iterable[Array]) -> None:
        self._rows = order_of(scratch, keys, chosen, lambda rows: ())
        self._keys = gathered(scratch, keys, self._rows)

    def find(self, keys: Array) -> Array:
        """Return the row of each key, -1 where there is none."""
        if not len(self._rows):
            return np.full(len(keys), -1)
        # Sought in the type of the rows' keys: otherwise all of these would be copied into that of `keys`.
        sought = keys.astype(self._keys.dtype)
        at = np.maximum(np.searchsorted(self._keys, sought, side="right") - 1, 0)
        return np.where((self._keys[at] == sought) & (sought == keys), self._rows[at], -1)
