"""The poll period that a capture gives."""

from pathlib import Path

import pytest

from eidola.replay import replay, spin
from eidola.replay.polling import captured_period_ns
from eidola.schemas import Trace, TraceWriter

SAMPLE = Path(__file__).resolve().parents[2] / "sample_traces" / "gemv_allreduce_host_2" / "trace.eidola"


def waits(path, polls):
    with TraceWriter(path) as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
        writer.write(
            "waits",
            0,
            {
                "flag": [0, 1],
                "expected": [1, 1],
                "start_ns": [0, 1000],
                "end_ns": [900, 1300],
                "polls": polls,
            },
        )
    return Trace(path)


def test_the_period_is_time_over_polls_where_nobody_measured_it(tmp_path):
    assert captured_period_ns(waits(tmp_path / "t.eidola", [10, 4])) == pytest.approx((900 + 300) / 12)


def test_a_period_is_whole_picoseconds_as_replay_counts_them(tmp_path):
    assert captured_period_ns(waits(tmp_path / "t.eidola", [4, 5])) == 171.429  # 1200 / 7


def test_waits_that_never_polled_twice_tell_nothing(tmp_path):
    assert captured_period_ns(waits(tmp_path / "t.eidola", [1, 1])) is None


def test_replayed_at_the_captured_size_a_target_reads_flags_in_the_order_of_what_was_counted():
    """Host captures are no truth for delays; the number of reads is within a factor of two all the same."""
    trace = Trace(SAMPLE)
    counted = sum(trace.read("waits", ["polls"], ranks=[0])["polls"].to_pylist())
    period = captured_period_ns(trace)
    results = replay(trace, mode="target", targets=(0,), fabric="ideal", wait=spin(period))
    predicted = results.read("gpus", ["flag_reads"])["flag_reads"][0].as_py()
    assert counted / 2 < predicted < counted * 2
