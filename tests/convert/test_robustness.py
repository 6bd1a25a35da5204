"""Damaged files end in a right answer or a named error: a small part of what docs/robustness.md has a table of."""

import subprocess
import sys
from pathlib import Path

import pytest

from eidola.capture.host.build import compiler
from eidola.convert import titles
from eidola.schemas import MissingError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "studies"))
import robustness
from robustness_seeds import SEEDS

GUARDED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from robustness_guard import Guard
work = Path(sys.argv[2])
for name in ("case", "cwd", "tmp"):
    (work / name).mkdir(parents=True)
guard = Guard(work)
guard.begin()
with guard:
    (work / "case" / "out").write_text("")
    (work / "tmp" / "short").touch()
    (work / "tmp" / "short").unlink()
print(guard.strays())
with guard:
    (work / "stray").write_text("")
    (work / "case" / "out").rename(work / "cwd" / "out")
    os.system("true")
print(len(guard.strays()), guard.strays())
"""


def sound(name, results, wanted, bombs=0):
    robustness.run(name, results, wanted)
    robustness.run_cases(name, robustness.results_file(results, name), range(-bombs, 0))
    found = robustness.outcome(results, name)
    assert found.failures == []
    assert found.ends().total() == wanted + bombs
    return found


def test_every_format_has_a_seed():
    assert {name.split(",")[0] for name in SEEDS} >= {*titles(), "execution-trace"}


@pytest.mark.parametrize("name", [name for name in SEEDS if name != "nccl-plugin"])
def test_damaged_files_end_in_a_trace_or_a_named_error(tmp_path, name):
    sound(name, tmp_path, 10)


def test_damaged_rings_of_the_plugin_do_too(tmp_path):
    try:
        compiler()
    except MissingError as error:
        pytest.skip(str(error))
    sound("nccl-plugin", tmp_path, 10)


def test_a_gzip_bomb_ends_in_bounded_memory(tmp_path):
    sound("kineto", tmp_path, 1, bombs=1)


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path):
    sound("flashinfer", tmp_path, 5)
    file = robustness.results_file(tmp_path, "flashinfer")
    had = file.read_text()
    file.write_text(had + '{"case": 9, "muta')
    sound("flashinfer", tmp_path, 8)
    lines = robustness.read_lines(file)
    assert file.read_text().startswith(had)
    assert [line["case"] for line in lines] == [*range(len(lines))]


@pytest.mark.parametrize("name", ["kineto", "nsys", "flashinfer", "captured torch"])
def test_a_conversion_killed_at_any_moment_leaves_nothing_or_a_whole_trace(name):
    script = Path(robustness.__file__).with_name("robustness_kills.py")
    ended = subprocess.run([sys.executable, script, "-n", "12", name], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert " nothing" in ended.stdout


def test_what_a_conversion_does_elsewhere_is_noticed(tmp_path):
    studies = Path(robustness.__file__).parent
    command = [sys.executable, "-c", GUARDED, studies, tmp_path / "work"]
    quiet, told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert quiet == "[]"
    assert told.startswith("5 ")
    assert all(
        word in told for word in ("stray for writing", "os.rename", "os.system", "'stray'", "'cwd/out'")
    )
