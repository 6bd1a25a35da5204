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
        writer.write("gpus", GPUS)
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


def integers(values, mark=0):
    """What the definition says of integers: width, smallest, differences from it."""
    low, span = min(values), max(values) - min(values)
    width = 0 if span == 0 else next(w for w in (1, 2, 4, 8) if span < 256**w)
    return width, (
        bytes([width + mark])
        + low.to_bytes(8, "little", signed=True)
        + b"".join((value - low).to_bytes(width, "little") for value in values if width)
    )


def times(values, before):
    """What it says of picoseconds: differences from the column of them before, where those are narrower."""
    if before is None or integers(values)[0] < 8:
        return integers(values)[1]
    apart = [(a - b + 2**63) % 2**64 - 2**63 for a, b in zip(values, before, strict=True)]
    width, data = integers(apart, mark=128)
    return data if width < 8 else integers(values)[1]


def text(values):
    distinct = sorted({(value or "").encode() for value in values})
    return (
        integers([value is not None for value in values])[1]
        + len(distinct).to_bytes(8, "little")
        + integers([len(value) for value in distinct])[1]
        + b"".join(distinct)
        + integers([distinct.index((value or "").encode()) for value in values])[1]
    )


def digest_of(table, columns):
    """The hash of one table with few rows, in order of its key, by its definition."""
    digest = hashlib.sha256(f"{table.name} {table.version}\n".encode())
    digest.update("".join(f"{column.name} {column.type}\n" for column in table.columns).encode())
    digest.update(len(columns[table.key[0]]).to_bytes(8, "little"))
    before = None
    for column in table.columns:
        values = columns[column.name]
        if column.type == pa.string():
            data = text(values)
            digest.update(data[9 + len(values) * data[0] :] if column.required else data)
        elif column.unit == "ps":
            digest.update(times(values, before))
            before = values
        else:
            digest.update(integers(values)[1])
    return hashlib.sha256(f"{table.name} {digest.hexdigest()}\n".encode()).hexdigest()


INT64 = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(INT64, INT64 | st.integers(0, 300), st.integers(0, 2**40)), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_the_hash_is_of_the_bytes_that_its_definition_names(rows):
    table = RESULT_TABLES["link_use"]
    start, width, busy = zip(*rows, strict=True)
    data = {"link": range(len(rows)), "start_ps": start, "width_ps": width, "busy_ps": busy}
    data = {name: list(values) for name, values in data.items()}
    last_first = {name: values[::-1] for name, values in data.items()}
    assert results_hash({"link_use": conform(table, last_first)}) == digest_of(table, data)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=8), st.data())
def test_so_is_that_of_text(names, data):
    table = RESULT_TABLES["waits"]
    policies = st.lists(st.sampled_from(["spin", "event"]), min_size=len(names), max_size=len(names))
    columns = {c.name: [0] * len(names) for c in table.columns}
    columns |= {"wait": list(range(len(names))), "flag_name": names, "policy": data.draw(policies)}
    assert results_hash({"waits": conform(table, columns)}) == digest_of(table, columns)


def test_chunks_are_written_and_hashed_as_the_whole_is(tmp_path):
    rows = 150_000
    table = RESULT_TABLES["waits"]
    columns = {c.name: np.arange(rows) % 7 for c in table.columns if c.type in (pa.int32(), pa.int64())}
    columns |= {
        "wait": np.arange(rows),
        "start_ps": np.arange(rows) * 10**6,
        "policy": ["spin", "event"] * (rows // 2),
    }
    columns["end_ps"] = columns["start_ps"] + 5
    columns |= {"flag_name": [None if i % 3 else f"flag {i % 1000}" for i in range(rows)]}
    whole = conform(table, columns)
    ends = [(0, 50_000), (50_000, 50_000), (50_000, 120_000), (120_000, rows)]
    with ResultsWriter(tmp_path / "run") as writer:
        writer.write("waits", (whole.slice(start, end - start) for start, end in ends))
    assert writer.results_hash() == results_hash({"waits": whole})
    assert Results(tmp_path / "run").read("waits").equals(whole)
    assert check(tmp_path / "run") == []


def test_chunks_out_of_order_are_refused(tmp_path):
    chunks = [{**GPUS, "rank": [4, 5, 6]}, {**GPUS, "rank": [6, 7, 8]}]
    with (
        pytest.raises(SchemaError, match=r"table gpus: rows are not in order of their key \(rank\)"),
        ResultsWriter(tmp_path / "run") as writer,
    ):
        writer.write("gpus", chunks)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_is_out_of_order_is_hashed_in_order_and_written_as_it_is(tmp_path):
    with ResultsWriter(tmp_path / "run") as writer:
        writer.write("gpus", {**GPUS, "rank": [2, 1, 0]})
    ranks = {**{name: list(values)[::-1] for name, values in GPUS.items()}, "rank": [0, 1, 2]}
    assert writer.results_hash() == results_hash({"gpus": conform(RESULT_TABLES["gpus"], ranks)})
    assert Results(tmp_path / "run").read("gpus", ["rank"])["rank"].to_pylist() == [2, 1, 0]


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
