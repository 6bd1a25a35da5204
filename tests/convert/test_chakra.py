"""Chakra files of every version, read into spans, collectives and edges; broken ones refused by name."""

import gzip
import json
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.convert import convert, find_format
from eidola.convert.auto import recognise
from eidola.convert.chakra import read
from eidola.schemas import Trace, check
from eidola.schemas.errors import InputError

from .wire import file_of

COMP, SEND, RECV, COLL = 4, 5, 6, 7  # NodeType of et_def.proto
INT64, BOOL, STRING = 9, 27, 29  # fields of AttributeProto


def attribute(name, value):
    kind = BOOL if isinstance(value, bool) else INT64 if isinstance(value, int) else STRING
    return {1: name, kind: int(value) if isinstance(value, bool) else value}


def node(number, name="k", kind=COMP, after=(), calls=(), start=0, duration=0, **told):
    fields = {1: number, 2: name, 3: kind, 4: list(calls), 5: list(after), 6: start, 7: duration}
    return fields | {10: [attribute(*item) for item in told.items()]}


METADATA = {1: "0.0.4"}
STEP = [
    node(1, "aten::mm", duration=10, is_cpu_op=True, tid=1),
    node(2, "gemm", after=[1], duration=40, is_cpu_op=False, stream=7),
    node(3, "nccl", COLL, after=[2], duration=25, stream=20, comm_type=0, comm_size=4096, pg_name="3"),
    node(4, "cudaStreamSynchronize", after=[3], duration=5, is_cpu_op=True, tid=1),
    node(5, "p2p", SEND, after=[3], is_cpu_op=False, stream=20, comm_size=64, comm_src=0, comm_dst=1, comm_tag=9),
]  # fmt: skip


def write(folder, *messages, name="t.0.et"):
    path = folder / name
    path.write_bytes(file_of(*messages))
    return path


def spans_of(record):
    columns = record.spans
    return {
        n: (lane, start, end)
        for n, lane, start, end in zip(
            columns["name"], columns["lane"], columns["start_ns"], columns["end_ns"], strict=True
        )
    }


def test_nodes_without_times_follow_their_dependencies(tmp_path):
    (record,) = read(write(tmp_path, METADATA, *STEP), True)
    assert spans_of(record) == {
        "aten::mm": ("thread 1", 0, 10_000),
        "gemm": ("stream 7", 10_000, 50_000),
        "nccl": ("stream 20", 50_000, 75_000),
        "cudaStreamSynchronize": ("thread 1", 75_000, 80_000),
        "p2p": ("stream 20", 75_000, 75_000),
    }
    assert any("no start times" in note for note in record.notes)
    names = record.spans["name"]
    edges = zip(record.edges["before"], record.edges["after"], record.edges["kind"], strict=True)
    assert {(names[b], names[a], kind) for b, a, kind in edges} == {
        ("aten::mm", "gemm", "launch"),
        ("gemm", "nccl", "event"),
        ("nccl", "cudaStreamSynchronize", "sync"),
    }
    reduce, send = record.parts
    assert (reduce.operation, reduce.size_bytes, reduce.group.name) == ("all_reduce", 4096, "group 3")
    assert (send.operation, send.peer, send.size_bytes) == ("send", 1, 64)


def test_times_in_the_file_are_kept_and_edges_that_they_contradict_counted(tmp_path):
    late = [
        node(1, start=100, duration=50, stream=1),
        node(2, "l", after=[1], start=120, duration=9, stream=2),
    ]
    (record,) = read(write(tmp_path, METADATA, *late), True)
    assert spans_of(record) == {"k": ("stream 1", 100_000, 150_000), "l": ("stream 2", 120_000, 129_000)}
    assert record.contradicted == {"event": 1}
    assert not record.edges["before"]


def test_ranks_of_groups_come_from_the_file_beside_or_from_pytorchs_metadata(tmp_path):
    groups = [{"pg_name": "3", "ranks": [0, 2]}]
    told = {1: 9, 2: "## process_group:init ##", 3: 1, 8: {1: f"['{json.dumps(groups)}']"}}
    (record,) = read(write(tmp_path, METADATA, told, *STEP), True)
    assert record.parts[0].group.ranks == (0, 2)
    (tmp_path / "comm_groups.json").write_text('{"3": [0, 1, 4]}')
    (record,) = read(tmp_path / "t.0.et", True)
    assert record.parts[0].group.ranks == (0, 1, 4)
    (tmp_path / "comm_groups.json").write_text("[1")
    with pytest.raises(InputError, match=r"comm_groups\.json"):
        read(tmp_path / "t.0.et", True)


