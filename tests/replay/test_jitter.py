"""Captured gaps drawn anew: from the same place on other ranks, by index, and nothing else."""

import numpy as np
import pytest

from eidola.replay import lower, run
from eidola.replay.jitter import drawn, spread
from eidola.replay.presets import preset
from eidola.replay.program import Op
from eidola.schemas import UsageError

from .jobs import job


@pytest.fixture
def lowered(tmp_path):
    return lower(job(tmp_path / "t", tensor=4, data=2, steps=2), preset("star", 8)).program


def durations(program):
    """Durations of the computes, one a call of a block."""
    block = program.calls["block"]
    found = [
        program.ops["duration_ps"][program.block_first[b] : program.block_first[b + 1]][
            program.ops["kind"][program.block_first[b] : program.block_first[b + 1]] == Op.COMPUTE
        ]
        for b in block
    ]
    return np.concatenate(found)


def test_a_seed_draws_the_same_program_again_and_another_seed_another_one(lowered):
    first, again, other = (durations(drawn(lowered, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_only_captured_durations_are_drawn(lowered):
    assert set(durations(drawn(lowered, 7)).tolist()) <= set(durations(lowered).tolist())


def test_all_else_stays_as_it_was(lowered):
    made = drawn(lowered, 3)
    for column in ("agent", "repeat", "activity", "flag_offset"):
        np.testing.assert_array_equal(made.calls[column], lowered.calls[column])
    assert made.messages == lowered.messages
    assert made.waits == lowered.waits


def test_ranks_that_are_alike_leave_nothing_to_draw(tmp_path):
    trace = job(tmp_path / "t", tensor=2, data=1)
    program = lower(trace, preset("star", 2)).program  # two ranks: fewer than a place needs
    np.testing.assert_array_equal(durations(drawn(program, 1)), durations(program))


def test_an_interval_holds_the_runs_that_it_is_of(lowered):
    found = spread(lowered, preset("star", 8), 10)
    low, high = found.interval(90)
    ends = [run(drawn(lowered, seed), preset("star", 8)).makespan_ps for seed in range(1, 11)]
    assert found.makespan_ps.tolist() == ends
    assert min(ends) <= low[0] <= high[0] <= max(ends)
    assert low[0] < high[0]


def test_one_seed_is_no_interval(lowered):
    with pytest.raises(UsageError, match="--seeds 1"):
        spread(lowered, preset("star", 8), 1)
