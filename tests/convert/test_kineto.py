"""Conversion of whole jobs: real ones, and small ones whose truth is known."""

import json
from collections import Counter, defaultdict

import numpy as np
import pyarrow.compute as pc
import pytest

from eidola.convert import kineto
from eidola.schemas import Trace, check


@pytest.fixture(scope="module")
def dlrm(shared, tmp_path_factory):
    output = tmp_path_factory.mktemp("dlrm") / "dlrm.eidola"
    report = kineto(
        [shared("kineto/v100_dlrm_8ranks")],
        output,
        execution_traces=[shared("execution_trace/v100_dlrm_8ranks")],
    )
    return report, Trace(output)


def convert(shared, tmp_path, name):
    report = kineto([shared(name)], tmp_path / "out.eidola")
    return report, Trace(report.path)


def assert_sound(trace):
    """No rule of the schema is broken: ids, references, durations, cycles."""
    assert [str(p) for p in check(trace.path) if p.severity == "error"] == []
    for rank in trace.ranks():
        spans = trace.read("spans", ranks=[rank])
        start, end = spans["start_ns"].to_numpy(), spans["end_ns"].to_numpy()
        assert spans["span"].to_pylist() == list(range(len(start)))
        assert (end >= start).all()
        assert (np.diff(start) >= 0).all()
        edges = trace.read("dependencies", ranks=[rank])
        before, after = edges["before"].to_numpy(), edges["after"].to_numpy()
        kind = np.array(edges["kind"].to_pylist())
        launch, sync = kind == "launch", kind == "sync"
        assert (start[before[launch]] <= start[after[launch]]).all()
        assert (end[before[sync]] <= end[after[sync]]).all()
        assert (end[before[~launch & ~sync]] <= start[after[~launch & ~sync]]).all()


def test_the_dlrm_job_has_all_its_collectives_matched_and_sized(dlrm):
    report, trace = dlrm
    table = trace.read("collectives")
    counts = Counter(table["operation"].to_pylist())
    assert counts == {"all_reduce": 24, "all_to_allv": 32, "all_to_all": 8}
    assert report.matched == 8
    assert report.unmatched == []
    operations = defaultdict(set)
    for row in table.to_pylist():
        operations[row["communicator"], row["sequence"]].add((row["rank"], row["operation"]))
    assert len(operations) == 8
    for members in operations.values():
        assert {rank for rank, _ in members} == set(range(8))
        assert len({operation for _, operation in members}) == 1
    assert set(report.sources) == {"execution trace"}


def test_the_dlrm_jobs_sizes_are_those_of_its_execution_traces(dlrm):
    _, trace = dlrm
    rows = trace.read("collectives").to_pylist()
    reduced = [r["size_bytes"] for r in rows if r["rank"] == 0 and r["operation"] == "all_reduce"]
    assert reduced == [394241 * 4, 112 * 4, 226960 * 4]
    splits = [
        r for r in rows if r["operation"] == "all_to_allv" and r["size_bytes"] == 3392 * 4 and r["rank"] == 0
    ]
    assert splits[0]["in_split_bytes"] == [4 * n for n in (96, 224, 288, 1664, 592, 96, 192, 240)]
    sent = {}
    for row in rows:
        if row["operation"] == "all_to_allv":
            assert sum(row["in_split_bytes"]) == row["size_bytes"]
            sent[row["sequence"], row["rank"]] = row
    # What rank i sends to rank j is what j receives from i: the splits of different ranks fit together.
    for (sequence, rank), row in sent.items():
        for peer in range(8):
            assert row["in_split_bytes"][peer] == sent[sequence, peer]["out_split_bytes"][rank]


def test_the_dlrm_jobs_clocks_agree_to_microseconds(dlrm):
    report, trace = dlrm
    clocks = trace.read("clocks").to_pylist()
    assert clocks[0]["method"] == "reference"
    assert all(c["method"] == "collective_ends" and c["anchors"] == 8 for c in clocks[1:])
    assert 0 < report.residual_ns <= 7_000
    ends = defaultdict(list)
    starts = defaultdict(list)
    for row in trace.read("collectives").to_pylist():
        ends[row["sequence"]].append(row["end_ns"])
        starts[row["sequence"]].append(row["start_ns"])
    assert max(max(e) - min(e) for e in ends.values()) <= 2 * report.residual_ns
    assert max(max(s) - min(s) for s in starts.values()) > 1_000_000  # skew, which must not align clocks


