"""Captured workgroups: writes, waits, and flags as counts."""

import numpy as np
import pytest

from eidola.replay import IDEAL, lower, monitor, run, scale, spin, write_scaled
from eidola.schemas import UsageError

from .programs import star
from .traces import data, ideal, raised, replayed, span, times_ns, waited, write_trace


def producer(*writes, end=1000):
    return {"spans": [span(0, "workgroup 0", 0, end, "phase")], "writes": [{**w, "span": 0} for w in writes]}


def consumer(*waits, end=1000):
    return {"spans": [span(0, "workgroup 0", 0, end, "phase")], "waits": [{**w, "span": 0} for w in waits]}


def test_a_waits_captured_duration_is_not_compute(tmp_path):
    """The consumer worked 100 ns before its wait and 50 after it; the flag lands when the fabric says."""
    trace = write_trace(
        tmp_path / "t",
        {
            0: producer(data(1, 400, 1 << 20), raised(1, 400, 5, 1)),
            1: consumer(waited(5, 1, 100, 950)),
        },
    )
    fabric = star(2)
    lowered = lower(trace, fabric)
    outcome = run(lowered.program, fabric, segment_bytes=0)
    landed = 400_000 + 2_000_000 + 20_971_520 + 160
    assert outcome.activity_times[1].tolist() == [1_000_000, landed + 50_000]


def test_epochs_become_counts(tmp_path):
    """Values 3, 7, 8 are the first, second and third raise; a wait for at least 5 needs the second."""
    raises = [raised(1, time, 9, value) for time, value in ((100, 3), (200, 7), (300, 8))]
    trace = write_trace(tmp_path / "t", {0: producer(*raises), 1: consumer(waited(9, 5, 0, 250, polls=4))})
    lowered, outcome = replayed(trace)
    assert lowered.program.wait_rows()["expected"].tolist() == [2]
    assert outcome.final.rows.waits["arrival_ps"].tolist() == [200_001]


def test_atomic_additions_become_counts(tmp_path):
    raises = [raised(1, time, 9, 2, kind="atomic") for time in (100, 200, 300)]
    trace = write_trace(tmp_path / "t", {0: producer(*raises), 1: consumer(waited(9, 5, 0, 350))})
    assert replayed(trace)[0].program.wait_rows()["expected"].tolist() == [3]


@pytest.mark.parametrize(
    ("writes", "waits", "message"),
    [
        ([raised(1, 1, 9, 1), raised(1, 2, 9, 0)], [], r"flag 9 of rank 1 goes from 1 to 0"),
        ([raised(1, 1, 9, 1), raised(1, 2, 9, 1)], [], r"flag 9 of rank 1 goes from 1 to 1"),
        ([raised(1, 1, 9, 1)], [waited(9, 2, 0, 5)], r"rank 1 waits for flag 9 to reach 2, .* stores 1"),
        ([], [waited(4, 1, 0, 5)], r"rank 1 waits for flag 4 .* no captured write raises it"),
        ([data(7, 1, 64)], [], r"rank 7 is written to and was not captured"),
    ],
)  # fmt: skip
def test_what_no_count_explains_is_refused_by_name(tmp_path, writes, waits, message):
    trace = write_trace(tmp_path / "t", {0: producer(*writes), 1: consumer(*waits)})
    with pytest.raises(UsageError, match=message):
        lower(trace, ideal(2))


@pytest.mark.parametrize("other", [raised(2, 2, 9, 2), raised(2, 2, 9, 2, kind="atomic"), raised(2, 2, 9, 1)])
def test_a_flag_that_two_ranks_raise_by_unlike_values_is_refused_by_name(tmp_path, other):
    first = raised(2, 1, 9, 1, kind="atomic")
    trace = write_trace(tmp_path / "t", {0: producer(first), 1: producer(other), 2: consumer()})
    with pytest.raises(UsageError, match=r"flag 9 of rank 2 is raised by ranks 0 and 1"):
        lower(trace, ideal(3))


def barrier(path, rounds=2, ranks=4):
    """A round: rank r works for 100 (r + 1) ns, adds one to a counter of all others, waits for what they add."""
    rows = {}
    for rank in range(ranks):
        writes, waits = [], []
        for turn in range(rounds):
            begun = 1000 * turn + 100 * (rank + 1)
            peers = [(rank + hop) % ranks for hop in range(1, ranks)]
            writes += [raised(peer, begun, 0, 1, kind="atomic", span=0) for peer in peers]
            waits.append(waited(0, (turn + 1) * (ranks - 1), begun, 1000 * (turn + 1), span=0))
        spans = [span(0, "workgroup 0", 0, 1000 * rounds, "phase")]
        rows[rank] = {"spans": spans, "writes": writes, "waits": waits}
    return write_trace(path, rows)


def test_a_counter_that_all_others_add_to_is_a_barrier(tmp_path):
    """A round takes as long as its slowest rank, 400 ns; the others see its write a picosecond later."""
    _, outcome = replayed(barrier(tmp_path / "t"))
    ends = outcome.final.rows.waits["end_ps"].reshape(4, 2)
    assert ends.tolist() == [[400_001, 800_001]] * 3 + [[400_000, 800_000]]


@pytest.mark.parametrize("gpus", [2, 4, 8, 64])
def test_a_barrier_waits_for_all_others_at_any_gpu_count(tmp_path, gpus):
    trace = barrier(tmp_path / "t")
    program = scale(trace, gpus, ideal(gpus)).program
    assert sorted(set(program.wait_rows()["expected"].tolist())) == [gpus - 1, 2 * (gpus - 1)]
    assert program.messages == 2 * gpus * (gpus - 1)
    assert not run(program, ideal(gpus)).blocked()
    scaled = lower(write_scaled(trace, tmp_path / "s", gpus=gpus), ideal(gpus)).program
    for column in ("agent", "destination", "size_bytes"):
        assert np.array_equal(scaled.message_rows()[column], program.message_rows()[column])
    assert np.array_equal(scaled.wait_rows()["expected"], program.wait_rows()["expected"])


def test_a_wait_for_some_of_all_others_has_no_meaning_at_other_counts(tmp_path):
    trace = write_trace(
        tmp_path / "t",
        {r: producer(*(raised(p, 1, 9, 1, kind="atomic") for p in range(3) if p != r)) for r in (1, 2)}
        | {0: consumer(waited(9, 1, 0, 5))},
    )
    lower(trace, ideal(3))
    with pytest.raises(UsageError, match="waits for 1 raises of flag 9, to which 2 ranks add"):
        scale(trace, 6, ideal(6))


def test_writes_without_a_span_happen_at_their_time(tmp_path):
    trace = write_trace(
        tmp_path / "t", {0: {"writes": [data(1, 40, 64, workgroup=2), data(1, 90, 64)]}, 1: {}}
    )
    _, outcome = replayed(trace)
    assert sorted(outcome.final.rows.messages["post_ps"].tolist()) == [0, 50_000]


def test_polls_follow_the_wait_policy(tmp_path):
    trace = write_trace(
        tmp_path / "t", {0: producer(raised(1, 400, 5, 1)), 1: consumer(waited(5, 1, 100, 950))}
    )
    program = lower(trace, ideal(2)).program
    polls = {
        w: int(run(program, ideal(2), wait=w).final.agents["polls"].sum())
        for w in (IDEAL, spin(100), monitor())
    }
    assert list(polls.values()) == [0, 5, 1]
    assert times_ns(run(program, ideal(2)), 1)[0] == (0, 450)
