"""One table in one Parquet file: what is written is of the schema, what is read is migrated to it."""

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import InputError, SchemaError, UsageError
from .migrate import migrate
from .tables import TRACE_TABLES, Column, Table

ROW_GROUP_ROWS = 1 << 16
_ENCODED = pa.dictionary(pa.int32(), pa.string())


@cache
def generator() -> str:
    """Return the name and version that files written by this package carry."""
    try:
        return f"eidola {metadata.version('eidola-sim')}"
    except metadata.PackageNotFoundError:
        return "eidola (not installed)"


def conform(table: Table | str, columns: Mapping[str, Any] | pa.Table, *, encoded: bool = False) -> pa.Table:
    """Return `columns` as an Arrow table of the schema's types and order; missing optional columns are null.

    `table` is a table of the schema, or the name of one of a trace; `columns` maps names to Arrow arrays,
    NumPy arrays or sequences of one length (NaN and None are null). NumPy integers are not copied where they are of
    the column's type. With `encoded`, text is Arrow dictionaries. Raises SchemaError for unknown or
    missing required columns, nulls in required ones, and values that do not fit their type.
    """
    table = TRACE_TABLES[table] if isinstance(table, str) else table
    given = set(columns.column_names if isinstance(columns, pa.Table) else columns)
    if unknown := given - set(table.by_name):
        raise SchemaError(f"table {table.name}: unknown column {sorted(unknown)[0]!r}; see docs/schema.md")
    rows = columns.num_rows if isinstance(columns, pa.Table) else len(next(iter(columns.values()), ()))
    arrays = []
    for column in table.columns:
        values = columns[column.name] if column.name in given else pa.nulls(rows, column.type)
        array = _typed(table, column, values, encoded and pa.types.is_string(column.type))
        if len(array) != rows:
            raise SchemaError(
                f"table {table.name}: column {column.name!r} has {len(array)} values, the first has {rows}"
            )
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=encoded_schema(table) if encoded else table.schema())


@cache
def encoded_schema(table: Table) -> pa.Schema:
    """Return the schema of `table`, its text as Arrow dictionaries."""
    fields = [(column, column.field()) for column in table.columns]
    return pa.schema([f.with_type(_ENCODED) if pa.types.is_string(c.type) else f for c, f in fields])


def _typed(table: Table, column: Column, values: Any, encoded: bool) -> pa.Array | pa.ChunkedArray:
    try:
        if isinstance(values, np.ndarray) and _fits(values.dtype, column.type):
            return integers(np.asarray(values, column.type.to_pandas_dtype()))
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            # Given the type at once, Arrow would cut fractions off in silence; the cast refuses them.
            values = pa.array(values, from_pandas=True)
        array = values if values.type == _ENCODED and encoded else values.cast(column.type)
        array = array.dictionary_encode() if encoded else array
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise SchemaError(f"table {table.name}, column {column.name!r}: {str(error)[:200]}") from error
    if column.required and array.null_count:
        row = pc.index(array.is_null(), True).as_py()
        raise SchemaError(
            f"table {table.name}: column {column.name!r} is required, and row {row} has no value; give one"
        )
    return array


def integers(values: npt.NDArray[np.integer[Any]], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return (n,) `values` as Arrow, not copied where they lie one after another; null where not `valid`.

    `pa.array` would import pandas.
    """
    data = np.ascontiguousarray(values)
    bits = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.from_numpy_dtype(data.dtype), len(data), [bits, pa.py_buffer(data)])


def _fits(given: np.dtype[Any], wanted: pa.DataType) -> bool:
    """Tell whether every integer of NumPy's type `given` is one of Arrow's type `wanted`."""
    return given.kind in "iu" and pa.types.is_integer(wanted) and np.can_cast(given, wanted.to_pandas_dtype())


def write_file(table: Table, file: Path, data: pa.Table) -> None:
    """Write conforming `data` to `file`; its metadata hold the table, the schema version and the generator.

    The units of the columns are in the metadata of the Arrow fields, which Parquet files keep.
    """
    columns = [c.dictionary_encode() if pa.types.is_string(c.type) else c for c in data.columns]
    with TableFile(table, file) as written:
        written.write(pa.Table.from_arrays(columns, schema=encoded_schema(table)))


class TableFile:
    """A file of one table, written a chunk of rows at a time; a context manager.

    Made for large tables of integers: their bytes are stored apart by place (BYTE_STREAM_SPLIT), which a fast codec
    then shrinks well: a million messages take a third of the time of plain values under zstd, and a third of the
    bytes. Statistics, which cost as much as encoding, are kept of the key only.
    """

    def __init__(self, table: Table, file: Path) -> None:
        text = [column.name for column in table.columns if pa.types.is_string(column.type)]
        split = {name: "BYTE_STREAM_SPLIT" for name in table.by_name if name not in text}
        self.table = table
        self._writer = pq.ParquetWriter(
            file,
            encoded_schema(table),
            compression="lz4",
            use_dictionary=text,
            column_encoding=split,
            write_statistics=list(table.key),
            write_batch_size=1 << 14,
            store_schema=False,
        )

    def write(self, data: pa.Table) -> None:
        """Append rows, conforming, their text encoded."""
        self._writer.write_table(data, row_group_size=ROW_GROUP_ROWS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The schema that readers get, with units, and text as text: dictionaries are how it was handed over.
        stamped = self.table.schema().with_metadata(_stamp(self.table))
        schema = base64.b64encode(stamped.serialize().to_pybytes())
        self._writer.add_key_value_metadata({**_stamp(self.table), "ARROW:schema": schema})
        self._writer.close()


def _stamp(table: Table) -> dict[str, str]:
    return {
        "eidola.table": table.name,
        "eidola.version": str(table.version),
        "eidola.generator": generator(),
    }


def select(table: Table, columns: Sequence[str] | None) -> list[str]:
    """Return the chosen column names of `table`, or all; raises UsageError for one that it does not have."""
    wanted = list(table.by_name) if columns is None else list(columns)
    if unknown := [name for name in wanted if name not in table.by_name]:
        raise UsageError(
            f"table {table.name} has no column {unknown[0]!r}; it has {', '.join(table.by_name)}"
        )
    return wanted


_SMALL_BYTES = 1 << 20


def _columns_of(file: Path, columns: list[str], filters: pc.Expression | None) -> pa.Table:
    """Read columns of one file. A small one is opened by itself: as a data set it takes six times as long."""
    if filters is not None or file.stat().st_size > _SMALL_BYTES:
        return pq.read_table(file, columns=columns, filters=filters, partitioning=None)
    with pq.ParquetFile(file) as opened:
        return opened.read(columns=columns, use_threads=False)


def read_file(
    table: Table, file: Path, version: int, columns: Sequence[str], filters: pc.Expression | None = None
) -> pa.Table:
    """Read the chosen columns of the rows that pass `filters` from a file written under schema `version`.

    Row groups whose statistics exclude `filters` are not read. Raises InputError for what cannot be read.
    """
    schema = pa.schema([table.by_name[name].field() for name in columns])
    try:
        if version == table.version:
            data = _columns_of(file, list(columns), filters)
        else:
            data = migrate(table, pq.read_table(file, partitioning=None), version)
            data = (data.filter(filters) if filters is not None else data).select(list(columns))
        return data.replace_schema_metadata(None).cast(schema)
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        folder = file.parent if (file.parent / "manifest.json").exists() else file.parent.parent
        raise InputError(f"{file}: {error}; run `eidola convert check {folder}`") from error
