"""One golden trace of every schema version is kept, and reads as its JSON says.

A version that has been released does not change. While one is being made, write its trace again from its JSON
with `pytest tests/schemas --refresh-golden`; when a version is raised, the JSON of the older ones then says
what they migrate to.
"""

import json
from pathlib import Path

import pytest

from eidola.schemas import TRACE_TABLES, TRACE_VERSION, Trace, TraceWriter, check

DATA = Path(__file__).resolve().parents[1] / "data"
VERSIONS = range(1, TRACE_VERSION + 1)


def golden(version):
    return DATA / f"golden_v{version}.eidola"


def expected(version):
    return json.loads((DATA / f"golden_v{version}.json").read_text())


def write_golden(path):
    want = expected(TRACE_VERSION)
    with TraceWriter(path, overwrite=True) as writer:
        writer.notes = want["notes"]
        for name, rows in want["tables"].items():
            for rank in {row["rank"] for row in rows}:
                mine = [row for row in rows if row["rank"] == rank]
                names = dict.fromkeys(column for row in mine for column in row)
                writer.write(name, rank, {c: [row.get(c) for row in mine] for c in names})


@pytest.fixture(scope="module", autouse=True)
def refreshed(request):
    """Write the current version's trace again, where that was asked for."""
    if request.config.getoption("--refresh-golden"):
        write_golden(golden(TRACE_VERSION))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_table_reads_as_its_json_says(version):
    trace, want = Trace(golden(version)), expected(version)
    assert trace.manifest["version"] == version
    assert trace.notes == want["notes"]
    assert set(want["tables"]) == set(TRACE_TABLES)
    for name, rows in want["tables"].items():
        columns = list(TRACE_TABLES[name].by_name)
        assert {column for row in rows for column in row} <= set(columns)
        # repr tells 0.0 from -0.0, and 1 from True.
        assert repr(trace.read(name).to_pylist()) == repr([{c: row.get(c) for c in columns} for row in rows])


@pytest.mark.parametrize("version", VERSIONS)
def test_it_keeps_to_the_schema(version):
    assert check(golden(version)) == []


def test_the_current_one_has_every_column_and_every_value_of_each_enumeration():
    trace = Trace(golden(TRACE_VERSION))
    for name, table in TRACE_TABLES.items():
        data = trace.read(name)
        for column in table.columns:
            assert data[column.name].null_count < data.num_rows, f"{name}.{column.name} is always null"
            assert set(column.values) <= set(data[column.name].to_pylist() if column.values else ())


def test_what_is_written_today_is_what_is_kept(tmp_path):
    write_golden(tmp_path / "again.eidola")
    again, kept = Trace(tmp_path / "again.eidola"), Trace(golden(TRACE_VERSION))
    for name in TRACE_TABLES:
        assert [f.name for f in again.files(name)] == [f.name for f in kept.files(name)]
        assert again.read(name).equals(kept.read(name), check_metadata=True)
