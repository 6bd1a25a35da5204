"""docs/schema.md is what the tables say."""

from pathlib import Path

from eidola.schemas import RESULT_TABLES, TRACE_TABLES
from eidola.schemas.reference import reference

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_current():
    assert (DOCS / "schema.md").read_text() == reference(), "run `make docs`"


def test_every_table_column_and_value_is_on_it():
    page = reference()
    for table in (*TRACE_TABLES.values(), *RESULT_TABLES.values()):
        section = page.split(f"### {table.name}\n\nA row is {table.row}.")[1].split("\n### ")[0]
        for column in table.columns:
            (line,) = [line for line in section.splitlines() if line.startswith(f"| `{column.name}` |")]
            assert all(f"`{value}`" in line for value in column.values)
            assert line.count(" | ") == 3
            assert column.unit in line


def test_names_carry_their_units():
    suffixes = {
        "ns": "_ns",
        "ps": "_ps",
        "bytes": "_bytes",
        "bytes/s": "_bytes_per_s",
        "ppb": "_ppb",
        "MB/s": "_mb_per_s",
    }
    for table in (*TRACE_TABLES.values(), *RESULT_TABLES.values()):
        for column in table.columns:
            for unit, suffix in suffixes.items():
                assert column.name.endswith(suffix) == (column.unit == unit), f"{table.name}.{column.name}"
