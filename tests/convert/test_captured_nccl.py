"""What NCCL told its plugin, in the trace of the PyTorch job that called it.

NCCL is played by tests/capture/nccl_driver.c in the processes of a real Gloo job: PyTorch's call of an all-reduce
dispatches to a kernel that drives the plugin, as NCCL would, and then reduces over Gloo.
"""

import ctypes
import sys

import pytest

from eidola.convert import auto
from eidola.convert.captured import captured
from eidola.replay import replay
from eidola.schemas import Trace, check

pytest.importorskip("torch", reason="captures a real PyTorch job")
SIZES = [1000, 7, 500, 7, 2000]  # elements
EARLY, OTHER_SIZE = 2, 4  # handed over before PyTorch's call; of another size than the call

JOB = """
import ctypes, os, torch, torch.distributed as dist
from torch._C._distributed_c10d import AllreduceOptions
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
driver = ctypes.CDLL({driver!r})
driver.driver_collective.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_size_t]
number = 10  # of NCCL's own, which began before the capture

def nccl(elements):
    global number
    driver.driver_collective(b"AllReduce", b"ncclFloat32", number, elements)
    number += 1

def allreduce_(tensors, group, reduce_op, sparse_indices, async_op=True, timeout=-1):
    if group_calls["inside"]:
        nccl(group_calls["elements"] or tensors[0].numel())
    backend = dist.ProcessGroup.unbox(group)._get_backend(torch.device("cpu"))
    return tensors, backend.allreduce(tensors, AllreduceOptions()).boxed()

group_calls = {{"inside": True, "elements": None}}
library = torch.library.Library("c10d", "IMPL")
library.impl("allreduce_", allreduce_, "CPU")
assert driver.driver_open(os.environ["NCCL_PROFILER_PLUGIN"].encode(), 6, rank, world)
dist.broadcast(torch.ones(3), 0)
for i, elements in enumerate({sizes}):
    if i == {early}:
        nccl(elements)
    group_calls |= {{"inside": i != {early}, "elements": 11 if i == {other} else None}}
    t = torch.ones(elements)
    dist.all_reduce(t)
    assert t[0] == world
driver.driver_close()
"""


@pytest.fixture(scope="module")
def raw(tmp_path_factory, capture_run, nccl_in_process):
    folder = tmp_path_factory.mktemp("job")
    text = JOB.format(driver=str(nccl_in_process), sizes=SIZES, early=EARLY, other=OTHER_SIZE)
    (folder / "script.py").write_text(text)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "script.py"]
    done = capture_run(folder, *torchrun, options=("--nccl-plugin", "--telemetry", "0.1"))
    assert done.returncode == 0, done.stderr
    assert "no NCCL" not in done.stderr
    return folder / "raw"


@pytest.fixture(scope="module")
def trace(raw, tmp_path_factory):
    trace = Trace(captured(raw, tmp_path_factory.mktemp("trace") / "t.eidola"))
    assert not [p for p in check(trace.path) if p.severity == "error"]
    return trace


def test_a_collective_has_pytorchs_group_and_sizes_and_nccls_algorithm(trace):
    for rank in (0, 1):
        rows = [
            row
            for row in trace.read("collectives", ranks=[rank]).to_pylist()
            if row["operation"] == "all_reduce"
        ]
        names = ("communicator", "sequence", "dtype", "size_bytes", "algorithm", "protocol", "channels")
        told = [("ring", "simple", 8) if i != OTHER_SIZE else (None,) * 3 for i in range(len(SIZES))]
        assert [tuple(row[name] for name in names) for row in rows] == [
            ("0", i + 1, "float32", 4 * elements, *told[i]) for i, elements in enumerate(SIZES)
        ]


def test_what_nccl_was_not_called_for_keeps_what_pytorch_said(trace):
    (row,) = [
        row for row in trace.read("collectives", ranks=[0]).to_pylist() if row["operation"] == "broadcast"
    ]
    assert (row["size_bytes"], row["algorithm"], row["channels"]) == (12, None, None)


def test_channels_ran_within_the_call_by_the_hosts_clock(trace):
    rows = trace.read("spans", ranks=[0]).to_pandas()
    channels = rows[rows.lane.str.fullmatch(r"nccl channel [01]")]
    assert set(channels.kind) == {"annotation"}
    joined = [i + 1 for i in range(len(SIZES)) if i != OTHER_SIZE]
    assert channels.name.tolist() == [f"all_reduce {i} of 0" for i in joined for _ in range(2)]
    calls = rows[rows.name == "c10d::allreduce_"].sort_values("start_ns")
    (note,) = [note for note in trace.notes["notes"] if note.startswith("rank 0: NCCL")]
    known_ns = 1000 * float(note.split()[-2]) + 100
    for i in (0, 1, 3):
        own = channels[channels.name == f"all_reduce {i + 1} of 0"]
        assert (own.start_ns >= calls.start_ns.iloc[i] - known_ns).all()
        assert (own.end_ns <= calls.end_ns.iloc[i] + known_ns).all()
        assert ((own.end_ns - own.start_ns) > 1_900_000).all()


def test_proxies_tell_to_whom_and_how_much(trace):
    for rank in (0, 1):
        rows = trace.read("spans", ranks=[rank]).to_pandas()
        sent = rows[rows.lane == "nccl send channel 1"]
        assert sent.name.tolist()[:3] == [
            f"all_reduce 1 of 0: {step << 18} bytes to rank {1 - rank}" for step in (1, 2, 3)
        ]
        assert len(sent) == 3 * (len(SIZES) - 1)


def test_the_report_says_what_was_joined_and_what_was_not(raw, trace, tmp_path):
    notes = trace.notes["notes"]
    for rank in (0, 1):
        start = (
            f"rank {rank}: NCCL told 5 operations of the time that is shown, of which 4 were joined; its GPU"
        )
        assert [note for note in notes if note.startswith(start)]
    report = auto([raw], tmp_path / "t.eidola")
    assert [note for note in report.lines() if "of which 4 were joined" in note]
    assert [note for note in notes if note.startswith("telemetry")]


def test_what_nccl_told_adds_no_traffic_to_a_replay(raw, trace, tmp_path):
    for file in raw.glob("nccl.*"):
        file.rename(tmp_path / file.name)
    without = captured(raw, tmp_path / "without.eidola")
    for file in tmp_path.glob("nccl.*"):
        file.rename(raw / file.name)
    replayed = [replay(path, tmp_path / name) for path, name in ((trace.path, "a"), (without, "b"))]
    sent = [run.read("gpus", ["sent_bytes"])["sent_bytes"].to_pylist() for run in replayed]
    assert sent[0] == sent[1]


def test_files_hold_no_more_than_was_written_and_no_path(raw):
    files = sorted(raw.glob("nccl.rank*.ring"))
    assert len(files) == 2
    for file in files:
        assert file.stat().st_size < 1 << 17
        assert ctypes.string_at(file.read_bytes()[192:320]) == b"driver.so"
