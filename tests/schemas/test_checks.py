"""Each way to break the schema is found, named with file, column and row, and given a remedy."""

import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eidola.schemas import (
    RESULT_TABLES,
    TRACE_TABLES,
    Results,
    ResultsWriter,
    Trace,
    TraceWriter,
    check,
    conform,
)
from eidola.schemas.store import write_file

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden_v1.eidola"


@pytest.fixture
def path(tmp_path):
    """A copy of the golden trace, to be broken."""
    return shutil.copytree(GOLDEN, tmp_path / "t.eidola")


def edit(path, name, change, rank=0):
    """Rewrite one file of the trace: `change` takes its rows as dicts, and returns those to be written."""
    file = path / name / f"rank{rank:05d}.parquet"
    whole = pq.read_table(file, partitioning=None)
    # Without the promise that required columns hold no nulls, so that a null can be put there.
    nullable = [field.with_nullable(True) for field in TRACE_TABLES[name].schema()]
    schema = pa.schema(nullable, metadata=whole.schema.metadata)
    pq.write_table(pa.Table.from_pylist(change(whole.to_pylist()), schema), file)
    return file


def put(row, **values):
    """Return a change that puts values into one row."""
    return lambda rows: [{**r, **values} if i == row else r for i, r in enumerate(rows)]


@pytest.mark.parametrize(
    ("name", "row", "values", "column", "message"),
    [
        ("spans", 1, {"lane": None}, "lane", "required, and has no value"),
        ("spans", 2, {"kind": "dream"}, "kind", "not one of the values that docs/schema.md lists: 'dream'"),
        ("spans", 1, {"workgroup": -1}, "workgroup", "below the smallest value that makes sense: -1"),
        ("spans", 3, {"end_ns": 5}, "end_ns", "ends before it starts: 5"),
        ("waits", 0, {"end_ns": 5}, "end_ns", "ends before it starts: 5"),
        ("spans", 4, {"rank": 2}, "rank", "not the rank of the file: 2"),
        ("dependencies", 0, {"before": 99}, "before", "refers to a span that the rank does not have: 99"),
        ("dependencies", 1, {"after": 99}, "after", "refers to a span that the rank does not have: 99"),
        ("writes", 0, {"span": 99}, "span", "refers to a span that the rank does not have: 99"),
        ("waits", 0, {"span": 99}, "span", "refers to a span that the rank does not have: 99"),
        ("collectives", 1, {"span": 99}, "span", "refers to a span that the rank does not have: 99"),
        ("writes", 2, {"peer": 4}, "peer", "not a rank of the trace: 4"),
        ("links", 0, {"peer": 9}, "peer", "not a rank of the trace: 9"),
        ("collectives", 3, {"peer": 4}, "peer", "not a group rank of the communicator: 4"),
    ],
)
def test_a_bad_value_is_named_with_file_column_and_row(path, name, row, values, column, message):
    file = edit(path, name, put(row, **values))
    found = [p for p in check(path) if p.severity == "error"]
    assert [(p.table, p.file, p.column, p.row) for p in found] == [(name, str(file), column, row)]
    assert found[0].message == message
    assert found[0].remedy
    assert str(found[0]).startswith(f"error: {file}, column {column}, row {row}: {message}; ")
    assert "\n" not in str(found[0])


def test_repeated_keys_are_named_by_their_last_row(path):
    edit(path, "spans", lambda rows: [*rows, rows[2], rows[0], rows[2]])
    found = check(path)
    assert {(p.column, p.row, p.message) for p in found} == {
        ("rank, span", 6, "the key is not unique"),
        ("rank, span", 7, "the key is not unique"),
    }


def test_nulls_count_as_equal_in_a_key(path):
    edit(path, "collectives", lambda rows: [*rows, rows[0]])
    assert [p.message for p in check(path)] == ["the key is not unique"]


def test_a_circle_of_dependencies_names_its_spans(path):
    def circle(rows):
        back = {**rows[0], "kind": "stream"}
        return [*rows, {**back, "before": 12, "after": 11}, {**back, "before": 11, "after": 10}]

    file = edit(path, "dependencies", circle)
    (found,) = check(path)
    assert (found.file, found.message.split(":")[0]) == (str(file), "the dependencies go in a circle")
    spans = found.message.removeprefix("the dependencies go in a circle: spans ").split(" -> ")
    assert {"10", "11"} <= set(spans) <= {"10", "11", "12"}
    assert spans[0] == spans[-1]
    assert len(spans) == len(set(spans)) + 1
    rows = pq.read_table(file).to_pylist()
    assert rows[found.row] in (rows[-1], rows[-2])  # one of those that were added


