"""Chakra exports: read by field number as MLCommons defines them, and back through our own reader."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from eidola.convert import convert, find_format, kineto
from eidola.convert.export import export
from eidola.schemas import Trace, TraceWriter, check
from eidola.schemas.errors import UsageError

from ..wire import delimited, packed
from . import astra

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "sample_traces"
SHARED = ROOT / "../shared/traces"
COMP, SEND, RECV, COLL = 4, 5, 6, 7  # NodeType
# Chakra's own feeder (src/feeder/et_feeder_node.cpp) reads 0 where an attribute is of another type: fields of
# AttributeProto, int32_val 7, int64_val 9, bool_val 27, string_val 29.
KINDS = {
    "comm_src": 7,
    "comm_dst": 7,
    "comm_tag": 7,
    "comm_size": 9,
    "comm_type": 9,
    "is_cpu_op": 27,
    "pg_name": 29,
}
SPANS = ("rank", "lane", "kind", "name", "launch_ns", "start_ns", "end_ns")
COLLECTIVES = (
    "rank", "communicator", "sequence", "operation", "dtype", "size_bytes", "in_split_bytes", "out_split_bytes",
    "peer", "algorithm", "protocol", "channels", "start_ns", "end_ns",
)  # fmt: skip


@pytest.fixture(scope="module")
def v100(tmp_path_factory):
    if not SHARED.exists():
        pytest.skip("shared trace kineto/v100_dlrm_8ranks is absent")
    path = tmp_path_factory.mktemp("v100") / "v100.eidola"
    kineto(
        [SHARED / "kineto/v100_dlrm_8ranks"],
        path,
        execution_traces=[SHARED / "execution_trace/v100_dlrm_8ranks"],
    )
    return path


def nodes_of(file):
    """Return a file's nodes by id, as et_def.proto numbers their fields; asserts that they are well formed."""
    metadata, *messages = delimited(file.read_bytes())
    assert metadata[1][0].decode()  # the version
    nodes = {}
    for found in messages:
        attributes = {}
        for data in found.get(10, []):
            (attribute,) = delimited(bytes([len(data)]) + data) if len(data) < 128 else [_fields(data)]
            (kind,) = set(attribute) - {1}
            value = attribute[kind][0]
            name = attribute[1][0].decode()
            attributes[name] = value.decode() if kind == 29 else value
            assert kind == KINDS.get(name, kind)
        number = found[1][0]
        assert number not in nodes
        nodes[number] = {
            "type": found[3][0],
            "after": packed(found.get(5, [])),
            "duration": found.get(7, [0])[0],
            **attributes,
        }
        assert not found.get(4)
        assert all(other in nodes for other in nodes[number]["after"])  # earlier in the file: no cycles
    assert nodes
    return nodes


def _fields(data):
    from ..wire import fields

    return fields(data)


def files_of(folder):
    return {int(f.suffixes[-2][1:]): nodes_of(f) for f in folder.glob("*.et")}


def test_the_v100_job_is_acyclic_and_its_collectives_are_the_same_on_all_ranks(v100, tmp_path):
    export("chakra", v100, tmp_path / "et")
    ranks = files_of(tmp_path / "et")
    assert sorted(ranks) == list(range(8))
    assert json.loads((tmp_path / "et/comm_groups.json").read_text()) == {"1": list(range(8))}
    for nodes in ranks.values():
        assert [n["comm_type"] for n in nodes.values() if n["type"] == COLL].count(0) == 3  # ALL_REDUCE
        assert all(n["is_cpu_op"] == 0 for n in nodes.values() if n["type"] == COLL)
    orders = {
        tuple((n["pg_name"], n["comm_type"], n["comm_size"]) for n in nodes.values() if n["type"] == COLL)
        for nodes in ranks.values()
    }
    assert len(orders) == 1
    assert len(orders.pop()) == 8


def longest_path(nodes):
    """Return when the last node ends if each starts as what it depends on has ended, in microseconds."""
    ends = {}
    for number, node in nodes.items():
        ends[number] = max((ends[o] for o in node["after"]), default=0) + node["duration"]
    return max(ends.values())


