"""Matching operations and aligning clocks across ranks, on parts made to order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.convert.clocks import align
from eidola.convert.matching import match
from eidola.convert.operations import operation_of
from eidola.convert.parts import Group, Part

WORLD = Group("0", (0, 1, 2, 3), 4, "default_pg")


def part(start, end, operation="all_reduce", group=WORLD, **more):
    return Part(0, -1, operation, "kernel", group, start, end, None, **more)


def places(matching):
    return {key: sorted(ranks) for key, ranks in matching.operations.items()}


@given(
    gaps=st.lists(st.integers(200_000, 5_000_000), min_size=4, max_size=12),
    offsets=st.lists(st.integers(-10_000_000, 10_000_000), min_size=3, max_size=3),
    noise=st.integers(0, 3_000),
    skews=st.lists(st.integers(0, 150_000), min_size=12, max_size=12),
)
def test_any_clock_offset_is_recovered_to_the_noise_of_ends(gaps, offsets, noise, skews):
    ends = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    parts = {
        rank: [
            part(e + o - 20_000 - skews[(rank * 5 + i) % 12], e + o + noise * ((rank + i) % 2))
            for i, e in enumerate(ends)
        ]
        for rank, o in enumerate([0, *offsets])
    }
    matching = match(parts, 4)
    assert places(matching) == {("0", i): [0, 1, 2, 3] for i in range(len(ends))}
    clocks = align(range(4), matching)
    for rank, offset in enumerate(offsets, 1):
        assert abs(clocks[rank].offset_ns + offset) <= 2 * noise + 1
        assert clocks[rank].residual_ns <= 4 * noise + 1
        assert clocks[rank].anchors == len(ends)


@given(
    dropped=st.sets(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=8),
    shift=st.integers(-9_000_000, 9_000_000),
)
def test_operations_that_some_ranks_lack_do_not_shift_the_others(dropped, shift):
    # Gaps of their own length, as a job's are, so that only one alignment fits.
    ends = [3_000_000 * i + 137_000 * i * i for i in range(10)]
    parts = {
        rank: [
            part(e - 90_000 + s, e + s, size_bytes=8) for i, e in enumerate(ends) if (rank, i) not in dropped
        ]
        for rank, s in enumerate((0, shift, 0))
    }
    truth = {i: [r for r in range(3) if (r, i) not in dropped] for i in range(10)}
    matching = match(parts, 3)
    assert sorted(places(matching).values()) == sorted(ranks for ranks in truth.values() if ranks)


def test_numbers_of_the_source_match_whatever_the_order():
    parts = {0: [part(0, 9, sequence=7), part(10, 19, sequence=8)], 1: [part(0, 9, sequence=8)]}
    matching = match(parts, 4)
    assert matching.by == {"0": "number"}
    assert places(matching) == {("0", 7): [0], ("0", 8): [0, 1]}


def test_unnamed_parts_join_the_group_that_names_their_stream():
    unnamed = Group(None, None, None, None, handle=4)
    parts = {0: [part(0, 9, "unknown", unnamed, stream=4), part(10, 19, stream=4)]}
    matching = match(parts, 4)
    assert {m.communicator for m in matching.members} == {"0"}
    assert not any(m.inferred for m in matching.members)


def test_unnamed_groups_are_numbered_by_first_use_and_marked_inferred():
    parts = {
        rank: [part(0, 9, group=Group(None, None, None, None, handle=h)) for h in handles]
        for rank, handles in enumerate(([84, 203], [20, 11]))
    }
    matching = match(parts, 2)
    assert {m.communicator for m in matching.members} == {"unnamed 0", "unnamed 1"}
    assert all(m.inferred and m.group_size == 2 for m in matching.members)
    assert places(matching) == {("unnamed 0", 0): [0, 1], ("unnamed 1", 0): [0, 1]}


def test_a_rank_is_placed_by_the_groups_start_and_stride_where_its_list_is_cut():
    group = Group("dp", None, 40, None, start=3, stride=8)
    matching = match({3 + 8 * 5: [part(0, 9, group=group)]}, 320)
    assert [(m.group_rank, m.group_size, m.inferred) for m in matching.members] == [(5, 40, False)]


def test_sends_and_receives_are_numbered_by_pair():
    parts = {
        0: [part(i, i + 1, "send", peer=p) for i, p in enumerate((1, 2, 1))],
        1: [part(5, 6, "recv", peer=0)],
    }
    match(parts, 4)
    assert [p.sequence for p in parts[0]] == [0, 0, 1]
    assert parts[1][0].sequence == 0


def test_ranks_without_a_common_operation_are_aligned_through_others_or_not_at_all():
    def pair(name, *ranks):
        return Group(name, ranks, 2, None)

    ends = [1_000_000, 9_000_000, 30_000_000]
    parts = {
        0: [part(e - 5, e, group=pair("a", 0, 1)) for e in ends],
        1: [part(e + 95, e + 100, group=g) for e in ends for g in (pair("a", 0, 1), pair("b", 1, 2))],
        2: [part(e + 595, e + 600, group=pair("b", 1, 2)) for e in ends],
        3: [],
    }
    clocks = align(range(4), match(parts, 4))
    assert [clocks[r].offset_ns for r in range(4)] == [0, -100, -600, 0]
    assert [clocks[r].method for r in range(4)] == ["reference", "collective_ends", "collective_ends", "none"]
    assert clocks[3].residual_ns is None


def test_operations_that_do_not_synchronise_anchor_no_clock():
    parts = {r: [part(0, 1_000 + 500 * r, "broadcast")] for r in range(2)}
    assert align(range(2), match(parts, 2))[1].method == "none"


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("allreduce", "all_reduce"),
        ("nccl:all_reduce", "all_reduce"),
        ("_allgather_base", "all_gather"),
        ("nccl:_reduce_scatter_base", "reduce_scatter"),
        ("allgather_into_tensor_coalesced", "all_gather"),
        ("all_to_allv", "all_to_allv"),
        ("nccl:all_to_all", "all_to_all"),
        ("nccl:send 0->3", "send"),
        ("AllReduce", "all_reduce"),
        ("ReduceScatter", "reduce_scatter"),
        ("gloo:broadcast", "broadcast"),
        ("wait", "wait"),
        ("SendRecv", "unknown"),
        ("init", "unknown"),
    ],
)
def test_names_of_frameworks_and_kernels_mean_the_schemas_operations(name, operation):
    assert operation_of(name) == operation


def test_what_hosts_run_without_a_groups_name_is_of_the_only_group_that_others_name():
    """Gloo's threads take any group's work, and some annotations are described while others are not."""
    unnamed = Group(None, None, None, None)
    parts = {
        rank: [
            part(10 * i, 10 * i + 5, group=WORLD if (i + rank) % 2 else unnamed, on_gpu=False, stream=-1)
            for i in range(6)
        ]
        for rank in range(2)
    }
    matching = match(parts, 2)
    assert places(matching) == {("0", i): [0, 1] for i in range(6)}


def test_sends_of_the_same_numbers_hide_no_collective_from_the_clocks():
    """Sends and receives have numbers of their own, which collectives of their communicator have too."""
    parts = {
        rank: [
            *(part(100 * i, 100 * i + 50 + 9 * rank, group=WORLD) for i in range(4)),
            *(
                part(100 * i + 60, 100 * i + 70, ("send", "recv")[rank], WORLD, peer=1 - rank)
                for i in range(4)
            ),
        ]
        for rank in range(2)
    }
    matching = match(parts, 2)
    assert places(matching) == {("0", i): [0, 1] for i in range(4)}
    assert sorted(matching.pairs) == [("0", i) for i in range(4)]
    clock = align(range(2), matching)[1]
    assert (clock.method, clock.anchors, clock.offset_ns) == ("collective_ends", 4, -9)


def test_a_group_that_does_not_say_its_size_has_room_for_every_peer():
    unnamed = Group(None, None, None, None, 7)
    matching = match({0: [part(0, 9, "send", unnamed, peer=3)]}, None)
    assert [(m.group_rank, m.group_size, m.inferred) for m in matching.members] == [(0, 4, True)]


def test_a_peer_beyond_the_size_that_a_group_says_is_left_out_and_counted():
    parts = {0: [part(0, 9, "send", WORLD, peer=4), part(10, 19, "send", WORLD, peer=3)]}
    matching = match(parts, None)
    assert ([p.peer for p in parts[0]], matching.outside) == ([None, 3], 1)


def test_two_worker_threads_of_a_host_may_begin_operations_in_any_order():
    rows = {0: [100, 200, 300, 100], 1: [200, 100, 100, 300]}
    parts = {
        rank: [
            part(10 * i, 10 * i + 9, size_bytes=size, dtype="float32", on_gpu=False)
            for i, size in enumerate(row)
        ]
        for rank, row in rows.items()
    }
    matching = match(parts, 2)
    sizes = {key: [rank[0].size_bytes for rank in op.values()] for key, op in matching.operations.items()}
    assert sizes == {("0", 0): [100] * 2, ("0", 1): [200] * 2, ("0", 2): [300] * 2, ("0", 3): [100] * 2}


def test_ranks_of_one_clock_are_moved_together_and_what_their_ends_differ_by_is_told():
    ends = {
        0: [1000, 2000, 3000],
        1: [1010, 1980, 3000],
        2: [51_000, 52_040, 53_000],
        3: [51_020, 52_020, 53_020],
    }
    parts = {rank: [part(end - 500, end) for end in own] for rank, own in ends.items()}
    matching = match(parts, 4)
    clocks = align(range(4), matching, {0: "a", 1: "a", 2: "b", 3: "b"})
    assert [clocks[r].offset_ns for r in range(4)] == [0, 0, -50_017, -50_017]
    assert (clocks[1].method, clocks[1].residual_ns, clocks[1].anchors) == ("reference", 20, 3)
    assert clocks[2] == clocks[3]
    alone = align(range(4), matching)
    assert alone[2].offset_ns != alone[3].offset_ns
