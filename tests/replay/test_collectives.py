"""Collectives: who sends how much, whether every wait can end, and closed forms on simple fabrics."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.replay import Builder, Program, run
from eidola.replay.collectives import ALGORITHMS, Operation, Tuning, expand, ring_order, tuning
from eidola.replay.collectives.costs import costs
from eidola.replay.collectives.p2p import SHARE
from eidola.replay.collectives.tree import binary_tree, double_tree
from eidola.replay.presets import preset
from eidola.schemas import UsageError

from .programs import MIB, US

EVERY = sorted(ALGORITHMS)
SIZES = (2, 3, 5, 8)
NEEDS = {"nvls": ("hgx-h100", {}), "nvls_tree": ("hgx-h100", {}), "sharp": ("hgx-h100", {"sharp": True})}
"""Algorithms that need a switch that reduces, and a fabric that has it."""


def fabric_for(algorithm: str, name: str, n: int):
    """A fabric by name, or the one that the algorithm needs; SHARP gets two boxes."""
    name, settings = NEEDS.get(algorithm, (name, {}))
    return preset(name, 8 + n if algorithm == "sharp" else n, **settings)


def members_for(algorithm: str, n: int) -> list[int]:
    """Group members; with SHARP half of them in either box."""
    if algorithm != "sharp":
        return list(range(n))
    return [*range(n // 2), *range(8, 8 + n // 2)] if n > 3 else [0, 8]


def splits(n: int, seed: int = 1) -> np.ndarray:
    """Uneven bytes from each to each; some pairs have none."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, 5000, (n, n)) * draw.integers(0, 2, (n, n))


def operation(name: str, n: int, size_bytes: int = 10_007, **more) -> Operation:
    if name in ("all_to_allv", "dispatch", "combine"):
        more["split_bytes"] = splits(n)
    return Operation(name, size_bytes, **more)


def program(fabric, members, *operations: tuple[Operation, Tuning]) -> Program:
    builder = Builder(fabric.endpoints)
    agents = {m: builder.agent(m, "stream") for m in members}
    for op, how in operations:
        for member, calls in zip(
            members, expand(builder, fabric, members, op, how, "world").calls, strict=True
        ):
            for call in calls:
                builder.call(agents[member], **call)
    return builder.build()


def sent(made: Program) -> tuple[np.ndarray, np.ndarray]:
    """Messages and bytes that each endpoint sends to others."""
    rows = made.message_rows()
    away = rows["source"] != rows["destination"]
    n = made.endpoints
    bytes_of = np.bincount(rows["source"][away], rows["size_bytes"][away], n).astype(np.int64)
    return np.bincount(rows["source"][away], minlength=n), bytes_of


def members_of(name: str, n: int) -> int:
    return 2 if name in ("send", "recv") else n


