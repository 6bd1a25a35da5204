"""Which link is taken, and what becomes of it: closed forms for every way of choosing, by hand."""

import numpy as np
import pytest

from eidola.replay import run
from eidola.replay.fabric import FabricBuilder
from eidola.replay.program import wait, write
from eidola.replay.routing import RoutingPolicy, routing

from .programs import alone

SEGMENT = 1000
SER, LATENCY = 1_000_000, 10_000  # of 1,000 bytes at 1 GB/s; of every link

pytestmark = pytest.mark.parametrize("engine", ["compiled", "reference"])


def two_leaves(half: int, spines: int, spine_mb_per_s: int = 1000):
    """`half` GPUs on a leaf, as many on another, every spine between; return the fabric and the first's uplinks."""
    gpus = 2 * half
    builder = FabricBuilder("two leaves", gpus)
    leaves = [builder.node(f"leaf {i}") for i in range(2)]
    tops = [builder.node(f"spine {i}") for i in range(spines)]
    uplinks = []
    for leaf, own in zip(leaves, (range(half), range(half, gpus)), strict=True):
        for gpu in own:
            builder.rule(gpu, 0, gpus, [[builder.link(gpu, leaf, 1000, LATENCY)]])
        down = [[builder.link(leaf, gpu, 1000, LATENCY)] for gpu in own]
        builder.rule(leaf, own.start, own.stop, down, stride=1)
        uplinks.append([builder.link(leaf, top, spine_mb_per_s, LATENCY) for top in tops])
        builder.rule(leaf, 0, gpus, [uplinks[-1]])
    for top in tops:
        down = [[builder.link(top, leaf, spine_mb_per_s, LATENCY)] for leaf in leaves]
        builder.rule(top, 0, gpus, down, stride=half)
    return builder.build(), uplinks[0]


def uplink_hops(outcome, uplinks):
    """The hops over these links in the order of their starts: the number of the link, the message."""
    hops = outcome.final.rows.hops
    hops = np.sort(hops[np.isin(hops["link"], uplinks)], order=["start_ps", "segment"])
    return [uplinks.index(link) for link in hops["link"]], hops["message"]


def test_two_flows_of_different_hash_take_half_the_time(engine):
    """Two senders, two paths: a flow label decides whether both are used."""
    fabric, _ = two_leaves(2, 2)
    times = []
    for label in range(8):
        first = (0, [write(2, 20 * SEGMENT, 0)])
        second = (1, [write(3, 20 * SEGMENT, 0, flow=label)])
        program = alone(4, first, second, (2, [wait(0, 1)]), (3, [wait(0, 1)]))
        times.append(
            run(program, fabric, routing=routing("ecmp", 1), segment_bytes=SEGMENT, engine=engine).makespan_ps
        )
    assert set(times) == {20 * SER + 4 * LATENCY, 40 * SER + 4 * LATENCY}


def test_all_segments_of_a_flow_keep_to_one_path(engine):
    fabric, uplinks = two_leaves(1, 4)
    for seed in range(8):
        program = alone(2, (0, [write(1, 8 * SEGMENT, flow=3), write(1, 8 * SEGMENT, flow=3)]))
        policy = routing("ecmp", seed)
        outcome = run(program, fabric, routing=policy, segment_bytes=SEGMENT, engine=engine, record="hops")
        assert len(set(uplink_hops(outcome, uplinks)[0])) == 1


def test_spraying_spreads_segments_as_independent_draws_would(engine):
    """Of 4,096 segments each of 8 spines gets 512, give or take five of the binomial's standard deviations."""
    fabric, uplinks = two_leaves(1, 8)
    program = alone(2, (0, [write(1, 4096 * SEGMENT)]))
    counts = []
    for seed in range(3):
        policy = routing("spray", seed)
        outcome = run(program, fabric, routing=policy, segment_bytes=SEGMENT, engine=engine, record="hops")
        counts.append(np.bincount(uplink_hops(outcome, uplinks)[0], minlength=8))
    spread = np.sqrt(4096 * (1 / 8) * (7 / 8))
    assert np.abs(np.array(counts) - 512).max() < 5 * spread
    assert len({tuple(count) for count in counts}) == 3


