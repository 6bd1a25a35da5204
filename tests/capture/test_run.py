"""`eidola capture run` around real scripts: what is captured, and what the script does not notice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eidola.convert.captured import captured
from eidola.convert.execution_trace import read_execution_trace
from eidola.convert.telemetry import read_telemetry
from eidola.replay import compare, lower, replay, run
from eidola.replay.presets import preset
from eidola.schemas import Trace, check

torch = pytest.importorskip("torch", reason="captures real PyTorch jobs")

TRAIN = Path(__file__).resolve().parents[2] / "sample_traces" / "gloo_ddp_2" / "train.py"
GROUP = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo", init_method="file://" + os.path.abspath("rendezvous"), rank=0, world_size=1)
"""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


def script(folder, text):
    (folder / "script.py").write_text(text)
    return sys.executable, "script.py"


def manifest(folder):
    return json.loads((folder / "raw" / "capture.json").read_text())


def record(folder, rank=0, restart=0):
    return json.loads((folder / "raw" / f"rank{rank:05d}.{restart}.json").read_text())


@pytest.fixture(scope="module")
def ddp(tmp_path_factory, capture_run):
    """A two-process DDP job, unmodified, with a sitecustomize of its own on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "theirs").mkdir()
    (folder / "theirs" / "sitecustomize.py").write_text(
        f"import os; open(os.path.join({str(folder)!r}, f'ran-{{os.getpid()}}'), 'w').close()"
    )
    path = os.pathsep.join(filter(None, (str(folder / "theirs"), os.environ.get("PYTHONPATH"))))
    done = capture_run(folder, *TORCHRUN, TRAIN, environment={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def ddp_trace(ddp):
    trace = Trace(captured(ddp / "raw", ddp / "t.eidola"))
    assert not [p for p in check(trace.path) if p.severity == "error"]
    return trace


def test_every_rank_attached_and_nothing_failed(ddp):
    found = manifest(ddp)
    assert [entry["rank"] for entry in found["ranks"]] == [0, 1]
    assert found["failures"] == []
    assert found["exit_code"] == 0
    assert all(entry["sealed"] == "exit" and entry["gaps"] == [] for entry in found["ranks"])
    assert all(entry["lost_records"] == 0 for entry in found["ranks"])


def test_the_light_level_runs_no_profiler_where_there_is_no_gpu(ddp):
    names = {p.name.split(".", 2)[2] for p in (ddp / "raw").glob("rank*")}
    assert names == {"json", "calls.ring", "marks.ring"}
    assert manifest(ddp)["backend"] == "host"


def test_process_groups_and_steps_are_recorded(ddp, ddp_trace):
    for rank in (0, 1):
        found = record(ddp, rank)
        assert found["groups"][0]["ranks"] == [0, 1]
        assert "gloo" in found["groups"][0]["backend"]
        spans = ddp_trace.read("spans", ranks=[rank]).to_pandas()
        steps = spans[spans.lane == "steps"]
        assert steps.name.tolist() == [f"step {n}" for n in range(5)]
        assert (steps.start_ns.values[1:] >= steps.end_ns.values[:-1]).all()


def test_the_sitecustomize_that_ours_shadows_ran_in_every_process(ddp):
    # torchrun itself and its two workers.
    assert len(list(ddp.glob("ran-*"))) >= 3


def test_collectives_of_both_ranks_match(ddp_trace):
    table = ddp_trace.read("collectives").to_pandas()
    by_rank = [table[table["rank"] == r].sort_values("sequence") for r in (0, 1)]
    what = ["communicator", "sequence", "operation", "dtype", "size_bytes"]
    assert by_rank[0][what].values.tolist() == by_rank[1][what].values.tolist()
    assert ddp_trace.notes["seen_on_one_rank_only"] == []
    # Both linear layers of the model, weights and biases, in float32, once a step; then the loss.
    gradients = 4 * (256 * 512 + 512 + 512 * 256 + 256)
    reduced = by_rank[0][by_rank[0].operation == "all_reduce"]
    assert reduced.size_bytes.sum() == 5 * gradients + 4


def test_a_collective_ends_on_no_rank_before_it_began_on_all(ddp_trace):
    table = ddp_trace.read("collectives").to_pandas()
    synchronising = table[table.operation == "all_reduce"].groupby("sequence")
    assert (synchronising.end_ns.min() >= synchronising.start_ns.max()).all()


def test_calls_launch_the_workers_spans(ddp_trace):
    edges = ddp_trace.read("dependencies").to_pandas()
    spans = ddp_trace.read("spans").to_pandas().set_index(["rank", "span"])
    launches = edges[edges.kind == "launch"]
    assert len(launches) == ddp_trace.read("collectives").num_rows
    before = spans.loc[list(zip(launches["rank"], launches.before, strict=True))]
    after = spans.loc[list(zip(launches["rank"], launches.after, strict=True))]
    assert after.name.str.startswith("gloo:").all()
    assert (before.start_ns.values <= after.launch_ns.values).all()
    assert (after.launch_ns.values <= before.end_ns.values).all()
    assert (after.launch_ns <= after.start_ns).all()
    resumed = edges[edges.kind == "thread"]
    ended = spans.loc[list(zip(resumed["rank"], resumed.before, strict=True))].end_ns.values
    started = spans.loc[list(zip(resumed["rank"], resumed.after, strict=True))].start_ns.values
    assert (ended <= started).all()


def test_an_anonymous_capture_holds_no_host_name(ddp):
    assert manifest(ddp)["machine"]["host"] is None
    assert record(ddp)["host"] is None


def test_replayed_at_its_own_size_start_times_are_the_captured_ones(ddp_trace, tmp_path):
    fabric = preset("ideal", 2)
    lowered = lower(ddp_trace, fabric, mode="timed")
    rows, (start_ps, _) = lowered.program.activities, run(lowered.program, fabric).activity_times
    known = rows["captured_start_ns"] >= 0
    captured_ps = (rows["captured_start_ns"] - lowered.program.epoch_ns) * 1000
    assert known.sum() >= 2 * 11
    assert np.array_equal(start_ps[known], captured_ps[known])


def test_the_error_of_a_dependent_replay_is_told(ddp_trace, tmp_path):
    replay(ddp_trace.path, tmp_path / "run")
    errors = compare(tmp_path / "run", "captured").errors()
    assert 0 <= errors["makespan"] < 1


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(3)", 3), ("raise RuntimeError('mine')", 1)])
def test_the_scripts_own_end_passes_through(tmp_path, capture_run, ending, code):
    done = capture_run(tmp_path, *script(tmp_path, GROUP + ending))
    assert done.returncode == code
    assert ("RuntimeError: mine" in done.stderr) == (code == 1)
    assert manifest(tmp_path)["exit_code"] == code
    assert manifest(tmp_path)["ranks"][0]["sealed"] == "exit"


@pytest.mark.parametrize(("text", "code"), [("pass", 5), ("import sys; sys.exit(3)", 3)])
def test_no_attached_rank_is_an_error_and_leaves_nothing(tmp_path, capture_run, text, code):
    done = capture_run(tmp_path, *script(tmp_path, text))
    assert done.returncode == code
    assert "no rank attached" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["script.py"]


def test_python_that_ignores_the_environment_is_named(tmp_path, capture_run):
    script(tmp_path, GROUP)
    done = capture_run(tmp_path, sys.executable, "-E", "script.py")
    assert done.returncode == 5
    assert "python -E" in done.stderr
    assert "run without them" in done.stderr


def test_an_interrupted_script_is_captured_up_to_then(tmp_path):
    text = GROUP + "import time\ndist.all_reduce(torch.ones(4)); print('ready', flush=True); time.sleep(100)"
    code = "from eidola.cli.main import main; main()"
    command = [sys.executable, "-c", code, "capture", "run", "-o", "raw", "--", *script(tmp_path, text)]
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    own.pop("XDG_CACHE_HOME", None)
    with subprocess.Popen(
        command, cwd=tmp_path, env=own, stdout=subprocess.PIPE, start_new_session=True
    ) as run_:
        assert run_.stdout.readline() == b"ready\n"
        os.killpg(run_.pid, signal.SIGINT)
        assert run_.wait(60) == 130
    assert manifest(tmp_path)["exit_code"] == 130
    assert Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("collectives").num_rows == 1


def test_a_command_that_does_not_exist_is_named(tmp_path, capture_run):
    done = capture_run(tmp_path, "no-such-command")
    assert done.returncode == 2
    assert "no-such-command cannot be started" in done.stderr


def test_a_disk_that_refuses_the_rings_stops_the_capture_and_not_the_script(tmp_path, capture_run):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
    done = capture_run(
        tmp_path, *script(tmp_path, limit + GROUP + "t = torch.ones(4); dist.all_reduce(t); print('trained')")
    )
    assert "trained" in done.stdout
    assert done.returncode == 5
    assert "no rank was captured: rank 0: " in done.stderr
    assert "--ring-mib" in done.stderr


FULL = """
import resource
w = torch.nn.Parameter(torch.ones(8))
optimizer = torch.optim.SGD([w], lr=0.1)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, -1))
for step in range(4):
    w.grad = torch.ones(8)
    optimizer.step()
