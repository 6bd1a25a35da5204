"""What NCCL's own plugins write, the example profiler's dumps and the inspector's logs, as a trace."""

import json

import pytest

from eidola.convert import auto, convert, find_format
from eidola.schemas import InputError, Trace, check

HASH = 673864846479792718


def event(name, category, phase, ts, pid=100, **args):
    """A line as fprintf of print_event.c gives it: us with six decimals."""
    common = f'"id": 0, "pid": {pid}, "tid": 1, "ts": {ts:f}'
    text = f'{{"name": "{name}", "cat": "{category}", "ph": "{phase}", {common}'
    return text + (f', "args": {json.dumps(args)}}},\n' if args else "},\n")


def all_reduce(ts, sequence=0, rank=0, *, clocks=False, channels=2, **more):
    """An AllReduce as 2.27 (without) and 2.29 (with the GPU's clock) dump it; 40 us from call to channels."""
    described = {
        "SeqNum": sequence,
        "CommHash": HASH,
        "Rank": rank,
        "Count": 1024,
        "Datatype": "ncclFloat32",
        "Algorithm": "RING",
        "Protocol": "LL",
        "nMaxChannels": channels,
        **more,
    }
    pid = 100 + rank
    lines = event("AllReduce", "COLL", "b", ts, pid, **described)
    for channel in range(channels):
        args = {"Channel": channel}
        if clocks:
            gpu = 10**15 + round(ts * 1000) + 30_000
            args |= {"StartGpuClk": gpu, "StopGpuClk": gpu + 100_000}
        lines += event("KernelCh", "GPU", "b", ts + 40, pid, **args)
        lines += event("KernelCh", "GPU", "e", ts + 160, pid)
    return lines + event("AllReduce", "COLL", "e", ts + 170, pid)


def dump(folder, rank, body, end="{}]\n"):
    folder.mkdir(exist_ok=True)
    (folder / f"dump-node-{4000 + rank}.txt").write_text("[\n" + body + end)
    return folder


def example(paths, out):
    return convert(find_format("nccl-example"), [paths], out)


def test_operations_come_with_what_the_plugin_says_of_them(tmp_path):
    for rank in range(2):
        body = "".join(all_reduce(1000 + 500 * i + rank, i, rank) for i in range(3))
        dump(tmp_path / "d", rank, body)
    report = auto([tmp_path / "d"], tmp_path / "t")
    assert check(tmp_path / "t") == []
    assert report.matched == 3
    row = Trace(tmp_path / "t").read("collectives").to_pylist()[0]
    assert {k: row[k] for k in ("operation", "dtype", "size_bytes", "algorithm", "protocol", "channels")} == {
        "operation": "all_reduce", "dtype": "float32", "size_bytes": 4096, "algorithm": "ring", "protocol": "ll",
        "channels": 2,
    }  # fmt: skip
    assert row["communicator"] == f"nccl {HASH:016x}"
    assert (row["end_ns"] - row["start_ns"], row["start_ns"] - row["launch_ns"]) == (120_000, 40_000)
    assert any("drops silently while its pools are full" in note for note in report.notes)


def test_the_gpus_timer_is_preferred_and_tied_to_the_hosts(tmp_path):
    body = "".join(all_reduce(1000 + 500 * i, i, clocks=True) for i in range(20))
    example(dump(tmp_path / "d", 0, body), tmp_path / "t")
    row = Trace(tmp_path / "t").read("collectives").to_pylist()[0]
    assert row["end_ns"] - row["start_ns"] == 100_000
    assert (
        row["launch_ns"] <= row["start_ns"] <= row["launch_ns"] + 40_000
    )  # after the call, before it was seen


def test_what_the_plugin_dropped_between_two_operations_is_counted(tmp_path):
    body = all_reduce(1000, 3) + all_reduce(2000, 9)
    report = example(dump(tmp_path / "d", 0, body), tmp_path / "t")
    assert any(
        "rank 0: 5 collectives between those in the dump are not there" in note for note in report.notes
    )


@pytest.mark.parametrize(("old", "new"), [('"ncclFloat32"', "ncclFloat32"), ('"ncclFloat32"', "7")])
def test_older_dumps_that_are_no_json_are_read_all_the_same(old, new, tmp_path):
    body = all_reduce(1000).replace(old, new).replace(str(HASH), hex(HASH))
    report = example(dump(tmp_path / "d", 0, body), tmp_path / "t")
    row = Trace(tmp_path / "t").read("collectives").to_pylist()[0]
    assert (row["dtype"], row["size_bytes"], row["communicator"]) == ("float32", 4096, f"nccl {HASH:016x}")
    assert report.dropped == {}


