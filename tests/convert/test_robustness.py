"""Damaged files end in a right answer or a named error: a small part of what docs/robustness.md has a table of."""

import sys
from pathlib import Path

import pytest

from eidola.capture.host.build import compiler
from eidola.convert import titles
from eidola.schemas import MissingError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "studies"))
import robustness

SEEDS = [name for name in robustness.SEEDS if name != "nccl-plugin"]


def sound(name, cases, bombs=0):
    outcome = robustness.study(name, cases, bombs)
    assert outcome.failures == []
    assert sum(outcome.counts.values()) >= len(cases)


def test_every_format_has_a_seed():
    tried = {name.split(",")[0] for name in robustness.SEEDS}
    assert tried >= {*titles(), "execution-trace"}


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_end_in_a_trace_or_a_named_error(name):
    sound(name, range(10))


def test_damaged_rings_of_the_plugin_do_too():
    try:
        compiler()
    except MissingError as error:
        pytest.skip(str(error))
    sound("nccl-plugin", range(10))


def test_a_gzip_bomb_ends_in_bounded_memory():
    sound("kineto", [], bombs=1)
