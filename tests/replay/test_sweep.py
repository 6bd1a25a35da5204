"""Sweeps by the Python API: what a study's file means, what its table says, and what dying workers cost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.replay import replay
from eidola.replay.sweeping import read_study, sweep
from eidola.replay.sweeping.point import Point, is_done, run_point
from eidola.replay.wait_text import parse_wait, wait_words
from eidola.replay.waiting import IDEAL, Policy, WaitPolicy, backoff, polls_table
from eidola.report import report
from eidola.schemas import InputError, Results, UsageError

from .programs import monitors
from .traces import collective, member, span, write_trace

STAR = """name = "star"
gpus = 4
[[switch]]
name = "s"
[[link]]
from = "gpu 0-3"
to = "s"
rate_gb_per_s = 50
latency_ns = 500
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with job.eidola: on each of two ranks a kernel, then an all-reduce of 1 MiB; and star.toml."""
    folder = tmp_path_factory.mktemp("sweep")
    rows = {
        "spans": [span(0, "stream 7", 1000, 9000), span(1, "stream 7", 9000, 29000)],
        "collectives": [collective(1, 0, 9000, 29000)],
    }
    ranks = {rank: {**rows, "communicators": [member(rank, 2)]} for rank in range(2)}
    write_trace(folder / "job.eidola", ranks)
    (folder / "star.toml").write_text(STAR)
    return folder


def study(folder, text, name="study.toml"):
    file = folder / name
    file.write_text(text)
    return file


GRID = """
trace = "job.eidola"
[fixed]
fabric = "star"
engine = "reference"
replicas = true
[grid]
gpus = [2, 3, 4]
wait = ["ideal", "spin 100ns"]
"""


def test_a_grid_is_expanded_in_the_order_of_the_file(folder):
    found = read_study(
        study(
            folder,
            """
            trace = "job.eidola"
            fixed.fabric = "star"
            [grid]
            seed = [3, 1]
            wait = ["spin 0.2us", "monitor arm 5ns"]
            fabric_settings.rate_gb_per_s = [25, 50]
            fabric_settings.latency_us = [1]
            """,
        )
    )
    arguments = [point.arguments for point in found.points]
    assert list(found.axes) == [
        "seed",
        "wait",
        "fabric_settings.rate_gb_per_s",
        "fabric_settings.latency_us",
    ]
    assert [(a.seed, a.wait.kind, a.fabric_settings["rate_gb_per_s"]) for a in arguments] == [
        (seed, kind, rate) for seed in (3, 1) for kind in (Policy.SPIN, Policy.MONITOR) for rate in (25, 50)
    ]
    assert {(a.fabric, a.record, a.fabric_settings["latency_us"]) for a in arguments} == {("star", "none", 1)}
    assert len({point.id for point in found.points}) == len(found.points)


def test_traces_and_files_of_fabrics_are_found_from_the_study_and_told_apart_by_content(folder, tmp_path):
    text = 'trace = "job.eidola"\n[grid]\nfabric = ["star.toml", "ideal"]\n'
    (first, ideal) = read_study(study(folder, text)).points
    assert first.trace == folder / "job.eidola"
    assert first.arguments.fabric == str(folder / "star.toml")
    assert ideal.fabric_sha256 is None
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert [point.id for point in read_study(moved / "study.toml").points] == [first.id, ideal.id]
    (moved / "star.toml").write_text(STAR.replace("50", "25"))
    again = read_study(moved / "study.toml").points
    assert again[0].id != first.id
    assert again[1].id == ideal.id


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grid = [", "no TOML"),
        ("tracs = 1", "unknown key tracs"),
        ('trace = "job.eidola"', r"\[grid\] is empty"),
        ("[grid]\nseed = [1]", 'write trace = "job.eidola" on top'),
        ('trace = "job.eidola"\n[grid]\ncolour = [1]', "takes no argument colour; it takes trace, gpus"),
        ('trace = "job.eidola"\n[grid]\nseed.x = [1]', "takes no argument seed.x"),
        ('trace = "job.eidola"\n[fixed]\nseed = 1\n[grid]\nseed = [1]', "seed is both fixed and in the grid"),
        ('trace = "job.eidola"\n[fixed]\ntrace = "x"\n[grid]\nseed = [1]', "both on top and in"),
        ('trace = "job.eidola"\n[grid]\nseed = 1', r"\[grid\] seed: give a list"),
        ('trace = "job.eidola"\n[grid]\nseed = []', r"\[grid\] seed: give a list"),
        (
            'trace = "job.eidola"\n[grid]\nseed = ["a"]',
            r"\[grid\] seed: 'a' will not do; give a whole number",
        ),
        ('trace = "job.eidola"\n[grid]\nseed = [true]', "True will not do"),
        ('trace = "job.eidola"\n[grid]\ngpus = [0]', "a whole number of at least 1"),
        ('trace = "job.eidola"\n[grid]\ntargets = [[0], ["a"]]', "a list, each a whole number"),
        ('trace = "job.eidola"\n[grid]\nmode = ["quick"]', "no mode 'quick'; use dependent, timed, target"),
        ('trace = "job.eidola"\n[grid]\nrouting = ["quick"]', "use static, ecmp, spray, least-loaded"),
        ('trace = "job.eidola"\n[grid]\nwait = ["spin"]', "no wait policy 'spin'; write"),
        ('trace = "job.eidola"\n[grid]\nwait = ["spin 100"]', "such as 100ns"),
        ('trace = "job.eidola"\n[grid]\nalgorithms.all_reduce = [1]', "give a text"),
        ('trace = "job.eidola"\n[grid]\nfabric = ["nowhere"]', "no fabric 'nowhere'"),
        ('trace = "job.eidola"\n[grid]\nfabric = ["nowhere.toml"]', "nowhere.toml is not there"),
        ('trace = "job.eidola"\n[fixed]\nfabric = "star"\n[grid]\nfabric_settings.x = [1]', "no setting x"),
        ('trace = "nowhere.eidola"\n[grid]\nseed = [1]', "nowhere.eidola is no trace"),
        ('trace = "job.eidola"\n[grid]\nseed = [1, 2, 1]', "one point twice"),
        ('trace = "job.eidola"\n[grid]\nwait = ["spin 1us", "spin 1000ns"]', "one point twice"),
    ],
)
def test_a_study_that_makes_no_sense_names_file_key_and_remedy(folder, text, says):
    file = study(folder, text, "bad.toml")
    with pytest.raises(InputError, match=says) as refused:
        sweep(file, folder / "bad")
    assert str(file) in str(refused.value)
    assert not (folder / "bad").exists()


times = st.integers(0, 10**13)


@given(
    st.just(IDEAL)
    | st.builds(WaitPolicy, st.just(Policy.SPIN), period_ps=st.integers(1, 10**13))
    | st.builds(WaitPolicy, st.just(Policy.MONITOR), wake_ps=times, arm_ps=times)
    | monitors()
    | st.just(backoff(100, 3200))
    | st.just(polls_table(((100, 16), (1000, 0))))
    | st.just(polls_table(((100, 16),), 50, 10))
)
def test_a_wait_policy_and_its_words_are_one(wait):
    assert parse_wait(wait_words(wait)) == wait


WRONG = (
    "",
    "idle",
    "ideal 1ns",
    "monitor 5ns",
    "monitor wake",
    "monitor wake 1ns wake 2ns",
    "spin 0ns",
    "spin 1ns 2ns",
    "backoff 100ns",
    "backoff 100ns cap 10ns",
    "table",
    "table 1ns 2ns",
    "table 1ns*x",
    "monitor line",
    "monitor yields yields",
    "monitor entries 4",
)


@pytest.mark.parametrize("text", WRONG)
def test_other_words_are_no_wait_policy(text):
    with pytest.raises(UsageError):
        parse_wait(text)


@pytest.fixture(scope="module")
def swept(folder):
    """A sweep in which 3 GPUs are no whole number of replicas of 2 ranks."""
    return sweep(study(folder, GRID), folder / "swept", jobs=2)


def test_the_table_has_a_row_a_point_in_grid_order_with_what_replay_gives(folder, swept):
    table = pq.read_table(swept.path / "results.parquet")
    assert table.equals(swept.table)
    rows = table.to_pylist()
    places = [(gpus, wait) for gpus in (2, 3, 4) for wait in ("ideal", "spin 100ns")]
    assert [(row["gpus"], row["wait"]) for row in rows] == places
    for row in rows:
        if row["gpus"] == 3:
            continue
        options = {"gpus": row["gpus"], "wait": parse_wait(row["wait"]), "replicas": True, "record": "none"}
        alone = replay(folder / "job.eidola", fabric="star", engine="reference", **options)
        assert row["status"] == "done"
        assert row["results_hash"] == alone.manifest["results_hash"]
        assert (row["makespan_ps"], row["flag_reads"]) == (
            alone.summary["makespan_ps"],
            alone.summary["flag_reads"],
        )
        parts = alone.read("collectives").to_pandas().groupby("collective")
        assert row["collectives_ps"] == (parts["end_ps"].max() - parts["start_ps"].max()).sum()
        assert Results(swept.path / "runs" / row["point"]).manifest["arguments"]["gpus"] == row["gpus"]


def test_a_point_that_fails_is_named_and_the_others_go_on(swept):
    rows = swept.table.to_pylist()
    failed = [row for row in rows if row["status"] == "failed"]
    assert [row["gpus"] for row in failed] == [3, 3]
    assert all("UsageError: " in row["error"] and row["makespan_ps"] is None for row in failed)
    assert swept.name(failed[0]) == "gpus 3, wait ideal"
    held = {run.name for run in (swept.path / "runs").iterdir()}
    assert held == {row["point"] for row in rows if row["status"] == "done"}


def test_a_study_that_grew_runs_only_what_is_new(folder, swept, tmp_path):
    shutil.copytree(swept.path, tmp_path / "out")
    before = {run: (run / "manifest.json").read_bytes() for run in (tmp_path / "out/runs").iterdir()}
    grown = sweep(study(folder, GRID.replace("3, 4", "4, 6"), "grown.toml"), tmp_path / "out", jobs=1)
    assert grown.kept == len(before) == 4
    assert grown.table["status"].to_pylist() == ["done"] * 6
    assert all((run / "manifest.json").read_bytes() == content for run, content in before.items())


def test_overwrite_runs_everything_again_and_what_is_no_study_is_left_alone(folder, tmp_path):
    file = study(folder, GRID.replace("2, 3, 4", "2"), "small.toml")
    first = sweep(file, tmp_path / "out", jobs=1)
    again = sweep(file, tmp_path / "out", jobs=1, overwrite=True)
    assert again.kept == 0
    assert again.table.drop(["elapsed_s"]).equals(first.table.drop(["elapsed_s"]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/work.txt").write_text("x")
    with pytest.raises(UsageError, match="is no study"):
        sweep(file, tmp_path / "mine", overwrite=True)


def test_a_run_of_other_arguments_under_a_point_s_name_is_refused(folder, tmp_path):
    one, other = read_study(study(folder, GRID)).points[:2]
    run_point(other, tmp_path, None)
    assert is_done(other, tmp_path)
    assert not is_done(one, tmp_path)
    (tmp_path / other.id).rename(tmp_path / one.id)
    with pytest.raises(InputError, match="other arguments"):
        is_done(one, tmp_path)


def test_of_two_attempts_at_a_point_the_first_stays(folder, tmp_path):
    point: Point = read_study(study(folder, GRID)).points[0]
    run_point(point, tmp_path, None)
    manifest = (tmp_path / point.id / "manifest.json").read_bytes()
    run_point(point, tmp_path, "again")
    assert (tmp_path / point.id / "manifest.json").read_bytes() == manifest
    assert [run.name for run in tmp_path.iterdir()] == [point.id]


DYING = """
import json, os, signal
from functools import partial
from types import SimpleNamespace
from eidola.schemas.executors import process_pool
from eidola.schemas.submit import run_points, told

