"""The profiler plugin inside a real NCCL or RCCL: until this has passed somewhere it is labelled driver-tested."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eidola.capture import nccl
from eidola.convert.nccl_plugin import read_dump

torch = pytest.importorskip("torch", reason="needs PyTorch for GPUs")
JOB = Path(__file__).with_name("nccl_job.py")
SHARES_A_GPU = (2, 30)  # the first NCCL in which ranks may (NCCL_MULTI_RANK_GPU_ENABLE)


@pytest.fixture(scope="module")
def dumps(gpus, tmp_path_factory):
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch sees no GPU")
    version = torch.cuda.nccl.version()
    world = min(len(gpus), 8)
    if world == 1 and version[:2] >= SHARES_A_GPU:
        world = 2
    out = tmp_path_factory.mktemp("rings")
    environment = {**os.environ, **nccl.environment(out), "NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    done = subprocess.run(
        [*torchrun, JOB], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    if kept := os.environ.get("EIDOLA_GPU_CAPTURES"):
        shutil.copytree(out, Path(kept) / "nccl")
    found = [read_dump(file) for file in sorted(out.glob("nccl.*.ring"))]
    assert [dump.rank for dump in found] == list(range(world))
    return found


@pytest.fixture(scope="module")
def several(dumps):
    """The dumps of several ranks: one alone copies, and NCCL tells its profiler nothing of it."""
    if len(dumps) < 2:
        pytest.skip(f"one GPU, and NCCL {torch.cuda.nccl.version()} lets no two ranks share it")
    return dumps


def test_it_is_loaded_and_leaves_a_dump_that_is_read(dumps):
    assert all(dump.interface >= 1 for dump in dumps)


def test_every_rank_saw_the_same_collectives_with_their_bytes(several):
    for dump in several:
        rows = [row for row in dump.operations.to_pylist() if row["operation"] == "AllReduce"]
        assert [row["size_bytes"] for row in rows if row["count"] == 1 << 20] == [4 << 20] * 3
        assert all(row["algorithm"] and row["protocol"] and row["channels"] for row in rows)
        assert dump.lost == 0
    first, *others = [
        [
            (row["operation"], row["sequence_number"])
            for row in dump.operations.to_pylist()
            if row["sequence_number"]
        ]
        for dump in several
    ]
    assert all(other == first for other in others)


def test_a_send_has_its_peer(several):
    sends = [row for row in several[0].operations.to_pylist() if row["operation"] == "Send"]
    assert [(row["peer"], row["size_bytes"]) for row in sends] == [(1, 4 * 4096)]


def test_channels_ran_after_their_operation_was_enqueued_and_for_some_time(several):
    for dump in several:
        assert dump.interface >= 1
        if dump.interface < 4:
            pytest.skip(f"profiler interface v{dump.interface} tells no GPU times")
        timed = [c for c in dump.channels.to_pylist() if c["gpu_start_ns"] and c["gpu_end_ns"]]
        assert timed
        assert all(0 < c["gpu_end_ns"] - c["gpu_start_ns"] < 10**10 for c in timed)
