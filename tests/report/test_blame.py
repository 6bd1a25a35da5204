"""For whom GPUs wait: who comes last to collectives, else who raises their flags."""

import numpy as np
import pyarrow as pa

from eidola.report import report
from eidola.report.blame import by_flags, by_last
from eidola.report.flags import NOBODY, by_flag

from .runs import fused, saved, star
from .test_report import held


def operations(rows):
    names = ("rank", "operation", "communicator", "sequence", "start_ns")
    return pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})


def test_each_waits_for_the_last_to_come():
    """GPU 2 is last twice, by 5 and 3 for GPU 0, by 1 and 0 for GPU 1; GPU 1 is last once, by 4 for both."""
    rows = operations(
        [
            *((rank, "all_reduce", "a", 0, start) for rank, start in enumerate((0, 4, 5))),
            *((rank, "all_reduce", "a", 1, start) for rank, start in enumerate((10, 13, 13))),
            *((rank, "all_reduce", "b", 0, start) for rank, start in enumerate((20, 24, 20))),
            (0, "send", "a", 2, 0), (1, "recv", "a", 2, 900),
        ]
    )  # fmt: skip
    found = by_last(rows, "start_ns", ["communicator", "operation", "sequence"], 1000)
    assert found == {0: (2, 8_000), 1: (2, 1_000), 2: (1, 4_000)}


def test_nobody_waits_where_all_start_together_or_nothing_is_shared():
    together = operations([(rank, "barrier", "a", 0, 7) for rank in range(3)])
    assert by_last(together, "start_ns", ["sequence"], 1) == {}
    assert by_last(together.slice(0, 0), "start_ns", ["sequence"], 1) == {}


def test_without_collectives_those_who_raise_flags_are_waited_for():
    waits = pa.table(
        {
            "rank": [0, 0, 0, 1],
            "flag": [1, 2, 3, 1],
            "flag_name": ["f"] * 4,
            "policy": ["spin"] * 4,
            "polls": [1] * 4,
        }
    )
    found = by_flag(waits, np.array([5, 4, 3, 9]), np.array([1, 2, 2, NOBODY]))
    assert by_flags(found) == {0: (2, 7)}


def test_the_report_says_for_whom_each_gpu_waited(tmp_path):
    _, data = held(report(saved(fused(4), star(4), tmp_path / "run"), tmp_path / "r.html"))
    table = next(t for view in data for t in view["tables"] if t["title"] == "time by GPU")
    columns = {column["name"]: column["values"] for column in table["columns"]}
    assert len(columns["waited most for GPU"]) == 4
    assert any(whom is not None for whom in columns["waited most for GPU"])
    assert all(whom != who for who, whom in zip(columns["GPU"], columns["waited most for GPU"], strict=True))
