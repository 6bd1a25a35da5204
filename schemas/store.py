"""One table in one Parquet file: what is written is of the schema, what is read is migrated to it."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import InputError, SchemaError, UsageError
from .migrate import migrate
from .tables import TRACE_TABLES, Column, Table


@cache
def generator() -> str:
    """Return the name and version that files written by this package carry."""
    try:
        return f"eidola {metadata.version('eidola-sim')}"
    except metadata.PackageNotFoundError:
        return "eidola (not installed)"


def conform(table: Table | str, columns: Mapping[str, Any] | pa.Table) -> pa.Table:
    """Return `columns` as an Arrow table of the schema's types and order; missing optional columns are null.

    `table` is a table of the schema, or the name of one of a trace; `columns` maps names to Arrow arrays,
    NumPy arrays or sequences of one length (NaN and None are null). Raises SchemaError for unknown or
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
        array = _typed(table, column, values)
        if len(array) != rows:
            raise SchemaError(
                f"table {table.name}: column {column.name!r} has {len(array)} values, the first has {rows}"
            )
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=table.schema())


def _typed(table: Table, column: Column, values: Any) -> pa.Array | pa.ChunkedArray:
    try:
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            # Given the type at once, Arrow would cut fractions off in silence; the cast refuses them.
            values = pa.array(values, from_pandas=True)
        array = values.cast(column.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise SchemaError(f"table {table.name}, column {column.name!r}: {error}") from error
    if column.required and array.null_count:
        row = pc.index(array.is_null(), True).as_py()
        raise SchemaError(
            f"table {table.name}: column {column.name!r} is required, and row {row} has no value; give one"
        )
    return array


def write_file(table: Table, file: Path, data: pa.Table) -> None:
    """Write conforming `data` to `file`; its metadata hold the table, the schema version and the generator.

    The units of the columns are in the metadata of the Arrow fields, which Parquet files keep.
    """
    stamp = {
        "eidola.table": table.name,
        "eidola.version": str(table.version),
        "eidola.generator": generator(),
    }
    text = [column.name for column in table.columns if pa.types.is_string(column.type)]
    # Numbers repeat too little for dictionaries to pay: without them writing takes half as long.
    pq.write_table(data.replace_schema_metadata(stamp), file, compression="zstd", use_dictionary=text)


def select(table: Table, columns: Sequence[str] | None) -> list[str]:
    """Return the chosen column names of `table`, or all; raises UsageError for one that it does not have."""
    wanted = list(table.by_name) if columns is None else list(columns)
    if unknown := [name for name in wanted if name not in table.by_name]:
        raise UsageError(
            f"table {table.name} has no column {unknown[0]!r}; it has {', '.join(table.by_name)}"
        )
    return wanted


def read_file(
    table: Table, file: Path, version: int, columns: Sequence[str], filters: pc.Expression | None = None
) -> pa.Table:
    """Read the chosen columns of the rows that pass `filters` from a file written under schema `version`.

    Row groups whose statistics exclude `filters` are not read. Raises InputError for what cannot be read.
    """
    schema = pa.schema([table.by_name[name].field() for name in columns])
    try:
        if version == table.version:
            data = pq.read_table(file, columns=list(columns), filters=filters, partitioning=None)
        else:
            data = migrate(table, pq.read_table(file, partitioning=None), version)
            data = (data.filter(filters) if filters is not None else data).select(list(columns))
        return data.replace_schema_metadata(None).cast(schema)
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise InputError(f"{file}: {error}; run `eidola convert check {file.parent.parent}`") from error
