"""Finite buffers: what credits, head-of-line blocking and deadlock do, by hand."""

import pytest

from eidola.replay import run
from eidola.replay.fabric import FabricBuilder
from eidola.replay.program import wait, write
from eidola.schemas import StallError, UsageError

from .programs import alone, ring, star

ENGINES = ("compiled", "reference")
SER, LATENCY = 1_000_000, 10_000  # of 1,000 bytes at 1 GB/s; of every link


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("segments", [1, 4, 9])
def test_a_buffer_of_one_segment_is_paid_with_a_round_trip_a_segment(engine, segments):
    """A segment starts when the one before has left the buffer and its credit has come back: 2 latencies late."""
    program = alone(2, (0, [write(1, 1000 * segments, 0)]), (1, [wait(0, 1)]))
    fabric = star(2, 1000, LATENCY)
    outcome = run(program, fabric, segment_bytes=1000, buffer_bytes=1000, engine=engine)
    assert outcome.makespan_ps == (segments - 1) * (SER + 2 * LATENCY) + SER + 2 * LATENCY
    free = run(program, fabric, segment_bytes=1000, engine=engine)
    assert free.makespan_ps == segments * SER + 2 * LATENCY


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("buffer_bytes", "expected"), [(2000, 11_020_000), (0, 2_020_000)])
def test_a_blocked_head_holds_up_what_is_behind_it(engine, buffer_bytes, expected):
    """GPU 0 holds the slow link to GPU 2; GPU 1 sends there too, and then to GPU 3, whose link is idle."""
    builder = FabricBuilder("hol", 4)
    switch = builder.node("switch")
    for gpu in range(2):
        builder.rule(gpu, 2, 4, [[builder.link(gpu, switch, 1000, LATENCY)]])
    slow, fast = builder.link(switch, 2, 100, LATENCY), builder.link(switch, 3, 1000, LATENCY)
    builder.rule(switch, 2, 4, [[slow], [fast]], stride=1)
    senders = [(0, [write(2, 1000)]), (1, [write(2, 1000), write(3, 1000, 0)])]
    program = alone(4, *senders, (3, [wait(0, 1)]))
    outcome = run(program, builder.build(), segment_bytes=1000, buffer_bytes=buffer_bytes, engine=engine)
    assert outcome.final.agents["end_ps"][2] == expected


def triangle():
    """Three switches in a one-way ring, a GPU at each; the way to the GPU before one is two switches long."""
    builder = FabricBuilder("triangle", 3)
    switches = [builder.node(f"switch {i}") for i in range(3)]
    for i in range(3):
        builder.rule(i, 0, 3, [[builder.link(i, switches[i], 1000, LATENCY)]])
        builder.rule(switches[i], i, i + 1, [[builder.link(switches[i], i, 1000, LATENCY)]])
        builder.rule(switches[i], 0, 3, [[builder.link(switches[i], switches[(i + 1) % 3], 1000, LATENCY)]])
    return builder.build()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_credit_loop_is_named(engine):
    senders = [(gpu, [write((gpu + 2) % 3, 8000, 0), wait(0, 1)]) for gpu in range(3)]
    with pytest.raises(StallError, match=r"deadlock: .*switch 0 -> switch 1.*switch 1 -> switch 2"):
        run(alone(3, *senders), triangle(), segment_bytes=1000, buffer_bytes=1000, engine=engine)
    assert run(alone(3, *senders), triangle(), segment_bytes=1000, engine=engine).makespan_ps > 0


def test_a_segment_larger_than_a_buffer_is_refused():
    with pytest.raises(UsageError, match="a segment must fit into a buffer"):
        run(ring(2), star(2), segment_bytes=4096, buffer_bytes=1000)


def test_growth_keeps_a_burst_whole():
    """Thousands of segments wait for credit at once: more than the engine has room for when it starts."""
    senders = [(gpu, [write(16, 400_000, 0)]) for gpu in range(16)]
    program = alone(17, *senders, (16, [wait(0, 16)]))
    outcome = run(program, star(17, 1000, LATENCY), segment_bytes=1000, buffer_bytes=3000, record="hops")
    assert len(outcome.final.rows.hops) == 16 * 400 * 2
    assert outcome.makespan_ps >= 16 * 400 * SER
