"""What PyTorch's host records of collectives say, and how kernels that say less find theirs."""

import json

import pytest

from eidola.convert import auto, kineto
from eidola.schemas import Trace, check

GENERIC = "ncclDevKernel_Generic(ncclDevKernelArgsStorage<4096ul>)"
SEND_RECV = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)"


def record(operation, number, ts, dur=50, **more):
    """A record of group 1, ranks 4 and 5, as newer profilers write it; `number` is its External id."""
    args = {
        "Collective name": operation, "dtype": "Float", "In msg nelems": 100, "Out msg nelems": 100,
        "Group size": 2, "Process Group Name": "1", "Process Group Ranks": "[4, 5]",
        "In split size": "[]", "Out split size": "[]",
        "External id": number, **more,
    }  # fmt: skip
    return {"ph": "X", "cat": "cpu_op", "name": "record_param_comms", "pid": 1, "tid": 100, "ts": ts, "dur": dur,
            "args": args}  # fmt: skip


def converted(tmp_path, write, make, events_of):
    """Convert ranks 4 and 5 of 8; return their collectives by rank, and the report."""
    for rank in (4, 5):
        write(f"rank{rank}.json", make.document(events_of(rank - 4), rank=rank, world=8))
    report = kineto([tmp_path / f"rank{rank}.json" for rank in (4, 5)], tmp_path / "out.eidola")
    trace = Trace(report.path)
    assert [p for p in check(report.path) if p.severity == "error"] == []
    return [trace.read("collectives", ranks=[rank]).to_pylist() for rank in (4, 5)], report


@pytest.mark.parametrize("told", ["Rank", "Src and Dst Rank"])
def test_the_other_side_of_a_send_is_a_group_rank_whichever_way_it_is_told(tmp_path, write, make, told):
    """Rank counts in the group, Src Rank and Dst Rank in the job; Seq of sends is no number that both share."""

    def events(me):
        name, key = (("send", "Dst Rank"), ("recv", "Src Rank"))[me]
        other = {"Rank": 1 - me} if told == "Rank" else {key: 5 - me}
        return [
            record("allreduce", 6, 10, 20, Seq=1), make.launch(3, 15),
            make.kernel(3, 50, 20, 20, "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)"),
            record(name, 7, 100, Seq=1 + me, **other), make.launch(1, 110), make.kernel(1, 200, 50, 20, SEND_RECV),
        ]  # fmt: skip

    ranks, _ = converted(tmp_path, write, make, events)
    assert [[(c["operation"], c["sequence"], c["peer"]) for c in own] for own in ranks] == [
        [("all_reduce", 1, None), ("send", 0, 1)], [("all_reduce", 1, None), ("recv", 0, 0)],
    ]  # fmt: skip


def test_the_root_of_a_broadcast_is_told(tmp_path, write, make):
    ranks, _ = converted(
        tmp_path, write, make,
        lambda me: [record("broadcast", 7, 100, Rank=1), make.launch(1, 110), make.kernel(1, 200, 50, 20, GENERIC)],
    )  # fmt: skip
    assert [[(c["operation"], c["peer"]) for c in own] for own in ranks] == [[("broadcast", 1)]] * 2


def test_a_kernel_whose_launch_was_not_recorded_has_the_record_of_its_external_id(tmp_path, write, make):
    def events(me):
        return [
            record("allreduce", 7, 100, Seq=1), record("broadcast", 9, 300, Seq=2),
            make.kernel(1, 200, 50, 20, GENERIC, **{"External id": 7}),
            make.kernel(2, 400, 50, 20, GENERIC, **{"External id": 9}),
            make.kernel(3, 500, 50, 20, GENERIC, **{"External id": 8}),
        ]  # fmt: skip

    ranks, report = converted(tmp_path, write, make, events)
    assert [(c["operation"], c["size_bytes"], c["communicator"], c["launch_ns"]) for c in ranks[0]] == [
        ("all_reduce", 400, "1", None), ("broadcast", 400, "1", None), ("unknown", None, "1", None),
    ]  # fmt: skip
    assert report.matched == 3


