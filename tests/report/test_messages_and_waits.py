"""Distributions of messages, and what polling costs: they count what there is, and nothing twice."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from eidola.report.messages import messages
from eidola.report.waits import by_policy, waits


def columns(view):
    return {column.name: list(column.values) for column in view.tables[0].columns}


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=50))
def test_each_message_is_in_one_class_of_sizes(sizes):
    view = messages(np.array(sizes, np.int64), None)
    found = columns(view)
    assert sum(found["messages"]) == len(sizes)


def test_classes_begin_at_powers_of_two_and_keep_their_latencies():
    sizes = np.array([0, 1, 1023, 1024, 2047, 2048, 3 << 20])
    latency = np.array([1, 2, 3, 4, 6, 7, 8]) * 1_000_000
    found = columns(messages(sizes, latency))
    assert found["payload, at least"] == ["0 B", "1 B", "512 B", "1 KiB", "2 KiB", "2 MiB"]
    assert found["messages"] == [1, 1, 1, 2, 1, 1]
    assert found["half within (µs)"] == [1, 2, 3, 5, 7, 8]
    assert found["slowest (µs)"] == [1, 2, 3, 6, 7, 8]


def test_no_messages_no_view():
    assert messages(np.zeros(0, np.int64), None) is None
    assert waits([]) is None


def waiting(policy, start, arrival, end, polls):
    return {"policy": policy, "start_ps": start, "arrival_ps": arrival, "end_ps": end, "polls": polls}


def test_a_monitor_reads_each_flag_once_and_wakes_at_the_arrival():
    rows = [
        waiting("spin", 0, 250, 300, 4),
        waiting("spin", 100, 50, 100, 1),  # satisfied when it began
        waiting("event", 0, 70, 70, 0),
        waiting("monitor", 0, 10, 15, 1),
    ]
    served = {s.policy: s for s in by_policy(pa.Table.from_pylist(rows))}
    spin, monitor = served["spin"], served["monitor"]
    assert (spin.waits, spin.blocked, spin.reads, spin.monitored, spin.late_ps) == (2, 1, 5, 2, 50)
    assert (monitor.reads, monitor.monitored, monitor.late_ps) == (1, 1, 5)
    view = waits(list(served.values()))
    assert "A monitor would save 3 of them" in view.sentence
    assert sum(columns(view)["flag reads"]) == 6


def test_without_polling_there_is_nothing_to_save():
    view = waits(by_policy(pa.Table.from_pylist([waiting("event", 0, 70, 70, 0)])))
    assert view.sentence == "1 wait read flags 0 times; none was served by polling."
