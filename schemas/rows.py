"""What one row of a table can break by itself: values that are missing, unknown, too small, or out of order."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from .errors import SchemaError
from .problem import Kind
from .tables import Table

REPORT = "whatever wrote the file is at fault: correct it, and write the trace again"

NULL = Kind("required, and has no value", REPORT)
VALUE = Kind("not one of the values that docs/schema.md lists", REPORT)
BELOW = Kind("below the smallest value that makes sense", REPORT)
ORDER = Kind("ends before it starts", "correct the source's durations, or leave the row out")
RANK = Kind("not the rank of the file", "give each rank's rows their own file")


def bad_rows(table: Table, data: pa.Table, rank: int | None) -> Iterator[tuple[str, Kind, pa.ChunkedArray]]:
    """Yield (column, kind of problem, which rows) for what one file tells by itself."""
    for column in table.columns:
        if column.name not in data.column_names:
            continue
        name, values = column.name, data[column.name]
        if column.required:
            yield name, NULL, pc.is_null(values)
        if column.values:
            yield name, VALUE, _outside(values, pa.array([*column.values, None], column.type))
        if column.minimum is not None:
            yield name, BELOW, pc.less(values, column.minimum)
        start = name.replace("end_", "start_")
        if start != name and start in data.column_names:
            yield name, ORDER, pc.less(values, data[start])
        if name == "rank" and rank is not None:
            yield name, RANK, pc.not_equal(values, rank)


def _outside(values: pa.ChunkedArray, allowed: pa.Array) -> pa.ChunkedArray:
    """Return which values are none of `allowed`; of dictionaries only the words are compared."""
    if not pa.types.is_dictionary(values.type):
        return pc.invert(pc.is_in(values, value_set=allowed))
    chunks = [
        pc.invert(pc.is_in(chunk.dictionary, value_set=allowed)).take(chunk.indices)
        for chunk in values.chunks
    ]
    return pa.chunked_array(chunks, pa.bool_())


def refuse_bad_rows(table: Table, data: pa.Table, rank: int, first: int = 0) -> None:
    """Raise SchemaError where a row of `data`, of the right types, breaks the schema by itself.

    `first` is the number of the first of them in its file.
    """
    for column, kind, bad in bad_rows(table, data, rank):
        if (row := pc.index(bad, True).as_py()) >= 0:
            found = repr(data[column][row].as_py())[:100]
            raise SchemaError(
                f"table {table.name} of rank {rank}, column {column}, row {first + row}: {kind.message}: {found}; "
                "the source is damaged there: record or copy it again"
            )
