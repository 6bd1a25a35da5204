"""Captured workgroups: writes, waits, and flags as counts."""

import pytest

from eidola.replay import IDEAL, lower, monitor, run, spin
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


def test_a_flag_that_two_ranks_raise_is_refused_by_name(tmp_path):
    trace = write_trace(
        tmp_path / "t", {0: producer(raised(2, 1, 9, 1)), 1: producer(raised(2, 2, 9, 2)), 2: consumer()}
    )
    with pytest.raises(UsageError, match=r"flag 9 of rank 2 is raised by ranks 0 and 1"):
        lower(trace, ideal(3))


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
