"""What is written into a trace is read back, selectively; what is not whole never bears its name."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.schemas import (
    TRACE_TABLES,
    InputError,
    SchemaError,
    Trace,
    TraceWriter,
    UsageError,
    conform,
)

CLOCKS = {"method": ["none"]}
SPANS = {
    "span": [0, 1, 2],
    "lane": ["stream 7"] * 3,
    "kind": ["kernel"] * 3,
    "name": ["a", "b", "c"],
    "start_ns": np.array([0, 10, 20]),
    "end_ns": np.array([5, 15, 25]),
}


@pytest.fixture
def trace(tmp_path):
    with TraceWriter(tmp_path / "t.eidola") as writer:
        writer.notes = {"source": "a test"}
        for rank in (0, 3, 100_000):
            writer.write("ranks", rank, {"backend": ["host"]})
            writer.write("spans", rank, SPANS)
    return Trace(tmp_path / "t.eidola")


def test_rows_columns_and_ranks_are_chosen(trace):
    assert trace.ranks() == [0, 3, 100_000]
    assert trace.notes == {"source": "a test"}
    chosen = trace.read("spans", ["name", "rank"], ranks=[3, 7], filters=pc.field("start_ns") >= 10)
    assert chosen.to_pylist() == [{"name": "b", "rank": 3}, {"name": "c", "rank": 3}]


def test_a_table_without_rows_reads_as_an_empty_one_of_the_schema(trace):
    assert trace.read("waits").schema.equals(TRACE_TABLES["waits"].schema(), check_metadata=True)
    assert trace.read("waits").num_rows == 0


def test_columns_that_were_not_given_are_null(trace):
    assert trace.read("spans", ["workgroup"])["workgroup"].null_count == 9


def test_row_groups_that_a_filter_excludes_are_not_read(tmp_path):
    path = tmp_path / "t.eidola"
    with TraceWriter(path) as writer:
        times = np.arange(1000)
        writer.write(
            "counters", 0, {"source": ["x"] * 1000, "name": ["y"] * 1000, "time_ns": times, "value": times}
        )
    file = Trace(path).files("counters")[0]
    data = pq.read_table(file)
    pq.write_table(data, file, row_group_size=100, compression="none")
    group = pq.ParquetFile(file).metadata.row_group(0).column(3)
    spoiled = bytearray(file.read_bytes())
    spoiled[group.data_page_offset : group.data_page_offset + 40] = b"\xff" * 40
    file.write_bytes(spoiled)
    late = Trace(path).read("counters", filters=pc.field("time_ns") >= 900)
    assert late["value"].to_pylist() == list(range(900, 1000))
    with pytest.raises(InputError, match="rank00000"):
        Trace(path).read("counters")


def test_each_file_tells_its_table_version_generator_and_units(trace):
    for table in (TRACE_TABLES["ranks"], TRACE_TABLES["spans"]):
        schema = pq.read_schema(trace.files(table.name)[0])
        assert schema.metadata[b"eidola.table"].decode() == table.name
        assert schema.metadata[b"eidola.version"].decode() == str(table.version)
        assert schema.metadata[b"eidola.generator"].startswith(b"eidola ")
        for column in table.columns:
            metadata = schema.field(column.name).metadata or {}
            assert metadata.get(b"unit", b"").decode() == column.unit


def _write_and_fail(path):
    with TraceWriter(path) as writer:
        writer.write("clocks", 0, CLOCKS)
        raise ZeroDivisionError


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        _write_and_fail(tmp_path / "t.eidola")
    assert list(tmp_path.iterdir()) == []


def _write_for_ever(path, ready):
    with TraceWriter(path) as writer:
        writer.write("clocks", 0, CLOCKS)
        ready.set()
        time.sleep(60)


def test_a_writer_that_is_killed_leaves_nothing_under_the_name(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_write_for_ever, args=(tmp_path / "t.eidola", ready))
    process.start()
    assert ready.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "t.eidola").exists()
    with pytest.raises(InputError, match="is no trace"):
        Trace(tmp_path / "t.eidola")


def test_an_existing_trace_is_replaced_only_where_asked(tmp_path):
    path = tmp_path / "t.eidola"
    for rank, overwrite in ((0, False), (1, True)):
        with TraceWriter(path, overwrite=overwrite) as writer:
            writer.write("ranks", rank, {"backend": ["gpu"]})
    assert Trace(path).ranks() == [1]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UsageError, match="--overwrite"):
        TraceWriter(path)


def test_what_is_no_trace_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    with pytest.raises(UsageError, match="left alone"):
        TraceWriter(tmp_path / "home", overwrite=True)


def _write_rank(writer, rank):
    writer.write("ranks", rank, {"backend": ["gpu"]})


def test_ranks_may_be_written_by_several_processes(tmp_path):
    fork = multiprocessing.get_context("fork")
    with TraceWriter(tmp_path / "t.eidola") as writer, ProcessPoolExecutor(2, fork) as pool:
        list(pool.map(_write_rank, [writer] * 4, range(4)))
    assert Trace(tmp_path / "t.eidola").ranks() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InputError),
        ("[]", InputError),
        ("null", InputError),
        ('{"version": "one"}', InputError),
        ('{"version": 99}', SchemaError),
        ('{"version": -1}', SchemaError),
        ("\udcff", InputError),
        ("[" * 100_000, InputError),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_by_name(tmp_path, text, error):
    (tmp_path / "trace.json").write_text(text, errors="surrogateescape")
    with pytest.raises(error, match=str(tmp_path)):
        Trace(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": [1, 2, 3]}, "unknown column 'colour'"),
        ({"name": None}, "'name' is required, and row 0"),
        ({"name": ["a", None, "c"]}, "'name' is required, and row 1"),
        ({"start_ns": [0.5, 1, 2]}, "'start_ns'"),
        ({"start_ns": [2**63, 1, 2]}, "'start_ns'"),
        ({"workgroup": [2**31, 1, 2]}, "'workgroup'"),
        ({"end_ns": [1, 2]}, "'end_ns' has 2 values"),
        ({"end_ns": ["x", "y", "z"]}, "'end_ns'"),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(change, message):
    columns = {"rank": [0, 0, 0], **SPANS, **change}
    columns = {name: values for name, values in columns.items() if values is not None}
    with pytest.raises(SchemaError, match=message):
        conform("spans", columns)


def test_a_value_that_does_not_fit_is_quoted_within_bounds():
    with pytest.raises(SchemaError, match="'workgroup'") as refused:
        conform("spans", {"rank": [0] * 3, **SPANS, "workgroup": ["x" * 10_000] * 3})
    assert len(str(refused.value)) < 300


def test_unknown_tables_and_columns_are_refused(trace):
    with pytest.raises(UsageError, match="no table 'kernels'; a trace has ranks"):
        trace.read("kernels")
    with pytest.raises(UsageError, match="has no column 'colour'"):
        trace.read("spans", ["colour"])


INT64 = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=20), INT64, st.none() | INT64, st.none() | st.lists(INT64, max_size=3)),
        min_size=1,
        max_size=20,
    )
)
def test_any_value_of_the_types_survives(tmp_path_factory, rows):
    names, starts, launches, splits = zip(*rows, strict=True)
    given_columns = {
        "communicator": names,
        "sequence": range(len(rows)),
        "operation": ["unknown"] * len(rows),
        "start_ns": starts,
        "end_ns": starts,
        "launch_ns": launches,
        "in_split_bytes": splits,
    }
    path = tmp_path_factory.mktemp("any") / "t.eidola"
    with TraceWriter(path) as writer:
        writer.write(
            "collectives",
            0,
            {k: pa.array(v, TRACE_TABLES["collectives"].by_name[k].type) for k, v in given_columns.items()},
        )
    back = Trace(path).read("collectives", list(given_columns))
    assert {name: back[name].to_pylist() for name in given_columns} == {
        name: list(values) for name, values in given_columns.items()
    }