with torch.profiler.profile():
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))  # the rendezvous, too, is a file
assert torch.allclose(w, torch.full((8,), 0.6))
print("trained")
"""


def test_a_disk_that_fills_later_does_not_stop_the_script(tmp_path, capture_run):
    command = script(tmp_path, GROUP + FULL)
    done = capture_run(tmp_path, *command, options=("--detail", "all", "--window-steps", "2"))
    assert "trained" in done.stdout
    assert done.returncode == 0, done.stderr
    assert "a hook failed, the script went on" in done.stderr
    assert record(tmp_path)["windows"] == []
    spans = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("spans").to_pandas()
    assert (spans.lane == "steps").sum() == 4


KILLED = """
import os, signal, sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
w = torch.nn.Parameter(torch.ones(8))
optimizer = torch.optim.SGD([w], lr=0.1)
for step in range(6):
    w.grad = torch.ones(8)
    dist.all_reduce(w.grad)
    if step == 3 and dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    optimizer.step()
"""


@pytest.mark.parametrize("windows", [False, True])
def test_kill_9_of_one_rank_loses_at_most_the_open_window(tmp_path, capture_run, windows):
    script(tmp_path, KILLED)
    if not windows:
        without = subprocess.run([*TORCHRUN, "script.py"], cwd=tmp_path, capture_output=True, check=False)
    options = ("--detail", "all", "--window-steps", "2") if windows else ()
    done = capture_run(tmp_path, *TORCHRUN, "script.py", options=options)
    assert done.returncode == (1 if windows else without.returncode) != 0
    for rank in (0, 1):  # steps 0 and 1 are sealed, the window of steps 2 and 3 was open
        assert [w["first_step"] for w in record(tmp_path, rank)["windows"]][:1] == ([0] if windows else [])
    assert len(record(tmp_path, 1)["windows"]) == windows
    assert "rank 1 has a gap: the process ended without closing its record" in done.stderr
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    assert not [p for p in check(trace.path) if p.severity == "error"]
    table = trace.read("collectives").to_pandas()
    for rank in (0, 1):
        assert table[table["rank"] == rank].sequence.tolist() == [0, 1, 2, 3]
    spans = trace.read("spans").to_pandas()
    steps = spans[spans.lane == "steps"]
    assert steps[steps["rank"] == 1].name.tolist() == ["step 0", "step 1", "step 2"]
    (gap,) = [gap for gap in trace.notes["gaps"] if gap["rank"] == 1]
    last = table[(table["rank"] == 1)].end_ns.max()
    assert gap["start_ns"] >= last
    shown = spans[(spans.lane == "capture") & (spans["rank"] == 1)]
    assert shown.start_ns.tolist() == [gap["start_ns"]]
    assert gap["reason"] in shown.name.item()


def test_each_restart_has_its_own_record_and_the_last_is_converted(tmp_path, capture_run):
    text = (
        "import os, sys, torch, torch.distributed as dist\n"
        "again = int(os.environ['TORCHELASTIC_RESTART_COUNT'])\n"
        # With torchrun's own store a restart may find the addresses of the ranks before it, captured or not.
        "place = 'file://' + os.path.abspath(f'rendezvous{again}')\n"
        "dist.init_process_group('gloo', init_method=place, rank=int(os.environ['RANK']), world_size=2)\n"
        "dist.all_reduce(torch.ones(4 + 4 * again))\n"
        "sys.exit(0 if again else 1)"
    )
    script(tmp_path, text)
    done = capture_run(tmp_path, *TORCHRUN, "--max-restarts", "1", "script.py")
    assert done.returncode == 0, done.stderr
    found = manifest(tmp_path)
    assert [(entry["rank"], entry["restart"]) for entry in found["ranks"]] == [(0, 1), (1, 1)]
    assert [(entry["rank"], entry["restart"]) for entry in found["earlier_restarts"]] == [(0, 0), (1, 0)]
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    assert trace.read("collectives")["size_bytes"].to_pylist() == [32, 32]
    assert trace.notes["earlier_restarts"] == 2


def test_an_fsdp_script_is_captured_converted_and_replayed(tmp_path, capture_run):
    done = capture_run(tmp_path, *TORCHRUN, TRAIN.parents[1] / "gloo_fsdp_2" / "train.py")
    assert done.returncode == 0, done.stderr
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    sample = Trace(TRAIN.parents[1] / "gloo_fsdp_2" / "trace.eidola")
    what = ["rank", "communicator", "sequence", "operation", "dtype", "size_bytes"]
    found, kept = (
        t.read("collectives", what).sort_by([(n, "ascending") for n in what[:3]]) for t in (trace, sample)
    )
    assert found.equals(kept)
    fabric = preset("ideal", 2)
    lowered = lower(trace, fabric, mode="timed")
    rows, (start_ps, _) = lowered.program.activities, run(lowered.program, fabric).activity_times
    known = rows["captured_start_ns"] >= 0
    captured_ps = (rows["captured_start_ns"] - lowered.program.epoch_ns) * 1000
    assert known.sum() >= found.num_rows
    assert np.array_equal(start_ps[known], captured_ps[known])


SPAWNED = """
import os, sys, torch, torch.distributed as dist, torch.multiprocessing as mp

