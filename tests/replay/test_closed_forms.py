"""What the design's rules give by hand, to the picosecond."""

import pytest

from eidola.replay import monitor, run, spin
from eidola.replay.fabric import FabricBuilder
from eidola.replay.program import Mode, compute, until, wait, write

from .programs import MIB, US, all_to_all, alone, ring, star

ENGINES = ("compiled", "reference")


@pytest.mark.parametrize(("gpus", "engine"), [(8, "compiled"), (8, "reference"), (1024, "compiled")])
def test_ring_all_reduce_on_a_star(gpus, engine):
    """2(N - 1) steps of 1 MiB at 50 GB/s and twice 1 us, cut-through."""
    outcome = run(ring(gpus), star(gpus), segment_bytes=0, engine=engine, record="none")
    assert outcome.makespan_ps == 2 * (gpus - 1) * 22_971_520
    assert outcome.makespan_ps == {8: 321_601_280, 1024: 46_999_729_920}[gpus]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gpus", [2, 8, 16])
def test_all_to_all_posted_at_once_on_a_star(gpus, engine):
    outcome = run(all_to_all(gpus), star(gpus), segment_bytes=0, engine=engine)
    assert outcome.makespan_ps == (gpus - 1) * 20_971_520 + 2 * US


@pytest.mark.parametrize("rate", [25_000, 100_000])
@pytest.mark.parametrize("latency", [US // 2, 3 * US])
def test_rate_and_latency_enter_as_the_formulas_say(rate, latency):
    ser = -(-MIB * 1_000_000 // rate)
    assert run(ring(8), star(8, rate, latency), segment_bytes=0).makespan_ps == 14 * (ser + 2 * latency)
    assert run(all_to_all(8), star(8, rate, latency), segment_bytes=0).makespan_ps == 7 * ser + 2 * latency


def incast(senders: int):
    """Senders on 50 GB/s links, one receiver behind a 400 GB/s link, 1 us each."""
    builder = FabricBuilder("incast", senders + 1)
    switch = builder.node("switch")
    for gpu in range(senders):
        builder.rule(gpu, 0, senders + 1, [[builder.link(gpu, switch, 50_000, US)]])
    builder.rule(switch, senders, senders + 1, [[builder.link(switch, senders, 400_000, US)]])
    return builder.build()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("segment_bytes", "expected"),
    [
        # Whole: all eight are eligible when their tails, less 2.62144 us, have arrived; then one after another.
        (0, US + 20_971_520 - 2_621_440 + 8 * 2_621_440 + US),
        # 64 KiB: the shared link keeps pace with the senders; only the last round of segments is behind them.
        (65536, US + 20_971_520 - 163_840 + 8 * 163_840 + US),
    ],
)
def test_eight_senders_into_one_faster_link(engine, segment_bytes, expected):
    senders = [(gpu, [write(8, MIB, 0)]) for gpu in range(8)]
    program = alone(9, *senders, (8, [wait(0, 8)]))
    assert run(program, incast(8), segment_bytes=segment_bytes, engine=engine).makespan_ps == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_store_and_forward_waits_for_the_tail(engine):
    program = alone(2, (0, [write(1, MIB, 0)]), (1, [wait(0, 1)]))
    whole = run(program, star(2, store_and_forward=True), segment_bytes=0, engine=engine)
    assert whole.makespan_ps == 2 * (20_971_520 + US)
    segments = run(program, star(2, store_and_forward=True), segment_bytes=65536, engine=engine)
    assert segments.makespan_ps == 2 * US + 20_971_520 + 1_310_720


@pytest.mark.parametrize("engine", ENGINES)
def test_headers_are_paid_a_payload(engine):
    builder = FabricBuilder("pair", 2)
    builder.rule(0, 0, 2, [[builder.link(0, 1, 1000, US, header_bytes=16, payload_bytes=128)]])
    program = alone(2, (0, [write(1, 1000, 0)]), (1, [wait(0, 1)]))
    outcome = run(program, builder.build(), engine=engine)
    assert outcome.makespan_ps == (1000 + 8 * 16) * 1000 + US


@pytest.mark.parametrize("engine", ENGINES)
def test_a_flag_at_the_source_is_set_one_return_latency_after_delivery(engine):
    program = alone(2, (0, [write(1, MIB, 0, ack=1), wait(1, 1)]))
    assert run(program, star(2), segment_bytes=0, engine=engine).makespan_ps == 20_971_520 + 2 * US + 2 * US


@pytest.mark.parametrize("engine", ENGINES)
def test_a_spin_wakes_at_the_first_poll_at_or_after_the_arrival(engine):
    arrival = 20_971_520 + 2 * US
    program = alone(2, (0, [write(1, MIB, 0)]), (1, [compute(500_000), wait(0, 1, mode=Mode.POLL)]))
    outcome = run(program, star(2), segment_bytes=0, engine=engine, wait=spin(100))
    turns = -(-(arrival - 500_000) // 100_000)
    assert outcome.makespan_ps == 500_000 + turns * 100_000
    assert outcome.final.agents["polls"][1] == turns + 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_monitor_reads_once_and_wakes_after_its_latency(engine):
    program = alone(2, (0, [write(1, MIB, 0)]), (1, [wait(0, 1, mode=Mode.POLL)]))
    outcome = run(program, star(2), segment_bytes=0, engine=engine, wait=monitor(wake_ns=250))
    assert outcome.makespan_ps == 20_971_520 + 2 * US + 250_000
    assert outcome.final.agents["polls"][1] == 1


@pytest.mark.parametrize("policy", [spin(100), monitor(250)])
def test_a_wait_already_satisfied_counts_one_read_and_no_time(policy):
    program = alone(2, (0, [write(1, 8, 0)]), (1, [compute(50 * US), wait(0, 1, mode=Mode.POLL)]))
    outcome = run(program, star(2), wait=policy)
    assert outcome.makespan_ps == 50 * US
    assert outcome.final.agents["polls"][1] == 1


def test_observed_waits_never_delay_and_late_arrivals_are_counted():
    late, early = 10 * US, 30 * US
    ops = [wait(0, 1, mode=Mode.OBSERVE, deadline_ps=late), until(US)]
    ops += [wait(0, 1, mode=Mode.OBSERVE, deadline_ps=early)]
    outcome = run(alone(2, (0, [write(1, MIB, 0)]), (1, ops)), star(2), segment_bytes=0)
    assert outcome.final.agents["end_ps"][1] == US
    assert outcome.causality_violations() == 1
    assert (outcome.observed_ps == 20_971_520 + 2 * US).all()
