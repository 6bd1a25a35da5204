"""Collectives of captured ranks, matched and expanded, at the captured size and at others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.replay import lower, run, scale
from eidola.replay.lowering.laws import tiled
from eidola.schemas import UsageError

from .programs import MIB, star
from .traces import collective, edge, ideal, member, replayed, span, times_ns, write_trace


def job(path, ranks=4, operation="all_reduce", size=MIB, late=0, **more):
    """A kernel, a collective that its stream waits for, a kernel; rank 0 comes `late` ns later than the others."""
    rows = {}
    for rank in range(ranks):
        shift = late if rank == 0 else 0
        spans = [
            span(0, "stream 7", shift, 1000 + shift),
            span(1, "stream 20", 1100 + shift, 90_000, name=f"nccl {operation}"),
            span(2, "stream 7", 90_500, 91_000),
        ]
        parts = [collective(1, 0, 1100 + shift, 90_000, operation, size, **more)]
        rows[rank] = {
            "spans": spans,
            "dependencies": [edge(0, 1), edge(1, 2)],
            "collectives": parts,
            "communicators": [member(rank, ranks)],
        }
    return write_trace(path, rows)


def network(gpus):
    """A star on which a ring step of a MiB takes 22.97152 us; captured kernels cost nothing of their own here."""
    return star(gpus)


def ends_ps(outcome, gpu=0):
    return {name: end for name, (_, end) in times_ns(outcome, gpu).items()}


@pytest.mark.parametrize("operation", ["all_reduce", "all_gather", "reduce_scatter", "broadcast", "barrier"])
def test_a_collective_starts_late_and_ends_for_all_when_the_last_rank_came(tmp_path, operation):
    """The kernel's captured duration is no compute: what follows it moves with the simulated end."""
    trace = job(tmp_path / "t", operation=operation, late=50_000)
    lowered, outcome = replayed(trace, network(4))
    program = lowered.program
    assert [c.operation for c in program.collectives] == [operation]
    if operation != "broadcast":  # others may end before a late rank begins
        for gpu in range(4):
            assert ends_ps(outcome, gpu)[1] >= 51_100
    for gpu in range(4):
        times = times_ns(outcome, gpu)
        assert times[2][0] - times[1][1] in (499, 500, 501)


def test_the_program_of_a_collective_is_its_groups_whatever_the_ranks_order(tmp_path):
    """Group ranks decide who is who: all four are members of one operation."""
    program = lower(job(tmp_path / "t"), network(4)).program
    rows = program.activities
    taking = np.flatnonzero(rows["collective"] == 0)
    assert sorted(program.agent_endpoint[rows["agent"][taking]].tolist()) == [0, 1, 2, 3]
    assert rows["captured_end_ns"][taking].tolist() == [90_000] * 4


@pytest.mark.parametrize("gpus", [4, 8, 20])
def test_all_reduce_keeps_its_buffer_when_the_group_grows(tmp_path, gpus):
    lowered = scale(job(tmp_path / "t", protocol="simple"), gpus, network(gpus))
    rows = lowered.program.message_rows()
    wire = rows["size_bytes"][rows["source"] != rows["destination"]].sum()
    assert wire == 2 * (gpus - 1) * MIB
    assert lowered.program.collectives[0].size_bytes == MIB
    grown = any("buffer kept (data parallel)" in note for note in lowered.notes)
    assert grown == (gpus != 4)


def test_all_gather_keeps_the_full_size_when_the_group_grows(tmp_path):
    lowered = scale(job(tmp_path / "t", operation="all_gather"), 16, network(16))
    assert lowered.program.collectives[0].size_bytes == MIB * 4 // 16


@pytest.mark.parametrize(("law", "total"), [("weak", 1000), ("strong", 500)])
def test_all_to_allv_keeps_a_ranks_bytes_and_repeats_its_splits(tmp_path, law, total):
    split = [100, 200, 300, 400]
    options = {"operation": "all_to_allv", "size": 1000, "in_split_bytes": split, "protocol": "simple"}
    program = scale(job(tmp_path / "t", **options), 8, network(8), law=law).program
    rows = program.message_rows()
    away = rows["source"] != rows["destination"]
    sent = np.zeros((8, 8), np.int64)
    np.add.at(sent, (rows["source"][away], rows["destination"][away]), rows["size_bytes"][away])
    whole = np.tile(np.array(split), 2) * total // 2000
    assert np.array_equal(sent + np.diag(whole), np.tile(whole, (8, 1)))


