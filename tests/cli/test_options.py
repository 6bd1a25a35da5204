"""`--quiet` and `--json` are on every command, and do what they say."""

import json

import pytest
from typer.testing import CliRunner

from eidola.cli.main import app

from .test_help import COMMANDS

ids = [" ".join(path) for path, _ in COMMANDS]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=ids)
def test_every_command_can_be_quiet_and_speak_json(path, command):
    options = {name for parameter in command.params for name in parameter.opts}
    assert {"--quiet", "-q", "--json"} <= options


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A generated trace `t`, and its run `run`."""
    folder = tmp_path_factory.mktemp("options")
    invoke(folder, "replay generate incast --gpus 3 -o {}/t -q")
    invoke(folder, "replay run {}/t --fabric star --engine reference -o {}/run -q")
    return folder


def invoke(folder, line):
    done = CliRunner().invoke(app, line.replace("{}", str(folder)).split(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


READING = [
    "inspect {}/t",
    "inspect {}/run",
    "report {}/run -o {}/r.html",
    "report {}/run {}/run -o {}/c.html",
    "convert check {}/t",
    "convert export writes {}/t -o {}/w.csv --overwrite",
    "replay explain {}/run",
    "replay compare {}/run {}/run",
    "replay verify {}/run",
    "replay fabric star",
    "replay interval {}/t --seeds 2",
    "replay generate incast --gpus 3 -o {}/u --overwrite",
    "replay scale {}/t --to 3 -o {}/s --overwrite",
    "capture doctor",
]


@pytest.mark.parametrize("line", READING)
def test_quiet_prints_nothing_and_json_is_json(folder, line):
    assert invoke(folder, f"{line} --quiet").output == ""
    assert json.loads(invoke(folder, f"{line} --json").stdout)


@pytest.mark.parametrize("name", ["t", "run"])
def test_tables_fit_eighty_columns(folder, name):
    lines = invoke(folder, f"inspect {{}}/{name}").stdout.splitlines()
    tables = [line for line in lines if "  " in line or "─" in line]
    assert tables
    assert max(map(len, tables)) <= 80