def test_an_operation_that_a_present_rank_left_out_is_a_warning(path):
    edit(path, "collectives", lambda rows: [row for row in rows if row["operation"] != "all_to_allv"], rank=2)
    (found,) = check(path)
    assert found.severity == "warning"
    assert found.message == "some ranks of the trace took no part: 'world' sequence 6: 3 of 4 ranks"


def test_a_send_without_its_receive_is_a_warning(path):
    edit(path, "collectives", lambda rows: [row for row in rows if row["operation"] != "recv"], rank=1)
    (found,) = check(path)
    assert found.severity == "warning"
    assert found.message.endswith("'pair:0' sequence 0: 1 more sends from group rank 1 to 0")


def test_a_send_without_its_receive_is_told_where_other_ranks_of_the_group_are_missing(path):
    def larger(rows):
        return [{**row, "group_size": 9} if row["communicator"] == "pair:0" else row for row in rows]

    for rank in range(2):
        edit(path, "communicators", larger, rank)
    assert not [p for p in check(path) if "differ in number" in p.message]
    edit(path, "collectives", lambda rows: [row for row in rows if row["operation"] != "recv"], rank=1)
    messages = [p.message for p in check(path)]
    assert any(m.endswith("'pair:0' sequence 0: 1 more sends from group rank 1 to 0") for m in messages)


def test_a_receive_from_another_peer_than_the_sender_is_a_warning(path):
    def turned(rows):
        return [{**row, "peer": 0} if row["operation"] == "recv" else row for row in rows]

    edit(path, "collectives", turned, rank=1)
    assert [p.message.partition("sequence 0: ")[2] for p in check(path)] == [
        "1 more receives from group rank 0 to 0",
        "1 more sends from group rank 1 to 0",
    ]


def test_a_wait_that_no_write_can_end_is_a_warning_with_its_row(path):
    file = edit(path, "waits", put(0, flag=77))
    found = [p for p in check(path) if "waits for a flag" in p.message]
    assert [(p.file, p.row, p.severity) for p in found] == [(str(file), 0, "warning")]
    assert found[0].message.endswith(": 77")


def test_work_that_starts_before_its_launch_is_a_warning_with_its_row(path):
    file = edit(
        path, "spans", lambda rows: [{**r, "launch_ns": r["start_ns"] + (i == 2)} for i, r in enumerate(rows)]
    )
    (found,) = check(path)
    assert (found.file, found.row, found.severity) == (str(file), 2, "warning")
    assert found.message.startswith("starts before the call that launched it: ")


def test_collectives_that_overlap_on_one_stream_are_a_warning_with_their_row(path):
    kernels = {10, 12}
    edit(path, "spans", lambda rows: [{**r, "kind": "kernel"} if r["span"] in kernels else r for r in rows])
    edit(path, "collectives", put(0, span=10, start_ns=100, end_ns=200))
    assert not [p for p in check(path) if "overlaps" in p.message]
    edit(path, "collectives", put(4, span=12, start_ns=199, end_ns=300))
    found = [p for p in check(path) if "overlaps" in p.message]
    assert [(p.row, p.severity) for p in found] == [(4, "warning")]
    edit(path, "collectives", put(4, span=12, start_ns=200, end_ns=300))
    assert not [p for p in check(path) if "overlaps" in p.message]


def test_a_rank_missing_between_others_is_named(path):
    for folder in path.iterdir():
        if folder.is_dir():
            (folder / "rank00001.parquet").unlink(missing_ok=True)
    assert "a lower rank than the highest is not in the trace: 1" in {p.message for p in check(path)}


def test_a_rank_that_is_not_in_the_trace_is_a_warning_and_its_peers_are_none(path):
    for folder in path.iterdir():
        if folder.is_dir():
            (folder / "rank00003.parquet").unlink(missing_ok=True)
    (found,) = check(path)
    assert (found.table, found.severity) == ("communicators", "warning")
    assert found.message.endswith("'world' has 3 of 4")


def test_a_rank_with_files_and_no_row_in_ranks_is_named(path):
    (path / "ranks" / "rank00002.parquet").unlink()
    assert "the rank has files and no row in `ranks`: 2" in {p.message for p in check(path)}


def test_a_communicator_that_the_rank_is_not_in_is_a_warning(path):
    edit(path, "collectives", put(11, communicator="elsewhere"))
    assert ("communicator", 11, "warning") in {(p.column, p.row, p.severity) for p in check(path)}


def rewrite(path, name, change):
    file = path / name / "rank00000.parquet"
    pq.write_table(change(pq.read_table(file, partitioning=None)), file)


