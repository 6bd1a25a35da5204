"""Captured gaps drawn anew: from the same place on other ranks, by index, and nothing else."""

import numpy as np
import pytest

from eidola.replay import lower, run
from eidola.replay.builder import Builder
from eidola.replay.jitter import between, captured_steps, drawn, find_gaps, spread
from eidola.replay.presets import preset
from eidola.replay.program import Op, compute
from eidola.schemas import UsageError

from .jobs import job


@pytest.fixture
def traced(tmp_path):
    return job(tmp_path / "t", tensor=4, data=2, steps=2)


@pytest.fixture
def lowered(traced):
    return lower(traced, preset("star", 8)).program


def recorded(program, gaps):
    """Durations of all gaps by recording: a list in the order of places."""
    first = program.block_first[program.calls["block"]]
    found = {}
    for place in gaps.places:
        for recording, (call, op) in place.items():
            found.setdefault(recording, []).append(int(program.ops["duration_ps"][first[call] + op]))
    return found


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


def test_a_rank_takes_all_its_gaps_from_one_rank_also_those_between_operations(lowered):
    gaps = find_gaps(lowered)
    known = recorded(lowered, gaps)
    assert (
        lowered.calls["activity"][[call for place in gaps.places for call, _ in place.values()]] < 0
    ).any()
    source = gaps.sources(5, unseen=False)
    assert len(set(source.values())) > 1
    made = recorded(drawn(lowered, 5), gaps)
    assert made == {recording: known[source[recording]] for recording in known}


def test_an_unseen_step_is_drawn_from_the_ranks_other_steps(traced, lowered):
    gaps = find_gaps(lowered, captured_steps(traced))
    known, made = recorded(lowered, gaps), recorded(drawn(lowered, 3, gaps, unseen=True), gaps)
    assert {step for step, _ in known} == {0, 1}
    for (step, rank), values in made.items():
        other = 1 - step, rank
        shared = [i for i, place in enumerate(p for p in gaps.places if (step, rank) in p) if other in place]
        assert len(shared) > 3
        kept = [p for p in gaps.places if (step, rank) in p and other in p]
        first = lowered.block_first[lowered.calls["block"]]
        expected = [int(lowered.ops["duration_ps"][first[p[other][0]] + p[other][1]]) for p in kept]
        assert [values[i] for i in shared] == expected


def test_an_interval_holds_the_runs_that_it_is_of(lowered):
    found = spread(lowered, preset("star", 8), 10)
    low, high = found.interval(90)
    ends = [run(drawn(lowered, seed), preset("star", 8)).makespan_ps for seed in range(1, 11)]
    assert found.makespan_ps.tolist() == ends
    assert min(ends) <= low[0] <= high[0] <= max(ends)
    assert found.step_ps.sum(axis=1).tolist() == ends
    assert 0 < found.drawn <= found.gaps


def test_ranks_that_differ_spread_the_end_over_what_was_captured():
    builder = Builder(8)
    for gpu in range(8):
        agent = builder.agent(gpu, "stream 7")
        kernel = builder.activity(
            agent, "kernel", "gemm", captured_start_ns=0, captured_end_ns=1000 * (gpu + 1)
        )
        builder.call(agent, builder.block([compute(1_000_000 * (gpu + 1))]), activity=kernel)
    ends = spread(builder.build(), preset("star", 8), 50).makespan_ps
    low, high = between(ends[:, None])
    assert low[0] < high[0] == 8_000_000
    assert set(ends.tolist()) <= {1_000_000 * (gpu + 1) for gpu in range(8)}
    assert 0.5 < (ends == 8_000_000).mean() < 0.8  # the slowest of 8 is drawn with 1 - (7 / 8) ** 8 = 0.66


def test_one_seed_is_no_interval(lowered):
    with pytest.raises(UsageError, match="--seeds 1"):
        spread(lowered, preset("star", 8), 1)
