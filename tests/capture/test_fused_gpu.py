"""The GPU backends' code and the kernels' GPU path, on a GPU made of processes; and what is said without a GPU."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from eidola.capture import EmbeddingAllToAll, GemmAllToAll, GemvAllReduce, capture_kernel
from eidola.capture.fused import cpu, gpu
from eidola.capture.records import KINDS
from eidola.convert.captured import captured
from eidola.schemas import CaptureError, MissingError, Trace, UsageError, check

SPECS = [
    GemvAllReduce(gpus=2, rows=100, columns=9, workgroups=2, tile_rows=8),
    EmbeddingAllToAll(gpus=3, batch=30, tables=2, dimension=5, pooling=2, workgroups=2, tile_samples=3),
    GemmAllToAll(gpus=2, rows=20, columns=11, inner=6, tile_rows=4, tile_columns=4, workgroups=2),
]
ANCHOR = KINDS["anchor"]


@pytest.fixture
def null_gpu(monkeypatch):
    if not shutil.which("g++"):
        pytest.skip("no g++ on PATH")
    spec = spec_from_file_location("cupy", Path(__file__).with_name("null_cupy.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(gpu, "THREADS", 4)
    monkeypatch.setattr(gpu, "ROUNDS", 20)
    return module


@pytest.mark.parametrize("virtual", [True, False], ids=["virtual", "gpu"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_a_gpu_notes_what_cpu_threads_note_between_two_anchors_a_launch(spec, virtual, null_gpu, c_compiler):
    on_gpu, on_cpu = gpu.run(spec, virtual=virtual), cpu.run(spec)
    assert np.array_equal(on_gpu.outputs, on_cpu.outputs)
    for there, here in zip(on_gpu.records, on_cpu.records, strict=True):
        for notes, plain in zip(there, here, strict=True):
            anchors = np.flatnonzero(notes["kind"] == ANCHOR)
            assert len(anchors) == 2 * spec.iterations
            assert (anchors[1::2] + 1).tolist() == [*anchors[2::2].tolist(), len(notes)]
            events = notes[notes["kind"] != ANCHOR]
            program = ["kind", "name", "peer", "flag", "value"]
            assert events[program].tolist() == plain[program].tolist()
            told = np.isin(events["kind"], [KINDS["data_write"]])  # extra: offsets; polls differ
            assert events["extra"][told].tolist() == plain["extra"][told].tolist()
            assert (np.diff(notes["time"].astype(np.int64)) >= 0).all()


def test_a_virtual_capture_converts_and_says_what_it_is(null_gpu, tmp_path):
    capture_kernel(SPECS[0], tmp_path / "raw", backend="virtual", anonymous=True)
    trace = Trace(captured(tmp_path / "raw", tmp_path / "k.eidola"))
    assert not [problem for problem in check(tmp_path / "k.eidola") if problem.severity == "error"]
    ranks = trace.read("ranks").to_pandas()
    assert set(ranks.backend) == {"virtual"}
    assert set(ranks.model) == {"null GPU"}
    assert set(trace.read("links")["kind"].to_pylist()) == {"local_memory"}
    assert "never link rates" in trace.notes["truth"]
    assert trace.notes["compute_units"] == {"0": [0, 1], "1": [2, 3]}
    assert waited_too_early(trace, slack_ns=1000) == 0


def test_gpus_clocks_are_aligned_on_ping_pongs(null_gpu, tmp_path):
    """The null GPUs' clocks are a millisecond apart; aligned, no flag is seen before it is raised."""
    capture_kernel(SPECS[1], tmp_path / "raw", backend="gpu")
    trace = Trace(captured(tmp_path / "raw", tmp_path / "k.eidola"))
    clocks = trace.read("clocks").to_pandas()
    assert clocks.method.tolist() == ["reference", "ping_pong", "ping_pong"]
    residual_ns = int(clocks.residual_ns.max())
    assert abs(clocks.offset_ns + 1_000_000 * clocks["rank"]).max() <= residual_ns
    assert waited_too_early(trace, slack_ns=2 * residual_ns + 1000) == 0


def waited_too_early(trace, slack_ns):
    """Count waits that ended more than `slack_ns` before their flag was raised."""
    writes = trace.read("writes").to_pandas().query("kind == 'flag'")
    waits = trace.read("waits").to_pandas()
    raised = {(w.peer, w.flag, w.value): w.issue_ns for w in writes.itertuples()}
    assert len(raised) == len(waits)
    return sum(w.end_ns + slack_ns < raised[w.rank, w.flag, w.expected] for w in waits.itertuples())


@pytest.mark.parametrize("virtual", [True, False], ids=["virtual", "gpu"])
def test_a_flag_that_never_comes_ends_the_run_on_all_ranks_and_is_named(virtual, null_gpu):
    mute = replace(SPECS[1], mute_rank=1, deadline_s=0.3, iterations=1)
    with pytest.raises(CaptureError, match=r"rank [02], .*\(embeddings from rank 1\): expected 1, seen 0"):
        gpu.run(mute, virtual=virtual)


def test_a_full_buffer_keeps_its_first_records_and_the_last_anchor(null_gpu):
    small = replace(SPECS[2], buffer_records=8, iterations=2)
    for whole, cut in zip(
        gpu.run(SPECS[2], virtual=True).records, gpu.run(small, virtual=True).records, strict=True
    ):
        for full, kept in zip(whole, cut, strict=True):
            assert kept["kind"][:7].tolist() == full["kind"][:7].tolist()
            assert kept["kind"][7] == ANCHOR
            assert len(kept) == 8


def test_more_blocks_than_fit_are_refused(null_gpu):
    with pytest.raises(UsageError, match="34 workgroups must run at once on GPU 0, which holds 32"):
        gpu.run(replace(SPECS[0], workgroups=17), virtual=True)


def test_more_ranks_than_gpus_are_refused(null_gpu):
    with pytest.raises(MissingError, match="5 ranks need as many GPUs, and there are 4: give --gpus 4"):
        gpu.run(replace(SPECS[0], gpus=5), virtual=False)


@pytest.mark.parametrize("virtual", [True, False])
def test_without_cupy_or_gpu_one_error_says_what_to_do(virtual, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingError, match=r"eidola-sim\[cuda13\].*--backend host"):
        gpu.run(SPECS[0], virtual=virtual)


def test_the_command_line_says_it_in_one_paragraph(tmp_path):
    code = "import sys; sys.modules['cupy'] = None; from eidola.cli.main import main; main()"
    command = ["capture", "kernel", "gemm-alltoall", "--backend", "virtual", "-o", "raw"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 6
    assert "need CuPy" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["one-shot", "two-shot"])
def test_torchs_all_reduce_without_torch_or_gpu_says_what_is_missing(form):
    command = [sys.executable, "-m", "eidola.capture.symmetric_all_reduce", form]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert done.stderr.startswith(
        ("eidola: symmetric memory needs GPUs", "eidola: torch with symmetric memory")
    )
