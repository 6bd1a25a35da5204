"""Fabrics from TOML that start from a preset, and links that differ by host, NIC or name."""

import numpy as np
import pytest

from eidola.replay import run
from eidola.replay.fabric import serialisation_ps, wire_bytes
from eidola.replay.presets import check_routes, fabric, load, preset
from eidola.replay.program import wait, write
from eidola.schemas import InputError, UsageError

from .programs import MIB, alone

SLOW = """
base = "hgx-h100"
[[override]]
link = "gpu 3 -> *"
rate_gb_per_s = 100
"""


def made(tmp_path, text, gpus=16):
    path = tmp_path / "net.toml"
    path.write_text(text)
    return load(path, gpus)


def test_a_preset_is_built_for_as_many_gpus_as_are_asked_for_or_the_file_says(tmp_path):
    assert made(tmp_path, SLOW).gpus == 16
    assert made(tmp_path, "gpus = 24\n" + SLOW).gpus == 24
    assert fabric(tmp_path / "net.toml", 9).gpus == 24
    with pytest.raises(UsageError, match="has 24 GPUs, 25 are needed"):
        fabric(tmp_path / "net.toml", 25)


def test_one_direction_of_one_gpu_differs_and_all_else_is_the_preset(tmp_path):
    found, base = made(tmp_path, SLOW), preset("hgx-h100", 16)
    differs = np.flatnonzero(found.rate_mb_per_s != base.rate_mb_per_s)
    assert {found.link_name(link) for link in differs} == {"gpu 3 -> nvswitch 0", "gpu 3 -> nic 0.3"}
    assert set(found.rate_mb_per_s[differs]) == {100_000}
    assert found.name == "net"
    check_routes(found)
    program = alone(16, (3, [write(4, MIB, 0)]), (4, [wait(0, 1)]))
    expected = serialisation_ps(wire_bytes(MIB, 27, 128), 100_000) + 300_000
    assert run(program, found, segment_bytes=0).makespan_ps == expected


def test_a_host_differs_in_both_directions_and_later_rows_win(tmp_path):
    text = """
base = "hgx-h100"
name = "one old host"
settings = { scale_out = "fat-tree" }
[[override]]
link = ["nic 1.* <-> *", "gpu 8-15 <-> nvswitch 1"]
rate_gb_per_s = 25
[[override]]
link = "nic 1.7 -> leaf 0"
latency_ns = 0.5
rate_gb_per_s = 10
header_bytes = 0
payload_bytes = 0
"""
    found = made(tmp_path, text)
    old = [link for link in range(found.links) if found.rate_mb_per_s[link] == 25_000]
    assert (
        len(old) == 8 * 2 + 8 * 2 + 8 * 2 - 1
    )  # to GPUs, to the leaf, GPUs to their switch; one changed again
    (last,) = [link for link in range(found.links) if found.rate_mb_per_s[link] == 10_000]
    assert (found.link_name(last), found.latency_ps[last], found.payload_bytes[last]) == (
        "nic 1.7 -> leaf 0",
        500,
        0,
    )


def test_links_of_the_file_itself_are_overridden_too(tmp_path):
    text = """
gpus = 3
[[switch]]
name = "middle"
[[link]]
from = "gpu 0-2"
to = "middle"
rate_gb_per_s = 50
latency_ns = 1
[[override]]
link = "middle -> gpu ?"
rate_gb_per_s = 5
"""
    found = made(tmp_path, text)
    assert sorted(found.rate_mb_per_s.tolist()) == [5000] * 3 + [50_000] * 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hgx-h100", "hgx-x", "net.toml: base: no fabric 'hgx-x'; use ideal"),
        ("[[override]]", "settings = { rail = 3 }\n[[override]]", "base: hgx-h100 has no setting rail; it has box"),
        ("[[override]]", "box_gpus = 3\n[[override]]", "box_gpus: is not for a preset"),
        ("[[override]]", "[override]", "override: .* is no list"),
        ("gpu 3 -> *", "gpu 99 -> *", "'gpu 99 -> .' is no link of net; one is 'gpu 0 -> nvswitch 0'"),
        ("gpu 3 -> *", "gpu 3", "override 1, link: 'gpu 3' is no link; write 'FROM -> TO'"),
        ("rate_gb_per_s = 100", "rate = 100", "override 1: unknown key 'rate'; keys are link, rate_gb_per_s"),
        ("rate_gb_per_s = 100", "rate_gb_per_s = 0", "override 1, rate_gb_per_s: 0 is too little"),
        ("rate_gb_per_s = 100", "payload_bytes = 0", "gpu 3 -> nvswitch 0 has headers; it needs a payload_bytes"),
        ("rate_gb_per_s = 100", "", "override 1: changes nothing; give rate_gb_per_s"),
        ('link = "gpu 3 -> *"', "", "override 1: key 'link' is missing; add it"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path, old, new, said):
    with pytest.raises(InputError, match=said):
        made(tmp_path, SLOW.replace(old, new))


def test_without_a_count_anywhere_a_preset_cannot_be_built(tmp_path):
    with pytest.raises(InputError, match="gpus: is missing; add how many"):
        made(tmp_path, SLOW, None)