@pytest.mark.parametrize("name", ["gloo_ddp_2", "gemv_allreduce_host_4"])
def test_compute_and_gaps_add_up_to_what_was_captured(name, tmp_path):
    trace = Trace(SAMPLES / name / "trace.eidola")
    export("chakra", trace.path, tmp_path / "et")
    for rank, nodes in files_of(tmp_path / "et").items():
        spans = trace.read("spans", ["start_ns", "end_ns"], [rank])
        last = max(spans["end_ns"].to_pylist())
        first = min(trace.read("spans", ["start_ns"])["start_ns"].to_pylist())
        waits = trace.read("waits", ["start_ns", "end_ns"], [rank]).to_pylist()
        waited = sum(w["end_ns"] - w["start_ns"] for w in waits)  # in other ranks' hands
        assert longest_path(nodes) * 1000 <= (last - first) * 1.01 + 1000
        if not waited:
            assert longest_path(nodes) * 1000 == pytest.approx(last - first, rel=0.3)


@pytest.mark.parametrize("name", ["v100", "gloo_ddp_2", "gloo_ddp_4", "gloo_fsdp_2"])
def test_all_ranks_together_take_about_as_long_as_was_captured(name, request, tmp_path):
    """Idle threads and annotations occupy no host: with them as its work these took 1.2 to 2 times as long."""
    path = request.getfixturevalue("v100") if name == "v100" else SAMPLES / name / "trace.eidola"
    spans = Trace(path).read("spans", ["start_ns", "end_ns"])
    captured_us = (max(spans["end_ns"].to_pylist()) - min(spans["start_ns"].to_pylist())) / 1000
    export("chakra", path, tmp_path / "et")
    end_us, waiting = astra.Machine(files_of(tmp_path / "et")).run()
    assert not waiting
    assert 0.9 * captured_us < end_us < 1.05 * captured_us


@pytest.mark.parametrize(
    "name", ["gemv_allreduce_host_4", "embedding_alltoall_host_2", "gemm_alltoall_host_2"]
)
def test_fused_kernels_run_to_their_end_with_one_kernel_at_a_time(name, tmp_path):
    export("chakra", SAMPLES / name / "trace.eidola", tmp_path / "et")
    _, waiting = astra.Machine(files_of(tmp_path / "et")).run()
    assert not waiting


def collective(rank, operation, size_bytes, communicator="dp"):
    return {"span": [0], "communicator": [communicator], "sequence": [0], "operation": [operation],
            "size_bytes": [size_bytes], "start_ns": [0], "end_ns": [7000]}  # fmt: skip


def job_of(path, rows, world_size):
    with TraceWriter(path) as writer:
        for rank, row in rows.items():
            writer.write("ranks", rank, {"backend": ["gpu"]})
            writer.write("spans", rank, {"span": [0], "lane": ["stream 7"], "kind": ["kernel"], "name": ["nccl"],
                                         "start_ns": [0], "end_ns": [7000]})  # fmt: skip
            writer.write("communicators", rank, {"communicator": row["communicator"], "group_rank": [rank],
                                                 "group_size": [world_size]})  # fmt: skip
            writer.write("collectives", rank, row)
    return path


@pytest.mark.parametrize(
    ("operation", "size_bytes", "world_size"), [("all_reduce", 0, 2), ("all_reduce", 64, 1)]
)
def test_what_moves_nothing_is_computed_and_comes_back_as_what_it_was(
    operation, size_bytes, world_size, tmp_path
):
    """ASTRA-sim waits for ever for a collective of no bytes, or of one rank."""
    rows = {rank: collective(rank, operation, size_bytes) for rank in range(world_size)}
    path = job_of(tmp_path / "t.eidola", rows, world_size)
    again_, _ = again(path, tmp_path)
    for nodes in files_of(tmp_path / "et").values():
        assert [(n["type"], n["duration"]) for n in nodes.values()] == [(COMP, 7)]
    names = ("rank", "communicator", "operation", "size_bytes", "start_ns", "end_ns")
    assert rows_of(again_, names) == rows_of(Trace(path), names)


def rows_of(trace, names):
    return sorted(tuple(row[name] for name in names) for row in trace.read("collectives").to_pylist())


def test_what_astra_sim_will_not_do_is_said(tmp_path):
    path = job_of(tmp_path / "a.eidola", {rank: collective(rank, "gather", 64) for rank in range(2)}, 2)
    report = export("chakra", path, tmp_path / "a")
    assert report.notes == ["ASTRA-sim stops at collectives that it does not simulate: 1 gather"]
    path = job_of(tmp_path / "b.eidola", {rank: collective(rank, "all_reduce", 64) for rank in (0, 2)}, 3)
    report = export("chakra", path, tmp_path / "b")
    assert len(report.notes) == 1
    assert report.notes[0].startswith("there is no file of rank 1, which the trace does not hold")


