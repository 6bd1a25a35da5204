"""Both engines agree on every row, and the results' hash is the same on both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.replay import monitor, run, spin
from eidola.replay.builder import Builder
from eidola.replay.changes import LinkChange
from eidola.replay.device import NO_LIMITS
from eidola.replay.engine import compiled
from eidola.replay.fabric import Fabric, FabricBuilder
from eidola.replay.presets import preset
from eidola.replay.program import compute, wait, write
from eidola.replay.routing import STATIC, Routing, RoutingPolicy
from eidola.replay.run import reference
from eidola.replay.waiting import IDEAL, backoff, polls_table
from eidola.schemas import RESULT_TABLES, results_hash
from eidola.schemas.store import conform

from .programs import (
    all_to_all,
    alone,
    devices,
    fabrics,
    kernels,
    link_changes,
    monitors,
    programs,
    ring,
    star,
)

ROUTINGS = [STATIC] + [RoutingPolicy(kind, seed=7) for kind in Routing]
SIZES = [(0, 0), (1000, 0), (1000, 1000), (1000, 2500)]  # of a segment, of a buffer
POLICIES = [
    *(IDEAL, spin(0.7), spin(0.001), monitor(1.5, 0.3), monitor(), backoff(0.5, 9), backoff(1, 1)),
    *(polls_table(((0.4, 3), (2, 0))), polls_table(((0.4, 3), (5, 2)), 1.5, 0.3)),
]


def agree(program, fabric, policy, routing, sizes, changes=(), device=NO_LIMITS):
    """Run both engines, recording all; every row, total and count must be the same."""
    limits = (policy, routing, *sizes, changes, "hops")
    fast = compiled.run(program, fabric, *limits, device=device)
    slow = reference(sizes[1], changes)(program, fabric, *limits, device).run()
    for name in ("slot_ps", "false_wakes", "overflows", "overflow_reads") if len(slow.waiting) else ():
        np.testing.assert_array_equal(fast.waiting[name], slow.waiting[name], err_msg=name)
    assert fast.loop == slow.loop
    for name in ("calls", "messages", "waits"):
        np.testing.assert_array_equal(getattr(fast.rows, name), getattr(slow.rows, name), err_msg=name)
    order = ["message", "segment", "link"]
    np.testing.assert_array_equal(np.sort(fast.rows.hops, order=order), np.sort(slow.rows.hops, order=order))
    for name in ("flag", "end_ps", "compute_ps", "wait_ps", "polls", "message", "wait"):
        np.testing.assert_array_equal(fast.agents[name], slow.agents[name], err_msg=name)
    links = slice(0, fabric.links)
    for name in ("wire_bytes", "segments", "busy_ps", "queued_ps"):
        np.testing.assert_array_equal(fast.queues[name][links], slow.queues[name][links], err_msg=name)
    np.testing.assert_array_equal(fast.flags, slow.flags)
    np.testing.assert_array_equal(fast.use, slow.use)
    assert fast.bin_ps == slow.bin_ps


@settings(max_examples=150, deadline=None)
@given(
    st.data(),
    st.integers(1, 6),
    st.sampled_from(POLICIES),
    st.sampled_from(ROUTINGS),
    st.sampled_from(SIZES),
)
def test_engines_agree_on_every_row(data, gpus, policy, routing, sizes):
    alike = routing.kind is not Routing.STATIC
    program, fabric = data.draw(programs(gpus)), data.draw(fabrics(gpus, alike=alike))
    changes = data.draw(link_changes(fabric))
    agree(program, fabric, policy, routing, sizes, changes)


def line(gpus: int) -> Fabric:
    """GPUs in a row, which pass on what is for others."""
    builder = FabricBuilder("line", gpus)
    for gpu in range(gpus - 1):
        right, left = builder.duplex(gpu, gpu + 1, 20_000, 7)
        builder.rule(gpu, gpu + 1, gpus, [[right]])
        builder.rule(gpu + 1, 0, gpu + 1, [[left]])
    return builder.build()


NETWORKS = [line(16), preset("fat-tree-3", 16, box="gpu", radix=4), preset("torus-2d", 16)]


@pytest.mark.parametrize("fabric", NETWORKS, ids=lambda fabric: fabric.name)
@pytest.mark.parametrize("policy", ROUTINGS)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_engines_agree_where_segments_of_several_messages_meet(fabric, policy, data):
    """On links between switches, and on GPUs that forward."""
    to = data.draw(st.permutations(range(16)))
    sizes = data.draw(st.lists(st.sampled_from([1000, 4000, 10_000, 20_500]), min_size=16, max_size=16))
    flows = [(gpu, [write(peer, size, 0), write(peer, 3000, 1, ack=2), wait(0, 1), write(peer, 9000, 0)])
             for gpu, (peer, size) in enumerate(zip(to, sizes, strict=True))]  # fmt: skip
    agree(alone(16, *flows), fabric, IDEAL, policy, (1000, 0))


@pytest.mark.parametrize(
    "fabric", [star(6), star(6, store_and_forward=True), line(6)], ids=["star", "stores", "line"]
)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_engines_agree_on_messages_that_wait_for_their_first_link(fabric, data):
    """Agents of one GPU post more than its link takes at a time: several sizes, peers, turns and calls in a row."""
    op = st.one_of(
        st.builds(write, st.integers(1, 5), st.sampled_from([0, 8, 1000, 2500, 9000]), st.sampled_from([-1, 0]),
                  relative=st.just(True), peer_step=st.integers(0, 1), ack=st.sampled_from([-1, 1]),
                  flow=st.integers(0, 1)),
        st.builds(compute, st.sampled_from([0, 0, 1000, 90_000])),
        st.just(wait(1, 1)),
    )  # fmt: skip
    builder = Builder(6)
    builder.flags(list(range(6)), 2)
    everyone = builder.group(list(range(6)))
    for gpu in (0, 0, 3):
        agent = builder.agent(gpu, "stream")
        for _ in range(data.draw(st.integers(1, 3))):
            block = builder.block(data.draw(st.lists(op, max_size=4)))
            builder.call(agent, block, data.draw(st.integers(0, 5)), group=everyone, position=gpu)
    for sizes in ((0, 0), (1000, 0)):
        agree(builder.build(), fabric, IDEAL, data.draw(st.sampled_from(ROUTINGS)), sizes)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(2, 6), st.sampled_from([0, 1000]))
def test_no_hop_breaks_a_law_of_links(data, gpus, segment_bytes):
    """A link serves one segment at a time, in order of eligibility, and never idles while one waits."""
    program, fabric = data.draw(programs(gpus)), data.draw(fabrics(gpus))
    hops = compiled.run(program, fabric, IDEAL, STATIC, segment_bytes, 0, (), "hops").rows.hops
    for link in np.unique(hops["link"]):
        served = np.sort(hops[hops["link"] == link], order="start_ps")
        assert (served["start_ps"] >= served["eligible_ps"]).all()
        assert (served["start_ps"][1:] >= served["end_ps"][:-1]).all()
        assert (np.diff(served["eligible_ps"]) >= 0).all()
        idle = served["start_ps"][1:] > served["end_ps"][:-1]
        assert (served["start_ps"][1:][idle] == served["eligible_ps"][1:][idle]).all()


@pytest.mark.parametrize("program", [ring(8), all_to_all(8)])
@pytest.mark.parametrize("segment_bytes", [0, 65536])
def test_hash_is_the_same_again_and_on_both_engines(program, segment_bytes):
    hashes = {
        results_hash(
            {name: conform(RESULT_TABLES[name], columns) for name, columns in outcome.tables().items()}
        )
        for outcome in (
            run(program, star(8), segment_bytes=segment_bytes),
            run(program, star(8), segment_bytes=segment_bytes),
            run(program, star(8), segment_bytes=segment_bytes, engine="reference"),
        )
    }
    assert len(hashes) == 1


def test_rows_grow_with_the_run_and_stay_whole():
    """More messages in flight, queue entries and hops than the engine starts with."""
    outcome = run(all_to_all(64), star(64), segment_bytes=4096, record="hops")
    assert len(outcome.final.rows.hops) == 64 * 63 * 256 * 2
    assert (outcome.final.rows.messages["arrival_ps"] > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 6), st.sampled_from([0, 1000]))
def test_queues_that_could_change_give_what_queues_that_cannot_do(data, gpus, segment_bytes):
    """Start times worked out when a segment queues, and when its turn comes, are the same."""
    program, fabric = data.draw(programs(gpus)), data.draw(fabrics(gpus))
    same = [LinkChange(10**9, link, int(fabric.rate_mb_per_s[link])) for link in range(fabric.links)][:1]
    plain = compiled.run(program, fabric, IDEAL, STATIC, segment_bytes, 0, (), "messages").rows
    ports = compiled.run(program, fabric, IDEAL, STATIC, segment_bytes, 0, same, "messages").rows
    np.testing.assert_array_equal(plain.messages, ports.messages)
    np.testing.assert_array_equal(plain.waits, ports.waits)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 4), st.sampled_from(POLICIES) | monitors(), st.sampled_from(SIZES))
def test_engines_agree_where_waits_and_gpus_share_something(data, gpus, policy, sizes):
    program, fabric = data.draw(programs(gpus) | kernels(gpus)), data.draw(fabrics(gpus))
    agree(program, fabric, policy, STATIC, sizes, device=data.draw(devices(policy)))
