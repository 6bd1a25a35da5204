"""Axes of parallelism, found in communicators; shapes that make no sense are refused with the reason."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.replay.lowering.axes import find_axes, target_sizes
from eidola.replay.lowering.groups import Group
from eidola.replay.lowering.layout import shaped
from eidola.schemas import UsageError

ORDER = ("tensor", "expert", "data", "pipeline")


def grid(sizes: dict[str, int], names: bool = True, order=ORDER) -> dict[str, Group]:
    """Communicators of a job whose axes, innermost first, have these sizes; data groups hold expert groups."""
    ranks, stride, found = 1, 1, {}
    for size in sizes.values():
        ranks *= size
    for axis in order:
        size = sizes.get(axis, 1)
        span = stride * size
        if size > 1:
            for first in range(ranks):
                if first // stride % size == 0:
                    places = [first + i * stride for i in range(size)]
                    found[f"{axis} {first}"] = places
        stride = span
    return {
        name: Group(name if names else f"g{i}", len(p), dict(enumerate(p)))
        for i, (name, p) in enumerate(found.items())
    }


def named(groups: dict[str, Group]) -> dict[str, Group]:
    return {group.name: group for group in groups.values()}


sizes = st.fixed_dictionaries({axis: st.integers(1, 4) for axis in ORDER})


@given(sizes)
def test_named_axes_are_found_whatever_the_shape(shape):
    ranks = shape["tensor"] * shape["expert"] * shape["data"] * shape["pipeline"]
    axes = find_axes(named(grid(shape)), ranks, {})
    for axis, size in shape.items():
        assert axes.size(axis) == size


@given(sizes, st.integers(1, 3), st.integers(1, 3))
def test_copies_partition_the_gpus_and_keep_their_axis(shape, tensor, data):
    """Each GPU is in one copy; copies are of the target size; GPUs in one copy differ in that axis alone."""
    ranks = shape["tensor"] * shape["expert"] * shape["data"] * shape["pipeline"]
    groups = named(grid(shape))
    axes = find_axes(groups, ranks, {})
    wanted = {a: shape[a] * f for a, f in (("tensor", tensor), ("data", data)) if shape[a] > 1}
    layout = shaped(axes, target_sizes(axes, None, wanted))
    assert layout.place[0] == layout.block[0] == 0
    assert sorted(layout.gpu_at.values()) == list(range(len(layout.place)))
    for name, group in groups.items():
        own = set(group.members.values())
        copies: dict[int, list[int]] = {}
        for gpu, place in enumerate(layout.place):
            if place in own:
                copies.setdefault(layout.copies[name][gpu], []).append(gpu)
        size = wanted.get(axes.axis_of(name), group.size)
        assert all(len(members) == size for members in copies.values())
        strides = {b - a for members in copies.values() for a, b in pairwise(members)}
        assert len(strides) == 1


def test_axes_are_inferred_from_the_ranks_structure_and_said_to_be():
    axes = find_axes(named(grid({"tensor": 2, "data": 4}, names=False)), 8, {})
    assert [(d.axis, d.stride, d.size, d.known_by) for d in axes.digits] == [
        ("tensor", 1, 2, "inferred"),
        ("data", 2, 4, "inferred"),
    ]


def test_operations_tell_pipeline_and_expert_groups():
    groups = named(grid({"expert": 2, "data": 2, "pipeline": 2}, names=False))
    strides = {
        name: sorted(g.members.values())[1] - sorted(g.members.values())[0] for name, g in groups.items()
    }
    does = {1: {"all_to_all"}, 2: {"all_reduce"}, 4: {"send", "recv"}}
    axes = find_axes(groups, 8, {name: does[stride] for name, stride in strides.items()})
    assert [d.axis for d in axes.digits] == ["expert", "data", "pipeline"]


def test_expert_groups_inside_data_groups_count_as_data():
    groups = {
        "dp": Group("dp", 8, {i: i for i in range(8)}, "data_parallel"),
        **{f"e{k}": Group(f"e{k}", 2, {0: 2 * k, 1: 2 * k + 1}, "expert_parallel") for k in range(4)},
    }
    groups["dp"] = Group("dp", 8, {i: i for i in range(8)}, "data_parallel")
    axes = find_axes(groups, 8, {})
    assert (axes.size("expert"), axes.size("data")) == (2, 8)
    assert target_sizes(axes, 64, {"expert": 4}) == [4, 16]
    assert target_sizes(axes, None, {"data": 32}) == [2, 16]


def test_what_is_ambiguous_is_refused_by_name_unless_told():
    groups = named(grid({"tensor": 2, "data": 2, "pipeline": 2}, names=False))
    with pytest.raises(
        UsageError, match=r"communicator 'g8' .* looks data parallel, and so do ranks 2 apart"
    ):
        find_axes(groups, 8, {})
    axes = find_axes(groups, 8, {}, {"g8": "pipeline"})
    assert [d.axis for d in axes.digits] == ["tensor", "data", "pipeline"]
    assert axes.digits[2].known_by == "given"


@pytest.mark.parametrize(
    ("gpus", "wanted", "message"),
    [
        (64, {"tensor": 4, "data": 8}, r"--to 64 GPUs are not tensor 4 x data 8 = 32"),
        (30, {"tensor": 4}, r"--to 30 GPUs are not tensor 4 x data 4 = 16"),
        (None, {"tensor": 3}, "neither a multiple nor a divisor of the captured 2"),
        (None, {"expert": 2}, r"no expert axis \(its axes: tensor 2, data 4\)"),
        (None, {"data": 0}, "at least one rank"),
        (None, {"sideways": 2}, "no axis 'sideways'"),
    ],
)
def test_shapes_that_make_no_sense_are_refused_with_the_reason(gpus, wanted, message):
    axes = find_axes(named(grid({"tensor": 2, "data": 4})), 8, {})
    with pytest.raises(UsageError, match=message):
        target_sizes(axes, gpus, wanted)


def test_another_pipeline_depth_needs_a_schedule():
    axes = find_axes(named(grid({"data": 2, "pipeline": 2})), 4, {})
    with pytest.raises(UsageError, match="another depth is another schedule"):
        target_sizes(axes, None, {"pipeline": 4})


@pytest.mark.parametrize(
    ("places", "message"),
    [([0, 1, 3], "no grid of ranks"), ([1, 2], "no grid of ranks"), ([0, 1, 2], "do not fit one grid")],
)
def test_groups_that_are_no_grid_are_refused_by_name(places, message):
    groups = {"odd": Group("odd", len(places), dict(enumerate(places)))}
    with pytest.raises(UsageError, match=message):
        find_axes(groups, 8, {})
    with pytest.raises(UsageError, match="only 1 of its 2 members"):
        find_axes({"half": Group("half", 2, {0: 0})}, 8, {})
    with pytest.raises(UsageError, match="no communicator has that name"):
        find_axes({}, 8, {}, {"nobody": "data"})
