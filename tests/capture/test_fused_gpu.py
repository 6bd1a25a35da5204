"""The GPU backends' code and the kernels' GPU paths, on a GPU made of threads; and what is said without a GPU."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from eidola.capture import (
    EmbeddingAllToAll,
    GemmAllToAll,
    GemvAllReduce,
    RankProbes,
    capture_kernel,
    write_probes,
)
from eidola.capture.fused import cpu, gpu, gpu_clocks
from eidola.capture.ping_pong import align
from eidola.capture.records import KINDS
from eidola.convert.captured import captured
from eidola.schemas import CaptureError, MissingError, Trace, UsageError, check

ROOT = Path(__file__).resolve().parents[2]
SPECS = [
    GemvAllReduce(gpus=2, rows=38, columns=9, workgroups=2, tile_rows=8),
    EmbeddingAllToAll(gpus=3, batch=30, tables=2, dimension=5, pooling=2, workgroups=2, tile_samples=3),
    GemmAllToAll(gpus=2, rows=20, columns=11, inner=6, tile_rows=4, tile_columns=4, workgroups=2),
]
OTHERS = [
    GemvAllReduce(gpus=3, rows=21, columns=67, workgroups=3, tile_rows=2, iterations=4),
    GemvAllReduce(gpus=5, rows=5, columns=5, workgroups=2, tile_rows=64, iterations=2),
    EmbeddingAllToAll(gpus=4, batch=4, tables=3, dimension=33, pooling=3, workgroups=1, tile_samples=1),
    EmbeddingAllToAll(
        gpus=2, batch=14, tables=1, dimension=1, pooling=1, workgroups=3, tile_samples=2, iterations=1
    ),
    GemmAllToAll(gpus=3, rows=9, columns=1, inner=1, tile_rows=2, tile_columns=5, workgroups=4),
    GemmAllToAll(gpus=4, rows=12, columns=37, inner=3, tile_rows=2, tile_columns=16, workgroups=1),
]
"""More ranks, odd shapes, one workgroup, more workgroups than tiles."""

ANCHOR = KINDS["anchor"]
VENDORS = ["nvidia", "amd"]
both = pytest.mark.parametrize("virtual", [True, False], ids=["virtual", "gpu"])


@pytest.fixture
def null_gpu(monkeypatch, request):
    """A GPU made of threads, NVIDIA's unless the test is parametrised with `null_gpu` by vendor."""
    if not shutil.which("g++"):
        pytest.skip("no g++ on PATH")
    spec = spec_from_file_location("cupy", Path(__file__).with_name("null_cupy.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "cupy", module)
    module.RawModule.vendor = getattr(request, "param", "nvidia")
    module.runtime.is_hip = module.RawModule.vendor == "amd"
    monkeypatch.setattr(gpu, "THREADS", 64)
    monkeypatch.setattr(gpu_clocks, "ROUNDS", 20)
    return module


vendors = pytest.mark.parametrize("null_gpu", VENDORS, indirect=True)


@vendors
@both
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


@pytest.mark.parametrize("spec", OTHERS, ids=lambda s: f"{s.name}-{s.gpus}")
def test_results_are_right_at_odd_sizes(spec, null_gpu):
    gpu.run(spec, virtual=True)  # which compares every element with a plain product


@vendors
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_a_virtual_capture_converts_and_says_what_it_is(spec, null_gpu, tmp_path):
    capture_kernel(spec, tmp_path / "raw", backend="virtual", anonymous=True)
    trace = Trace(captured(tmp_path / "raw", tmp_path / "k.eidola"))
    assert not [problem for problem in check(tmp_path / "k.eidola") if problem.severity == "error"]
    ranks = trace.read("ranks").to_pandas()
    assert set(ranks.backend) == {"virtual"}
    assert set(ranks.model) == {"null GPU"}
    assert set(trace.read("links")["kind"].to_pylist()) == {"local_memory"}
    assert "never link rates" in trace.notes["truth"]
    assert trace.notes["compute_units"] == {str(rank): [2 * rank, 2 * rank + 1] for rank in range(spec.gpus)}
    assert waited_too_early(trace, slack_ns=1000) == 0


@vendors
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


def test_two_ranks_of_one_gpu_play_ping_pong_in_two_streams(null_gpu):
    """What can be tried of it where there is one GPU: one clock for both, whose offset is 0."""
    module = gpu._load(null_gpu, SPECS[0], (), [0], 1)
    ranks = [gpu.allocate(null_gpu, SPECS[0], given, 0) for given in SPECS[0].inputs()]
    jobs, _tables = gpu._jobs(null_gpu, SPECS[0], list(SPECS[0].inputs()[0]), ranks, [0, 0], [10**9] * 2)
    found = align(gpu_clocks.ping_pongs(null_gpu, module, jobs, [0, 0], [10**9] * 2, first=1)[1:])
    assert abs(found.offset_ns) <= found.residual_ns


@vendors
@both
def test_a_flag_that_never_comes_ends_the_run_on_all_ranks_and_is_named(virtual, null_gpu):
    mute = replace(SPECS[1], mute_rank=1, deadline_s=0.3, iterations=1)
    with pytest.raises(CaptureError, match=r"rank [02], .*\(embeddings from rank 1\): expected 1, seen 0"):
        gpu.run(mute, virtual=virtual)


@vendors
def test_a_full_buffer_keeps_its_first_records_and_the_last_anchor(null_gpu):
    full_run, cut_run = (
        gpu.run(replace(SPECS[2], buffer_records=size, iterations=2), virtual=True) for size in (16384, 8)
    )
    assert cut_run.emitted.tolist() == full_run.emitted.tolist()
    for whole, cut in zip(full_run.records, cut_run.records, strict=True):
        for full, kept in zip(whole, cut, strict=True):
            assert kept["kind"][:7].tolist() == full["kind"][:7].tolist()
            assert kept["kind"][7] == ANCHOR
            assert len(kept) == 8


def test_without_probes_the_kernel_gives_the_same_and_notes_nothing(null_gpu):
    off, on = (gpu.run(SPECS[0], *options, virtual=True) for options in (("-DEIDOLA_PROBES_OFF",), ()))
    assert np.array_equal(off.outputs, on.outputs)
    assert not off.emitted.any()


@vendors
def test_a_kernel_of_ones_own_with_probes_converts(null_gpu, tmp_path):
    """The kernel of docs/examples/probes_own_kernel.cu, its host part in Python."""
    text = (ROOT / "docs/examples/probes_own_kernel.cu").read_text()
    constants = dict(re.findall(r"(\w+) = (\d+)[,;]", text))
    blocks, threads, capacity = (int(constants[name]) for name in ("BLOCKS", "THREADS", "CAPACITY"))
    header = (ROOT / "capture/include/eidola_probe.h").read_text()
    kernel = text[: text.index("static void check(")].replace('#include "eidola_probe.h"', header)
    kernel = kernel.replace("__global__ void scale", 'extern "C" __global__ void scale')
    scale = null_gpu.RawModule(code=kernel).get_function("scale_to_peer").kernel
    given = np.arange(blocks * threads, dtype=np.float32)
    source, results = null_gpu.asarray(given), null_gpu.zeros(given.shape, np.float32)
    flags, records = null_gpu.zeros(blocks, np.uint64), null_gpu.zeros((blocks, capacity, 4), np.uint64)
    counts = null_gpu.zeros((blocks, 2), np.uint64)
    for epoch in (1, 2):
        scale((blocks,), (threads,), (source, results, flags, np.uint64(epoch), records, counts))
        null_gpu.cuda.Device(0).synchronize()
    assert np.array_equal(results.get(), 2 * given)
    assert (flags.get() == 2).all()
    nothing = RankProbes(np.zeros((1, 1, 4), np.uint64), np.zeros((1, 2), np.uint64), anchor_hz=10**9)
    ranks = [RankProbes(records.get(), counts.get(), anchor_hz=10**9), nothing]
    write_probes(tmp_path / "own", ranks, phases=["scale"], regions=["results"], kernel="scale_to_peer")
    trace = Trace(captured(tmp_path / "own", tmp_path / "own.eidola"))
    writes = trace.read("writes").to_pandas()
    data, raised = writes[writes.kind == "data"], writes[writes.kind == "flag"]
    assert len(data) == len(raised) == 2 * blocks
    assert set(data.size_bytes) == {4 * threads}
    assert sorted(data.offset_bytes) == sorted([4 * threads * block for block in range(blocks)] * 2)
    assert sorted(raised.value) == [1] * blocks + [2] * blocks


SANITIZED = """
import sys
sys.path.insert(0, sys.argv[1])
import null_cupy
from eidola.capture import EmbeddingAllToAll, GemmAllToAll, GemvAllReduce
from eidola.capture.fused import gpu, gpu_clocks

sys.modules["cupy"] = null_cupy
null_cupy.RawModule.vendor = sys.argv[2]
null_cupy.runtime.is_hip = sys.argv[2] == "amd"
gpu.THREADS, gpu_clocks.ROUNDS = 64, 20
for spec in eval(sys.argv[3]):
    for virtual in (True, False):
        gpu.run(spec, virtual=virtual)
"""


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_sanitizers_find_no_race_and_no_access_beyond_an_array(vendor, sanitizer):
    status, told = sanitized(vendor, sanitizer, SPECS)
    assert (status, told) == (0, "")


def test_flags_without_order_are_found_to_race():
    """That the test above would find a broken protocol: data are plain stores, and only flags order them."""
    status, told = sanitized("nvidia", "thread -DNULL_RELAXED", SPECS[:1])
    assert status == 66
    assert "WARNING: ThreadSanitizer: data race" in told


def sanitized(vendor, sanitizer, specs):
    """Run `specs` on both backends in a process with a sanitizer; return its status and what it said."""
    libraries = []
    for name in (["tsan"] if "thread" in sanitizer else ["asan", "ubsan"]) if shutil.which("g++") else []:
        command = ["g++", f"-print-file-name=lib{name}.so"]
        libraries.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    if not libraries or not all(map(os.path.isabs, libraries)):
        pytest.skip("no g++ with its sanitizers on PATH")
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED, Path(__file__).parent, vendor, repr(specs)],
        env={
            **os.environ,
            "NULL_GPU_FLAGS": f"-fsanitize={sanitizer}",
            "LD_PRELOAD": " ".join(libraries),
            "TSAN_OPTIONS": "exitcode=66",
            "ASAN_OPTIONS": "detect_leaks=0:exitcode=67",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@vendors
def test_more_blocks_than_fit_are_refused(null_gpu):
    with pytest.raises(UsageError, match="34 workgroups must run at once on GPU 0, which holds 32"):
        gpu.run(replace(SPECS[0], workgroups=17), virtual=True)


def test_more_ranks_than_gpus_are_refused(null_gpu):
    with pytest.raises(
        MissingError, match="5 ranks need as many GPUs, and there are 4: give --gpus 4, or use"
    ):
        gpu.run(replace(SPECS[0], gpus=5, rows=40), virtual=False)


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