def task(point):
    if point.id == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    if point.id == "bug":
        raise ValueError("odd\\nnumber")

if __name__ == "__main__":
    ended = []
    def end(point, error):
        ended.append((point.id, error and told(error)))
    points = [SimpleNamespace(id=name) for name in ("a", "killer", "b", "bug", "c", "d")]
    run_points(points, task, partial(process_pool, 2), 2, end)
    print(json.dumps(ended))
"""


def test_a_point_that_kills_its_worker_each_time_is_given_up_and_costs_no_other(tmp_path):
    (tmp_path / "dying.py").write_text(DYING)
    done = subprocess.run(
        [sys.executable, "dying.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    ended = json.loads(done.stdout)
    assert len(ended) == 6, done.stderr
    errors = dict(ended)
    assert "died 3 times" in errors.pop("killer")
    assert errors.pop("bug") == "ValueError: odd number"
    assert errors == dict.fromkeys("abcd")


def test_the_report_draws_a_line_a_combination_against_the_first_numeric_axis(swept):
    file = report(swept.path, swept.path / "report.html")
    text = file.read_text()
    found = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    makespan = found[0]["charts"][0]
    assert [line["name"] for line in makespan["data"]] == ["wait ideal", "wait spin 100ns"]
    done = {(row["gpus"], row["wait"]): row["makespan_ps"] for row in swept.table.to_pylist()}
    ideal = makespan["data"][0]
    assert ideal["x"] == [2, 3, 4]
    assert ideal["y"] == [pytest.approx(done[2, "ideal"] / 1e6), None, pytest.approx(done[4, "ideal"] / 1e6)]
    assert found[0]["tables"][0]["rows"] == 6
    assert "A point failed." in text
    assert "None failed" not in text


def test_a_fabric_is_never_handed_to_a_worker_half_checked(folder):
    """A file with too few GPUs for every point is refused at once; with enough for one, the others fail."""
    text = 'trace = "job.eidola"\n[fixed]\nfabric = "star.toml"\n[grid]\ngpus = '
    with pytest.raises(InputError, match="has 4 GPUs, 8 are needed"):
        read_study(study(folder, text + "[8, 16]"))
    assert len(read_study(study(folder, text + "[4, 8]")).points) == 2