@pytest.mark.parametrize("number", ["7", [7], None, {}, 2**70, -7])
def test_an_external_id_of_another_type_names_no_record(tmp_path, write, make, number):
    ids = {"External id": number}
    ranks, _ = converted(
        tmp_path, write, make,
        lambda me: [{**record("allreduce", 8, 100), "args": {**record("allreduce", 8, 100)["args"], **ids}},
                    make.kernel(1, 200, 50, 20, "ncclDevKernel_Generic", **ids)],
    )  # fmt: skip
    assert [c["operation"] for c in ranks[0]] == ["unknown"]


@pytest.mark.parametrize("base", ['"1700000000000000000"', "1.7e18", "1700000000000000000.0"])
def test_a_base_time_that_other_tools_wrote_again_still_counts(tmp_path, write, make, base):
    text = json.dumps(make.document(make.rank_events())).replace("1700000000000000000", base)
    report = kineto([write("rank0.json", text)], tmp_path / "out.eidola")
    assert Trace(report.path).read("spans")["start_ns"].to_pylist()[0] == 1_700_000_000_001_000_000


def test_the_bare_array_of_events_is_recognised(tmp_path, write, make):
    path = write("rank0.json.gz", json.dumps(make.document(make.rank_events())["traceEvents"]))
    assert auto([path], tmp_path / "out.eidola").collectives == {"all_reduce": 5}


def group(ts, *calls, number=10, lasts=50, **more):
    """Records of calls in a coalescing manager, and the annotation within which their kernels are launched."""
    records = [
        record(name, number + i, ts + 20 * i, 10, **{**more, **own}) for i, (name, own) in enumerate(calls)
    ]
    end = {"ph": "X", "cat": "user_annotation", "name": "nccl:coalesced", "pid": 1, "tid": 100, "ts": ts + 100,
           "dur": lasts, "args": {}}  # fmt: skip
    return [*records, end]


@pytest.mark.parametrize("lasts", [50, 0, 5000])
def test_a_batch_of_sends_and_receives_is_a_part_a_call(tmp_path, write, make, lasts):
    def events(me):
        batches = []
        for i in range(2):
            at = 1000 * i
            calls = ("send", {"Rank": 1 - me, "In msg nelems": 10 * (i + 1)}), ("recv", {"Rank": 1 - me})
            batches += [
                *group(at, *calls, Seq=1, lasts=lasts),
                make.launch(1 + i, at + 110), make.kernel(1 + i, at + 200, 50, 20, SEND_RECV),
            ]  # fmt: skip
        return batches

    ranks, report = converted(tmp_path, write, make, events)
    told = [(c["operation"], c["sequence"], c["peer"], c["size_bytes"]) for c in ranks[0]]
    assert told == [("send", 0, 1, 40), ("recv", 0, 1, 400), ("send", 1, 1, 80), ("recv", 1, 1, 400)]
    assert {c["communicator"] for c in ranks[1]} == {"1"}
    assert all(c["launch_ns"] is not None for own in ranks for c in own)
    assert report.sources == {"host record": 8}


def test_coalesced_collectives_go_to_the_kernel_of_their_kind(tmp_path, write, make):
    gather = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
    scatter = "ncclDevKernel_ReduceScatter_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
    calls = [("_allgather_base", {"In msg nelems": n}) for n in (1, 2)] + [("_reduce_scatter_base", {})]

    def events(me):
        before = [record("allreduce", 5, 0, 10), make.launch(9, 5), make.kernel(9, 20, 5, 20, GENERIC)]
        return [*before, *group(50, *calls), make.launch(1, 160), make.kernel(1, 300, 50, 20, gather),
                make.launch(2, 165), make.kernel(2, 400, 50, 20, scatter)]  # fmt: skip

    ranks, _ = converted(tmp_path, write, make, events)
    assert [(c["operation"], c["size_bytes"], c["span"] == ranks[0][1]["span"]) for c in ranks[0]] == [
        ("all_reduce", 400, False), ("all_gather", 4, True), ("all_gather", 8, True),
        ("reduce_scatter", 400, False),
    ]  # fmt: skip


def test_a_group_whose_kernels_cannot_be_told_apart_stays_as_it_is(tmp_path, write, make):
    def events(me):
        kernels = [
            e for i in (1, 2) for e in (make.launch(i, 110), make.kernel(i, 100 * i + 50, 50, 20, SEND_RECV))
        ]
        return [*group(0, ("send", {"Rank": 1 - me}), ("recv", {"Rank": 1 - me})), *kernels]

    ranks, _ = converted(tmp_path, write, make, events)
    assert [(c["operation"], c["size_bytes"]) for c in ranks[0]] == [("unknown", None)] * 2


