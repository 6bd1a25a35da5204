"""Pipeline schedules against the closed forms of their bubbles."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.replay import run
from eidola.replay.lowering.lower import lower
from eidola.replay.schedules import SCHEDULES, Pipeline, order, write_schedule
from eidola.schemas import UsageError, check

from .programs import star
from .traces import ideal

F, B, W = 1000, 1500, 600


def pipeline(schedule, stages, micro_batches, chunks=1, size=0):
    weight = (W,) * stages if schedule == "zb-h1" else ()
    backward = B if schedule == "zb-h1" else B + W
    return Pipeline(schedule, micro_batches, (F,) * stages, (backward,) * stages, weight, size, chunks)


def makespan_ns(tmp_path, made, fabric=None):
    trace = write_schedule(made, tmp_path / "t", overwrite=True)
    fabric = fabric or ideal(made.stages)
    return run(lower(trace, fabric).program, fabric).makespan_ps / 1000


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("p", "m"), [(1, 3), (2, 2), (4, 8), (4, 4), (5, 17), (8, 3)])
def test_bubble_fraction_of_gpipe_and_1f1b(tmp_path, schedule, p, m):
    total = makespan_ns(tmp_path, pipeline(schedule, p, m))
    bubble = 1 - m * (F + B + W) / total
    assert bubble == pytest.approx((p - 1) / (m + p - 1), abs=1e-4)


@pytest.mark.parametrize(("p", "m", "v"), [(2, 4, 2), (4, 8, 2), (4, 4, 5), (3, 9, 4)])
def test_interleaving_divides_the_bubble_by_the_chunks(tmp_path, p, m, v):
    total = makespan_ns(tmp_path, pipeline("interleaved", p, m, v))
    bubble = total - m * (F + B + W)
    assert bubble == pytest.approx((p - 1) * (F + B + W) / v, rel=1e-3)


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (4, 12), (8, 16)])
def test_the_bubble_of_zb_h1_is_the_published_one(tmp_path, p, m):
    total = makespan_ns(tmp_path, pipeline("zb-h1", p, m))
    assert total - m * (F + B + W) == pytest.approx((p - 1) * (F + B - W), abs=1)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SCHEDULES), st.integers(1, 5), st.integers(1, 4), st.integers(2, 3))
def test_every_schedule_runs_every_pass_once_and_ends(tmp_path_factory, schedule, p, rounds, v):
    made = pipeline(schedule, p, p * rounds, v if schedule == "interleaved" else 1)
    for stage in range(p):
        tasks = order(made, stage)
        assert (
            len(set(tasks)) == len(tasks) == made.micro_batches * made.chunks * (3 if made.weight_ns else 2)
        )
    folder = tmp_path_factory.mktemp("s")
    assert (
        makespan_ns(folder, made) >= made.micro_batches * (F + B + W) - made.chunks * 2 * made.micro_batches
    )
    assert check(folder / "t") == []


def test_1f1b_holds_no_more_micro_batches_than_stages_left():
    made = pipeline("1f1b", 4, 16)
    for stage in range(4):
        held, most = 0, 0
        for task in order(made, stage):
            held += 1 if task.kind == "forward" else -1
            most = max(most, held)
        assert most == 4 - stage


def test_communication_lengthens_a_pipeline_by_its_crossings(tmp_path):
    """One micro-batch goes down and up once: 2 (p - 1) messages of one size, one after another."""
    fabric = star(4)
    free = makespan_ns(tmp_path, pipeline("1f1b", 4, 1), fabric)
    small, large = (
        makespan_ns(tmp_path, pipeline("1f1b", 4, 1, size=size), fabric) for size in (1 << 20, 1 << 21)
    )
    assert (large - small) / (small - free) == pytest.approx(1, rel=0.1)
    assert small > free


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sideways", 4, (1,), (1,)), "choose gpipe"),
        (("zb-h1", 4, (1,), (1,)), "weight"),
        (("1f1b", 4, (1,), (1,), (1,)), "weight"),
        (("interleaved", 4, (1,), (1,)), "at least 2 chunks"),
        (("interleaved", 3, (1, 1), (1, 1), (), 0, 2), "no multiple"),
        (("1f1b", 0, (1,), (1,)), "at least one"),
        (("1f1b", 4, (1, 2), (1,)), "not as many"),
    ],
)
def test_pipelines_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        Pipeline(*arguments)
