"""`eidola replay sweep` as a user runs it: real processes, real signals, a real Dask scheduler with two workers."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from eidola.schemas import Results

ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT / "sample_traces/gemv_allreduce_host_2/trace.eidola"
EIDOLA = [sys.executable, "-c", "from eidola.cli.main import main; main()"]
POINTS = 8
STUDY = f"""
trace = "{TRACE}"
[fixed]
gpus = 4
fabric = "star"
engine = "reference"  # slow enough to interrupt
[grid]
seed = {list(range(POINTS))}
"""
PATIENCE_S = 60  # a hang, not a measure of speed


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def start(folder, *args, **options):
    """Start a sweep into folder/out."""
    command = [*EIDOLA, "replay", "sweep", "study.toml", "-o", "out", *args]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def until(what, process=None):
    """Wait until `what` holds; fail where `process` ends before."""
    give_up = time.monotonic() + PATIENCE_S
    while not what():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.02)


def finished(folder) -> set[str]:
    runs = folder / "out/runs"
    return {run.name for run in runs.iterdir() if run.name[0] != "."} if runs.is_dir() else set()


def workers(process) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def check_whole(folder) -> list[dict]:
    """Every point is there once, done, in grid order, and nothing else is."""
    rows = pq.read_table(folder / "out/results.parquet").to_pylist()
    assert [row["seed"] for row in rows] == list(range(POINTS))
    assert {row["status"] for row in rows} == {"done"}
    assert len({row["point"] for row in rows}) == POINTS
    assert {run.name for run in (folder / "out/runs").iterdir()} == {row["point"] for row in rows}
    assert len({row["results_hash"] for row in rows}) == 1, "static routing draws nothing"
    return rows


def check_unfinished(folder):
    """Nothing but whole runs is there."""
    assert {file.name for file in (folder / "out").iterdir()} == {".lock", "runs"}
    for name in finished(folder):
        assert Results(folder / "out/runs" / name).summary["makespan_ps"] > 0


def test_a_sweep_killed_in_the_middle_goes_on_where_it_was(folder):
    with start(folder, "--jobs", "2") as process:
        until(lambda: len(finished(folder)) >= 2, process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert not psutil.wait_procs(children, timeout=PATIENCE_S)[1], "workers outlive their parent"
    check_unfinished(folder)
    before = {name: (folder / "out/runs" / name / "manifest.json").read_bytes() for name in finished(folder)}
    assert 2 <= len(before) < POINTS
    with start(folder, "--jobs", "2") as process:
        said, _ = process.communicate()
    assert process.returncode == 0
    assert f"{POINTS} points, {len(before)} of them from before" in said
    check_whole(folder)
    for name, manifest in before.items():
        assert (folder / "out/runs" / name / "manifest.json").read_bytes() == manifest


def test_a_killed_worker_loses_nothing(folder):
    with start(folder, "--jobs", "2", "--json") as process:
        until(lambda: finished(folder), process)
        workers(process)[0].kill()
        said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(said) == check_whole(folder)


@pytest.mark.parametrize("to", ["the sweep", "all, as a terminal does"])
def test_ctrl_c_keeps_finished_points_and_leaves_130(folder, to):
    with start(folder, "--jobs", "2", start_new_session=True) as process:
        until(lambda: finished(folder), process)
        children = psutil.Process(process.pid).children(recursive=True)
        (os.kill if to == "the sweep" else os.killpg)(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert re.search(rf"\d of {POINTS} points are there", errors)
    assert "Traceback" not in errors
    assert not psutil.wait_procs(children, timeout=PATIENCE_S)[1]
    check_unfinished(folder)
    assert not [run for run in (folder / "out/runs").iterdir() if run.name[0] == "."]


def test_two_sweeps_do_not_share_a_folder(folder):
    with start(folder, "--jobs", "1") as process:
        until(lambda: (folder / "out/runs").is_dir(), process)
        with start(folder) as other:
            _, errors = other.communicate()
        assert other.returncode == 2
        assert "another sweep writes to" in errors
        process.send_signal(signal.SIGINT)
        process.communicate()


def test_a_failing_point_is_named_on_stderr_and_exits_1(folder):
    text = STUDY.replace("gpus = 4", "replicas = true").partition("seed")[0] + "gpus = [2, 3]\n"
    (folder / "study.toml").write_text(text)
    with start(folder, "-q") as process:
        said, errors = process.communicate()
    assert (process.returncode, said) == (1, "")
    assert "point gpus 3 failed: UsageError: " in errors
    assert "1 of 2 points failed" in errors
    assert (folder / "out/report.html").is_file()


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers on loopback; the scheduler's address, and the workers' processes."""
    pytest.importorskip("distributed", reason="Dask is not installed: sweeps over a cluster are not tested")
    dask, file = [sys.executable, "-m", "dask"], tmp_path / "scheduler.json"
    options = ["--scheduler-file", str(file), "--no-dashboard"]
    with ExitStack() as stack, (tmp_path / "dask.log").open("w") as log:

        def begin(*command):
            process = stack.enter_context(subprocess.Popen([*dask, *command], stdout=log, stderr=log))
            stack.callback(process.kill)
            return process

        begin("scheduler", "--host", "127.0.0.1", "--port", "0", *options)
        until(lambda: file.is_file() and file.read_text().endswith("}"))
        pair = [begin("worker", "--nthreads", "1", "--no-nanny", *options) for _ in range(2)]
        yield json.loads(file.read_text())["address"], pair


