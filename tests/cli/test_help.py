"""Every command's help ends with examples, and the examples are commands that exist."""

import re
import shlex
import subprocess
import sys

import click
import pytest
import typer.main
from typer.testing import CliRunner

from eidola.cli.main import app

ROOT = typer.main.get_command(app)


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = list(commands(ROOT))


def examples(command):
    return [line for line in (command.epilog or "").split("\n") if line.startswith("eidola ")]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_help_ends_with_examples_that_parse(path, command):
    found = examples(command)
    assert found
    for line in found:
        words = shlex.split(line)[1:]
        assert tuple(words[: len(path)]) == path
        try:
            command.make_context(path[-1], words[len(path) :])  # parses, runs nothing
        except click.ClickException as error:
            pytest.fail(f"{line}: {error.message}")


def groups(group, path=()):
    yield path, group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from groups(command, (*path, name))


@pytest.mark.parametrize(("path", "group"), list(groups(ROOT)), ids=[" ".join(p) for p, _ in groups(ROOT)])
def test_help_of_groups_ends_with_examples_of_theirs(path, group):
    found = examples(group)
    assert found
    for line in found:
        words = shlex.split(line)[1:]
        assert tuple(words[: len(path)]) == path
        assert any(tuple(words[: len(known)]) == known for known, _ in COMMANDS)


def test_commands_are_listed_in_the_order_of_use():
    names = ROOT.list_commands(None)
    assert names == ["capture", "convert", "inspect", "replay", "report"]


def test_shells_can_be_taught_to_complete():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from eidola.cli.main import main; sys.argv[0] = 'eidola'; main()",
         "--show-completion", "bash"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert "_EIDOLA_COMPLETE=complete_bash" in done.stdout


def test_the_command_says_which_version_it_is():
    said = CliRunner().invoke(app, ["--version"])
    assert said.exit_code == 0
    assert re.fullmatch(r"eidola \d+\.\d+\.\d+, schema \d+\n", said.output)