def work(rank):
    dist.init_process_group(
        "gloo", init_method="file://" + os.path.abspath("rendezvous"), rank=rank, world_size=2)
    dist.all_reduce(torch.ones(4))

if __name__ == "__main__":
    mp.spawn(work, nprocs=2)
"""


def test_ranks_that_the_script_spawns_itself_are_captured(tmp_path, capture_run):
    done = capture_run(tmp_path, *script(tmp_path, SPAWNED))
    assert done.returncode == 0, done.stderr
    table = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("collectives")
    assert table["rank"].to_pylist() == [0, 1]
    assert table["size_bytes"].to_pylist() == [16, 16]


LOADERS = """
from torch.utils.data import DataLoader, Dataset

class Numbers(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        inherited = [key for key in os.environ if key.startswith("EIDOLA_CAPTURE")]
        with torch.profiler.record_function("in a worker"):
            return torch.tensor([index, len(inherited) + ("inject" in os.environ.get("PYTHONPATH", ""))])

if __name__ == "__main__":
    for context in ("fork", "spawn"):
        batches = list(DataLoader(Numbers(), batch_size=2, num_workers=2, multiprocessing_context=context))
        assert sum(int(batch[:, 1].sum()) for batch in batches) == 0, batches
    dist.all_reduce(torch.ones(4))
    pid = os.fork()
    if pid == 0:
        import eidola.capture.attach
        with torch.profiler.record_function("in a worker"):
            pass
        eidola.capture.attach.finish()
        os._exit(0)
    os.waitpid(pid, 0)
"""


def test_forked_and_spawned_children_write_nothing_and_start_without_the_injection(tmp_path, capture_run):
    once = GROUP.replace("dist.init", 'if __name__ == "__main__": dist.init')
    done = capture_run(tmp_path, *script(tmp_path, once + LOADERS))
    assert done.returncode == 0, done.stderr
    names = {p.name for p in (tmp_path / "raw").iterdir()}
    assert names == {
        *("capture.json", "rank00000.0.json"),
        *("rank00000.0.calls.ring", "rank00000.0.marks.ring"),
    }
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    assert trace.read("collectives").num_rows == 1
    assert "in a worker" not in trace.read("spans")["name"].to_pylist()


def test_a_compiled_model_is_captured(tmp_path, capture_run):
    text = GROUP + (
        "try:\n"
        "    f = torch.compile(lambda x: (x * 2).relu(), backend='aot_eager')\n"
        "    y = f(torch.ones(4, requires_grad=True))\n"
        "except Exception as error:\n"
        "    print(error); sys.exit(77)\n"
        "y.sum().backward(); dist.all_reduce(y.detach()); assert y.sum() == 8\n"
    )
    done = capture_run(tmp_path, *script(tmp_path, text))
    if done.returncode == 77:
        pytest.skip(f"torch.compile does not work here: {done.stdout}")
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path)["failures"] == []
    table = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("collectives")
    assert table["size_bytes"].to_pylist() == [16]


PROFILED = """
import json, collections, re
from torch.profiler import ProfilerActivity, profile, schedule
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

def keep(profiler):
    profiler.export_chrome_trace("theirs.json")

def train(steps, profiler=None):
    for _ in range(steps):
        model(torch.ones(4, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if profiler: profiler.step()

train(2)
plan = schedule(wait=1, warmup=1, active=2)
with profile(activities=[ProfilerActivity.CPU], schedule=plan, with_stack=True, on_trace_ready=keep) as p:
    train(4, p)
train(4)
events = json.load(open("theirs.json"))["traceEvents"]
named = (f"{e.get('cat')} {e['name']}" for e in events if e["ph"] == "X")
names = collections.Counter(re.sub("0x[0-9a-f]+", "0x", name) for name in named)
json.dump([names, [v.tolist() for v in model.parameters()]], open("result.json", "w"), sort_keys=True)
"""


@pytest.fixture(scope="module")
def profiled_alone(tmp_path_factory):
    """Events and parameters of a script that profiles itself, without capture."""
    folder = tmp_path_factory.mktemp("alone")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(script(folder, GROUP + PROFILED), cwd=folder, env=environment, check=True)
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("detail", ["off", "all"])
def test_a_script_that_profiles_itself_sees_what_it_sees_without_capture(
    tmp_path, capture_run, profiled_alone, detail
):
    options = ("--detail", detail, "--window-steps", "1")
    done = capture_run(tmp_path, *script(tmp_path, GROUP + PROFILED), options=options)
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path)["failures"] == []
    captured_too = json.loads((tmp_path / "result.json").read_text())
    assert captured_too[1] == profiled_alone[1]
    assert {k: v for k, v in captured_too[0].items() if profiled_alone[0].get(k) != v} == {}
    assert captured_too[0].keys() == profiled_alone[0].keys()
    found = record(tmp_path)
    if detail == "off":
        assert found["gaps"] == []
        return
    (gap,) = found["gaps"]
    assert gap["reason"] == "the script started a profiler of its own"
    before = [w for w in found["windows"] if w["end_ns"] <= gap["start_ns"]]
    after = [w for w in found["windows"] if w["start_ns"] >= gap["end_ns"]]
    assert before
    assert after
    assert len(before) + len(after) == len(found["windows"])
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    assert not [p for p in check(trace.path) if p.severity == "error"]
    assert [g["reason"] for g in trace.notes["gaps"]] == [gap["reason"]]


def test_a_profiler_that_is_active_already_is_left_alone(tmp_path, capture_run):
    text = (
        "import torch\nwith torch.profiler.profile() as p:"
        + GROUP.replace("\n", "\n    ")
        + "dist.all_reduce(torch.ones(4))\n"
        + "sys.exit(0 if any(e.key == 'gloo:all_reduce' for e in p.key_averages()) else 9)"
    )
    done = capture_run(tmp_path, *script(tmp_path, text), options=("--detail", "all"))
    assert done.returncode == 0, done.stderr
    (gap,) = record(tmp_path)["gaps"]
    assert "own profiler was active" in gap["reason"]
    assert record(tmp_path)["windows"] == []
    table = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("collectives")
    assert table["size_bytes"].to_pylist() == [16]


def test_windows_within_a_budget_open_at_the_same_step_on_all_ranks(tmp_path, capture_run):
    text = KILLED.replace("range(6)", "range(2000)").replace("step == 3", "False")
    script(tmp_path, text)
    options = ("--detail", "spaced", "--budget", "60", "--window-steps", "2")
    done = capture_run(tmp_path, *TORCHRUN, "script.py", options=options)
    assert done.returncode == 0, done.stderr
    first_steps = [[w["first_step"] for w in record(tmp_path, rank)["windows"]] for rank in (0, 1)]
    assert first_steps[0] == first_steps[1]
    assert first_steps[0]
    assert "windows on rank" in done.stderr
    assert "slowdown" in done.stderr
    windows = record(tmp_path)["windows"]
    assert all(len(w["durations_ns"]) == 2 for w in windows if w["closed"] == "2 steps")
    assert all(w["closed"] == "2 steps" for w in windows[:-1])  # the script may end within the last
    traced = [window["execution_trace"] for window in record(tmp_path)["windows"]]
    assert read_execution_trace(tmp_path / "raw" / traced[0]).groups
    assert set(traced[1:]) <= {None}
    trace = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola"))
    table = trace.read("collectives").to_pandas()
    assert table.groupby("rank").sequence.apply(list).tolist() == [list(range(2000))] * 2


def test_a_run_too_short_for_a_window_says_so(tmp_path, capture_run):
    done = capture_run(tmp_path, *script(tmp_path, GROUP + "dist.all_reduce(torch.ones(1))"),
                       options=("--detail", "spaced"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no window fitted into 1 %" in done.stderr
    assert "--detail all" in done.stderr


STEPS = """
w = torch.nn.Parameter(torch.ones(8))
optimizer = torch.optim.SGD([w], lr=0.1)
for step in range(4):
    w.grad = torch.ones(8)
    dist.all_reduce(w.grad)
    optimizer.step()
"""


def test_without_recorder_and_flight_records_there_are_windows_alone(tmp_path, capture_run):
    missing = "import torch\ndel torch._C._distributed_c10d._dump_fr_trace_json\n"
    nothing = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path), "CXX": ""}
    done = capture_run(tmp_path, *script(tmp_path, missing + GROUP + STEPS), environment=nothing)
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path)["failures"] == []
    found = record(tmp_path)
    assert (found["calls"], found["flight"]) == (None, None)
    assert [w["closed"] for w in found["windows"]] == ["3 steps"]
    table = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("collectives")
    assert table["size_bytes"].to_pylist() == [32] * 3


def test_without_the_list_of_process_groups_their_collectives_are_recorded_all_the_same(
    tmp_path, capture_run
):
    """PyTorch's own ExecutionTraceObserver needs that list too: windows are given up, which is told."""
    missing = "import torch.distributed.distributed_c10d as c10d\ndel c10d._World.pg_config_info\n"
    done = capture_run(tmp_path, *script(tmp_path, missing + GROUP + STEPS), options=("--detail", "all"))
    assert done.returncode == 0, done.stderr
    assert "a hook failed, the script went on: AttributeError" in done.stderr
    assert record(tmp_path)["groups"] == record(tmp_path)["windows"] == []
    table = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("collectives")
    assert table["size_bytes"].to_pylist() == [32] * 4
    assert set(table["communicator"].to_pylist()) == {"0"}


def test_where_pytorch_does_not_tell_of_other_profilers_none_of_ours_starts(tmp_path, capture_run):
    missing = "import torch\ndel torch.autograd.profiler._run_on_profiler_stop\n"
    command = script(tmp_path, missing + GROUP + STEPS)
    done = capture_run(tmp_path, *command, options=("--detail", "all"))
    assert done.returncode == 0, done.stderr
    assert "has a gap: no profiler windows: this PyTorch does not tell" in done.stderr
    assert record(tmp_path)["windows"] == []
    table = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("collectives")
    assert table["size_bytes"].to_pylist() == [32] * 4


def test_without_nccl_its_plugin_is_absent_quietly(tmp_path, capture_run):
    ask = "assert 'NCCL_PROFILER_PLUGIN' not in os.environ and 'EIDOLA_NCCL_FOLDER' not in os.environ"
    if torch.version.cuda or torch.version.hip:
        pytest.skip("this PyTorch has NCCL or RCCL")
    done = capture_run(tmp_path, *script(tmp_path, GROUP + ask))
    assert done.returncode == 0, done.stderr
    assert "NCCL" not in done.stderr
    assert manifest(tmp_path)["absent"] == []


def test_nccl_is_told_of_its_plugin_and_gpus_are_sampled(tmp_path, capture_run):
    text = (
        "import ctypes\n"
        "plugin = ctypes.CDLL(os.environ['NCCL_PROFILER_PLUGIN'])\n"
        "plugin.ncclProfiler_v6\n"
        "dist.destroy_process_group()\n"
    )
    options = ("--nccl-plugin", "--telemetry", "0.05")
    done = capture_run(tmp_path, *script(tmp_path, GROUP + text), options=options)
    assert done.returncode == 0, done.stderr
    assert "no NCCL or RCCL took the plugin" in done.stderr
    telemetry = read_telemetry(tmp_path / "raw" / "telemetry.jsonl")
    assert telemetry.samples
    assert bool(telemetry.gpus) != bool(telemetry.missing)
