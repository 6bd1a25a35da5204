"""The hash of a run's results: the same on every machine, for both engines, whatever wrote the files."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .errors import SchemaError, UsageError
from .store import conform
from .tables import RESULT_TABLES, Table


def results_hash(tables: Mapping[str, pa.Table] | Iterable[tuple[str, pa.Table]]) -> str:
    """Return the SHA-256 (hexadecimal) of the given result tables, independent of the order of their rows.

    An iterable must give the tables in order of their names; each is let go before the next is asked for.
    Tables go in by name, rows by key, columns in the schema's order: a byte a row that says whether there is
    a value, then the values as little-endian integers (zero for none). Text is its lengths in UTF-8 bytes,
    then those bytes. Raises UsageError for an unknown table or one out of order, SchemaError for two rows with
    one key.
    """
    digest, last = hashlib.sha256(), ""
    for name, data in (
        ((name, tables[name]) for name in sorted(tables)) if isinstance(tables, Mapping) else tables
    ):
        if name not in RESULT_TABLES:
            raise UsageError(f"no table {name!r}; a run has {', '.join(RESULT_TABLES)}")
        if name <= last:
            raise UsageError(f"table {name!r} comes after {last!r}; give the tables in order of their names")
        _update_table(digest, RESULT_TABLES[name], data)
        last = name
        del data
    return digest.hexdigest()


def _update_table(digest: "hashlib._Hash", table: Table, data: pa.Table) -> None:
    data = _sorted(table, conform(table, data))
    digest.update(f"{table.name} {table.version} {data.num_rows}\n".encode())
    for column in table.columns:
        digest.update(f"{column.name} {column.type}\n".encode())
        _update(digest, data[column.name])


def _sorted(table: Table, data: pa.Table) -> pa.Table:
    """Return `data` in order of its key, as it is where it is in that order already."""
    keys = [data[name].to_numpy() for name in table.key]
    if _increasing(keys):
        return data
    order = np.lexsort(keys[::-1])
    if not _increasing([key[order] for key in keys]):
        raise SchemaError(
            f"table {table.name}: two rows have one key ({', '.join(table.key)}); make it unique"
        )
    return data.take(pa.array(order))


def _increasing(keys: list[npt.NDArray[Any]]) -> bool:
    """Tell whether each row's key, compared column by column, is above that of the row before."""
    above = np.zeros(max(len(keys[0]) - 1, 0), np.bool_)
    tied = np.ones_like(above)
    for key in keys:
        above |= tied & (key[1:] > key[:-1])
        tied &= key[1:] == key[:-1]
    return bool(above.all())


def _update(digest: "hashlib._Hash", column: pa.ChunkedArray) -> None:
    digest.update(column.is_valid().to_numpy().view(np.uint8))
    if pa.types.is_string(column.type):
        filled = column.fill_null("")
        lengths = [pc.binary_length(chunk).to_numpy() for chunk in filled.chunks]
        for length in lengths:
            digest.update(length.astype("<i8"))
        for chunk, length in zip(filled.chunks, lengths, strict=True):
            _update_text(digest, chunk, int(length.sum()))
    else:
        values = column.fill_null(0).to_numpy()
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)


def _update_text(digest: "hashlib._Hash", chunk: pa.StringArray, size_bytes: int) -> None:
    if size_bytes:
        offsets, text = chunk.buffers()[1:]
        first = int(np.frombuffer(offsets, np.int32)[chunk.offset])
        digest.update(memoryview(text)[first : first + size_bytes])