def test_the_dlrm_job_is_sound_and_describes_its_machine(dlrm):
    _, trace = dlrm
    assert_sound(trace)
    ranks = trace.read("ranks").to_pylist()
    assert [r["device"] for r in ranks] == list(range(8))
    assert {(r["backend"], r["vendor"], r["model"], r["compute_units"]) for r in ranks} == {
        ("gpu", "nvidia", "Tesla V100-SXM2-32GB", 80)
    }
    groups = trace.read("communicators").to_pylist()
    assert [g["group_rank"] for g in groups] == list(range(8))
    assert {g["group_size"] for g in groups} == {8}


def test_all_work_of_the_dlrm_job_is_launched_and_waits_are_found(dlrm):
    report, trace = dlrm
    spans = trace.read("spans", ranks=[0])
    names = spans["name"].to_pylist()
    edges = trace.read("dependencies", ranks=[0]).to_pylist()
    work = sum(kind in ("kernel", "copy") for kind in spans["kind"].to_pylist())
    assert sum(e["kind"] == "launch" for e in edges) == work == 261
    pairs = {(names[e["before"]].split("(")[0], names[e["after"]], e["kind"]) for e in edges}
    assert ("ncclKernel_AllReduce_RING_LL_Sum_float", "cudaDeviceSynchronize", "sync") in pairs
    lanes = spans["lane"].to_pylist()
    threads = [(lanes[e["before"]], lanes[e["after"]]) for e in edges if e["kind"] == "thread"]
    assert threads == [("thread 59811", "thread 59976"), ("thread 59976", "thread 59811")]
    # Every all-to-all and all-reduce waits for the stream that prepared its buffer.
    collectives = trace.read("collectives", ranks=[0])["span"].to_pylist()
    assert set(collectives) <= {e["after"] for e in edges if e["kind"] == "event"}
    assert report.contradicted == {}


def test_without_execution_traces_the_dlrm_job_still_matches(shared, tmp_path):
    report, trace = convert(shared, tmp_path, "kineto/v100_dlrm_8ranks")
    assert report.collectives == {"all_reduce": 24, "all_to_all": 40}
    assert report.matched == 8
    assert set(report.sources) == {"annotation"}
    sizes = trace.read("collectives", ranks=[0])["size_bytes"].to_pylist()
    assert sizes[0] == 6144 * 4  # from the dimensions that the annotation gives


def test_the_a100_jobs_kernels_carry_their_collectives(shared, tmp_path):
    report, trace = convert(shared, tmp_path, "kineto/a100_nccl_rank0of2.json.gz")
    assert report.collectives == {"all_reduce": 15, "broadcast": 6}
    assert set(report.sources) == {"kernel"}
    assert report.missing_ranks == [1]
    row = trace.read("collectives").to_pylist()[0]
    assert (row["operation"], row["dtype"], row["size_bytes"]) == ("broadcast", "float32", 53120 * 4)
    assert (row["algorithm"], row["protocol"], row["channels"]) == ("ring", "ll", 8)
    assert row["start_ns"] == 1711964646000000000 + 4458676423385774
    assert row["end_ns"] - row["start_ns"] == 30975
    assert trace.read("clocks")["method"].to_pylist() == ["reference"]
    assert_sound(trace)


def test_the_mi300x_jobs_unlabelled_collectives_stay_unknown_and_reported(shared, tmp_path):
    report, trace = convert(shared, tmp_path, "kineto/mi300x_resnet_rank0of8.json.gz")
    assert report.collectives == {"all_reduce": 6, "broadcast": 6, "unknown": 5}
    assert report.sources == {"kernel": 12, "nothing": 5}
    assert Trace(report.path).notes["collectives_described_by"] == {"kernel": 12, "nothing": 5}
    assert set(trace.read("collectives")["communicator"].to_pylist()) == {"0"}
    rank = trace.read("ranks").to_pylist()[0]
    assert (rank["vendor"], rank["device"], rank["compute_units"]) == ("amd", 2, 304)
    assert json.loads(rank["software"])["nccl_version"] == "2.22.3"
    spans = trace.read("spans")
    on_gpu = [kind in ("kernel", "copy") for kind in spans["kind"].to_pylist()]
    launched = spans["launch_ns"].is_valid().to_pylist()
    assert (
        sum(gpu and not known for gpu, known in zip(on_gpu, launched, strict=True)) == 968
    )  # began before profiling did: kept, without a launch
    assert_sound(trace)


