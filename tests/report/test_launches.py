"""Launch and queueing time: sums by hand, and where a job turns from CPU- to GPU-bound."""

import numpy as np
import pyarrow as pa
import pytest

from eidola.report.launches import launches, turns

SCHEMA = pa.schema(
    {"rank": pa.int32(), "lane": pa.string(), "kind": pa.string(), "name": pa.string(), "launch_ns": pa.int64(),
     "start_ns": pa.int64(), "end_ns": pa.int64()}
)  # fmt: skip


def spans(*rows):
    """Rows of (name, launch, start, end), on one stream."""
    full = [(0, "stream 7", "kernel", *row) for row in rows]
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in full], SCHEMA)


def test_queued_is_what_follows_a_kernel_that_ended_after_the_launch():
    view = launches(spans(("a", 0, 4, 10), ("b", 5, 10, 20), ("a", 30, 36, 40)))
    table = {c.name: list(c.values) for c in view.tables[0].columns}
    assert table["kernel"] == ["a", "b"]
    assert table["launch to start, summed (µs)"] == [0.010, 0.005]
    assert table["queued (%)"] == [0, 100]
    assert "3 kernels waited 15\u00a0ns between launch and start" in view.sentence
    assert "the others started 5\u00a0ns after their launch in the median" in view.sentence


def test_a_job_turns_where_most_kernels_are_queued():
    free = [("k", 100 * i, 100 * i + 5, 100 * i + 50) for i in range(50)]
    at = 5000
    queued = [("k", at + 10 * i, at + 50 + 100 * i, at + 150 + 100 * i) for i in range(500)]
    view = launches(spans(*free, *queued))
    assert "begins CPU-bound and turns GPU-bound 4.995" in view.sentence


def test_turns_skip_bins_without_launches():
    assert turns(np.array([0.0, np.nan, 0.2, 0.9, np.nan, 1.0, 0.0])) == [3, 6]
    assert turns(np.array([0.7])) == []


@pytest.mark.parametrize("launch", [None])
def test_without_launches_no_view(launch):
    assert launches(spans(("a", launch, 0, 1))) is None
