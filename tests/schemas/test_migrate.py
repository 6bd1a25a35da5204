"""A trace of an older version reads as one of the current: here an artificial version 0.

It had times in floating-point microseconds, called a span's lane its stream, and did not store origins.
"""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from eidola.schemas import (
    RESULT_TABLES,
    TRACE_TABLES,
    InputError,
    Trace,
    TraceWriter,
    check,
    migrate,
    migration,
)


@pytest.fixture
def migrations(monkeypatch):
    monkeypatch.setattr(migrate, "MIGRATIONS", {})

    @migration(TRACE_TABLES["spans"], 0)
    def spans(old):
        for time in ("launch", "start", "end"):
            times = pc.cast(pc.round(pc.multiply(old[f"{time}_us"], 1000)), pa.int64())
            old = old.drop_columns([f"{time}_us"]).append_column(f"{time}_ns", times)
        return old.rename_columns(["lane" if name == "stream" else name for name in old.column_names])

    @migration(TRACE_TABLES["dependencies"], 0)
    def dependencies(old):
        return old.append_column("origin", pa.array(["inferred"] * old.num_rows))


def rewrite(file, change):
    data = pq.read_table(file, partitioning=None)
    metadata = {**data.schema.metadata, b"eidola.version": b"0"}
    pq.write_table(change(data).replace_schema_metadata(metadata), file)


def old_spans(new):
    for time in ("launch", "start", "end"):
        times = pc.divide(pc.cast(new[f"{time}_ns"], pa.float64()), 1000)
        new = new.drop_columns([f"{time}_ns"]).append_column(f"{time}_us", times)
    return new.rename_columns(["stream" if name == "lane" else name for name in new.column_names])


@pytest.fixture
def old(tmp_path):
    """A trace of version 0, and the version 1 that it is to read as."""
    for name in ("old", "new"):
        with TraceWriter(tmp_path / name) as writer:
            for rank in (0, 1):
                writer.write("ranks", rank, {"backend": ["gpu"]})
                writer.write(
                    "spans",
                    rank,
                    {
                        "span": [1, 2],
                        "lane": ["stream 7", "stream 8"],
                        "kind": ["kernel", "copy"],
                        "name": ["a", "b"],
                        "launch_ns": [None, 1000],
                        "start_ns": [1001, 2002],
                        "end_ns": [1500, 2999],
                    },
                )
                writer.write(
                    "dependencies",
                    rank,
                    {"before": [1], "after": [2], "kind": ["event"], "origin": ["inferred"]},
                )
    path = tmp_path / "old"
    changes = {"spans": old_spans, "dependencies": lambda new: new.drop_columns(["origin"])}
    for name in ("ranks", "spans", "dependencies"):
        for file in (path / name).iterdir():
            rewrite(file, changes.get(name, lambda same: same))
    manifest = json.loads((path / "trace.json").read_text())
    (path / "trace.json").write_text(json.dumps({**manifest, "version": 0}))
    return Trace(path), Trace(tmp_path / "new")


@pytest.mark.usefixtures("migrations")
def test_every_table_reads_as_the_current_version_has_it(old):
    before, now = old
    assert before.version == 0
    for name in TRACE_TABLES:
        assert before.read(name).equals(now.read(name), check_metadata=True)


@pytest.mark.usefixtures("migrations")
def test_columns_ranks_and_filters_are_chosen_by_the_current_names(old):
    chosen = [trace.read("spans", ["lane"], [1], pc.field("start_ns") > 2000) for trace in old]
    assert chosen[0].equals(chosen[1])
    assert chosen[0].to_pylist() == [{"lane": "stream 8"}]


@pytest.mark.usefixtures("migrations")
def test_the_old_trace_passes_the_check(old):
    assert check(old[0].path) == []


def test_without_the_migration_reading_says_which_file_it_was(old):
    with pytest.raises(InputError, match=r"spans/rank00000\.parquet.*eidola convert check"):
        old[0].read("spans")
    assert {problem.table for problem in check(old[0].path)} == {"spans", "dependencies"}


def test_steps_follow_each_other_and_stop_at_the_current_version(monkeypatch):
    monkeypatch.setattr(migrate, "MIGRATIONS", {})
    table = RESULT_TABLES["waits"]
    for step in (-2, -1, 0, 1):
        migration(table, step)(lambda data, step=step: data.append_column(f"v{step}", pa.array([step])))
    migration(TRACE_TABLES["waits"], 0)(lambda data: data.drop_columns(["start"]))
    done = migrate.migrate(table, pa.table({"start": [0]}), -1)
    assert done.column_names == ["start", "v-1", "v0"]