def test_operations_of_one_number_are_matched_by_order(tmp_path, write, make):
    """Coalesced calls share a Seq; they are no sign of two runs."""
    gather, scatter = ("_allgather_base", {}), ("_reduce_scatter_base", {})
    names = [f"ncclDevKernel_{name}_RING_LL(args)" for name in ("AllGather", "ReduceScatter_Sum_f32")]

    def events(me):
        kernels = [
            e for i, name in enumerate(names)
            for e in (make.launch(i + 1, 110 + i), make.kernel(i + 1, 200 + 100 * i, 50, 20, name))
        ]  # fmt: skip
        return [*group(0, gather, scatter, Seq=5), *kernels]

    ranks, report = converted(tmp_path, write, make, events)
    assert [(c["operation"], c["sequence"]) for c in ranks[1]] == [("all_gather", 0), ("reduce_scatter", 1)]
    assert report.matched == 2


def test_records_of_symmetric_memory_tell_operation_size_and_group(tmp_path, write, make):
    """Their Seq is always 0, their Rank the own one; a reduce_scatter runs the two-shot all_reduce's kernel."""
    calls = {
        "symm_mem::one_shot_all_reduce": "one_shot_all_reduce_kernel<float, 16, 8>",
        "symm_mem::reduce_scatter": "two_shot_all_reduce_kernel<float, 16, 8, true, false>",
        "symm_mem::multimem_one_shot_reduce": "multimem_one_shot_reduce_kernel<float, 16>",
    }

    def events(me):
        return [
            event for i, (name, kernel) in enumerate(calls.items())
            for event in (record(name, i + 1, 100 * i, Seq=0, Rank=me), make.launch(i + 1, 100 * i + 10),
                          make.kernel(i + 1, 100 * i + 60, 20, 20, f"void (anonymous)::{kernel}(float**)"))
        ]  # fmt: skip

    ranks, report = converted(tmp_path, write, make, events)
    told = [(c["operation"], c["size_bytes"], c["communicator"], c["sequence"], c["peer"]) for c in ranks[0]]
    assert told == [
        ("all_reduce", 400, "1", 0, None), ("reduce_scatter", 400, "1", 1, None), ("reduce", 400, "1", 2, None),
    ]  # fmt: skip
    assert report.matched == 3


@pytest.mark.parametrize("text", [str, float, lambda number: f"{number}"])
def test_numbers_may_be_written_otherwise(tmp_path, write, make, text):
    given = {"In msg nelems": text(100), "Group size": text(2), "Seq": text(7)}
    ranks, _ = converted(
        tmp_path, write, make,
        lambda me: [record("allreduce", 7, 100, **given), make.launch(1, 110),
                    make.kernel(1, 200, 50, 20, GENERIC)],
    )  # fmt: skip
    assert [(c["size_bytes"], c["sequence"]) for c in ranks[0]] == [(400, 7)]


@pytest.mark.parametrize(
    ("dtype", "name", "size"),
    [("Float8_e4m3fnuz", "float8e4m3fnuz", 100), ("c10::BFloat16", "bfloat16", 200), ("Short", "int16", 200),
     ("Quaternion", "Quaternion", None)],
)  # fmt: skip
def test_types_have_their_bytes_and_unknown_ones_no_size(tmp_path, write, make, dtype, name, size):
    ranks, _ = converted(
        tmp_path, write, make,
        lambda me: [record("allreduce", 7, 100, dtype=dtype), make.launch(1, 110),
                    make.kernel(1, 200, 50, 20, GENERIC)],
    )  # fmt: skip
    assert [(c["dtype"], c["size_bytes"]) for c in ranks[0]] == [(name, size)]


def test_what_is_no_call_of_a_group_ends_it(tmp_path, write, make):
    """Newer versions leave a record when a process group begins."""

    def events(me):
        return [record("init", 3, -100, 5), *group(0, ("send", {"Rank": 1 - me})), make.launch(1, 110),
                make.kernel(1, 200, 50, 20, SEND_RECV)]  # fmt: skip

    ranks, _ = converted(tmp_path, write, make, events)
    assert [[c["operation"] for c in own] for own in ranks] == [["send"], ["send"]]
