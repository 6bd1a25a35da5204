"""What each machine and network is: rates of pairs, hop counts, sizes, and times that closed forms give."""

import numpy as np
import pytest

from eidola.replay import run
from eidola.replay.builder import Builder
from eidola.replay.cuts import bisection, paths
from eidola.replay.fabric import Fabric, serialisation_ps, wire_bytes
from eidola.replay.presets import check_routes, preset
from eidola.replay.presets.wires import NET400, NVLINK4, NVLINK5, PCIE4, PCIE4_HOP, SOCKETS, XGMI_MI250X, Wire
from eidola.replay.program import wait, write
from eidola.schemas import UsageError

from .programs import MIB, alone


def time(made: Fabric, a: int, b: int, size_bytes: int = MIB, segment_bytes: int = 0) -> int:
    program = alone(made.gpus, (a, [write(b, size_bytes, 0)]), (b, [wait(0, 1)]))
    return run(program, made, segment_bytes=segment_bytes).makespan_ps


def serial(wire: Wire, size_bytes: int = MIB) -> int:
    return serialisation_ps(wire_bytes(size_bytes, wire.header_bytes, wire.payload_bytes), wire.rate_mb_per_s)


def around(a: int, b: int, size: int) -> int:
    return min((a - b) % size, (b - a) % size)


@pytest.mark.parametrize(
    ("name", "gpus", "wire"),
    [
        ("hgx-h200", 8, NVLINK4.times(18)),
        ("hgx-b200", 8, NVLINK5.times(18)),
        ("gb200-nvl72", 72, NVLINK5.times(18)),
    ],
)
def test_any_two_gpus_of_a_switched_box_are_one_switch_apart(name, gpus, wire):
    made = preset(name, gpus)
    assert check_routes(made).lengths == {2: gpus * (gpus - 1)}
    assert time(made, 0, gpus - 1) == serial(wire) + 300_000
    assert bisection(made)[0].each_mb_per_s == pytest.approx(wire.usable_mb_per_s, rel=1e-4)


def test_racks_of_nvl72_meet_on_the_network():
    made = preset("gb200-nvl72", 144)
    assert made.box.tolist() == [0] * 72 + [1] * 72
    assert len(made.route(5, 72 + 5)) == 4
    assert len(made.route(5, 72 + 6)) == 6


LINKS = {  # of the MI250X: as RCCL's own model of the machine counts them
    (0, 1): 4, (2, 3): 4, (4, 5): 4, (6, 7): 4, (0, 6): 2, (2, 4): 2,
    (0, 2): 1, (1, 3): 1, (1, 5): 1, (3, 7): 1, (4, 6): 1, (5, 7): 1,
}  # fmt: skip


def test_mi250x_pairs_have_one_to_four_links_and_the_others_pass_through_one_die():
    made = preset("mi250x", 8)
    assert made.links == 2 * len(LINKS)
    for a in range(8):
        for b in range(8):
            route = made.route(a, b)
            if (count := LINKS.get((min(a, b), max(a, b)))) is not None:
                assert [made.rate_mb_per_s[link] for link in route] == [50_000 * count]
                assert time(made, a, b) == serial(XGMI_MI250X.times(count)) + 300_000
            elif a != b:
                assert len(route) == 2
    assert not made.store_and_forward.any()


def test_a_part_of_an_mi250x_box_reaches_all_its_dies():
    for gpus in range(1, 8):
        check_routes(preset("mi250x", gpus))


def test_pcie_peers_meet_in_a_switch_a_root_complex_or_over_both_sockets():
    made = preset("pcie", 8)
    assert [len(made.route(0, goal)) for goal in (1, 2, 7)] == [2, 4, 5]
    assert time(made, 0, 1) == serial(PCIE4) + 2 * PCIE4_HOP.latency_ps
    assert time(made, 0, 2) == serial(PCIE4) + 4 * PCIE4_HOP.latency_ps
    across = 4 * PCIE4_HOP.latency_ps + SOCKETS.latency_ps
    # The sockets' link is the slowest; the next one starts late enough not to run dry.
    assert time(made, 0, 7) == serial(SOCKETS) + across


