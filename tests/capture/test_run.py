"""`eidola capture run` around real scripts: what is captured, and what the script does not notice."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eidola.convert.captured import captured
from eidola.schemas import Trace, check

pytest.importorskip("torch", reason="captures real PyTorch jobs")

TRAIN = Path(__file__).resolve().parents[2] / "sample_traces" / "gloo_ddp_2" / "train.py"
GROUP = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo", init_method="file://" + os.path.abspath("rendezvous"), rank=0, world_size=1)
"""


def capture_run(folder, *command, environment=None):
    """Run `eidola capture run -o raw -- command` in `folder`; return the finished process."""
    code = "from eidola.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "capture", "run", "-o", "raw", "--anonymous", "--", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def script(folder, text):
    (folder / "script.py").write_text(text)
    return sys.executable, "script.py"


def manifest(folder):
    return json.loads((folder / "raw" / "capture.json").read_text())


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    """A two-process DDP job, unmodified, with a sitecustomize of its own on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "theirs").mkdir()
    (folder / "theirs" / "sitecustomize.py").write_text(
        f"import os; open(os.path.join({str(folder)!r}, f'ran-{{os.getpid()}}'), 'w').close()"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = {"PYTHONPATH": str(folder / "theirs")}
    done = capture_run(folder, *torchrun, str(TRAIN), environment=environment)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_rank_attached_and_nothing_failed(ddp):
    found = manifest(ddp)
    assert [entry["rank"] for entry in found["ranks"]] == [0, 1]
    assert found["failures"] == []
    assert found["exit_code"] == 0
    assert all(entry["sealed"] == "exit" and entry["gap"] is None for entry in found["ranks"])


def test_process_groups_and_steps_are_recorded(ddp):
    for entry in manifest(ddp)["ranks"]:
        record = json.loads((ddp / "raw" / entry["file"]).read_text())
        assert record["groups"][0]["ranks"] == [0, 1]
        assert "gloo" in record["groups"][0]["backend"]
        assert [step["step"] for step in record["steps"]] == [0, 1, 2, 3, 4]


def test_the_sitecustomize_that_ours_shadows_ran_in_every_process(ddp):
    # torchrun itself and its two workers.
    assert len(list(ddp.glob("ran-*"))) >= 3


def test_collectives_of_both_ranks_match(ddp):
    trace = Trace(captured(ddp / "raw", ddp / "t.eidola"))
    assert not [p for p in check(trace.path) if p.severity == "error"]
    table = trace.read("collectives").to_pandas()
    by_rank = [table[table["rank"] == r].sort_values("sequence") for r in (0, 1)]
    what = ["communicator", "sequence", "operation", "dtype", "size_bytes"]
    assert by_rank[0][what].values.tolist() == by_rank[1][what].values.tolist()
    assert trace.notes["seen_on_one_rank_only"] == []
    # Both linear layers of the model, weights and biases, in float32, once a step; then the loss.
    gradients = 4 * (256 * 512 + 512 + 512 * 256 + 256)
    reduced = by_rank[0][by_rank[0].operation == "all_reduce"]
    assert reduced.size_bytes.sum() == 5 * gradients + 4


def test_a_collective_ends_on_no_rank_before_it_began_on_all(ddp):
    table = Trace(captured(ddp / "raw", ddp / "order.eidola")).read("collectives").to_pandas()
    synchronising = table[table.operation == "all_reduce"].groupby("sequence")
    assert (synchronising.end_ns.min() >= synchronising.start_ns.max()).all()


def test_calls_launch_the_workers_spans(ddp):
    trace = Trace(captured(ddp / "raw", ddp / "edges.eidola"))
    edges = trace.read("dependencies").to_pandas()
    spans = trace.read("spans").to_pandas().set_index(["rank", "span"])
    launches = edges[edges.kind == "launch"]
    assert len(launches) == trace.read("collectives").num_rows
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
    host = os.uname().nodename
    for file in (ddp / "raw").glob("*.gz"):
        header = json.loads(gzip.decompress(file.read_bytes()))
        assert header["host_name"] == header["traceName"] == ""
    assert manifest(ddp)["machine"]["host"] is None
    assert host


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(3)", 3), ("raise RuntimeError('mine')", 1)])
def test_the_scripts_own_end_passes_through(tmp_path, ending, code):
    done = capture_run(tmp_path, *script(tmp_path, GROUP + ending))
    assert done.returncode == code
    assert ("RuntimeError: mine" in done.stderr) == (code == 1)
    assert manifest(tmp_path)["exit_code"] == code
    assert manifest(tmp_path)["ranks"][0]["trace"]


@pytest.mark.parametrize(("text", "code"), [("pass", 5), ("import sys; sys.exit(3)", 3)])
def test_no_attached_rank_is_an_error_and_leaves_nothing(tmp_path, text, code):
    done = capture_run(tmp_path, *script(tmp_path, text))
    assert done.returncode == code
    assert "no rank attached" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["script.py"]


def test_python_that_ignores_the_environment_is_named(tmp_path):
    script(tmp_path, GROUP)
    done = capture_run(tmp_path, sys.executable, "-E", "script.py")
    assert done.returncode == 5
    assert "python -E" in done.stderr


def test_a_command_that_does_not_exist_is_named(tmp_path):
    done = capture_run(tmp_path, "no-such-command")
    assert done.returncode == 2
    assert "no-such-command cannot be started" in done.stderr


def test_ours_gives_way_to_the_scripts_own_profiler(tmp_path):
    done = capture_run(
        tmp_path,
        *script(
            tmp_path,
            GROUP
            + "dist.all_reduce(torch.ones(4))\n"
            + "with torch.profiler.profile() as p: dist.all_reduce(torch.ones(8))\n"
            + "sys.exit(0 if any(e.key == 'gloo:all_reduce' for e in p.key_averages()) else 9)",
        ),
    )
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path)["ranks"][0]["gap"] == "the script started a profiler of its own"
    assert manifest(tmp_path)["failures"] == []
    sizes = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("collectives")["size_bytes"]
    assert sizes.to_pylist() == [16]  # ours saw what came before theirs, and only that


def test_a_profiler_that_is_active_already_is_left_alone(tmp_path):
    done = capture_run(
        tmp_path,
        *script(
            tmp_path,
            "import torch\nwith torch.profiler.profile() as p:"
            + GROUP.replace("\n", "\n    ")
            + "dist.all_reduce(torch.ones(4))\n"
            + "sys.exit(0 if any(e.key == 'gloo:all_reduce' for e in p.key_averages()) else 9)",
        ),
    )
    assert done.returncode == 0, done.stderr
    assert "own profiler was active" in manifest(tmp_path)["ranks"][0]["gap"]
    assert manifest(tmp_path)["ranks"][0]["trace"] is None


def test_children_start_without_the_injection_and_write_nothing(tmp_path):
    done = capture_run(
        tmp_path,
        *script(
            tmp_path,
            GROUP
            + "import subprocess\n"
            + 'child = \'import os, sys; sys.exit(any("EIDOLA" in k for k in os.environ) or '
            + '"inject" in os.environ.get("PYTHONPATH", ""))\'\n'
            + "code = subprocess.run([sys.executable, '-c', child]).returncode\n"
            + "pid = os.fork()\n"
            + "if pid == 0: import eidola.capture.attach; eidola.capture.attach.finish(); os._exit(0)\n"
            + "os.waitpid(pid, 0)\n"
            + "sys.exit(code)",
        ),
    )
    assert done.returncode == 0, done.stderr
    names = {p.name for p in (tmp_path / "raw").iterdir()}
    assert names == {"capture.json", "rank00000.0.json", "rank00000.0.kineto.json.gz"}