def test_sampled_ranks_match_where_ends_agree_and_nothing_is_dropped(shared, tmp_path):
    report, trace = convert(shared, tmp_path, "kineto/a100_2of128ranks")
    assert sum(report.collectives.values()) == 20
    assert report.matched * 2 + len(report.unmatched) == 20
    assert report.matched >= 4
    assert len(report.missing_ranks) == 126
    by_place = defaultdict(list)
    for row in trace.read("collectives").to_pylist():
        by_place[row["communicator"], row["sequence"]].append(row)
    for members in by_place.values():
        if len(members) == 2:
            one, two = members
            assert one["operation"] == two["operation"]
            assert max(one["start_ns"], two["start_ns"]) < min(one["end_ns"], two["end_ns"])
    assert_sound(trace)


@pytest.mark.parametrize("shift_us", [0, 3500.25, -11000.125])
def test_a_clock_that_is_off_is_found_from_ends_and_not_from_starts(tmp_path, write, make, shift_us):
    paths = [
        write("a.json", make.document(make.rank_events(), rank=0)),
        write("b.json", make.document(make.rank_events(shift_us=shift_us, early_us=50), rank=1)),
    ]
    trace = Trace(kineto(paths, tmp_path / "out.eidola").path)
    clock = trace.read("clocks").to_pylist()[1]
    assert clock["offset_ns"] == pytest.approx(-shift_us * 1000, abs=1)
    assert clock["residual_ns"] <= 1
    assert clock["anchors"] == 5
    zero, one = (trace.read("collectives", ranks=[r]) for r in (0, 1))
    assert np.abs(zero["end_ns"].to_numpy() - one["end_ns"].to_numpy()).max() <= 1
    spans = [
        trace.read("spans", ranks=[r], filters=pc.field("name") == "gemm")["start_ns"].to_numpy()
        for r in (0, 1)
    ]
    assert np.abs(spans[0] - spans[1]).max() <= 1


def test_a_truncated_rank_takes_the_others_base_time(tmp_path, write, make):
    documents = [json.dumps(make.document(make.rank_events(), rank=r)) for r in (0, 1)]
    cut = documents[1].rindex('{"ph"') + 40
    paths = [write("a.json", documents[0]), write("b.json", documents[1][:cut])]
    report = kineto(paths, tmp_path / "out.eidola")
    starts = [Trace(report.path).read("spans", ranks=[r])["start_ns"].to_pylist()[0] for r in (0, 1)]
    assert starts[0] == starts[1]
    assert any("base time" in note for note in report.notes)


def test_disjoint_groups_that_share_a_name_are_told_apart(tmp_path, write, make):
    paths = []
    for rank in range(4):
        pair = f"[{rank // 2 * 2}, {rank // 2 * 2 + 1}]"
        args = {"Process Group Name": "tp", "Process Group Ranks": pair}
        events = [make.collective(i, 100 * i, 50, **args) for i in range(1, 4)]
        paths.append(write(f"{rank}.json", make.document(events, rank=rank, world=4)))
    report = kineto(paths, tmp_path / "out.eidola")
    groups = Trace(report.path).read("communicators").to_pylist()
    assert [(g["communicator"], g["group_rank"]) for g in groups] == [
        ("tp [0, 1]", 0), ("tp [0, 1]", 1), ("tp [2, 3]", 0), ("tp [2, 3]", 1),
    ]  # fmt: skip
    assert report.matched == 6


