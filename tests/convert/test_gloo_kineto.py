"""Gloo runs operations on a few worker threads of one process; all of them are of one communicator."""

from pathlib import Path

import pytest

from eidola.convert import convert, find_format
from eidola.schemas import Trace

RAW = Path(__file__).resolve().parents[2] / "sample_traces" / "gloo_ddp_2" / "raw"


@pytest.fixture(params=["0000", "0001"])
def window(request, tmp_path):
    """One profiler window of both ranks of the sample job, as users would keep it."""
    files = sorted(RAW.glob(f"rank*.0.{request.param}.kineto.json.gz"))
    if len(files) != 2:
        pytest.skip("the sample's raw capture is absent")
    for rank, file in enumerate(files):
        (tmp_path / f"rank{rank}.json.gz").write_bytes(file.read_bytes())
    return tmp_path


def test_threads_are_lanes_not_groups(window):
    report = convert(find_format("kineto"), [window], window / "t")
    trace = Trace(window / "t")
    rows = trace.read("collectives").to_pylist()
    lanes = {
        span["lane"] for span in trace.read("spans").to_pylist() if span["name"].startswith("gloo:all_reduce")
    }
    assert len(lanes) > 2  # several workers a rank took part
    assert len({row["communicator"] for row in rows}) == 1
    assert report.matched * 2 == len(rows) > 0
    assert report.unmatched == []
