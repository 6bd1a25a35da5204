"""Columns of integers in as few bytes as their values need, a chunk at a time.

A trace's times need eight bytes; of its other numbers (threads, streams, ids, sizes) most need one to four, and
what a source does not tell needs none. Those that many rows make too large for memory are on disk (`scratch`).
"""

from array import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .scanner import NULL
from .scratch import Scratch

CHUNK_ROWS = 1 << 16
_RELEASED = 4  # chunks, or tables, after which memory is released
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
    """One column, given a chunk at a time, in a scratch."""

    def __init__(self, scratch: Scratch) -> None:
        self.chunks: list[npt.NDArray[np.integer]] = []
        self._scratch = scratch
        self._latest = array("q")

    def __len__(self) -> int:
        return sum(map(len, self.chunks)) + len(self._latest)

    def append(self, value: int) -> None:
        """Append one value; NULL is none."""
        self._latest.append(value)
        if len(self._latest) == CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._latest:
            self.chunks.append(self._scratch.keep(narrow(np.frombuffer(self._latest, np.int64))))
            self._latest = array("q")

    def add(self, values: npt.NDArray[np.integer]) -> None:
        """Append (n,) `values`; NULL is no value."""
        self._flush()
        parts = (values[i : i + CHUNK_ROWS] for i in range(0, len(values), CHUNK_ROWS))
        self.chunks += [self._scratch.keep(narrow(part)) for part in parts]

    def parts(self) -> Iterator[Ints]:
        """Yield all values some at a time, NULL for those that are none."""
        self._flush()
        for number, chunk in enumerate(self.chunks, 1):
            yield filled(chunk, NULL).astype(np.int64)
            if not number % _RELEASED:
                self._scratch.release()

    def values(self, null: int = NULL) -> npt.NDArray[np.integer]:
        """Return all values, of the type of the widest chunk where that also holds `null`."""
        self._flush()
        kinds = {chunk.dtype for chunk in self.chunks}
        kind = np.result_type(np.min_scalar_type(min(null, -1)), *kinds) if kinds else np.dtype(np.int64)
        if all(chunk.strides == (0,) and chunk[0] == np.iinfo(chunk.dtype).min for chunk in self.chunks):
            return np.broadcast_to(kind.type(null), len(self))
        out = self._scratch.empty(sum(map(len, self.chunks)), kind)
        done = 0
        for number, chunk in enumerate(self.chunks, 1):
            out[done : done + len(chunk)] = filled(chunk, null, kind)
            done += len(chunk)
            if not number % _RELEASED:
                self._scratch.release()
        return out


def filled(
    chunk: npt.NDArray[np.integer], null: int, kind: npt.DTypeLike = np.int64
) -> npt.NDArray[np.integer]:
    """Return a chunk as type `kind`, with `null` where it has no value."""
    least = np.iinfo(chunk.dtype).min
    wide = chunk.astype(kind)
    wide[chunk == least] = null
    return wide


class Table:
    """Rows of integers and one of text, `name`, added as Arrow tables of one schema, in a scratch of their own."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.scratch = Scratch()
        self._columns = {name: Column(self.scratch) for name in schema.names}
        self._words: dict[str | None, int] = {}
        self._rows = self._adds = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, table: pa.Table) -> None:
        """Append rows; `name` is a dictionary array."""
        if not table.num_rows:
            return
        self._rows += table.num_rows
        self._adds += 1
        if not self._adds % _RELEASED:
            self.scratch.release()
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
        """Return a column of integers, `null` where a row has none, and forget it; without the column none has."""
        column = self._columns.pop(name, None)
        return np.broadcast_to(np.int64(null), self._rows) if column is None else column.values(null)

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
