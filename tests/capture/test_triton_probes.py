"""Triton's probes run, in Triton's interpreter: what they write decodes, and is what the kernel did."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from eidola.capture import RankProbes, write_probes
from eidola.convert.captured import captured
from eidola.schemas import Trace, check

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples"
PROGRAMS, EPOCHS = 4, 2
# The interpreter has no inline assembly: the three timers are Python's; all else is what a GPU would run.
KERNEL = """
import sys, time
import numpy as np, torch
import triton.language as tl
from eidola.capture import triton_probes

triton_probes.time = triton_probes.real_time = lambda: tl.full((), time.monotonic_ns(), tl.int64)
triton_probes.unit = lambda: tl.full((), 3, tl.int32)
sys.path.insert(0, sys.argv[1])
from probes_triton import scale_to_peer

programs, epochs, capacity = map(int, sys.argv[2:])
source, results = torch.arange(programs * 256.0), torch.zeros(programs * 256)
words = lambda *shape: torch.zeros(shape, dtype=torch.int64)
flags, records, counts = words(programs), words(programs, capacity, 4), words(programs, 2)
for epoch in range(1, epochs + 1):
    scale_to_peer[(programs,)](
        source, results, flags, flags, 1, epoch, records, counts, capacity, BLOCK=256
    )
assert torch.equal(results, 2 * source)
assert (flags == epochs).all()
np.save("records.npy", records.numpy())
np.save("counts.npy", counts.numpy())
"""


def run(folder, capacity):
    if not find_spec("triton") or not find_spec("torch"):
        pytest.skip("needs triton and torch")
    subprocess.run(
        [sys.executable, "-c", KERNEL, EXAMPLES, *map(str, (PROGRAMS, EPOCHS, capacity))],
        env={**os.environ, "TRITON_INTERPRET": "1"}, cwd=folder, check=True,
    )  # fmt: skip
    return np.load(folder / "records.npy"), np.load(folder / "counts.npy")


def converted(folder, records, counts):
    nothing = RankProbes(np.zeros((1, 1, 4), np.uint64), np.zeros((1, 2), np.uint64), anchor_hz=10**9)
    ranks = [RankProbes(records, counts, anchor_hz=10**9), nothing]
    write_probes(folder / "own", ranks, phases=["scale", "wait"], regions=["results"], kernel="scale_to_peer")
    trace = Trace(captured(folder / "own", folder / "own.eidola"))
    assert not [problem for problem in check(trace.path) if problem.severity == "error"]
    return trace


def test_what_a_kernel_did_is_in_the_trace(tmp_path):
    trace = converted(tmp_path, *run(tmp_path, capacity=64))
    writes, waits = trace.read("writes").to_pandas(), trace.read("waits").to_pandas()
    each = [(program, epoch) for program in range(PROGRAMS) for epoch in range(1, EPOCHS + 1)]
    raised = writes[writes.kind == "flag"]
    assert sorted(zip(raised.flag, raised.value, strict=True)) == each
    assert sorted(zip(waits.flag, waits.expected, strict=True)) == each
    assert (waits.polls == 1).all()
    data = writes[writes.kind == "data"]
    assert sorted(data.offset_bytes) == sorted([1024 * program for program, _ in each])
    assert set(data.size_bytes) == {1024}
    assert set(writes.peer) == {1}
    spans = trace.read("spans").to_pandas()
    assert sorted(spans[spans.kind == "phase"].name) == ["scale"] * len(each) + ["wait"] * len(each)


def test_a_full_buffer_keeps_its_first_records_and_the_last_anchor(tmp_path):
    whole, _ = run(tmp_path, capacity=64)
    records, counts = run(tmp_path, capacity=16)
    assert (counts == [20, 16]).all()  # eight events and two anchors a launch
    kinds, full = records[:, :, 1] & 0xFF, whole[:, :, 1] & 0xFF
    assert (kinds[:, :15] == full[:, :15]).all()
    assert (kinds[:, 15] == 7).all()
    truncated = converted(tmp_path, records, counts).notes["truncated"]
    assert [(entry["rank"], entry["workgroup"]) for entry in truncated] == [(0, i) for i in range(PROGRAMS)]
