"""Edges between a rank's spans as columns: those that the captured times allow, in order, none twice."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from ..schemas.store import integers
from .columns import Blocks
from .narrow import Column
from .sorting import Array, every, gathered, order_of
from .work import Work

_KINDS = ("event", "launch", "sync", "thread")
_ORIGINS = ("inferred", "measured")
_LAUNCH = _KINDS.index("launch") << 1 | _ORIGINS.index("measured")


class Edges:
    """Edges (before, after, kind) with their origin; `contradicted` counts those left out, by kind."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.contradicted: Counter[str] = Counter()
        self._before, self._after, self._told = (Column(work.scratch) for _ in range(3))

    def add(self, before: Array, after: Array, kind: str, origin: str) -> int:
        """Add edges from (n,) `before` to `after`, -1 for none, that the captured times allow; return how many.

        Of several that differ in their origin only, the first counts.
        """
        work = self.work
        rows = np.flatnonzero((before >= 0) & (after >= 0) & (before != after))
        before, after = before[rows], after[rows]
        limit = (work.end_ns if kind == "sync" else work.start_ns)[after]
        allowed = work.end_ns[before] <= limit
        self.contradicted[kind] += int((~allowed).sum())
        before, after = before[allowed], after[allowed]
        if len(before):
            self._before.add(before)
            self._after.add(after)
            self._told.add(np.full(len(before), _KINDS.index(kind) << 1 | _ORIGINS.index(origin)))
        return len(before)

    def columns(self) -> Blocks:
        """Return the columns of `dependencies`, launches included, in order of (after, before, kind)."""
        scratch = self.work.scratch
        out = [Column(scratch) for _ in range(3)]
        for columns in self._merged():
            for column, values in zip(out, columns, strict=True):
                column.add(values)
            scratch.release()
        before, after, told = (column.values() for column in out)

        def block(rows: slice) -> Mapping[str, Any]:
            return {
                "before": integers(before[rows]),
                "after": integers(after[rows]),
                "kind": _words(told[rows] >> 1, _KINDS),
                "origin": _words(told[rows] & 1, _ORIGINS),
            }

        return Blocks(len(told), lambda: map(block, scratch.blocks(len(told))))

    def _merged(self) -> Iterator[tuple[Array, ...]]:
        """Yield (before, after, told), launches merged in, a block of spans at a time."""
        scratch, work = self.work.scratch, self.work
        before, after, told = (column.values() for column in (self._before, self._after, self._told))
        order = order_of(
            scratch, after, every(scratch, len(after)), lambda rows: (before[rows], told[rows] >> 1)
        )
        before, after, told = (gathered(scratch, column, order) for column in (before, after, told))
        for block in scratch.blocks(len(work)):
            launched = np.flatnonzero(work.launch[block] >= 0) + block.start
            more = slice(*np.searchsorted(after, np.array([block.start, block.stop], after.dtype)))
            befores = np.concatenate([work.launch[launched], before[more]])
            afters = np.concatenate([launched, after[more]])
            tolds = np.concatenate([np.full(len(launched), _LAUNCH), told[more]])
            rows = np.lexsort((tolds >> 1, befores, afters))
            columns = befores[rows], afters[rows], tolds[rows]
            new = np.append(True, np.any([np.diff(c) != 0 for c in (*columns[:2], columns[2] >> 1)], axis=0))
            kept = np.flatnonzero(new[: len(rows)])
            yield tuple(column[kept] for column in columns)


def _words(places: Array, words: tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(integers(places.astype(np.int32)), pa.array(words))