def test_what_is_unmatched_keeps_its_captured_duration_and_is_listed(tmp_path):
    rows = {
        0: {
            "spans": [span(0, "stream 20", 0, 700), span(1, "stream 20", 800, 900)],
            "collectives": [collective(0, 0, 0, 700), collective(1, 1, 800, 900, "unknown")],
            "communicators": [member(0, 2)],
        }
    }
    lowered, outcome = replayed(write_trace(tmp_path / "t", rows))
    assert times_ns(outcome) == {0: (0, 700), 1: (800, 900)}
    assert len(lowered.notes) == 2
    assert "not all of its 2 members were captured" in lowered.notes[0]
    assert "the operation is not known" in lowered.notes[1]


def test_groups_of_some_ranks_repeat_with_them(tmp_path):
    """Two pairs among four ranks: at eight GPUs there are four pairs, and no traffic between them."""
    rows = {}
    for rank in range(4):
        pair = f"pair {rank // 2}"
        rows[rank] = {
            "spans": [span(0, "stream 20", 0, 700)],
            "collectives": [collective(0, 0, 0, 700, communicator=pair)],
            "communicators": [member(rank % 2, 2, pair), member(rank, 4)],
        }
    trace = write_trace(tmp_path / "t", rows)
    program = scale(trace, 8, network(8)).program
    found = program.message_rows()
    assert len(program.collectives) == 4
    assert np.array_equal(found["source"] // 2, found["destination"] // 2)
    with pytest.raises(UsageError, match="'pair 0' of only some"):
        scale(trace, 6, network(6))


def test_a_send_meets_its_receive(tmp_path):
    rows = {}
    for rank, operation in enumerate(("send", "recv")):
        rows[rank] = {
            "spans": [span(0, "stream 20", 100 * rank, 700)],
            "collectives": [collective(0, 3, 100 * rank, 700, operation, 4096, peer=1 - rank)],
            "communicators": [member(rank, 2)],
        }
    program = lower(write_trace(tmp_path / "t", rows), network(2)).program
    assert [(c.operation, c.size_bytes) for c in program.collectives] == [("send", 4096)]
    assert run(program, network(2)).activity_times[1].min() > 0


def test_timed_collectives_start_as_captured_and_delay_nothing(tmp_path):
    """A fabric far too slow: starts stay, ends are predictions, and what followed counts as a violation."""
    slow = star(4, rate_mb_per_s=10)
    _, outcome = replayed(job(tmp_path / "t", late=50_000), slow, mode="timed")
    for gpu in range(4):
        times = times_ns(outcome, gpu)
        assert times[1][0] == (51_100 if gpu == 0 else 1100)
        assert times[1][1] > 90_000
        assert times[2] == (90_500, 91_000)
    assert outcome.causality_violations() == 4
    assert replayed(job(tmp_path / "t"), ideal(4), mode="timed")[1].causality_violations() == 0


def test_eidolons_join_the_targets_collectives_at_captured_starts(tmp_path):
    trace = job(tmp_path / "t", late=50_000)
    _, outcome = replayed(trace, network(4), mode="target", targets=[0])
    assert times_ns(outcome, 0)[0] == (50_000, 51_000)
    assert times_ns(outcome, 1).keys() == {1}
    assert times_ns(outcome, 1)[1][0] == 1100


@pytest.mark.parametrize("mode", ["dependent", "timed", "target"])
def test_an_algorithm_can_be_chosen(tmp_path, mode):
    program = lower(job(tmp_path / "t"), network(4), mode=mode, algorithms={"all_reduce": "direct"}).program
    assert program.collectives[0].algorithm == "direct"
    with pytest.raises(UsageError, match="no algorithm 'sideways'"):
        lower(job(tmp_path / "t"), network(4), algorithms={"all_reduce": "sideways"})


@given(
    st.lists(st.integers(0, 1 << 30), min_size=1, max_size=9),
    st.integers(1, 40),
    st.integers(0, 1 << 34),
    st.sampled_from([1, 2, 4]),
)
def test_tiled_splits_keep_the_total_and_the_captured_split_is_its_own_tiling(split, members, total, unit):
    shares = tiled(tuple(split), members, total, unit)
    assert shares.min() >= 0
    assert shares.sum() == (total if sum(split[: max(1, min(members, len(split)))]) else 0)
    assert tiled(tuple(split), len(split), sum(split), unit).tolist() == split