def test_a_dask_worker_killed_during_the_sweep_loses_nothing(folder, cluster):
    address, pair = cluster
    with start(folder, "--cluster", address) as process:
        until(lambda: len(finished(folder)) >= 3, process)
        pair[0].kill()
        said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert f"{POINTS} points" in said
    assert pair[1].poll() is None
    check_whole(folder)


def test_an_address_that_is_none_is_named(folder):
    pytest.importorskip("distributed", reason="Dask is not installed: sweeps over a cluster are not tested")
    with start(folder, "--cluster", "nowhere") as process:
        _, errors = process.communicate()
    assert process.returncode == 2
    assert "--cluster nowhere: no scheduler answers" in errors


def test_a_cluster_without_dask_says_what_to_install(folder):
    code = "import sys; sys.modules['distributed'] = None; from eidola.cli.main import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "replay",
        "sweep",
        "study.toml",
        "-o",
        "out",
        "--cluster",
        "tcp://a:1",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "pip install 'eidola-sim[cluster]'" in done.stderr


def test_the_example_of_the_documentation_runs(tmp_path):
    text = (ROOT / "docs/sweeps.md").read_text()
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "study.toml").write_text(toml)
    (tmp_path / "sample_traces").symlink_to(ROOT / "sample_traces")
    (console,) = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    commands = [line[2:] for line in console.splitlines() if line.startswith("$ ")]
    printed = [line for line in console.splitlines() if not line.startswith("$ ")]
    said = []
    for command in commands:
        name, *args = shlex.split(command)
        assert name == "eidola"
        done = subprocess.run([*EIDOLA, *args], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said += done.stdout.splitlines()
    assert [re.sub(r"[\d,.]+", "#", line) for line in said] == [
        re.sub(r"[\d,.]+", "#", line) for line in printed
    ]


def test_ctrl_c_while_a_run_is_written_keeps_the_old_one_whole(tmp_path):
    args = ["replay", "run", TRACE, "--gpus", "64", "--fabric", "star", "-o", "run", "-q"]
    subprocess.run([*EIDOLA, *args], cwd=tmp_path, check=True)
    old = (tmp_path / "run/manifest.json").read_bytes()
    command = [*EIDOLA, *args, "--overwrite", "--record", "hops"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: list(tmp_path.glob(".run.partial.*")), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run/manifest.json").read_bytes() == old
