"""Fabric presets: every pair has a route, at any number of GPUs; rates and latencies are those of the machines."""

import numpy as np
import pytest

from eidola.replay import Fabric, run
from eidola.replay.cuts import paths
from eidola.replay.fabric import serialisation_ps, wire_bytes
from eidola.replay.presets import check_routes, fabric, preset, preset_names
from eidola.replay.presets.boxes import BOXES
from eidola.replay.presets.catalogue import SCALE_OUT
from eidola.replay.presets.wires import NET400, NVLINK2, NVLINK4, PCIE5, XGMI_MI300X
from eidola.replay.program import wait, write
from eidola.schemas import UsageError

from .programs import MIB, alone


@pytest.mark.parametrize("gpus", [1, 2, 3, 5, 7, 8, 9, 12, 64, 100, 256, 1024])
@pytest.mark.parametrize("name", preset_names())
def test_every_pair_has_a_route(name, gpus):
    made = preset(name, gpus)
    assert made.gpus == gpus
    check_routes(made)


@pytest.mark.parametrize("box", sorted(BOXES))
@pytest.mark.parametrize("network", sorted(SCALE_OUT))
def test_every_box_stands_on_every_network(network, box):
    gpus = 2 * BOXES[box].gpus + 3
    if network in ("rail-optimised", "fat-tree") and box == "gpu":
        with pytest.raises(UsageError, match="box gpu has no NICs; set scale_out"):
            preset(network, gpus, box=box)
        return
    settings = {"leaf_ports": 2 * BOXES[box].nics} if network in ("rail-optimised", "fat-tree") else {}
    made = preset(network, gpus, box=box, **settings)
    check_routes(made)
    assert paths(made) is not None  # every way that routing may choose arrives, too


@pytest.mark.parametrize(
    "name", ["hgx-h100", "mi300x", "gb200-nvl72", "fat-tree", "dragonfly", "torus-2d", "star"]
)
def test_a_large_fabric_grows_with_its_gpus(name):
    small, large = preset(name, 2048), preset(name, 16384)
    assert large.links <= 8.3 * small.links + 3000  # networks that are not full have what the full one needs
    assert len(large.choices) <= 45 * large.links
    assert len(large.rule_low) <= 4 * large.links
    assert check_routes(large).sampled


@pytest.mark.parametrize("name", preset_names())
def test_whatever_routing_chooses_arrives(name):
    for gpus in (2, 9, 20, 150):
        made = preset(name, gpus)
        assert (paths(made) is None) == made.ideal


def hops(made: Fabric, a: int, b: int) -> list[str]:
    return [made.node_names[made.destination[link]] for link in made.route(a, b)][:-1]


def test_a_rail_is_two_hops_and_another_rail_crosses_a_spine():
    made = preset("hgx-h100", 64)
    assert hops(made, 3, 8 * 5 + 3) == ["nic 0.3", "leaf 3.0", "nic 5.3"]
    crossing = hops(made, 3, 8 * 5 + 4)
    assert [name.split()[0] for name in crossing] == ["nic", "leaf", "spine", "leaf", "nic"]
    assert hops(made, 3, 4) == ["nvswitch 0"]


def test_a_large_rail_has_several_leaves_and_uses_all_spines():
    made = preset("hgx-h100", 1024)
    spines = {hops(made, 0, 8 * box)[2] for box in range(32, 128)}
    assert hops(made, 0, 8 * 32)[1] == "leaf 0.0"
    assert len(spines) == 32


def test_gpus_of_a_dgx1_share_a_nic_by_two():
    made = preset("dgx1-v100", 16)
    assert hops(made, 6, 15) == hops(made, 7, 15) == ["nic 0.3", "leaf 3.0", "nic 1.3"]


def test_dgx1_has_six_links_a_gpu_and_forwards_once_where_two_are_not_linked():
    made = preset("dgx1-v100", 8)
    out = np.bincount(made.source, made.rate_mb_per_s)
    assert (out[:8] == 6 * 25_000).all()
    lengths = [len(made.route(a, b)) for a in range(8) for b in range(8) if a != b]
    assert sorted(set(lengths)) == [1, 2]
    assert lengths.count(1) == 32
    assert hops(made, 0, 7) == ["gpu 4"]  # the only way over two double links
    assert made.store_and_forward[4]


def test_gpus_never_forward_elsewhere():
    for name in ("hgx-h100", "mi300x", "fat-tree"):
        made = preset(name, 24)
        for a in range(24):
            for b in range(24):
                through = made.destination[made.route(a, b)][:-1]
                assert (through >= 24).all()


@pytest.mark.parametrize(
    ("wire", "usable_gb_per_s"),
    [(NVLINK2, 20.0), (NVLINK4.times(18), 371.6), (XGMI_MI300X, 47.9), (PCIE5, 53.1), (NET400, 49.0)],
)
def test_usable_rates_follow_from_headers(wire, usable_gb_per_s):
    assert wire.usable_mb_per_s / 1000 == pytest.approx(usable_gb_per_s, abs=0.05)
    size = wire.payload_bytes * 1000
    took = serialisation_ps(wire_bytes(size, wire.header_bytes, wire.payload_bytes), wire.rate_mb_per_s)
    assert size / took * 1000 == pytest.approx(usable_gb_per_s, abs=0.05)


def test_a_message_over_an_h100_box_takes_what_its_wires_say():
    program = alone(8, (0, [write(5, MIB, 0)]), (5, [wait(0, 1)]))
    wire = MIB + MIB // 128 * 27
    expected = serialisation_ps(wire, 450_000) + 300_000
    assert run(program, preset("hgx-h100", 8), segment_bytes=0).makespan_ps == expected


def test_an_ideal_fabric_delivers_at_issue():
    program = alone(2, (0, [write(1, MIB, 0)]), (1, [wait(0, 1)]))
    assert run(program, preset("ideal", 2)).makespan_ps == 1


def test_a_star_takes_its_rate_and_latency():
    program = alone(2, (0, [write(1, MIB, 0)]), (1, [wait(0, 1)]))
    made = preset("star", 2, rate_gb_per_s=25, latency_us=3)
    assert run(program, made, segment_bytes=0).makespan_ps == 2 * 20_971_520 + 6_000_000


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("hgx-h300", 8), {}, r"no fabric 'hgx-h300'; use ideal, star, .*TOML"),
        (("star", 0), {}, "give at least 1"),
        (("star", 8), {"speed": 3}, "no setting speed; it has rate_gb_per_s, latency_us"),
        (("fat-tree", 16), {"box": "dgx9"}, "no box 'dgx9'; boxes are dgx1-v100"),
        (("fat-tree", 16), {"leaf_ports": 8}, "cannot hold one box, which needs 16"),
        (("hgx-h100", 16), {"scale_out": "tree"}, "use rail-optimised or fat-tree"),
        (("star", 2), {"rate_gb_per_s": 0}, "rate and latency must be at least"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_remedy(arguments, settings, said):
    with pytest.raises(UsageError, match=said):
        preset(*arguments, **settings)


def test_fabric_takes_names_and_files(tmp_path):
    assert fabric("star", 4).links == 8
    path = tmp_path / "pair.toml"
    path.write_text('gpus = 2\n[[link]]\nfrom = "gpu 0"\nto = "gpu 1"\nrate_gb_per_s = 50\nlatency_ns = 10\n')
    assert fabric(path, 2).links == 2
    with pytest.raises(UsageError, match="has 2 GPUs, 3 are needed"):
        fabric(path, 3)
    with pytest.raises(UsageError, match="takes no settings"):
        fabric(str(path), 2, box="dgx1-v100")
