"""The 8-rank V100 DLRM job: what a real trace becomes, at its own size and beyond."""

from pathlib import Path

import numpy as np
import pytest

from eidola.convert import kineto
from eidola.replay import compare, lower, replay, run, scale
from eidola.replay.presets import preset
from eidola.schemas import Trace

SHARED = Path(__file__).resolve().parents[2] / "../shared/traces"
KINETO = SHARED / "kineto/v100_dlrm_8ranks"
EXECUTION = SHARED / "execution_trace/v100_dlrm_8ranks"


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    if not KINETO.is_dir():
        pytest.skip(f"{KINETO} is not there")
    path = tmp_path_factory.mktemp("v100") / "dlrm.eidola"
    kineto([KINETO], path, [EXECUTION])
    return Trace(path)


def times(lowered, outcome):
    """Simulated and captured starts and ends, in picoseconds, and which are collectives; of what was captured."""
    rows, simulated = lowered.program.activities, outcome.activity_times
    known = rows["captured_start_ns"] >= 0
    captured = [
        (rows[c][known] - lowered.program.epoch_ns) * 1000 for c in ("captured_start_ns", "captured_end_ns")
    ]
    return *(time[known] for time in simulated), *captured, rows["collective"][known] >= 0


def test_all_parts_match_into_eight_operations(trace):
    lowered = lower(trace, preset("dgx1-v100", 8))
    operations = [c.operation for c in lowered.program.collectives]
    assert sorted(set(operations)) == ["all_reduce", "all_to_all", "all_to_allv"]
    assert [operations.count(o) for o in ("all_to_allv", "all_to_all", "all_reduce")] == [4, 1, 3]
    assert np.bincount(lowered.program.activities["collective"] + 1).tolist()[1:] == [8] * 8
    assert lowered.notes == ()


def test_timed_starts_are_exact_and_only_collectives_end_elsewhere(trace):
    fabric = preset("dgx1-v100", 8)
    lowered = lower(trace, fabric, mode="timed")
    start, end, began, ended, collective = times(lowered, run(lowered.program, fabric))
    assert np.array_equal(start, began)
    assert np.array_equal(end[~collective], ended[~collective])


def test_dependent_replay_ends_collectives_and_the_step_near_their_captured_times(trace):
    fabric = preset("dgx1-v100", 8)
    lowered = lower(trace, fabric)
    _, end, _, ended, collective = times(lowered, run(lowered.program, fabric))
    assert np.abs(end[collective] - ended[collective]).max() < 60_000_000
    assert abs(end.max() - ended.max()) < 0.033 * ended.max()


@pytest.mark.parametrize("gpus", [64, 1024])
def test_it_lowers_at_sizes_that_nobody_captured(trace, gpus):
    lowered = scale(trace, gpus, preset("ideal", gpus))
    assert lowered.program.endpoints == gpus
    assert [c.size_bytes for c in lowered.program.collectives].count(1_576_964) == 1
    assert np.bincount(lowered.program.activities["collective"] + 1).tolist()[1:] == [gpus] * 8
    rows = lowered.program.activities
    captured = lowered.program.agent_endpoint[rows["agent"]] < 8
    assert np.array_equal(rows["captured_start_ns"] >= 0, captured)
    assert any("all_to_allv of 8 ranks" in note for note in lowered.notes)


def test_collectives_and_the_step_meet_their_bars(trace):
    """Median error of collectives within max(5 %, timestamp step and clock residual), of the step within 3.3 %."""
    comparison = compare(replay(trace.path, fabric="dgx1-v100"), "captured")
    frame = comparison.collectives
    residual_ns = int(trace.read("clocks", ["residual_ns"])["residual_ns"].to_numpy().max())
    bar = np.maximum(0.05, (1000 + residual_ns) * 1000 / frame["b_ps"])  # timestamps of 1 us
    assert np.median(frame["a_against_b"].abs()) <= np.median(bar)
    assert np.median(frame["a_against_b"].abs()) <= 0.10
    assert abs(comparison.makespan_a_ps / comparison.makespan_b_ps - 1) <= 0.033
