"""Lanes, gaps and dependencies: what a captured stream or thread becomes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.replay.program import Op
from eidola.schemas import UsageError

from .traces import edge, ideal, replayed, span, times_ns, write_trace


def one_rank(path, spans, edges=()):
    return write_trace(path, {0: {"spans": spans, "dependencies": list(edges)}})


def test_two_lanes_with_an_event_reproduce_the_capture(tmp_path):
    spans = [
        span(0, "stream 7", 1000, 1500),
        span(1, "stream 20", 1700, 2000),
        span(2, "stream 7", 1600, 1650),
    ]
    _, outcome = replayed(one_rank(tmp_path / "t", spans, [edge(0, 1)]))
    assert times_ns(outcome) == {0: (1000, 1500), 1: (1700, 2000), 2: (1600, 1650)}


@pytest.mark.parametrize("shorter", [0, 100, 400])
def test_shortening_a_predecessor_shifts_its_successor(tmp_path, shorter):
    spans = [span(0, "stream 7", 1000, 1500 - shorter), span(1, "stream 20", 1700, 2000)]
    gap = one_rank(tmp_path / "a", [span(0, "stream 7", 1000, 1500), spans[1]], [edge(0, 1)])
    lowered, _ = replayed(gap)
    durations = lowered.program.ops["duration_ps"]
    durations[durations == 500_000] -= shorter * 1000
    _, outcome = _rerun(lowered)
    assert times_ns(outcome)[1] == (1700 - shorter, 2000 - shorter)


def _rerun(lowered):
    from eidola.replay import run

    return lowered, run(lowered.program, ideal(lowered.program.endpoints))


def test_time_blocked_on_a_predecessor_is_not_compute(tmp_path):
    """A host call that synchronises from 1000 to 9000 worked for the 100 ns after the kernel's end only."""
    spans = [
        span(0, "thread 1", 1000, 9000, "host_call", "cudaStreamSynchronize"),
        span(1, "stream 7", 500, 8900),
        span(2, "thread 1", 9050, 9060, "host_call"),
    ]
    lowered, outcome = replayed(one_rank(tmp_path / "t", spans, [edge(1, 0, "sync")]))
    assert times_ns(outcome) == {0: (1000, 9000), 1: (500, 8900), 2: (9050, 9060)}
    program = lowered.program
    host = outcome.final.agents["compute_ps"][
        [program.names[n] for n in program.agent_name].index("thread 1")
    ]
    assert host == (100 + 50 + 10) * 1000


def test_a_launched_kernel_starts_after_its_launch_began_not_after_it_ended(tmp_path):
    spans = [span(0, "thread 1", 100, 180, "host_call"), span(1, "stream 7", 150, 400)]
    _, outcome = replayed(one_rank(tmp_path / "t", spans, [edge(0, 1, "launch")]))
    assert times_ns(outcome) == {0: (100, 180), 1: (150, 400)}


def test_overlapping_spans_of_a_lane_keep_the_lanes_times(tmp_path):
    spans = [span(0, "stream 7", 0, 100), span(1, "stream 7", 90, 150), span(2, "stream 7", 110, 120)]
    _, outcome = replayed(one_rank(tmp_path / "t", spans))
    assert times_ns(outcome) == {0: (0, 100), 1: (100, 150), 2: (150, 150)}


def test_annotations_are_nobodys_work(tmp_path):
    spans = [span(0, "thread 1", 0, 1000, "annotation"), span(1, "thread 1", 10, 20, "host_call")]
    lowered, outcome = replayed(one_rank(tmp_path / "t", spans, [edge(0, 1, "thread")]))
    assert times_ns(outcome) == {1: (10, 20)}
    assert lowered.program.messages == 0


