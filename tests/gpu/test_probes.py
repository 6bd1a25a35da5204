"""Probes in kernels that are not ours, on a real GPU: the examples of docs/kernels.md, built and run as it says."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eidola.capture import RankProbes, include_folder, write_probes
from eidola.capture.fused import gpu_clocks
from eidola.convert.captured import captured
from eidola.schemas import Trace, check

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples"
PROGRAMS, CAPACITY, BLOCK, EPOCHS = 16, 64, 256, 3


def sound(trace):
    assert not [problem for problem in check(trace.path) if problem.severity == "error"]
    spans = trace.read("spans").to_pandas()
    phases = spans[spans.kind == "phase"]
    assert (phases.start_ns <= phases.end_ns).all()
    return trace.read("writes").to_pandas()


def test_a_kernel_of_ones_own_in_cuda(gpus, tmp_path):
    if not shutil.which("nvcc") or gpus[0].vendor != "nvidia":
        pytest.skip("needs nvcc and an NVIDIA GPU")
    source = EXAMPLES / "probes_own_kernel.cu"
    subprocess.run(
        ["nvcc", "-arch=native", "-I", include_folder(), source, "-o", tmp_path / "own"], check=True
    )
    subprocess.run([tmp_path / "own"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, EXAMPLES / "probes_own_kernel.py"], cwd=tmp_path, check=True)
    writes = sound(Trace(captured(tmp_path / "raw", tmp_path / "own.eidola")))
    assert sorted(writes[writes.kind == "flag"].value) == sorted(list(range(1, 11)) * 16)


def test_a_kernel_of_ones_own_in_triton(gpus, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch sees no GPU")
    sys.path.insert(0, str(EXAMPLES))
    from probes_triton import scale_to_peer

    def words(*shape):
        return torch.zeros(shape, dtype=torch.int64, device="cuda")

    source = torch.arange(PROGRAMS * BLOCK, dtype=torch.float32, device="cuda")
    results, flags = torch.zeros_like(source), words(PROGRAMS)
    records, counts = words(PROGRAMS, CAPACITY, 4), words(PROGRAMS, 2)
    for epoch in range(1, EPOCHS + 1):  # its own peer: a program's flag is there before it waits for it
        scale_to_peer[(PROGRAMS,)](
            source, results, flags, flags, 1, epoch, records, counts, CAPACITY, BLOCK=BLOCK
        )
    torch.cuda.synchronize()
    assert torch.equal(results, 2 * source)
    nothing = RankProbes(np.zeros((1, 1, 4), np.uint64), np.zeros((1, 2), np.uint64), anchor_hz=10**9)
    hz = 10**9 if gpus[0].vendor == "nvidia" else gpu_clocks.clock_hz(pytest.importorskip("cupy"), 0)
    ranks = [RankProbes(records.cpu().numpy(), counts.cpu().numpy(), anchor_hz=hz), nothing]
    write_probes(
        tmp_path / "own", ranks, phases=["scale", "wait"], regions=["results"], kernel="scale_to_peer"
    )
    trace = Trace(captured(tmp_path / "own", tmp_path / "own.eidola"))
    writes, waits = sound(trace), trace.read("waits").to_pandas()
    each = [(program, epoch) for program in range(PROGRAMS) for epoch in range(1, EPOCHS + 1)]
    raised = writes[writes.kind == "flag"]
    assert sorted(zip(raised.flag, raised.value, strict=True)) == each
    assert sorted(zip(waits.flag, waits.expected, strict=True)) == each
