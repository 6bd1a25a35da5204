"""`with eidola.capture.session(...)` around a PyTorch loop."""

import json
import os
import subprocess
import sys

import pytest

from eidola.capture.torch_job import KILLED as KILLED_REASON
from eidola.convert.captured import captured
from eidola.schemas import Trace

pytest.importorskip("torch", reason="records real PyTorch loops")

LOOP = """
import sys, torch, eidola.capture
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with eidola.capture.session("raw", detail="all", window_steps=2) as s:
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
    environment.pop("XDG_CACHE_HOME", None)  # the recorder is built once
    command = [sys.executable, *launcher, "loop.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def record(folder, rank=0):
    return json.loads((folder / "raw" / f"rank{rank:05d}.0.json").read_text())


@pytest.mark.parametrize("step", ["s.step()", "pass"])
def test_steps_bound_windows_and_phases_are_kept(tmp_path, step):
    run(tmp_path, LOOP.format(step=step))
    found = record(tmp_path)
    assert [len(window["durations_ns"]) for window in found["windows"][:1]] == [2]
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    spans = trace.read("spans").to_pandas()
    assert spans[spans.lane == "steps"].name.tolist() == ["step 0", "step 1", "step 2"]
    assert spans[spans.lane == "phases"].name.tolist() == ["forward"] * 3
    assert (spans.name == "aten::linear").sum() == 3


def test_without_steps_there_are_none(tmp_path):
    text = LOOP.format(step="pass").replace("optimizer.step()", "pass")
    run(tmp_path, text)
    spans = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("spans").to_pandas()
    assert "steps" not in set(spans.lane)
    assert (spans.name == "aten::linear").sum() == 3


def test_the_last_of_two_ranks_completes_the_capture(tmp_path):
    text = (
        LOOP.format(step="s.step()")
        .replace("model =", "torch.distributed.init_process_group('gloo')\nmodel =")
        .replace("loss.backward()", "loss.backward(); torch.distributed.all_reduce(loss.detach())")
    )
    run(tmp_path, text, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    assert trace.ranks() == [0, 1]
    assert trace.read("collectives").num_rows == 2 * 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loop.py", "raw", "t.eidola"]


def test_an_exception_of_the_loop_passes_and_the_capture_is_kept(tmp_path):
    done = run(tmp_path, LOOP.format(step="raise KeyError('mine')"), code=1)
    assert "KeyError: 'mine'" in done.stderr
    assert record(tmp_path)["sealed"] == "session's end"


def test_two_sessions_of_one_process_have_a_ring_each(tmp_path):
    text = """
import os, torch, torch.distributed as dist, eidola.capture
dist.init_process_group("gloo", init_method="file://" + os.path.abspath("rendezvous"), rank=0, world_size=1)
for name, count in (("raw", 2), ("second", 3)):
    with eidola.capture.session(name):
        for _ in range(count):
            dist.all_reduce(torch.ones(count))
    dist.all_reduce(torch.ones(1))
"""
    run(tmp_path, text)
    for name, count in (("raw", 2), ("second", 3)):
        table = Trace(captured(tmp_path / name, tmp_path / f"{name}.eidola")).read("collectives").to_pandas()
        assert table.size_bytes.tolist() == [4 * count] * count
        assert table.sequence.tolist() == list(range(count))


KILLED = """
import os, signal, sys, time, torch, eidola.capture
rank = int(os.environ["RANK"])
with eidola.capture.session("raw") as s:
    for number in range(3):
        with torch.profiler.record_function("work"):
            pass
        s.step()
        open(f"stepped-{rank}-{number}", "w").close()
    while not os.path.exists(f"stepped-{1 - rank}-2"):
        time.sleep(0.01)
    if rank in {killed}:
        os.kill(os.getpid(), signal.SIGKILL)
    while {killed} and not os.path.exists("go"):
        time.sleep(0.01)
"""


def ranks(folder, killed, world=2):
    """Run ranks that are killed once all have stepped; the others leave when those are dead."""
    (folder / "loop.py").write_text(KILLED.replace("{killed}", repr(killed)))
    for file in (*folder.glob("stepped-*"), *folder.glob("go")):
        file.unlink()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(world)}
    environment.pop("XDG_CACHE_HOME", None)
    started = [
        subprocess.Popen([sys.executable, "loop.py"], cwd=folder, env=environment | {"RANK": str(rank)})
        for rank in range(world)
    ]
    for rank in killed:
        assert started[rank].wait(120) == -9
    (folder / "go").touch()
    assert [process.wait(120) for process in started] == [-9 if r in killed else 0 for r in range(world)]


def test_the_ranks_that_are_left_complete_what_a_killed_one_began(tmp_path):
    ranks(tmp_path, killed={1})
    assert [gap["reason"] for gap in record(tmp_path, 1)["gaps"]] == [KILLED_REASON]
    assert record(tmp_path, 0)["gaps"] == []
    spans = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("spans", ranks=[1]).to_pandas()
    assert spans[spans.lane == "steps"].name.tolist() == ["step 0", "step 1", "step 2"]


def test_a_session_that_was_killed_whole_is_recovered(tmp_path):
    from eidola.capture import recover
    from eidola.schemas import UsageError

    with pytest.raises(UsageError, match=r"no session to .*raw was killed"):
        recover(tmp_path / "raw")
    ranks(tmp_path, killed={0, 1})
    assert not (tmp_path / "raw").exists()
    assert recover(tmp_path / "raw") == 2
    assert [record(tmp_path, rank)["gaps"][0]["reason"] for rank in (0, 1)] == [KILLED_REASON] * 2
    assert sorted(p.name for p in tmp_path.glob(".*")) == []


def test_what_a_killed_session_left_is_no_part_of_the_next(tmp_path):
    ranks(tmp_path, killed={0, 1})
    (stale,) = tmp_path.glob(".raw.*")
    (stale / "left-1").touch()
    ranks(tmp_path, killed=set())
    assert [record(tmp_path, rank)["gaps"] for rank in (0, 1)] == [[], []]
    assert [record(tmp_path, rank)["sealed"] for rank in (0, 1)] == ["session's end"] * 2
    assert sorted(p.name for p in tmp_path.glob(".*")) == []


def test_a_forked_child_that_leaves_the_block_writes_nothing(tmp_path):
    text = """
import os, sys, torch, eidola.capture
with eidola.capture.session("raw") as s:
    s.step()
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    os.waitpid(pid, 0)
    assert not os.path.exists("raw")
    s.step()
"""
    run(tmp_path, text)
    assert record(tmp_path)["steps"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [("detail='much'", "off, spaced or all"), ("budget=1.5", "share"), ("ring_mib=0", "1 to 65536")],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    from eidola.capture import session
    from eidola.schemas import UsageError

    with (
        pytest.raises(UsageError, match=message),
        session(tmp_path / "raw", **eval(f"dict({options})")),
    ):
        pass
    assert not list(tmp_path.iterdir())
