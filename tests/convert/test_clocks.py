"""Clocks of several ranks on one: offsets, drift where the window tells it, and residuals that say what is left."""

import random

import pytest

from eidola.convert import kineto
from eidola.schemas import Trace, check

BASE_NS = 1_700_000_000_000_000_000


@pytest.fixture
def job(tmp_path, write, make):
    """Two ranks with an all-reduce every `step_us`; rank 1's clock is ahead by 500 us and gains `ppm`."""

    def convert(operations, step_us, ppm, late=(), noise_us=2.0):
        chance = random.Random(1)
        for rank in range(2):
            events = []
            for i in range(operations):
                end = (
                    1000
                    + step_us * (i + 1)
                    + rank * chance.uniform(-noise_us, noise_us)
                    + rank * 900 * (i in late)
                )
                end = end * (1 + rank * ppm * 1e-6) + rank * 500
                start, launched = round(end - 100, 3), round(end - 110, 3)
                events += [make.launch(i + 1, launched), make.collective(i + 1, start, 100, Seq=i)]
            write(f"rank{rank}.json", make.document(events, rank=rank))
        report = kineto([tmp_path / f"rank{r}.json" for r in range(2)], tmp_path / "out.eidola")
        trace = Trace(report.path)
        assert [str(problem) for problem in check(report.path)] == []
        return trace.read("clocks").to_pylist()[1], trace.read("collectives").to_pylist()

    return convert


def ends_apart(rows):
    ends = {(row["rank"], row["sequence"]): row["end_ns"] for row in rows}
    return [ends[1, sequence] - ends[0, sequence] for rank, sequence in ends if rank == 0]


@pytest.mark.parametrize("ppm", [25, -40])
def test_a_drift_is_taken_out_and_bad_ends_do_not_bend_it(job, ppm):
    clock, rows = job(60, 100_000, ppm, late=range(0, 60, 7))
    assert clock["drift_ppb"] == pytest.approx(-ppm * 1000, abs=400)
    apart = ends_apart(rows)
    assert sorted(map(abs, apart))[45] < 4000
    assert max(map(abs, apart)) <= clock["residual_ns"] + 1
    assert 890_000 < clock["residual_ns"] < 910_000
    assert [row["end_ns"] - row["start_ns"] for row in rows] == pytest.approx([100_000] * len(rows), abs=10)


def test_a_window_too_short_to_tell_gets_an_offset_alone(job):
    clock, rows = job(12, 300, 20)
    assert (clock["drift_ppb"], clock["anchors"]) == (0, 12)
    assert clock["residual_ns"] == max(map(abs, ends_apart(rows)))


def test_few_ends_tell_no_drift(job):
    assert job(5, 1_000_000, 30)[0]["drift_ppb"] == 0
