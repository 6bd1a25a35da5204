"""A scaled trace is an ordinary one: lowered at its own size it is the program that `scale` makes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eidola.replay import lower, scale
from eidola.replay.scaled import write_scaled
from eidola.schemas import Trace, UsageError, check

from .jobs import MESHES, job
from .programs import star
from .test_scale import SAMPLES, assert_equal


def as_run(program):
    """A program without what only a capture knows: which times count as captured."""
    times = ("captured_start_ns", "captured_end_ns")
    rows = {name: rows for name, rows in program.activities.items() if name not in times}
    return replace(program, activities=rows)


def assert_same(trace, path, gpus, mode="dependent", **options):
    scaled = write_scaled(trace, path, gpus=gpus, **options)
    fabric = star(len(scaled.ranks()))
    direct = scale(trace, gpus, fabric, mode=mode, **options).program
    assert_equal(as_run(lower(scaled, fabric, mode=mode).program), as_run(direct))
    assert [str(p) for p in check(scaled.path) if p.level == "error"] == []
    return scaled


@pytest.mark.parametrize("mode", ["dependent", "timed", "target"])
@pytest.mark.parametrize("law", ["weak", "strong"])
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("growth", [{}, {"data": 4}, {"tensor": 4}, {"data": 8, "tensor": 1}])
def test_a_scaled_trace_lowers_to_the_scaled_program(tmp_path, mesh, growth, law, mode):
    trace = job(tmp_path / "t", mesh)
    assert_same(trace, tmp_path / "s", None if growth else 8, mode, law=law, parallel=growth)
