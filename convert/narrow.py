"""Columns of integers in as few bytes as their values need, a chunk at a time.

A trace's times need eight bytes; of its other numbers (threads, streams, ids, sizes) most need one to four, and
what a source does not tell needs none.
"""

from array import array
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .scanner import NULL

CHUNK_ROWS = 1 << 16
SORTED_ROWS = 1 << 19
_TYPES = tuple(np.dtype(f"i{size}") for size in (1, 2, 4, 8))
Ints = npt.NDArray[np.int64]


def narrow(values: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Return (n,) `values` in the smallest type that holds them; NULL becomes that type's least value."""
    null = values == NULL if values.dtype == np.int64 else np.zeros(len(values), np.bool_)
    if null.all():
        return np.broadcast_to(np.int8(-128), len(values))
    some = null.any()
    known = values[~null] if some else values
    least, most = int(known.min()), int(known.max())
    kind = next(t for t in _TYPES if (np.iinfo(t).min < least and most <= np.iinfo(t).max) or t.itemsize == 8)
    if not some:
        return values.astype(kind)
    return np.where(null, np.iinfo(kind).min, values).astype(kind)


class Column:
    """One column, given a chunk at a time."""

    def __init__(self) -> None:
        self.chunks: list[npt.NDArray[np.integer]] = []
        self._latest = array("q")

    def __len__(self) -> int:
        return sum(map(len, self.chunks)) + len(self._latest)

    def append(self, value: int) -> None:
        """Append one value; NULL is none."""
        self._latest.append(value)
        if len(self._latest) == CHUNK_ROWS:
            self.chunks.append(narrow(np.frombuffer(self._latest, np.int64)))
            self._latest = array("q")

    def parts(self) -> Iterator[Ints]:
        """Yield all values some at a time, NULL for those that are none."""
        for chunk in self.chunks:
            yield filled(chunk, NULL).astype(np.int64)
        if self._latest:
            yield np.frombuffer(self._latest, np.int64)

    def add(self, values: npt.NDArray[np.integer]) -> None:
        """Append (n,) `values`; NULL is no value."""
        self.chunks += [narrow(values[i : i + CHUNK_ROWS]) for i in range(0, len(values), CHUNK_ROWS)]

    def values(self, null: int = NULL) -> npt.NDArray[np.integer]:
        """Return all values, of the type of the widest chunk where that also holds `null`."""
        if not self.chunks:
            return np.empty(0, np.int64)
        kind = np.result_type(np.min_scalar_type(min(null, -1)), *{chunk.dtype for chunk in self.chunks})
        return np.concatenate([filled(chunk, null, kind) for chunk in self.chunks])


def filled(
    chunk: npt.NDArray[np.integer], null: int, kind: npt.DTypeLike = np.int64
) -> npt.NDArray[np.integer]:
    """Return a chunk as type `kind`, with `null` where it has no value."""
    least = np.iinfo(chunk.dtype).min
    wide = chunk.astype(kind)
    wide[chunk == least] = null
    return wide


class Table:
    """Rows of integers and one of text, `name`, added as Arrow tables of one schema."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._columns = {name: Column() for name in schema.names}
        self._words: dict[str | None, int] = {}

    def __len__(self) -> int:
        return len(self._columns["name"])

    def add(self, table: pa.Table) -> None:
        """Append rows; `name` is a dictionary array."""
        if not table.num_rows:
            return
        for name, values in zip(self.schema.names, table.combine_chunks().columns, strict=True):
            chunk = values.chunk(0)
            self._columns[name].add(self._places(chunk) if name == "name" else _integers(chunk))

    def _places(self, names: pa.DictionaryArray) -> npt.NDArray[np.integer]:
        words = [self._words.setdefault(w, len(self._words)) for w in names.dictionary.to_pylist()]
        at = _integers(names.indices)
        return np.where(at == NULL, NULL, np.array([*words, NULL], np.int64)[at])

    def chunks(self, *names: str) -> zip:  # type: ignore[type-arg]
        """Return the chunks of some columns, side by side."""
        return zip(*(self._columns[name].chunks for name in names), strict=True)

    def take(self, name: str, null: int = -1) -> npt.NDArray[np.integer]:
        """Return a column of integers, `null` where a row has none, and forget it."""
        return self._columns.pop(name).values(null)

    def values(self, name: str, null: int = -1) -> npt.NDArray[np.integer]:
        """Return a column of integers, `null` where a row has none."""
        return self._columns[name].values(null)

    def words(self) -> pa.StringArray:
        """Return the texts that the numbers of `name` stand for."""
        return pa.array(list(self._words), pa.string())

    def table(self, rows: npt.NDArray[np.integer] | slice = slice(None)) -> pa.Table:
        """Return some rows as Arrow, in the schema given."""
        arrays = []
        for field in self.schema:
            values = self._columns[field.name].values(NULL)[rows]
            if field.name == "name":
                places = pa.array(values, pa.int32(), mask=values == NULL)
                arrays.append(pa.DictionaryArray.from_arrays(places, self.words()))
            else:
                arrays.append(pa.array(values, mask=values == NULL).cast(field.type))
        return pa.table(arrays, self.schema)


def _integers(array: pa.Array) -> npt.NDArray[np.integer]:
    if array.null_count == len(array):
        return np.broadcast_to(np.int64(NULL), len(array))
    if array.null_count:
        array = pc.fill_null(array.cast(pa.int64()), NULL)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def order_of(first: Ints, *others: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Return the order of rows by `first`, ties by `others`, then as they are.

    Rows are sorted some at a time, by ranges of `first`: sorting takes several times the memory of what is sorted.
    """
    parts = -(-len(first) // SORTED_ROWS)
    kind = np.int32 if len(first) < 1 << 31 else np.int64
    step = 64 if parts > 1 else 1
    sample = np.sort(first[::step])
    cuts = np.unique(sample[np.arange(1, parts) * len(sample) // max(parts, 1)]).tolist()
    order: npt.NDArray[np.integer] = np.empty(len(first), kind)
    done = 0
    for low, high in pairwise([None, *cuts, None]):
        inside = np.ones(len(first), np.bool_) if low is None else first >= low
        rows = np.flatnonzero(inside if high is None else inside & (first < high))
        keys = [values[rows] for values in (first, *others)]
        order[done : done + len(rows)] = rows[np.lexsort(keys[::-1])]
        done += len(rows)
    return order


def release() -> None:
    """Give memory that is free back to the system: what sorting took would otherwise stay, in holes."""
    pa.system_memory_pool().release_unused()
    pa.default_memory_pool().release_unused()
