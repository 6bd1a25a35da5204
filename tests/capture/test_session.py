"""`with eidola.capture.session(...)` around a PyTorch loop."""

import json
import os
import subprocess
import sys

import pytest

from eidola.convert.captured import captured
from eidola.schemas import Trace

pytest.importorskip("torch", reason="records real PyTorch loops")

LOOP = """
import sys, torch, eidola.capture
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with eidola.capture.session("raw", steps=2) as s:
    for _ in range(3):
        with s.phase("forward"):
            loss = model(torch.ones(2, 4)).sum()
        loss.backward()
        optimizer.step()
        {step}
"""


def run(folder, text, *launcher, code=0):
    (folder / "loop.py").write_text(text)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "loop.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def record(folder, rank=0):
    return json.loads((folder / "raw" / f"rank{rank:05d}.0.json").read_text())


@pytest.mark.parametrize("step", ["s.step()", "pass"])
def test_steps_bound_the_window_and_phases_are_kept(tmp_path, step):
    run(tmp_path, LOOP.format(step=step))
    found = record(tmp_path)
    assert [s["step"] for s in found["steps"]] == [0, 1]
    assert found["window_closed"] == "2 steps"
    assert [p["name"] for p in found["phases"]] == ["forward"] * 3
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    spans = trace.read("spans").to_pandas()
    assert (spans.name == "aten::linear").sum() == 2  # the third step lies outside of the window
    assert set(spans[spans.kind == "annotation"].lane) >= {"steps", "phases"}


def test_the_last_of_two_ranks_completes_the_capture(tmp_path):
    text = (
        LOOP.format(step="s.step()")
        .replace("model =", "torch.distributed.init_process_group('gloo')\nmodel =")
        .replace("loss.backward()", "loss.backward(); torch.distributed.all_reduce(loss.detach())")
    )
    run(tmp_path, text, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    assert trace.ranks() == [0, 1]
    assert trace.read("collectives").num_rows == 2 * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loop.py", "raw", "t.eidola"]


def test_an_exception_of_the_loop_passes_and_the_capture_is_kept(tmp_path):
    done = run(tmp_path, LOOP.format(step="raise KeyError('mine')"), code=1)
    assert "KeyError: 'mine'" in done.stderr
    assert record(tmp_path)["sealed"] == "session's end"
