"""What crosses a cut, how many paths pairs have, and that pictures show every node that they should."""

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.replay.cuts import bisection, paths
from eidola.replay.drawing import draw
from eidola.replay.fabric import FabricBuilder
from eidola.replay.presets import preset, preset_names
from eidola.schemas import UsageError


def least_cut(fabric, half):
    """The smallest capacity over all ways to put the switches on either side."""
    nodes, gpus = len(fabric.node_names), fabric.gpus
    best = None
    for sides in range(1 << (nodes - gpus)):
        side = np.array([*half, *(bool(sides >> i & 1) for i in range(nodes - gpus))])
        crosses = side[fabric.source] & ~side[fabric.destination]
        total = int(fabric.rate_mb_per_s[crosses].sum())
        best = total if best is None else min(best, total)
    return best


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_cut_carries_what_its_narrowest_place_does(data):
    gpus, switches = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 5))
    builder = FabricBuilder("random", gpus)
    for i in range(switches):
        builder.node(f"switch {i}")
    nodes = gpus + switches
    for a, b in data.draw(st.lists(st.tuples(*[st.integers(0, nodes - 1)] * 2), max_size=20)):
        if a != b:
            builder.link(a, b, data.draw(st.integers(1, 9)), 1)
    fabric = builder.build()
    if fabric.ideal:
        return
    half = np.arange(gpus) < gpus // 2
    expected = min(least_cut(fabric, half), least_cut(fabric, ~half))
    assert bisection(fabric)[0].mb_per_s == expected


def test_a_star_passes_what_one_half_sends():
    cuts = bisection(preset("star", 8, rate_gb_per_s=10))
    assert [(c.name, c.gpus, c.mb_per_s, c.each_mb_per_s) for c in cuts] == [
        ("first half of the GPUs", 4, 40_000, 10_000),
        ("even against odd GPUs", 4, 40_000, 10_000),
    ]
    assert bisection(preset("ideal", 8)) == bisection(preset("star", 1)) == []


def test_paths_are_counted_over_the_choices_that_routing_has():
    found = paths(preset("fat-tree-3", 16, box="gpu", radix=4))
    assert found is not None
    assert (found.paths, found.links) == ((1, 4, 4), (2, 6, 6))
    assert paths(preset("ideal", 4)) is None


def test_choices_that_lead_back_are_named():
    builder = FabricBuilder("loop", 2)
    a, b = builder.node("switch a"), builder.node("switch b")
    there, back = builder.duplex(a, b, 1, 1)
    builder.rule(0, 0, 2, [[builder.link(0, a, 1, 1)]])
    builder.rule(1, 0, 2, [[builder.link(1, b, 1, 1)]])
    builder.rule(a, 1, 2, [[there]])
    builder.rule(b, 1, 2, [[builder.link(b, 1, 1, 1), back]])
    with pytest.raises(UsageError, match=r"choices at switch [ab] towards GPU 1 lead back to it"):
        paths(builder.build())


@pytest.mark.parametrize("name", preset_names())
def test_a_picture_has_every_node_up_to_64_gpus(name):
    made = preset(name, 16)
    svg = ElementTree.fromstring(draw(made))
    titles = [title.text for title in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(titles) == sorted(made.node_names)
    lines = len(list(svg.iter("{http://www.w3.org/2000/svg}path")))
    assert lines == len({tuple(sorted(ends)) for ends in zip(made.source, made.destination, strict=True)})


@pytest.mark.parametrize("name", ["hgx-h100", "torus-3d", "gb200-nvl72", "pcie-staged", "fat-tree-3"])
def test_a_large_picture_stays_small_and_counts_all(name):
    made = preset(name, 2048)
    text = draw(made)
    assert len(text) < 1_000_000
    assert f"{made.gpus:,} GPUs, {made.links:,} links" in text
    ElementTree.fromstring(text)