def test_ranks_within_smaller_communicators_are_not_the_jobs(tmp_path):
    """Ranks 0 to 3, and pairs (0, 2) and (1, 3): the pairs' rank 0 is rank 0 or 1 of the job."""
    for rank in range(4):
        pair = {"CommHash": 7 + rank % 2, "Rank": rank // 2}
        dump(tmp_path / "d", rank, all_reduce(1000, 0, rank) + all_reduce(2000, 0, rank, **pair))
    report = example(tmp_path / "d", tmp_path / "t")
    assert report.ranks == [0, 1, 2, 3]
    assert report.matched == 3
    rows = Trace(tmp_path / "t").read("communicators").to_pylist()
    pairs = {(r["rank"], r["communicator"][-1], r["group_rank"], r["group_size"]) for r in rows}
    assert {p for p in pairs if p[3] == 2} == {(0, "7", 0, 2), (2, "7", 1, 2), (1, "8", 0, 2), (3, "8", 1, 2)}


def test_operations_of_which_only_the_enqueueing_is_known_have_no_place_in_time(tmp_path):
    folder = dump(tmp_path / "d", 0, all_reduce(1000, channels=0))
    with pytest.raises(
        InputError, match="only the enqueueing was recorded; set NCCL_PROFILE_EVENT_MASK to 70"
    ):
        example(folder, tmp_path / "t")


def test_a_dump_of_a_killed_job_is_kept_as_far_as_it_goes(tmp_path):
    folder = dump(tmp_path / "d", 0, all_reduce(1000) + all_reduce(2000, 1)[:333], end="")
    report = example(folder, tmp_path / "t")
    assert report.collectives == {"all_reduce": 1}
    assert report.truncated_ranks == [0]


def test_newer_dumps_tell_the_root_of_the_call_that_holds_the_operation(tmp_path):
    """From 2.28 on operations stand within their call (COLL_API); steps of kernels (KernelStep) follow channels."""
    step = {"Channel": 0, "IsSend": 1, "Peer": 1, "Step": 0, "Size": 512, "StartGpuClk": 9, "StopGpuClk": 10}
    for rank in range(2):
        own = all_reduce(1000, 0, rank, clocks=True).replace("AllReduce", "Broadcast")
        steps = event("KernelStep", "GPU", "b", 1040, 100 + rank, **step) + event(
            "KernelStep", "GPU", "e", 1041
        )
        own = own.replace(event("Broadcast", "COLL", "e", 1170, 100 + rank), steps)
        own += event("Broadcast", "COLL", "e", 1170, 100 + rank)
        call = {"count": 1024, "datatype": "ncclFloat32", "root": 1, "GraphCaptured": 0, "Stream": "0x5"}
        body = event("ncclBroadcast", "COLL_API", "b", 990, 100 + rank, **call) + own
        body += event("ncclBroadcast", "COLL_API", "e", 1171, 100 + rank) + all_reduce(
            2000, 0, rank, clocks=True
        )
        dump(tmp_path / "d", rank, body)
    report = example(tmp_path / "d", tmp_path / "t")
    rows = Trace(tmp_path / "t").read("collectives").to_pylist()
    told = {(r["rank"], r["operation"], r["peer"], r["end_ns"] - r["start_ns"]) for r in rows}
    assert told == {
        (rank, *own)
        for rank in range(2)
        for own in (("broadcast", 1, 100_000), ("all_reduce", None, 100_000))
    }
    assert report.dropped == {rank: {"step of a kernel": 1} for rank in range(2)}
    assert not any("roots" in note for note in report.notes)


@pytest.mark.parametrize(
    ("old", "new"), [("Ring", "ring"), ("NvlsTree", "nvls_tree"), ("NVLS_TREE", "nvls_tree")]
)
def test_an_algorithm_has_one_name_whatever_the_version(old, new, tmp_path):
    example(dump(tmp_path / "d", 0, all_reduce(1000, Algorithm=old)), tmp_path / "t")
    assert Trace(tmp_path / "t").read("collectives")["algorithm"].to_pylist() == [new]


T0 = 1_752_867_229_000_000


def line(
    number, rank=0, *, ranks=2, verbose=True, kind="AllReduce", group="0xe62dedaa97644a", late=0, pid=None
):
    """A line as inspector.cc writes it, of an operation of 800 us that begins every millisecond."""
    start = T0 + number * 1000
    performance = {
        "coll": kind,
        "coll_sn": number,
        "coll_msg_size_bytes": 4096,
        "coll_exec_time_us": 800,
        "coll_timing_source": "kernel_gpu",
        "coll_algobw_gbs": 1.5,
        "coll_busbw_gbs": 2.25,
    }
    if verbose:
        channels = [
            {
                "channel_id": c,
                "kernel_start_ts": start + c,
                "kernel_stop_ts": start + 800,
                "kernel_record_ts": 0,
            }
            for c in range(4)
        ]
        times = {"coll_start_ts": start - 20, "coll_stop_ts": start - 10, "kernel_events": channels}
        performance["event_trace_ts"] = times
    metadata = {
        "inspector_output_format_version": "v4.0",
        "git_rev": "",
        "rec_mechanism": "nccl_profiler_interface",
        "dump_timestamp_us": start + 800 + late,
        "hostname": "node",
        "pid": pid or 7 + rank,
    }
    header = {"id": group, "rank": rank, "n_ranks": ranks, "nnodes": 1}
    return json.dumps({"header": header, "metadata": metadata, "coll_perf": performance}) + "\n"


def log(folder, pid, text):
    folder.mkdir(exist_ok=True)
    (folder / f"node-pid{pid}.log").write_text(text)
    return folder


def inspector(paths, out):
    return convert(find_format("nccl-inspector"), [paths], out)


def test_verbose_logs_say_when_channels_ran(tmp_path):
    for rank in range(2):
        log(tmp_path / "d", rank, "".join(line(i, rank) for i in range(3)))
    report = auto([tmp_path / "d"], tmp_path / "t")
    assert check(tmp_path / "t") == []
    assert report.matched == 3
    row = Trace(tmp_path / "t").read("collectives").to_pylist()[1]
    assert (row["start_ns"], row["end_ns"]) == ((T0 + 1000) * 1000, (T0 + 1800) * 1000)
    assert (row["size_bytes"], row["channels"], row["dtype"]) == (4096, 4, None)
    assert Trace(tmp_path / "t").read("clocks")["method"].to_pylist() == ["reference", "collective_ends"]


def test_samples_of_two_ranks_match_by_number_and_align_no_clock(tmp_path):
    """The dump thread sees other operations on each rank, and is up to its interval late."""
    log(tmp_path / "d", 0, "".join(line(i, 0, verbose=False, late=300 * (i % 3)) for i in range(0, 12, 2)))
    log(tmp_path / "d", 1, "".join(line(i, 1, verbose=False, late=700 * (i % 2)) for i in range(0, 12, 3)))
    report = inspector(tmp_path / "d", tmp_path / "t")
    assert report.matched == 2  # 0 and 6
    assert report.residual_ns is None
    assert any("late by up to the dump interval" in note for note in report.notes)
    assert any(note.startswith("rank 0: 5 collectives between those in the log") for note in report.notes)


def test_one_process_with_two_gpus_is_two_ranks(tmp_path):
    log(tmp_path / "d", 1, "".join(line(i, rank, pid=1) for i in range(2) for rank in range(2)))
    assert inspector(tmp_path / "d", tmp_path / "t").ranks == [0, 1]


def test_numbers_count_by_kind_so_that_two_kinds_may_share_one(tmp_path):
    for rank in range(2):
        log(tmp_path / "d", rank, line(0, rank) + line(0, rank, kind="AllGather"))
    assert inspector(tmp_path / "d", tmp_path / "t").matched == 2


def test_a_reduce_scatters_size_is_its_input(tmp_path):
    log(tmp_path / "d", 0, line(0, kind="ReduceScatter"))
    inspector(tmp_path / "d", tmp_path / "t")
    assert Trace(tmp_path / "t").read("collectives")["size_bytes"].to_pylist() == [2 * 4096]


def test_a_cut_line_is_counted_and_a_log_without_any_is_refused(tmp_path):
    log(tmp_path / "d", 0, line(0) + line(1)[:100])
    assert list(inspector(tmp_path / "d", tmp_path / "t").dropped[0].values()) == [1]
    log(tmp_path / "e", 0, "nccl_bus_bandwidth_gbs 1\n")
    with pytest.raises(InputError, match="holds no line that is whole and the NCCL inspector's"):
        inspector(tmp_path / "e" / "node-pid0.log", tmp_path / "u")
