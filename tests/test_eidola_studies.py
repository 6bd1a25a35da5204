"""The studies of docs/studies/eidola run with a few points, print their tables, draw, and show what they claim."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).resolve().parents[1] / "docs" / "studies" / "eidola"


def shown(name, folder=None):
    """Run a study; return the cells of its tables, row by row."""
    done = subprocess.run(
        [sys.executable, STUDIES / f"{name}.py", "--quick", *(("--out", folder) if folder else ())],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert folder is None or list(folder.glob("*.svg"))
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()
        if line[:1] == "|"
    ]


def number(text):
    return float(text.replace(",", "").rstrip("%"))


def test_spinning_grows_with_the_wake_up_time_and_monitors_do_not(tmp_path):
    rows = {
        row[1]: list(map(number, row[2:]))
        for row in shown("flag_reads", tmp_path)
        if row[0] == "1,024" and len(row) == 5
    }
    none, half, whole = rows["spin"]
    assert (
        whole - half == half - none == 8 * 20_000 / 100
    )  # 8 workgroups; each waits for both halves of a fused kernel
    assert len(set(rows["monitor"])) == 1


def test_simulation_time_is_told(tmp_path):
    assert [row[0] for row in shown("simulation_time", tmp_path) if row[0] in ("3", "7")] == ["3", "7"]


def test_oversubscribed_spins_deadlock_and_those_that_yield_do_not(tmp_path):
    rows = shown("syncmon", tmp_path)
    shuffled = next(row for row in rows if row[1] == "shuffled")
    assert shuffled[2:4] == ["deadlock", "deadlock"]
    assert number(shuffled[4]) > 0


def test_each_cause_spreads_the_end_of_a_kernel_but_links_that_nobody_else_uses(tmp_path):
    tables = shown("variability", tmp_path)
    rows = [row for row in tables if row[0] == "GEMV + AllReduce"]
    whole = {tuple(row[1:4]): number(row[5]) for row in rows if len(row) == 7}
    assert whole["", "", ""] == 0 < whole["x", "", ""]
    added = {row[1]: (number(row[2]), number(row[3])) for row in rows if len(row) == 5}
    assert added["links"][0] > 0 == added["links"][1]
    assert all(added[cause][1] > 0 for cause in added if cause != "links")
    shares = [number(row[3]) for row in tables if len(row) == 4 and row[3].endswith("%")]
    assert len(shares) == 4
    assert (
        95 <= sum(shares) <= 105
    )  # the parts add up to the launch: their covariances with it, to its variance


def test_fabrics_never_speed_a_kernel_up(tmp_path):
    ratios = [
        row[3] for row in shown("beyond", tmp_path) if re.fullmatch(r"\d+\.\d\d", row[3]) and len(row) == 8
    ]
    assert len(ratios) == 12
    assert min(map(float, ratios)) == 1


@pytest.mark.skipif(
    not shutil.which(os.environ.get("CC", "cc")), reason="no C compiler: the kernel is not run"
)
@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one core: a spinning thread would wait for its own core"
)
def test_predicted_polls_stand_beside_those_of_a_real_run(tmp_path):
    rows = [row for row in shown("real_polls", tmp_path) if len(row) == 12 and row[0].isdigit()]
    assert [int(row[0]) for row in rows] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert all(number(row[3]) >= 1 for row in rows)


@pytest.mark.skipif(
    not shutil.which(os.environ.get("CC", "cc")), reason="no C compiler: the kernel is not run"
)
def test_coverage_of_unseen_steps_is_told_and_wider_intervals_hold_no_less():
    rows = [row for row in shown("coverage") if row[1].isdigit()]
    assert [row[0] for row in rows][-1] == "fused GEMV + AllReduce"
    assert len(rows) == 4
    for row in rows:
        held = [number(cell) for cell in row[3:]]
        assert held == sorted(held)