@pytest.mark.parametrize("fabric", ["ideal", "star", "dgx1-v100", "hgx-h100"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("name", "algorithm"), EVERY)
def test_every_algorithm_completes_and_every_wait_is_met_exactly(name, algorithm, n, fabric):
    n = members_of(name, n)
    if algorithm in NEEDS and fabric != "hgx-h100":
        return  # tried once
    network, members = fabric_for(algorithm, fabric, n), members_for(algorithm, n)
    how = Tuning(algorithm, chunk_bytes=1000, step_ps=1000, base_ps=5000, reduce_mb_per_s=10**6)
    op = operation(name, len(members))
    made = program(network, members, (op, how), (op, how))
    waits, rows = made.wait_rows(), made.message_rows()
    raised = Counter(zip(rows["destination"].tolist(), rows["flag"].tolist(), strict=True))
    wanted: dict[tuple[int, int], int] = {}
    for key in zip(
        waits["endpoint"].tolist(), waits["flag"].tolist(), waits["expected"].tolist(), strict=True
    ):
        wanted[key[:2]] = max(wanted.get(key[:2], 0), key[2])
    assert {flag: count for flag, count in wanted.items() if count} == raised
    outcome = run(made, network)
    assert outcome.blocked() == []
    assert (outcome.final.rows.messages["arrival_ps"] >= 0).all()


@pytest.mark.parametrize(("name", "algorithm"), EVERY)
def test_both_engines_agree(name, algorithm):
    n = members_of(name, 8)
    fabric, members = fabric_for(algorithm, "dgx1-v100", n), members_for(algorithm, n)
    op = operation(name, n)
    made = program(fabric, members, (op, tuning(fabric, op, members, algorithm)))
    ends = [run(made, fabric, engine=engine).final.agents["end_ps"] for engine in ("compiled", "reference")]
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize(("name", "algorithm"), EVERY)
def test_a_lone_member_does_nothing_but_start(name, algorithm):
    if name in ("send", "recv"):
        pytest.skip("takes two")
    made = program(preset("star", 3), [1], (operation(name, 1), Tuning(algorithm, base_ps=7000)))
    assert made.messages == made.waits == 0
    assert run(made, preset("star", 3)).makespan_ps == 7000


@pytest.mark.parametrize("size_bytes", [8 * 1000, 10_007, 3])
@pytest.mark.parametrize("n", SIZES)
def test_ring_all_reduce_sends_two_n_minus_one_messages_and_all_but_two_slices(n, size_bytes):
    made = program(preset("star", n), range(n), (Operation("all_reduce", size_bytes), Tuning("ring")))
    messages, each = sent(made)
    assert (messages == 2 * (n - 1)).all()
    assert each.sum() == 2 * (n - 1) * size_bytes
    slices = [size_bytes // n + (i < size_bytes % n) for i in range(n)]
    expected = [2 * size_bytes - slices[(p + 1) % n] - slices[(p + 2) % n] for p in range(n)]
    assert each.tolist() == expected


@pytest.mark.parametrize("n", SIZES)
def test_bytes_of_the_other_algorithms(n):
    star, size = preset("star", n), 10_007
    slices = np.array([size // n + (i < size % n) for i in range(n)])

    def total(name: str, algorithm: str, **more) -> list[int]:
        return sent(program(star, range(n), (operation(name, n, **more), Tuning(algorithm))))[1].tolist()

    direct = (size - slices + (n - 1) * slices).tolist()
    assert total("all_reduce", "direct") == direct
    assert total("all_reduce", "one_shot") == [(n - 1) * size] * n
    assert sum(total("all_reduce", "tree")) == 2 * (n - 1) * size
    assert total("all_gather", "ring") == total("all_gather", "direct") == [(n - 1) * size] * n
    assert total("reduce_scatter", "direct") == total("all_to_all", "pairwise") == (size - slices).tolist()
    assert total("reduce_scatter", "ring") == [size - slices[(p + 1) % n] for p in range(n)]
    chain = [size] * n
    chain[1 % n] = 0
    assert total("broadcast", "ring", root=2 % n) == chain
    chain = [size] * n
    chain[2 % n] = 0
    assert total("reduce", "ring", root=2 % n) == chain
    assert total("scatter", "direct", root=1) == [size - slices[1] if p == 1 else 0 for p in range(n)]
    assert total("gather", "direct", root=1) == [0 if p == 1 else size for p in range(n)]
    away = splits(n) * (1 - np.eye(n, dtype=np.int64))
    assert total("all_to_allv", "direct") == total("all_to_allv", "pairwise") == away.sum(axis=1).tolist()


@given(st.sampled_from(EVERY), st.integers(2, 7), st.integers(0, 3000), st.sampled_from([1, 2, 4]))
def test_whole_elements_travel(which, n, elements, element_bytes):
    name, algorithm = which
    n = members_of(name, n)
    if name in ("barrier", "all_to_allv", "dispatch", "combine") or algorithm in NEEDS:
        return
    op = Operation(name, elements * element_bytes, element_bytes=element_bytes)
    made = program(preset("star", n), range(n), (op, Tuning(algorithm, chunk_bytes=700)))
    assert (made.message_rows()["size_bytes"] % element_bytes == 0).all()


def test_no_flag_is_shared_between_operations():
    fabric = preset("dgx1-v100", 8)
    op, how = Operation("all_reduce", MIB), Tuning("tree", chunk_bytes=65536)
    twice = program(fabric, range(8), (op, how), (op, how)).message_rows()
    half = len(twice["flag"]) // 2
    once = program(fabric, range(8), (op, how)).message_rows()
    assert twice["flag"].max() + 1 == 2 * (once["flag"].max() + 1)
    assert half == len(once["flag"])


@pytest.mark.parametrize(("n", "expected_ps"), [(8, 321_601_280), (1024, 46_999_729_920)])
def test_ring_all_reduce_on_a_star(n, expected_ps):
    fabric = preset("star", n)
    made = program(fabric, range(n), (Operation("all_reduce", n * MIB), Tuning("ring")))
    assert run(made, fabric, segment_bytes=0, record="none").makespan_ps == expected_ps
    assert len(made.ops["kind"]) == 2


@pytest.mark.parametrize("n", SIZES)
def test_all_to_all_on_a_star(n):
    fabric, op = preset("star", n), Operation("all_to_all", n * MIB)
    direct = run(program(fabric, range(n), (op, Tuning("direct"))), fabric, segment_bytes=0)
    assert direct.makespan_ps == (n - 1) * 20_971_520 + 2 * US
    pairs = run(program(fabric, range(n), (op, Tuning("pairwise"))), fabric, segment_bytes=0)
    assert pairs.makespan_ps == (n - 1) * (20_971_520 + 2 * US)


@pytest.mark.parametrize("n", SIZES)
def test_other_closed_forms_on_a_star(n):
    fabric, ser = preset("star", n), 20_971_520

    def takes(name: str, algorithm: str, size_bytes: int, **more) -> int:
        how = Tuning(algorithm, **more)
        return run(
            program(fabric, range(n), (Operation(name, size_bytes), how)), fabric, segment_bytes=0
        ).makespan_ps

    assert takes("all_gather", "ring", MIB) == (n - 1) * (ser + 2 * US)
    assert takes("reduce_scatter", "ring", n * MIB) == (n - 1) * (ser + 2 * US)
    assert takes("all_reduce", "direct", n * MIB) == 2 * ((n - 1) * ser + 2 * US)
    assert takes("all_reduce", "one_shot", MIB) == (n - 1) * ser + 2 * US
    assert takes("all_gather", "direct", MIB) == (n - 1) * ser + 2 * US
    assert takes("broadcast", "ring", 4 * MIB, chunk_bytes=MIB) == 3 * ser + (n - 1) * (ser + 2 * US)
    assert takes("reduce", "ring", 4 * MIB, chunk_bytes=MIB) == 3 * ser + (n - 1) * (ser + 2 * US)
    assert takes("gather", "direct", MIB) == (n - 1) * ser + 2 * US
    assert takes("scatter", "direct", n * MIB) == (n - 1) * ser + 2 * US


def test_costs_of_the_kernel_add_up():
    fabric, n, ser = preset("star", 8), 8, 20_971_520
    how = Tuning("ring", base_ps=5 * US, step_ps=3 * US, lanes=4, lane_mb_per_s=6250, pass_bytes=16384)
    made = program(fabric, range(n), (Operation("all_reduce", n * MIB), how))
    busy = 2 * (ser - 4 * 16384 * 20)  # 4 channels of 6.25 GB/s are half as fast as the link, but for a pass
    assert run(made, fabric, segment_bytes=0).makespan_ps == 5 * US + 14 * (3 * US + busy + 2 * US)


def test_channels_that_are_faster_than_the_link_cost_nothing():
    fabric, n, ser = preset("star", 8), 8, 20_971_520
    how = Tuning("ring", lanes=16, lane_mb_per_s=6250)
    made = program(fabric, range(n), (Operation("all_reduce", n * MIB), how))
    assert run(made, fabric, segment_bytes=0).makespan_ps == 14 * (ser + 2 * US)


def test_chunks_of_a_pipeline_pay_the_latency_of_a_step_once():
    fabric, ser = preset("star", 4), 20_971_520
    how = Tuning("ring", step_ps=7 * US, chunk_bytes=MIB)
    made = program(fabric, range(4), (Operation("broadcast", 4 * MIB), how))
    assert run(made, fabric, segment_bytes=0).makespan_ps == 3 * ser + 3 * (7 * US + ser + 2 * US)


@pytest.mark.parametrize(("protocol", "wire"), [("simple", 960), ("ll", 1920), ("ll128", 1024)])
def test_protocols_take_their_bytes(protocol, wire):
    made = program(preset("star", 4), range(4), (Operation("all_reduce", 3840), Tuning("ring", protocol)))
    assert set(made.message_rows()["size_bytes"].tolist()) == {wire}


def test_waits_poll_on_request():
    op = Operation("all_reduce", 800)
    quiet = program(preset("star", 4), range(4), (op, Tuning("ring")))
    polled = program(preset("star", 4), range(4), (op, Tuning("ring", poll=True)))
    assert set(polled.wait_rows()["mode"]) != set(quiet.wait_rows()["mode"])


def test_rings_of_a_dgx1_use_every_link_once():
    fabric = preset("dgx1-v100", 8)
    rings = ring_order(fabric, range(8))
    hops = [pair for ring in rings for pair in zip(ring, ring[1:] + ring[:1], strict=True)]
    links = [fabric.route(a, b) for a, b in hops]
    assert all(len(path) == 1 for path in links)
    assert sorted(path[0] for path in links) == list(range(fabric.links))
    made = program(fabric, range(8), (Operation("all_reduce", 48_000), Tuning("ring")))
    rows = made.message_rows()
    away = np.flatnonzero(rows["source"] != rows["destination"])
    over = [fabric.route(rows["source"][m], rows["destination"][m])[0] for m in away]
    busy = np.bincount(over, rows["size_bytes"][away])
    np.testing.assert_array_equal(busy * 25_000 / fabric.rate_mb_per_s, busy.min())


def test_rings_of_a_full_mesh_use_every_link_once():
    fabric = preset("mi300x", 8)
    rings = ring_order(fabric, range(8))
    assert len(rings) == 7
    assert len({pair for ring in rings for pair in zip(ring, ring[1:] + ring[:1], strict=True)}) == 56


@pytest.mark.parametrize("gpus", [3, 4, 5, 7, 8])
def test_rings_of_part_of_a_full_mesh_use_every_link_alike(gpus):
    fabric, size = preset("mi300x", 8), 60 * 1024
    rows = program(fabric, range(gpus), (Operation("all_reduce", size * gpus), Tuning("ring"))).message_rows()
    away = rows["source"] != rows["destination"]
    busy = Counter(zip(rows["source"][away].tolist(), rows["destination"][away].tolist(), strict=True))
    assert len(busy) == gpus * (gpus - 1)
    assert len(set(busy.values())) == 1


@pytest.mark.parametrize("name", ["hgx-h100", "mi300x", "dgx1-v100"])
def test_hops_between_boxes_stay_on_a_rail_and_spread_over_nics(name):
    fabric = preset(name, 32)
    rings = ring_order(fabric, range(32))
    assert len(rings) == 8
    out: Counter[int] = Counter()
    for ring in rings:
        assert sorted(ring) == list(range(32))
        for a, b in zip(ring, ring[1:] + ring[:1], strict=True):
            if a // 8 != b // 8:
                assert a % 8 == b % 8
                assert not any(
                    "spine" in fabric.node_names[node] for node in fabric.destination[fabric.route(a, b)]
                )
                out[a] += 1
    assert set(out.values()) == {1}


def test_orders_of_subgroups():
    fabric = preset("hgx-h100", 64)
    assert ring_order(fabric, range(0, 64, 8)) == [list(range(0, 64, 8))]
    assert ring_order(fabric, [3, 1, 2]) == [[3, 1, 2]]
    assert ring_order(fabric, [0, 1, 2, 13]) == [[0, 1, 2, 13]]
    uneven = ring_order(preset("hgx-h100", 12), range(12))
    assert [sorted(ring) for ring in uneven] == [list(range(12))] * 4


@given(st.integers(1, 300))
def test_double_trees_are_trees_and_nobody_is_a_node_in_both(n):
    for parents in double_tree(n):
        assert sum(p < 0 for p in parents) == 1
        assert max(Counter(parents).values()) <= 2
        for node in range(n):
            seen, at = set(), node
            while at >= 0:
                assert at not in seen
                seen.add(at)
                at = parents[at]
            assert len(seen) <= n.bit_length() + 1
    if n % 2 == 0 and n > 2:
        first, second = ({p for p in parents if p >= 0} for parents in double_tree(n))
        assert not first & second - {0, n - 1}


def test_the_tree_is_the_one_that_nccl_draws():
    """The picture in src/graph/trees.cc, of 14 ranks."""
    assert binary_tree(14) == [-1, 2, 4, 2, 8, 6, 4, 6, 0, 10, 12, 10, 8, 12]


def test_tuning_keeps_what_was_captured_and_follows_the_model_otherwise():
    fabric, members = preset("hgx-h100", 8), range(8)
    captured = tuning(fabric, Operation("all_reduce", MIB), members, "tree", "ll128", 4)
    assert (captured.algorithm, captured.protocol, captured.channels) == ("tree", "ll128", 4)
    small = tuning(fabric, Operation("all_reduce", 64), members, channels=12)
    assert (small.protocol, small.channels) == ("ll", 1)
    assert tuning(fabric, Operation("all_reduce", 1 << 30), members).protocol == "simple"
    assert tuning(preset("hgx-a100", 8), Operation("all_reduce", 64), members, "NVLS").algorithm == "ring"
    many = preset("hgx-h100", 64)
    assert tuning(many, Operation("all_reduce", 64), range(64)).algorithm == "tree"
    assert tuning(many, Operation("all_reduce", 1 << 32), range(64)).algorithm == "ring"
    assert tuning(preset("ideal", 8), Operation("all_to_all", 64), members) == Tuning("direct")


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("boxes", [2, 3])
def test_peers_of_a_box_share_their_channels_over_the_network(boxes, channels):
    """Eight peers get what the channels of one move, however many wait for them; each further box has its own."""
    n, each = 8 * boxes, 16 * MIB
    fabric, op = preset("hgx-b200", n), Operation("all_to_all", n * each)
    simple = costs(fabric.gpu).protocols["simple"]
    busy = tuning(fabric, op, range(n), channels=channels).kernel_ps
    assert busy == pytest.approx(8 * each * 1000 / (channels * simple.channel_gb_per_s * SHARE), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "protocol", "share"),
    [
        ("hgx-h100", "ll", 0.7),
        ("hgx-h100", "ll128", 0.7),
        ("hgx-h100", "simple", 0.625),
        ("mi300x", "simple", 0.5),
    ],
)
def test_the_ways_up_and_down_a_tree_share_a_channel(name, protocol, share):
    """As runTreeSplit splits the threads: 70 %, or 320 of 512, or 128 of RCCL's 256."""
    fabric, op = preset(name, 8), Operation("all_reduce", 64 * MIB)
    tree, ring = (tuning(fabric, op, range(8), a, protocol).lane_mb_per_s for a in ("tree", "ring"))
    assert tree == pytest.approx(share * ring, abs=1)


@pytest.mark.parametrize(
    ("name", "settings", "boxes", "channels", "gb_per_s"),
    [
        ("hgx-a100", {"nics": 4, "nic_gb_per_s": 11.6}, 2, 4, 23.6),  # 24 GB/s in the box: one a NIC
        ("hgx-a100", {}, 2, 16, 23.6),  # 30 GB/s: two
        ("hgx-h100", {}, 2, 8, 41.4),  # 48 GB/s, and eight NICs: one
        ("hgx-h100", {"nics": 4}, 4, 8, 36.0),  # four NICs: two
        ("hgx-b200", {}, 2, 8, 42.8),
        ("hgx-b200", {}, 8, 8, 24.0),
    ],
)
def test_a_tree_between_boxes_moves_what_nccl_says_its_channels_do(name, settings, boxes, channels, gb_per_s):
    """perChMaxTreeBws of a bus, half of it of the buffer; channels as ncclTopoDupChannels doubles them."""
    fabric, op = preset(name, 8 * boxes, **settings), Operation("all_reduce", 1 << 30)
    how = tuning(fabric, op, range(8 * boxes), "tree", "simple")
    assert how.lanes * how.network_lane_mb_per_s == pytest.approx(channels * gb_per_s * 1000 / 2, rel=1e-3)


def test_over_two_boxes_a_tree_has_what_the_nics_carry_both_ways():
    """NCCL's search raises a tree's speed inside of boxes to twice what their NICs have, if those are the limit."""
    op, nics = Operation("all_reduce", 1 << 30), {"nics": 4, "nic_gb_per_s": 11.6}
    chosen = [tuning(preset("hgx-a100", n, **nics), op, range(n)).algorithm for n in (16, 32)]
    assert chosen == ["tree", "ring"]
    assert tuning(preset("hgx-h100", 16), op, range(16), without=("nvls_tree",)).algorithm == "ring"


@pytest.mark.parametrize("size", [8, MIB, 1 << 30])
@pytest.mark.parametrize("name", ["hgx-a100", "hgx-h100", "mi300x"])
@pytest.mark.parametrize("operation", ["all_reduce", "all_gather", "all_to_all"])
def test_what_is_switched_off_is_never_chosen(name, operation, size):
    off = ("ll", "ll128", "tree", "nvls", "nvls_tree")
    how = tuning(preset(name, 16), Operation(operation, size), range(16), without=off)
    assert how.protocol == "simple"
    assert how.algorithm in ("ring", "direct")


@pytest.mark.parametrize("name", ["hgx-a100", "hgx-h100", "mi300x"])
@pytest.mark.parametrize("n", [8, 16])
@pytest.mark.parametrize(
    "off", [("ring", "tree"), ("ring", "tree", "nvls", "nvls_tree", "ll", "ll128", "simple")]
)
def test_where_nothing_that_works_is_left_a_ring_runs(name, n, off):
    how = tuning(preset(name, n), Operation("all_reduce", MIB), range(n), without=off)
    others = {"hgx-h100": ("nvls", "nvls_tree") if len(off) == 2 else (), "mi300x": ("direct",)}.get(name, ())
    assert how.algorithm in ("ring", *others)


def test_the_networks_latency_of_a_ring_is_paid_by_each_crossing_and_not_by_each_step():
    """As NCCL's model has it: of 2 (n - 1) steps those between boxes, 2 a box, are over the network."""
    fabric, op, n = preset("hgx-h100", 32), Operation("all_reduce", 8), 32
    how, cost = tuning(fabric, op, range(n), "ring", "simple"), costs(fabric.gpu)
    simple, took = cost.protocols["simple"], run(program(fabric, range(n), (op, how)), fabric).makespan_ps
    across = 2 * 4 * (simple.network_us - simple.step_us)
    least = cost.kernel_us + 62 * simple.step_us + across
    assert least * US < took < (least + 2 * 4 * 3) * US  # and the paths between boxes, 2 us and less each


def test_a_large_all_gather_ends_with_a_copy_of_the_last_slice():
    """Between two GPUs: the half that is sent, at the link's pace, and then copied, at twice the channels'."""
    fabric, half = preset("hgx-h100", 2), 256 * MIB
    op = Operation("all_gather", half)
    how, cost = tuning(fabric, op, range(2), "ring", "simple"), costs(fabric.gpu)
    took = run(program(fabric, range(2), (op, how)), fabric).makespan_ps / US
    sent, copied = half / 371_600, half / (2 * 24 * cost.protocols["simple"].channel_gb_per_s * 1000)
    assert took == pytest.approx(sent + copied, rel=0.02)


@pytest.mark.parametrize("protocol", ["ll", "ll128", "simple"])
@pytest.mark.parametrize("name", ["dgx1-v100", "hgx-a100", "hgx-h100", "hgx-b200", "mi300x"])
def test_a_small_ring_takes_the_kernel_and_its_steps(name, protocol):
    fabric, op = preset(name, 8), Operation("all_reduce", 8)
    how, cost = tuning(fabric, op, range(8), "ring", protocol), costs(fabric.gpu)
    took = run(program(fabric, range(8), (op, how)), fabric).makespan_ps
    assert took == pytest.approx((cost.kernel_us + 14 * cost.protocols[protocol].step_us) * US, rel=0.001)


@pytest.mark.parametrize(
    ("op", "how", "n", "said"),
    [
        (Operation("unknown", 8), Tuning("ring"), 4, "'unknown' of 4 ranks cannot be expanded.*label it"),
        (Operation("all_reduce", 8), Tuning("best"), 4, "no algorithm 'best'; it has ring, tree"),
        (Operation("all_reduce", 8), Tuning("nvls"), 4, "works inside one box"),
        (Operation("all_reduce", 8), Tuning("nvls_tree"), 4, "no switch of fabric star that reduces"),
        (Operation("all_reduce", 8), Tuning("sharp"), 4, "reaches no network switch.*sharp=1"),
        (Operation("dispatch", 8), Tuning("direct"), 4, "dispatch without split sizes"),
        (Operation("all_to_allv", 8), Tuning("direct"), 4, "without split sizes"),
        (Operation("all_to_allv", 8, splits(3)), Tuning("direct"), 4, r"shape \(3, 3\) for 4 ranks"),
        (Operation("send", 8), Tuning("direct"), 3, "send of 3 ranks; give the two"),
        (Operation("broadcast", 8, root=4), Tuning("ring"), 4, "root 4 is no rank"),
    ],
)
def test_what_makes_no_sense_is_refused(op, how, n, said):
    with pytest.raises(UsageError, match=said):
        program(preset("star", n), range(n), (op, how))


def test_an_unknown_operation_is_refused_even_with_a_default_tuning():
    fabric = preset("star", 4)
    op = Operation("unknown", 8)
    with pytest.raises(UsageError, match="cannot be expanded"):
        program(fabric, range(4), (op, tuning(fabric, op, range(4))))
