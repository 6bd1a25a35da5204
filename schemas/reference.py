"""The reference of the tables, as Markdown: `python -m eidola.schemas.reference` prints docs/schema.md."""

from collections.abc import Iterable

from .tables import RESULT_TABLES, RESULT_VERSION, TRACE_TABLES, TRACE_VERSION, Column, Table

_HEAD = """# The schema

<!-- Generated from schemas/tables.py by `make docs`; change it there. -->

Times of a trace are integer nanoseconds on one aligned clock, times of a result integer picoseconds from the
run's start. Where a source did not say something, the value is null: a column that may be null is marked
*optional*. Every file's metadata hold `eidola.table`, `eidola.version` and `eidola.generator`, and the metadata of
each Arrow field its `unit`. `eidola convert check` tells whether a trace or a run keeps to this page.
"""

_TRACE = """
## Tables of a trace, version {}

A trace is a folder: `trace.json`, and a file `TABLE/rankNNNNN.parquet` for each table and rank that has rows.
"""

_RESULT = """
## Tables of a run, version {}

A run is a folder: `manifest.json`, `summary.json`, and a file `TABLE.parquet` for each table.
"""


def reference() -> str:
    """Return the page as Markdown."""
    trace = _TRACE.format(TRACE_VERSION) + "".join(map(_table, TRACE_TABLES.values()))
    result = _RESULT.format(RESULT_VERSION) + "".join(map(_table, RESULT_TABLES.values()))
    return _HEAD + trace + result


def _table(table: Table) -> str:
    key = f" Key: {_code(table.key)}." if table.key else ""
    rows = "".join(map(_row, table.columns))
    return (
        f"\n### {table.name}\n\nA row is {table.row}.{key}\n\n"
        f"| column | type | unit | meaning |\n| --- | --- | --- | --- |\n{rows}"
    )


def _row(column: Column) -> str:
    values = f"; one of {_code(column.values)}" if column.values else ""
    least = f"; at least {column.minimum}" if column.minimum is not None else ""
    optional = "" if column.required else "; *optional*"
    kind = str(column.type).replace("item: ", "")
    meaning = (column.doc + values + least + optional).replace("|", "\\|")
    return f"| `{column.name}` | {kind} | {column.unit} | {meaning} |\n"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print(reference(), end="")