def jsonized(messages):
    """Return what Chakra's jsonizer prints: objects one behind another, 64-bit integers as text, enums as names."""
    names = {COMP: "COMP_NODE", SEND: "COMM_SEND_NODE", COLL: "COMM_COLL_NODE"}
    kinds = {INT64: "int64Val", BOOL: "boolVal", STRING: "stringVal"}
    text = json.dumps({"version": "0.0.4"}, indent=2)
    for found in messages:
        attributes = [
            {"name": a[1], kinds[k]: str(v) if k == INT64 else bool(v) if k == BOOL else v}
            for a in found[10]
            for k, v in a.items()
            if k != 1
        ]
        text += json.dumps(
            {
                "id": str(found[1]),
                "name": found[2],
                "type": names[found[3]],
                "dataDeps": [str(n) for n in found[5]],
                "durationMicros": str(found[7]),
                "attr": attributes,
            },
            indent=2,
        )
    return text


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_json_and_gzip_say_the_same_as_protobuf(pack, tmp_path):
    (plain,) = read(write(tmp_path, METADATA, *STEP), True)
    path = tmp_path / "t.0.json"
    path.write_bytes(pack(jsonized(STEP).encode()))
    (other,) = read(path, True)
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "t.0.et").write_bytes(pack(file_of(METADATA, *STEP)))
    (third,) = read(packed / "t.0.et", True)
    assert plain.spans == other.spans == third.spans
    assert plain.edges == other.edges == third.edges
    assert recognise([path]).files == {"chakra": [path]}
    assert recognise([packed]).files == {"chakra": [packed / "t.0.et"]}


def test_metadata_of_older_files_have_attributes_alone(tmp_path):
    (record,) = read(write(tmp_path, {1: {1: "schema", STRING: "1.0.1"}}, *STEP), True)
    assert len(record.spans["span"]) == len(STEP)


def test_the_first_version_had_no_metadata_and_other_enums(tmp_path):
    old = [
        {1: 1, 2: "fwd", 3: 3, 7: 500},  # COMP_NODE was 3; run times were in nanoseconds
        {1: 2, 2: "ar", 3: 6, 4: [1], 13: 1, 14: [1, 1], 18: 1024},  # COMM_COLL_NODE 6, ALL_REDUCE 1
        {1: 3, 2: "ag", 3: 6, 4: [2], 13: 3, 15: 2, 18: 64},  # ALL_GATHER 3
    ]
    (record,) = read(write(tmp_path, *old, name="t.0.eg"), True)
    assert spans_of(record)["fwd"] == ("stream compute", 0, 500)
    assert [(p.operation, p.size_bytes, p.group.name) for p in record.parts] == [
        ("all_reduce", 1024, None),
        ("all_gather", 64, "group 2"),
    ]
    assert record.hardware["backend"] == "virtual"