def test_edges_that_earlier_ones_imply_cost_nothing(tmp_path):
    spans = [span(i, "stream 7", 100 * i, 100 * i + 50) for i in range(3)]
    spans += [span(10 + i, "stream 9", 300 + 100 * i, 350 + 100 * i) for i in range(3)]
    edges = [edge(2, 10), edge(0, 11), edge(1, 12)]
    lowered, outcome = replayed(one_rank(tmp_path / "t", spans, edges))
    assert lowered.program.messages == 1
    assert times_ns(outcome)[12] == (500, 550)


def test_a_trace_without_work_is_refused(tmp_path):
    trace = write_trace(tmp_path / "t", {0: {"spans": [span(0, "thread 1", 0, 9, "annotation")]}})
    with pytest.raises(UsageError, match="holds no work"):
        replayed(trace)


@st.composite
def lanes(draw):
    """Draw spans on up to 3 lanes in one global order, and edges that the captured times allow."""
    spans, ends = [], {}
    for number in range(draw(st.integers(1, 14))):
        lane = draw(st.sampled_from(["thread 1", "stream 7", "stream 9"]))
        start = ends.get(lane, 0) + draw(st.integers(0, 30))
        ends[lane] = start + draw(st.integers(0, 40))
        kind = "host_call" if lane == "thread 1" else "kernel"
        spans.append(span(number, lane, start, ends[lane], kind))
    edges = []
    for before in spans:
        for after in spans:
            kind = draw(st.sampled_from([None, None, None, "event", "launch", "sync"]))
            first = before["start_ns" if kind == "launch" else "end_ns"]
            second = after["end_ns" if kind == "sync" else "start_ns"]
            if kind and before is not after and first <= second:
                early = (before["start_ns"], before["end_ns"], before["span"])
                if early < (after["start_ns"], after["end_ns"], after["span"]):
                    edges.append(edge(before["span"], after["span"], kind))
    return spans, edges


@settings(max_examples=60, deadline=None)
@given(lanes())
def test_a_dependent_replay_on_the_ideal_fabric_keeps_order_and_times(tmp_path_factory, drawn):
    """Nothing starts before what it waits for, and what waits for no network comes out as captured."""
    spans, edges = drawn
    trace = one_rank(tmp_path_factory.mktemp("t") / "t", spans, edges)
    lowered, outcome = replayed(trace)
    start, end = outcome.activity_times
    source = lowered.program.activities["source"].tolist()
    began = dict(zip(source, start.tolist(), strict=True))
    ended = dict(zip(source, end.tolist(), strict=True))
    for row in edges:
        before, after = row["before"], row["after"]
        if row["kind"] == "launch":
            assert began[before] <= began[after]
        elif row["kind"] == "sync":
            assert ended[before] <= ended[after]
        else:
            assert ended[before] <= began[after]
    captured = {row["span"]: (row["start_ns"], row["end_ns"]) for row in spans}
    slack_ps = 1 + len(edges)
    for number in source:
        first, last = captured[number]
        epoch = lowered.program.epoch_ns
        assert 0 <= began[number] - (first - epoch) * 1000 <= slack_ps
        assert 0 <= ended[number] - (last - epoch) * 1000 <= slack_ps


@settings(max_examples=30, deadline=None)
@given(lanes())
def test_work_is_conserved(tmp_path_factory, drawn):
    """Without syncs, compute inside activities is the captured durations, whatever the edges."""
    spans, edges = drawn
    edges = [row for row in edges if row["kind"] != "sync"]
    lowered, _ = replayed(one_rank(tmp_path_factory.mktemp("t") / "t", spans, edges))
    program = lowered.program
    calls, ops = program.calls, program.ops
    total = 0
    for call in range(len(calls["agent"])):
        if calls["activity"][call] >= 0:
            inside = slice(*program.block_first[[calls["block"][call], calls["block"][call] + 1]])
            total += int(ops["duration_ps"][inside][ops["kind"][inside] == Op.COMPUTE].sum())
    assert total == sum(row["end_ns"] - row["start_ns"] for row in spans) * 1000