def test_sends_and_receives_of_a_fused_kernel_pair_up(tmp_path):
    trace = Trace(SAMPLES / "gemv_allreduce_host_4/trace.eidola")
    export("chakra", trace.path, tmp_path / "et")
    sides = {SEND: defaultdict(int), RECV: defaultdict(int)}
    for rank, nodes in files_of(tmp_path / "et").items():
        for node in nodes.values():
            if node["type"] in sides:
                assert rank == node["comm_src" if node["type"] == SEND else "comm_dst"]
                key = (node["comm_src"], node["comm_dst"], node["comm_tag"], node["comm_size"])
                sides[node["type"]][key] += 1
    assert sides[SEND] == sides[RECV]
    assert set(sides[SEND].values()) == {1}
    assert len(sides[SEND]) == trace.read("writes", ["rank"]).num_rows


def rows(trace, table, names):
    return sorted(tuple(str(row[name]) for name in names) for row in trace.read(table).to_pylist())


def edges(trace):
    """Return the edges between lanes by what they join, without what Chakra cannot tell."""
    spans = {
        (r["rank"], r["span"]): (r["lane"], r["name"], r["start_ns"], r["end_ns"])
        for r in trace.read("spans").to_pylist()
    }

    def place(rank, span):
        lane, name, start, end = spans[rank, span]
        return lane, name, start, end

    found = [(r["rank"], place(r["rank"], r["before"]), place(r["rank"], r["after"])) for r in
             trace.read("dependencies").to_pylist()]  # fmt: skip
    return sorted({edge for edge in found if edge[1][0] != edge[2][0]})


def again(path, folder):
    export("chakra", path, folder / "et")
    report = convert(find_format("chakra"), [folder / "et"], folder / "again.eidola")
    return Trace(folder / "again.eidola"), report


@pytest.mark.parametrize("name", ["v100", "gloo_ddp_2"])
def test_a_round_trip_keeps_spans_collectives_and_edges(name, request, tmp_path):
    path = request.getfixturevalue("v100") if name == "v100" else SAMPLES / name / "trace.eidola"
    before = Trace(path)
    after, report = again(path, tmp_path)
    names = [n for n in SPANS if n != "launch_ns"]
    assert rows(after, "spans", names) == rows(before, "spans", names)
    assert rows(after, "collectives", COLLECTIVES) == rows(before, "collectives", COLLECTIVES)
    assert set(edges(after)) >= set(edges(before)) - _overtaken(before)
    assert after.read("communicators").sort_by("rank").drop(["name"]) == before.read("communicators").sort_by(
        "rank"
    ).drop(["name"])
    assert not [p for p in check(after.path) if p.severity == "error"]
    assert not report.unmatched


def _overtaken(trace):
    """Return the launches whose kernel ended before the call did, which an order of ends cannot keep."""
    return {e for e in edges(trace) if e[1][3] >= e[2][3]}


def test_the_clock_of_an_export_is_one_unless_the_trace_could_not_align_it(v100, tmp_path):
    after, _ = again(v100, tmp_path)
    assert set(after.read("clocks")["method"].to_pylist()) == {"reference"}
    assert set(after.read("clocks")["offset_ns"].to_pylist()) == {0}
    apart = [
        max(Trace(v100).read("clocks")["residual_ns"].to_pylist()),
        *after.read("clocks")["residual_ns"].to_pylist(),
    ]
    assert max(apart[1:]) <= 2 * apart[0]
    alone, report = again(
        job_of(tmp_path / "t.eidola", {r: collective(r, "gather", 8) for r in (0, 1)}, 2), tmp_path / "b"
    )
    assert alone.read("clocks")["method"].to_pylist()[1] == "none"
    assert any("its times are its own" in note for note in report.notes)


def test_what_arrives_in_memory_overlaps_nothing(tmp_path):
    after, _ = again(SAMPLES / "gemv_allreduce_host_4/trace.eidola", tmp_path)
    assert [p for p in check(after.path) if "overlaps" in p.message] == []


def test_the_folder_appears_whole_and_replaces_only_its_like(tmp_path):
    sample = SAMPLES / "gloo_ddp_2/trace.eidola"
    export("chakra", sample, tmp_path / "et")
    assert sorted(p.name for p in (tmp_path / "et").iterdir()) == [
        "comm_groups.json",
        "trace.0.et",
        "trace.1.et",
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="left alone"):
        export("chakra", sample, tmp_path / "other", overwrite=True)
    export("chakra", sample, tmp_path / "et", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["et", "other"]