def test_least_loaded_takes_equal_paths_in_turn(engine):
    fabric, uplinks = two_leaves(1, 3)
    program = alone(2, (0, [write(1, 12 * SEGMENT)]))
    policy = routing("least-loaded")
    outcome = run(program, fabric, routing=policy, segment_bytes=SEGMENT, engine=engine, record="hops")
    taken = uplink_hops(outcome, uplinks)[0]
    assert sorted(taken[:3]) == [0, 1, 2]
    assert taken == taken[:3] * 4


def test_least_loaded_prefers_no_link_among_idle_ones(engine):
    """Of 512 messages, each over an unused fabric, 4 spines get 128 each, give or take five deviations."""
    fabric, uplinks = two_leaves(1, 4)
    program = alone(2, (0, [write(1, SEGMENT)]))
    counts = np.zeros(4, int)
    for seed in range(512):
        outcome = run(program, fabric, routing=routing("least-loaded", seed), engine=engine, record="hops")
        counts[uplink_hops(outcome, uplinks)[0]] += 1
    assert np.abs(counts - 128).max() < 5 * np.sqrt(512 * (1 / 4) * (3 / 4))


def test_static_routing_is_the_destination_modulo_the_links(engine):
    fabric, uplinks = two_leaves(5, 3)
    program = alone(10, (0, [write(peer, SEGMENT) for peer in range(5, 10)]))
    outcome = run(
        program, fabric, routing=RoutingPolicy(), segment_bytes=SEGMENT, engine=engine, record="hops"
    )
    assert uplink_hops(outcome, uplinks)[0] == [peer % 3 for peer in range(5, 10)]


@pytest.mark.parametrize("ordered", [True, False])
def test_only_an_ordered_flag_is_sure_to_show_after_its_data(engine, ordered):
    """Spines at a quarter of the rate hold segments up; a small write behind them may take one that is free."""
    fabric, _ = two_leaves(1, 4, spine_mb_per_s=250)
    program = alone(2, (0, [write(1, 16 * SEGMENT), write(1, 8, 0, ordered=ordered)]), (1, [wait(0, 1)]))
    early = 0
    for seed in range(20):
        outcome = run(program, fabric, routing=routing("spray", seed), segment_bytes=SEGMENT, engine=engine)
        early += int(outcome.final.rows.waits["end_ps"][0] < outcome.final.rows.messages["arrival_ps"][0])
    assert (early == 0) == ordered


@pytest.mark.parametrize("segments", [2, 10, 64])
def test_a_parking_lot_of_fifos_halves_the_share_at_every_switch(engine, segments):
    """GPUs 0, 1, 2 enter a chain of three switches one after another and send to GPU 3, behind the last.

    An open-loop FIFO serves inputs in proportion to what they bring. Into the last link come its own GPU and the
    chain, each at full rate: 1/2 for GPU 2, and 1/4 each for GPUs 0 and 1, which shared the link before.
    All of GPU 2's segments are so among the first 2 n on the last link, which is busy without a pause from one
    latency on; then come the rest of the chain's, GPU 1's before GPU 0's.
    """
    builder = FabricBuilder("parking lot", 4)
    switches = [builder.node(f"switch {i}") for i in range(3)]
    for gpu, switch in enumerate(switches):
        builder.rule(gpu, 0, 4, [[builder.link(gpu, switch, 1000, LATENCY)]])
    for at, onward in zip(switches, [*switches[1:], 3], strict=True):
        last = builder.link(at, onward, 1000, LATENCY)
        builder.rule(at, 3, 4, [[last]])
    senders = [(gpu, [write(3, segments * SEGMENT, 0)]) for gpu in range(3)]
    program = alone(4, *senders, (3, [wait(0, 3)]))
    outcome = run(program, builder.build(), segment_bytes=SEGMENT, engine=engine, record="hops")
    _, served = uplink_hops(outcome, [last])
    shares = np.bincount(served[: 2 * segments], minlength=3)
    assert shares.tolist() == [segments // 2, segments // 2, segments]
    arrivals = outcome.final.rows.messages["arrival_ps"].tolist()
    assert arrivals == [
        (after * segments - early) * SER + 2 * LATENCY for after, early in ((3, 0), (3, 1), (2, 1))
    ]
