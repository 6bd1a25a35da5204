"""The folder of a run, and the hash of its results."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.schemas import (
    RESULT_TABLES,
    InputError,
    Results,
    ResultsWriter,
    SchemaError,
    UsageError,
    check,
    conform,
    results_hash,
)

GPUS = {
    "rank": np.arange(3, dtype=np.int32),
    "end_ps": [5, 6, 2**62],
    "compute_ps": [1, 2, 3],
    "exposed_ps": [0, 0, 0],
    "sent_bytes": [8, 8, 8],
    "received_bytes": [8, 8, 8],
    "writes": [1, 1, 1],
    "flag_reads": [4, 5, 6],
}


def test_a_run_reads_as_it_was_written(tmp_path):
    with ResultsWriter(tmp_path / "run") as writer:
        assert writer.write("gpus", GPUS).num_rows == 3
        writer.write("waits", {})
        writer.summary = {"end_ps": 2**62}
        writer.manifest = {"seed": 7, "kind": "something else"}
    run = Results(tmp_path / "run")
    assert run.tables() == ["waits", "gpus"]
    assert run.summary == {"end_ps": 2**62}
    assert (run.manifest["kind"], run.manifest["version"], run.manifest["seed"]) == ("run", 1, 7)
    assert run.read("gpus", ["end_ps"], pc.field("rank") > 1).to_pylist() == [{"end_ps": 2**62}]
    assert run.read("waits").schema.equals(RESULT_TABLES["waits"].schema(), check_metadata=True)
    assert check(tmp_path / "run") == []


def test_what_a_run_lacks_is_named(tmp_path):
    with ResultsWriter(tmp_path / "run") as writer:
        writer.write("gpus", GPUS)
    run = Results(tmp_path / "run")
    with pytest.raises(InputError, match=r"hops\.parquet is not there; the run has the tables gpus"):
        run.read("hops")
    with pytest.raises(UsageError, match="no table 'spans'"):
        run.read("spans")
    (tmp_path / "run" / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary\.json"):
        _ = run.summary
    with pytest.raises(InputError, match="eidola replay run"):
        Results(tmp_path)


def test_an_exception_leaves_nothing_and_a_trace_is_not_a_run(tmp_path):
    with pytest.raises(SchemaError), ResultsWriter(tmp_path / "run") as writer:
        writer.write("gpus", {**GPUS, "rank": [0, 1, None]})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "t.eidola").mkdir()
    (tmp_path / "t.eidola" / "trace.json").write_text("{}")
    with pytest.raises(UsageError, match="is no run"):
        ResultsWriter(tmp_path / "t.eidola", overwrite=True)


def test_a_number_that_json_does_not_have_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match="JSON"), ResultsWriter(tmp_path / "run") as writer:
        writer.summary = {"ratio": float("nan")}
    assert list(tmp_path.iterdir()) == []


def test_the_hash_is_of_the_bytes_that_its_definition_names():
    table = RESULT_TABLES["link_use"]
    data = {"link": [1, 0], "start_ps": [10, 20], "width_ps": [5, 5], "busy_ps": [1, 2]}
    digest = hashlib.sha256(b"link_use 1 2\n")
    in_order = {"link": [0, 1], "start_ps": [20, 10], "width_ps": [5, 5], "busy_ps": [2, 1]}
    for column in table.columns:
        width = 4 if column.type == pa.int32() else 8
        values = b"".join(value.to_bytes(width, "little", signed=True) for value in in_order[column.name])
        digest.update(f"{column.name} {column.type}\n".encode() + b"\1\1" + values)
    assert results_hash({"link_use": conform(table, data)}) == digest.hexdigest()


def links(names):
    table = RESULT_TABLES["links"]
    zeros = np.zeros(len(names), np.int64)
    columns = {c.name: zeros for c in table.columns if c.type == pa.int64()}
    rest = {"link": np.arange(len(names)), "name": names, "source": names, "destination": names}
    return conform(table, {**columns, **rest})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=12), st.randoms(), st.integers(1, 5))
def test_neither_row_order_nor_chunks_nor_slices_change_the_hash(names, random, chunk):
    data = links(names)
    order = list(range(len(names)))
    random.shuffle(order)
    mixed = data.take(order)
    pieces = [mixed.slice(i, chunk) for i in range(0, len(names), chunk)]
    assert results_hash({"links": pa.concat_tables(pieces)}) == results_hash({"links": data})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=4), min_size=2, max_size=4),
    st.lists(st.text(max_size=4), min_size=2, max_size=4),
)
def test_other_texts_give_another_hash(one, other):
    assert (results_hash({"links": links(one)}) == results_hash({"links": links(other)})) == (one == other)


def waits(flag_name, arrival):
    table = RESULT_TABLES["waits"]
    columns = {c.name: [0] for c in table.columns if c.required}
    return conform(table, {**columns, "policy": ["spin"], "flag_name": [flag_name], "arrival_ps": [arrival]})


def test_a_null_is_neither_an_empty_text_nor_a_zero():
    hashes = {results_hash({"waits": waits(*row)}) for row in [(None, 0), ("", 0), (None, 1)]}
    assert len(hashes) == 3
    table = RESULT_TABLES["collectives"]
    base = {c.name: [0] if c.type in (pa.int32(), pa.int64()) else ["x"] for c in table.columns}
    absent = conform(table, {**base, "captured_end_ns": [None]})
    assert results_hash({"collectives": absent}) != results_hash({"collectives": conform(table, base)})


def test_the_order_of_the_tables_does_not_count_and_their_names_do():
    one, other = conform(RESULT_TABLES["gpus"], GPUS), links(["a"])
    assert results_hash({"gpus": one, "links": other}) == results_hash({"links": other, "gpus": one})
    assert results_hash({"gpus": one}) != results_hash({"gpus": one, "links": other.slice(0, 0)})
    with pytest.raises(UsageError, match="no table 'spans'"):
        results_hash({"spans": other})


def test_two_rows_with_one_key_are_refused():
    twice = pa.concat_tables([links(["a"]), links(["b"])])
    with pytest.raises(SchemaError, match=r"table links: two rows have one key \(link\)"):
        results_hash({"links": twice})