def test_a_host_backends_collectives_are_sized_by_id_and_matched_by_order(tmp_path, write, make):
    def gloo(operation, function, ts, dur, tid):
        args = {"External id": function, "Record function id": function}
        name = f"gloo:{operation}"
        common = {"ph": "X", "cat": "user_annotation", "name": name, "pid": 1}
        return {**common, "tid": tid, "ts": ts, "dur": dur, "args": args}

    def node(function, elements):
        attributes = [{"name": "rf_id", "type": "uint64", "value": function}]
        inputs = {"values": [[1, 2, 0, elements, 4, "cpu"]], "types": ["Tensor(float)"]}
        return {"id": function, "name": "gloo:all_reduce", "inputs": inputs, "attrs": attributes}

    paths, others = [], []
    for rank in range(2):
        # Gloo's threads take turns, and a busy host ends them far apart.
        events = [
            gloo("all_reduce", 10 + i, 1000 * i, 300 + 400 * rank * (i % 2), 5 + i % 2) for i in range(4)
        ]
        document = make.document(events, rank=rank)
        config = {"pg_name": "0", "pg_desc": "default_pg", "pg_size": 2, "ranks": [0, 1]}
        document["distributedInfo"] |= {"backend": "gloo", "pg_count": 1, "pg_config": [config]}
        paths.append(write(f"rank{rank}.json", document))
        nodes = [node(10 + i, 8 * (i + 1)) for i in range(4)]
        others.append(
            write(f"et_rank{rank}.json", {"schema": "1.1.1-chakra.0.0.4", "pid": 1, "nodes": nodes})
        )
    report = kineto(paths, tmp_path / "out.eidola", others)
    trace = Trace(report.path)
    assert report.matched == 4
    assert report.unmatched == []
    assert trace.read("collectives", ranks=[1])["size_bytes"].to_pylist() == [32, 64, 96, 128]
    assert set(trace.read("collectives")["communicator"].to_pylist()) == {"0"}
    assert trace.read("ranks")["backend"].to_pylist() == ["host", "host"]


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("multimem_all_reduce_kernel", "all_reduce"),
        ("multimem_one_shot_all_reduce_kernel", "all_reduce"),
        ("multimem_one_shot_reduce_kernel", "reduce"),
        ("multimem_all_gather_kernel", "all_gather"),
        ("two_shot_all_reduce_kernel_inplace", "all_reduce"),
        ("two_shot_all_reduce_kernel", "all_reduce"),
        ("elementwise_kernel", None),
    ],
)
def test_kernels_of_symmetric_memory_are_collectives(tmp_path, write, make, name, operation):
    name = f"void (anonymous namespace)::{name}<c10::BFloat16, 16>(c10::BFloat16*, unsigned long, unsigned int**)"
    write("rank0.json", make.document([make.launch(1, 5), make.kernel(1, 10, 20, name=name)]))
    report = kineto([tmp_path / "rank0.json"], tmp_path / "out.eidola")
    found = Trace(report.path).read("collectives", ["operation"])["operation"].to_pylist()
    assert found == ([operation] if operation else [])
    assert_sound(Trace(report.path))


def test_kernels_without_args_have_those_of_the_record_around_their_launch(tmp_path, write, make):
    """Seq and Comms Id too, which is an unsigned number of 64 bits; a coalesced call is its operation."""
    for rank in range(2):
        events = []
        for i in range(3):
            args = {
                "Collective name": "allgather_into_tensor_coalesced", "In msg nelems": 1024, "dtype": "Float",
                "Group size": 2, "Process Group Name": "3", "Process Group Ranks": "[0, 1]", "Seq": 7 + i,
                "Comms Id": 2**64 - 1 - i, "External id": 40 + i,
            }  # fmt: skip
            record = {
                "ph": "X", "cat": "cpu_op", "name": "record_param_comms", "pid": 100, "tid": 100,
                "ts": 1000 * i, "dur": 50, "args": args,
            }  # fmt: skip
            kernel = make.kernel(
                i + 1, 1000 * i + 60, 20, name="ncclDevKernel_AllGather_RING_LL(ncclDevComm*)"
            )
            events += [record, make.launch(i + 1, 1000 * i + 10), kernel]
        write(f"rank{rank}.json", make.document(events[3 * rank :], rank=rank))
    report = kineto([tmp_path / f"rank{r}.json" for r in range(2)], tmp_path / "out.eidola")
    rows = Trace(report.path).read("collectives").to_pylist()
    told = [(r["rank"], r["sequence"], r["operation"], r["communicator"], r["size_bytes"]) for r in rows]
    assert told == [
        *((0, 7 + i, "all_gather", "3", 4096) for i in range(3)),
        *((1, 8 + i, "all_gather", "3", 4096) for i in range(2)),
    ]
    assert report.matched == 2
    assert len(report.unmatched) == 1
    assert_sound(Trace(report.path))