def test_staged_copies_land_in_host_memory_on_the_way():
    made, size = preset("pcie-staged", 8), 1 << 20
    names = [made.node_names[made.destination[link]] for link in made.route(0, 1)]
    assert names == ["pcie up 0.0", "socket 0.0", "pcie down 0.0", "gpu 1"]
    assert time(made, 0, 1, size) == 2 * serial(PCIE4) + 4 * PCIE4_HOP.latency_ps
    segments = 16  # pipelined: one more segment, instead of one more message
    whole, part = segments * serial(PCIE4, size // segments), serial(PCIE4, size // segments)
    assert time(made, 0, 1, size, size // segments) == whole + part + 4 * PCIE4_HOP.latency_ps


def test_a_staging_buffer_of_one_segment_takes_the_next_when_it_has_been_emptied():
    """A segment comes in, lands, goes out, and its room is known one latency later; eight of them stream."""
    made, part, segments = preset("pcie-staged", 8), 1 << 16, 16
    program = alone(8, (0, [write(1, segments * part)]))
    in_and_out = 2 * (serial(PCIE4, part) + PCIE4_HOP.latency_ps)
    once = 2 * serial(PCIE4, part) + 4 * PCIE4_HOP.latency_ps
    for engine in ("compiled", "reference"):
        times = {}
        for buffered in (1, 8, 0):
            outcome = run(program, made, segment_bytes=part, buffer_bytes=buffered * part, engine=engine)
            times[buffered] = int(outcome.final.rows.messages["arrival_ps"][0])
        assert times[1] == once + (segments - 1) * in_and_out
        assert times[8] == times[0] == once + (segments - 1) * serial(PCIE4, part)


@pytest.mark.parametrize(
    ("name", "shape"), [("torus-2d", (4, 6)), ("torus-3d", (3, 4, 5)), ("torus-3d", (2, 1, 7))]
)
def test_a_torus_goes_the_short_way_round_in_every_dimension(name, shape):
    gpus = int(np.prod(shape))
    made = preset(name, gpus, shape="x".join(map(str, shape)))
    places = [np.unravel_index(i, shape) for i in range(gpus)]
    for a in range(gpus):
        for b in range(gpus):
            hops = sum(around(*pair) for pair in zip(places[a], places[b], shape, strict=True))
            assert len(made.route(a, b)) == (hops + 2 if a != b else 0)
    rings = sum(2 * gpus * (1 if size > 2 else 0.5) for size in shape if size > 1)
    assert made.links == 2 * gpus + rings
    check_choices = paths(made)
    assert check_choices is not None
    assert check_choices.links[2] <= 2 + sum(size // 2 for size in shape)


def test_a_torus_routes_one_dimension_after_the_other():
    made = preset("torus-3d", 64, shape="4x4x4")
    names = [made.node_names[made.destination[link]] for link in made.route(0, 16 + 4 + 1)]
    assert names == ["router 0.0.0", "router 1.0.0", "router 1.1.0", "router 1.1.1", "gpu 21"]


def test_a_message_on_a_torus_takes_a_link_and_its_hops():
    made = preset("torus-2d", 64, shape="8x8")
    for goal, hops in ((1, 1), (4, 4), (8 * 4 + 4, 8), (63, 2)):
        assert time(made, 0, goal) == serial(NET400) + (hops + 2) * NET400.latency_ps


def test_without_a_shape_a_torus_is_as_square_as_it_can_be():
    assert preset("torus-2d", 64).node_names[-1] == "router 7.7"
    assert preset("torus-3d", 1024).node_names[-1] == "router 7.7.15"
    assert preset("torus-2d", 7).node_names[-1] == "router 0.6"


@pytest.mark.parametrize("gpus", [6, 72, 342, 1000])
def test_minimal_routes_of_a_dragonfly_have_at_most_five_links(gpus):
    made = preset("dragonfly", gpus, box="gpu")
    found = check_routes(made)
    assert max(found.lengths) == 5
    assert min(found.lengths) >= 2
    kinds = [name.split(".")[0] for name in made.node_names]
    between = [kinds[a] != kinds[b] for a, b in zip(made.source, made.destination, strict=True)]
    for goal in range(1, gpus):
        route = made.route(0, goal)
        first, last = kinds[made.destination[route[0]]], kinds[made.source[route[-1]]]
        assert sum(between[link] for link in route[1:-1]) == (first != last)


def test_a_balanced_dragonfly_has_the_links_that_its_shape_says():
    p, a, h = 2, 4, 2
    groups = a * h + 1
    made = preset("dragonfly", p * a * groups, box="gpu")
    assert made.links == 2 * (p * a * groups + groups * a * (a - 1) // 2 + groups * (groups - 1) // 2)
    assert (
        time(made, 0, made.gpus - 1) == serial(NET400) + len(made.route(0, made.gpus - 1)) * NET400.latency_ps
    )


def test_two_groups_share_all_global_links():
    made = preset("dragonfly", 16, box="gpu", routers=4, ports_a_router=2, global_links=2)
    between = sum(made.node_names[a].split(".")[0] == "router 0" and made.node_names[b].split(".")[0] == "router 1"
                  for a, b in zip(made.source, made.destination, strict=True))  # fmt: skip
    assert between == 8


@pytest.mark.parametrize("radix", [4, 8, 16])
def test_a_full_three_level_tree_has_these_links_and_lengths(radix):
    half = radix // 2
    gpus = radix**3 // 4
    made = preset("fat-tree-3", gpus, box="gpu", radix=radix)
    assert made.links == 3 * 2 * gpus
    found = check_routes(made)
    leaf, pod = gpus * (half - 1), gpus * (half * half - half)
    assert found.lengths == {
        n: c for n, c in {2: leaf, 4: pod, 6: gpus * (gpus - 1) - leaf - pod}.items() if c
    }
    ways = paths(made)
    assert ways is not None
    assert ways.paths[2] == half * half
    assert bisection(made)[0].mb_per_s == gpus // 2 * int(NET400.usable_mb_per_s)


@pytest.mark.parametrize(("radix", "engine"), [(4, "compiled"), (8, "compiled"), (4, "reference")])
def test_a_permutation_across_halves_shares_no_link(radix, engine):
    gpus = radix**3 // 4
    made = preset("fat-tree-3", gpus, box="gpu", radix=radix)
    builder = Builder(gpus)
    flag = builder.flags(np.arange(gpus))
    for gpu in range(gpus):
        there = (gpu + gpus // 2) % gpus
        builder.call(builder.agent(gpu, "flow"), builder.block([write(there, MIB, flag), wait(flag, 1)]))
    segment = 4096
    outcome = run(builder.build(), made, segment_bytes=segment, engine=engine)
    expected = MIB // segment * serial(NET400, segment) + 6 * NET400.latency_ps
    assert outcome.makespan_ps == expected


def test_oversubscription_narrows_the_leaves_only():
    made = preset("fat-tree-3", 12 * 8 * 4, box="gpu", radix=16, oversubscription=3)
    up = sum(made.node_names[b].startswith("aggregation") for a, b in
             zip(made.source, made.destination, strict=True) if made.node_names[a] == "leaf 0.0")  # fmt: skip
    assert up == 4
    assert bisection(made)[0].each_mb_per_s == pytest.approx(NET400.usable_mb_per_s / 3, rel=1e-4)


def test_a_three_level_tree_of_boxes_has_nics_and_pcie_as_links():
    made = preset("fat-tree-3", 128, radix=8)
    kinds = [made.node_names[made.destination[link]].split()[0] for link in made.route(0, 127)]
    assert kinds == ["nic", "leaf", "aggregation", "core", "aggregation", "leaf", "nic", "gpu"]


def test_a_small_three_level_tree_leaves_levels_out():
    assert preset("fat-tree-3", 3, box="gpu", radix=8).links == 6
    assert not any(
        name.startswith("core") for name in preset("fat-tree-3", 16, box="gpu", radix=8).node_names
    )


@pytest.mark.parametrize("name", ["hgx-h100", "fat-tree-3", "torus-3d"])
def test_65536_gpus_are_built(name):
    made = preset(name, 65536)
    assert made.links <= 14 * 65536
    assert sum(column.nbytes for column in vars(made).values() if isinstance(column, np.ndarray)) < 200 << 20
    check_routes(made)


@pytest.mark.parametrize(
    ("name", "gpus", "settings", "said"),
    [
        ("fat-tree-3", 17, {"box": "gpu", "radix": 4}, "hold 16 ports, 17 are needed; give a larger radix"),
        ("fat-tree-3", 8, {"box": "gpu", "radix": 5}, "give an even radix"),
        ("fat-tree-3", 8, {"box": "gpu", "oversubscription": 200}, "leaves ports both ways"),
        ("fat-tree-3", 8, {"box": "gpu", "radix": "many"}, "radix 'many' is no int"),
        ("dragonfly", 99, {"routers": 2, "ports_a_router": 2, "global_links": 1}, "25 groups of 2 routers need"),
        ("dragonfly", 9, {"box": "gpu", "routers": -1}, "give more routers"),
        ("torus-2d", 9, {"shape": "3x3x1"}, "is not like 4x4; give 2 sizes"),
        ("torus-3d", 9, {"shape": "3x-1x3"}, "is not like 4x4x4"),
        ("torus-3d", 9, {"shape": "2x2x2"}, "has 8 routers, 9 are needed"),
        ("mi250x", 9, {"scale_out": "dragonfly", "leaf_ports": 8}, "no setting leaf_ports; it has box, scale"),
        ("fat-tree", 144, {"box": "gb200-nvl72"}, "cannot hold one box, which needs 144"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(name, gpus, settings, said):
    with pytest.raises(UsageError, match=said):
        preset(name, gpus, **settings)