@pytest.mark.parametrize("count", [400, 4000])
def test_the_nodes_before_gzip_breaks_off_are_read(count, tmp_path):
    rng = random.Random(1)
    nodes = [{1: n, 2: f"{rng.getrandbits(256):x}", 3: 4, 7: 1000} for n in range(1, count + 1)]
    packed = gzip.compress(file_of(*nodes))
    (tmp_path / "t.0.et").write_bytes(packed[: len(packed) // 2])
    (record,) = read(tmp_path / "t.0.et", True)
    assert count // 4 < len(record.spans["span"]) < count
    assert record.truncated


def typed(number, name, kind, parents, attributes, value):
    """A node of the versions whose attributes have a type; `value` gives field and type of a Python type."""
    told = [
        {1: key, 2: value[type(v)][1], value[type(v)][0]: v if isinstance(v, str) else int(v)}
        for key, v in attributes
    ]
    return {1: number, 2: name, 3: kind, 4: list(parents), 11: told}


@pytest.mark.parametrize(
    ("value", "comp", "coll"),
    [
        ({bool: (4, 0), int: (6, 2), str: (7, 3)}, 4, 7),  # et_def.proto of 9d917e3c
        (
            {bool: (5, 1), int: (5, 1), str: (6, 2)},
            3,
            6,
        ),  # et_def.pb.h of that commit: no BOOL, no METADATA_NODE
    ],
)
def test_versions_whose_attributes_have_a_type(value, comp, coll, tmp_path):
    """Read as the first version, a COMP_NODE of these would be a send."""
    old = [
        typed(1, "aten::mm", comp, [], [("is_host_op", True), ("runtime", 10), ("op_schema", "mm()")], value),
        typed(2, "gemm", comp, [1], [("is_host_op", False), ("runtime", 40)], value),
        typed(3, "a2a", coll, [2], [("is_host_op", False), ("comm_type", 1), ("comm_size", 256)], value),
        typed(4, "rs", coll, [3], [("is_host_op", False), ("comm_type", 3), ("comm_size", 64)], value),
    ]
    (record,) = read(write(tmp_path, *old), True)
    assert spans_of(record) == {
        "aten::mm": ("thread 0", 0, 10_000),
        "gemm": ("stream compute", 10_000, 50_000),
        "a2a": ("stream communication", 50_000, 50_000),
        "rs": ("stream communication", 50_000, 50_000),
    }
    assert [(p.operation, p.size_bytes) for p in record.parts] == [
        ("all_to_all", 256),
        ("reduce_scatter", 64),
    ]


def test_storage_is_the_hosts_work_and_what_later_versions_add_is_left_out(tmp_path):
    nodes = [node(1, "pread", 8, duration=9), node(2, "load", 9, after=[1], duration=1), node(3, "later", 99)]
    (record,) = read(write(tmp_path, METADATA, *nodes), True)
    assert spans_of(record) == {"pread": ("thread 0", 0, 9000), "load": ("thread 0", 9000, 10_000)}
    assert set(record.spans["kind"]) == {"host_call"}
    assert record.dropped == {"node without work (metadata, gap)": 1}


def test_callers_that_wait_for_what_they_call_do_not_stop_the_layout(tmp_path):
    """As PyTorch's converter writes them: the kernel is called by an operator that depends on the kernel."""
    both = [
        node(1, "aten::mul", calls=[1], after=[2], duration=3, is_cpu_op=True, tid=1),
        node(2, "kernel", calls=[1], duration=5, is_cpu_op=False, tid=7),
    ]
    (record,) = read(write(tmp_path, METADATA, *both), True)
    assert spans_of(record) == {"kernel": ("stream 7", 0, 5000), "aten::mul": ("thread 1", 5000, 8000)}


def test_a_file_alone_that_does_not_tell_its_rank_is_0_and_says_so(tmp_path):
    (record,) = read(write(tmp_path, METADATA, *STEP, name="step.et"), True)
    assert (record.rank, record.notes[0]) == (0, "step.et does not tell its rank; 0 was taken")
    with pytest.raises(InputError, match="does not tell its rank"):
        read(tmp_path / "step.et", False)


def test_a_circle_of_data_is_refused_by_node(tmp_path):
    circle = [node(1), node(2, after=[3]), node(3, after=[2])]
    with pytest.raises(InputError, match="node 2 depends on itself"):
        read(write(tmp_path, METADATA, *circle), True)


def test_two_nodes_of_one_number_are_refused(tmp_path):
    with pytest.raises(InputError, match="node 1 is there twice"):
        read(write(tmp_path, METADATA, node(1), node(1)), True)


def test_the_mlcommons_sample(shared, tmp_path):
    path = shared("chakra/rank0.et")
    assert recognise([path]).files == {"chakra": [path]}
    report = convert(find_format("chakra"), [path], tmp_path / "t.eidola")
    trace = Trace(tmp_path / "t.eidola")
    assert trace.read("spans", ["rank"]).num_rows == 3664
    # 21 communication nodes: 14 are the host's calls, 7 the kernels that they launched
    assert report.collectives == {"all_reduce": 5, "broadcast": 2}
    rows = trace.read("collectives", ["operation", "size_bytes", "start_ns", "end_ns"]).to_pylist()
    broadcasts = [r for r in rows if r["operation"] == "broadcast"]
    assert [(r["size_bytes"], r["end_ns"] - r["start_ns"]) for r in broadcasts] == [
        (212480, 28_000),
        (424, 5_000),
    ]
    assert any("no start times" in note for note in report.notes)
    assert not [p for p in check(trace.path) if p.severity == "error"]


WHOLE = file_of(METADATA, *STEP)


@settings(max_examples=200)
@given(st.data())
def test_every_cut_and_every_flip_ends_in_whole_nodes_or_a_named_error(tmp_path_factory, data):
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("cut") / "t.0.et"
    path.write_bytes(bytes(content[:cut]))
    try:
        (record,) = read(path, True)
    except InputError as error:
        assert path.name in str(error)  # noqa: PT017 - either end is right
    else:
        assert len({len(column) for column in record.spans.values()}) == 1
        assert all(a <= b for a, b in zip(record.spans["start_ns"], record.spans["end_ns"], strict=True))


def test_a_length_beyond_reason_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "t.0.et"
    path.write_bytes(file_of(METADATA) + b"\xff\xff\xff\xff\x07" + struct.pack("<I", 1))
    with pytest.raises(InputError, match="a message of"):
        read(path, True)


def test_a_key_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "t.0.json"
    path.write_text('{"version": "0.0.4"}\n{"id": 1, "name": "a", "\\ud800": 1}')
    with pytest.raises(InputError, match=r"t\.0\.json: a node that is none of Chakra's"):
        convert(find_format("chakra"), [path], tmp_path / "out")