@pytest.mark.parametrize(
    ("change", "column", "message"),
    [
        (lambda t: t.drop_columns(["lane"]), "lane", "the column is missing"),
        (lambda t: t.append_column("x", t["lane"]), "x", "the schema has no such column"),
        (lambda t: t.append_column("lane", t["lane"]), "lane", "the schema has no such column"),
        (
            lambda t: t.set_column(7, "start_ns", t["start_ns"].cast(pa.float64(), safe=False)),
            "start_ns",
            "wrong type: double instead of int64",
        ),
        (
            lambda t: t.set_column(8, pa.field("end_ns", pa.int64(), metadata={"unit": "us"}), t["end_ns"]),
            "end_ns",
            "wrong unit in the field's metadata: 'us' instead of 'ns'",
        ),
        (
            lambda t: t.replace_schema_metadata({**t.schema.metadata, b"eidola.version": b"7"}),
            "",
            "wrong or missing file metadata: eidola.version is '7', not '1'",
        ),
        (
            lambda t: t.replace_schema_metadata({**t.schema.metadata, b"eidola.table": b"waits\xff"}),
            "",
            "wrong or missing file metadata: eidola.table is 'waits\ufffd', not 'spans'",
        ),
    ],
)
def test_columns_types_units_and_stamps_are_checked(path, change, column, message):
    rewrite(path, "spans", change)
    assert (column, message) in {(p.column, p.message) for p in check(path)}


def test_a_file_without_any_stamp_is_named(path):
    rewrite(path, "spans", lambda t: t.replace_schema_metadata(None))
    assert sum(p.message.startswith("wrong or missing file metadata") for p in check(path)) == 3


def test_output_is_bounded_and_the_rest_is_counted(tmp_path):
    with TraceWriter(tmp_path / "t") as writer:
        for rank in range(3):
            writer.write("ranks", rank, {"backend": ["gpu"]})
            zeros = [0] * 500
            writer.write(
                "dependencies",
                rank,
                {"before": zeros, "after": zeros, "kind": ["event"] * 500, "origin": ["dream"] * 500},
            )
    found = check(tmp_path / "t")
    assert len(found) == 3 * 21
    last = [str(p) for p in found[-3:]]
    assert all(": 1480 more; " in line for line in last)


def test_what_does_not_belong_there_is_a_warning(path):
    (path / "spans" / "rank1.parquet.tmp").write_text("")
    (path / "notes").mkdir()
    found = check(path)
    assert {Path(p.file).name for p in found} == {"rank1.parquet.tmp", "notes"}
    assert {p.severity for p in found} == {"warning"}


@pytest.mark.parametrize("garbage", [b"", b"PAR1", b"PAR1" * 100, b"\0" * 4096, b"{}"])
def test_a_file_that_is_no_parquet_is_named(path, garbage):
    file = path / "spans" / "rank00001.parquet"
    file.write_bytes(garbage)
    assert [(p.file, p.message.split(":")[0]) for p in check(path)] == [(str(file), "cannot be read")]


def test_a_folder_in_a_files_place_is_named(path):
    (path / "spans" / "rank00009.parquet").mkdir()
    assert [Path(p.file).name for p in check(path)] == ["rank00009.parquet"]


@pytest.mark.parametrize("text", ["", "[]", '{"version": 99}'])
def test_a_manifest_that_makes_no_sense_is_a_problem(path, text):
    (path / "trace.json").write_text(text)
    (found,) = check(path)
    assert str(path) in found.message


def test_no_folder_at_all_is_a_problem(tmp_path):
    assert len(check(tmp_path / "nowhere")) == 1
    assert len(check(tmp_path)) == 1


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_makes_it_raise(path, seed):
    draw = random.Random(seed)
    for file in draw.sample(sorted(path.glob("*/*.parquet")), 5):
        data = bytearray(file.read_bytes())
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        file.write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
    for problem in check(path):
        assert "\n" not in str(problem)


def test_a_run_is_checked_too(tmp_path):
    rows = {"link": [0, 0], "start_ps": [1, 2], "width_ps": [1, 1], "busy_ps": [1, 1]}
    with ResultsWriter(tmp_path / "run") as writer:
        writer.write("link_use", rows)
    table = RESULT_TABLES["link_use"]
    write_file(table, tmp_path / "run" / "link_use.parquet", conform(table, {**rows, "start_ps": [1, 1]}))
    assert Results(tmp_path / "run").tables() == ["link_use"]
    (found,) = check(tmp_path / "run")
    assert (found.table, found.column, found.row) == ("link_use", "link, start_ps", 1)
    (tmp_path / "run" / "link_use.parquet").write_bytes(b"")
    (tmp_path / "run" / "summary.json").write_text("{")
    assert [p.message.split(":")[0] for p in check(tmp_path / "run")] == ["cannot be read"] * 2


def test_the_golden_trace_was_not_touched():
    assert check(GOLDEN) == []
    assert Trace(GOLDEN).ranks() == [0, 1, 2, 3]
