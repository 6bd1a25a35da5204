"""The fused kernels on real GPUs: `virtual` with one, `gpu` with several; captures go to EIDOLA_GPU_CAPTURES."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eidola.capture import EmbeddingAllToAll, GemmAllToAll, GemvAllReduce, capture_kernel
from eidola.capture.fused import gpu, gpu_clocks
from eidola.capture.ping_pong import align
from eidola.capture.records import KINDS
from eidola.capture.torch_run import run as run_captured
from eidola.convert.captured import captured
from eidola.schemas import CaptureError, Trace, UsageError, check

SPECS = [
    GemvAllReduce(gpus=2, rows=4096, columns=512, workgroups=16),
    EmbeddingAllToAll(gpus=2, workgroups=16),
    GemmAllToAll(gpus=2, rows=512, workgroups=16),
]


@pytest.fixture(scope="session", params=["virtual", "gpu"])
def backend(request, gpus):
    pytest.importorskip("cupy")
    if request.param == "gpu" and len(gpus) < 2:
        pytest.skip("needs two GPUs")
    return request.param


@pytest.fixture(scope="session")
def captures(tmp_path_factory):
    given = os.environ.get("EIDOLA_GPU_CAPTURES")
    return Path(given) if given else tmp_path_factory.mktemp("captures")


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_results_are_checked_and_the_capture_converts(spec, backend, captures, tmp_path):
    folder = captures / f"test-{spec.name}-{backend}"
    run = capture_kernel(spec, folder, backend=backend, overwrite=True, anonymous=True)
    for workgroups in run.records:
        for notes in workgroups:
            anchors = notes[notes["kind"] == KINDS["anchor"]]
            assert len(anchors) == 2 * spec.iterations
            assert (np.diff(anchors["value"].astype(np.int64)) >= 0).all()
    trace = Trace(captured(folder, tmp_path / "k.eidola"))
    assert not [problem for problem in check(tmp_path / "k.eidola") if problem.severity == "error"]
    writes = trace.read("writes").to_pandas().query("kind == 'flag'")
    waits = trace.read("waits").to_pandas()
    raised = {(w.peer, w.flag, w.value): w.issue_ns for w in writes.itertuples()}
    assert len(raised) == len(waits) > 0
    # A launch is mapped linearly from cycles to time, while the GPU changes its clock: allow a microsecond.
    slack_ns = 2 * max(ns or 0 for ns in trace.read("clocks")["residual_ns"].to_pylist()) + 1000
    assert all(raised[w.rank, w.flag, w.expected] <= w.end_ns + slack_ns for w in waits.itertuples())


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_a_flag_that_never_comes_ends_the_run_and_is_named(spec, backend):
    with pytest.raises(CaptureError, match=r"waited longer than 0.5 s for flag \d+ .*: expected 1, seen 0"):
        gpu.run(replace(spec, mute_rank=1, deadline_s=0.5, iterations=1), virtual=backend == "virtual")


def test_what_cannot_be_resident_is_refused(backend):
    with pytest.raises(UsageError, match="must run at once"):
        gpu.run(replace(SPECS[0], workgroups=2**14), virtual=backend == "virtual")


def test_two_ranks_of_one_gpu_play_ping_pong(gpus):
    """One clock for both: its offset is 0, and the round trip is within the deadline."""
    cupy, spec = pytest.importorskip("cupy"), SPECS[0]
    hz = [gpu_clocks.clock_hz(cupy, 0)] * 2
    module = gpu._load(cupy, spec, (), [0], 1)
    ranks = [gpu.allocate(cupy, spec, given, 0) for given in spec.inputs()]
    jobs, _tables = gpu._jobs(cupy, spec, list(spec.inputs()[0]), ranks, [0, 0], hz)
    found = align(gpu_clocks.ping_pongs(cupy, module, jobs, [0, 0], hz, first=1)[1:])
    print(found)
    assert abs(found.offset_ns) <= found.residual_ns < 100_000


@pytest.mark.parametrize("form", ["one-shot", "two-shot"])
def test_torchs_symmetric_memory_all_reduce_is_captured(form, gpus, captures, tmp_path):
    pytest.importorskip("torch")
    if len(gpus) < 2:
        pytest.skip("needs two GPUs")
    folder = captures / f"symmetric-{form}"
    module = "eidola.capture.symmetric_all_reduce"
    started = ["-m", "torch.distributed.run", f"--nproc-per-node={len(gpus)}", "-m", module, form]
    assert run_captured([sys.executable, *started], folder, detail="all", overwrite=True, anonymous=True) == 0
    spans = Trace(captured(folder, tmp_path / "job.eidola")).read("spans").to_pandas()
    assert spans[spans.kind == "kernel"].name.str.contains("shot_all_reduce").any()
