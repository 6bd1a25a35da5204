"""A scaled trace is an ordinary one: lowered at its own size it is the program that `scale` makes."""

from dataclasses import replace

import numpy as np
import pytest

from eidola.replay import lower, read_edits, scale
from eidola.replay.edits import NONE
from eidola.replay.lowering.items import finish_ns
from eidola.replay.lowering.lower import read_works
from eidola.replay.lowering.plan import make_plan
from eidola.replay.lowering.retiming import replaced_work
from eidola.replay.program import Mode, Op
from eidola.replay.scaled import write_scaled
from eidola.schemas import Trace, check

from .jobs import MESHES, job
from .programs import star
from .test_scale import SAMPLES, assert_equal, direct


def as_run(program):
    """A program without what only a capture knows: which times count as captured."""
    times = ("captured_start_ns", "captured_end_ns")
    rows = {name: rows for name, rows in program.activities.items() if name not in times}
    return replace(program, activities=rows)


def assert_same(trace, path, gpus, mode="dependent", **options):
    scaled = write_scaled(trace, path, gpus=gpus, **options)
    fabric = star(len(scaled.ranks()))
    direct = scale(trace, gpus, fabric, mode=mode, **options).program
    assert_equal(as_run(lower(scaled, fabric, mode=mode).program), as_run(direct))
    assert [str(p) for p in check(scaled.path) if p.severity == "error"] == []
    return scaled


@pytest.mark.parametrize("mode", ["dependent", "timed", "target"])
@pytest.mark.parametrize("law", ["weak", "strong"])
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("growth", [{}, {"data": 4}, {"tensor": 4}, {"data": 8, "tensor": 1}])
def test_a_scaled_trace_lowers_to_the_scaled_program(tmp_path, mesh, growth, law, mode):
    trace = job(tmp_path / "t", mesh)
    assert_same(trace, tmp_path / "s", None if growth else 8, mode, law=law, parallel=growth)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("mode", ["dependent", "timed"])
def test_drawn_steps_are_the_same_in_trace_and_program(tmp_path, mode, seed):
    trace = job(tmp_path / "t", steps=4)
    assert_same(trace, tmp_path / "s", None, mode, parallel={"data": 8}, seed=seed)


@pytest.mark.parametrize("gpus", [2, 6])
def test_the_sample_of_a_real_host_job(tmp_path, gpus):
    assert_same(Trace(SAMPLES / "gloo_ddp_2/trace.eidola"), tmp_path / "s", gpus)


def test_a_trace_of_n_ranks_scaled_to_n_is_that_trace(tmp_path):
    """With no special case: every table but `links`, which N GPUs need not have, is the same."""
    trace = job(tmp_path / "t", steps=2)
    scaled = write_scaled(trace, tmp_path / "s", gpus=4)
    for name in ("ranks", "spans", "dependencies", "communicators", "clocks"):
        assert scaled.read(name).equals(trace.read(name)), name
    key = [("rank", "ascending"), ("communicator", "ascending"), ("sequence", "ascending")]
    assert scaled.read("collectives").sort_by(key).equals(trace.read("collectives").sort_by(key))


def test_added_ranks_draw_whole_steps_and_captured_ones_keep_theirs(tmp_path):
    """A step's kernel is 100 ns longer a rank and 10 ns a step: both are seen in each duration."""
    trace = job(tmp_path / "t", steps=5)
    scaled = write_scaled(trace, tmp_path / "s", parallel={"data": 64}, seed=3)
    drawn = []
    for gpu in scaled.ranks():
        spans = scaled.read("spans", ranks=[gpu])
        names = np.array(spans["name"].to_pylist())
        length = np.subtract(spans["end_ns"], spans["start_ns"])
        gemm, other = length[names == "ampere_sgemm_64x64"], length[names == "elementwise"]
        slow = gemm - 9800
        assert np.array_equal(other - 9000, slow), "all of a step is of one step"
        steps = (slow - 100 * (gpu % 4)) // 10
        assert set(steps.tolist()) <= set(range(5)), "who is slow stays slow"
        if gpu < 4:
            assert steps.tolist() == [0, 1, 2, 3, 4]
        else:
            drawn.append(steps)
    assert len({tuple(steps) for steps in drawn}) > 100
    share = np.bincount(np.concatenate(drawn), minlength=5) / len(drawn) / 5
    assert np.abs(share - 0.2).max() < 0.07
    again = write_scaled(trace, tmp_path / "again", parallel={"data": 16}, seed=3)
    assert again.read("spans").equals(scaled.read("spans", ranks=again.ranks()))


def test_sizes_follow_their_axes(tmp_path):
    """Tensor: message kept. Data: a GPU's weights, and so the buffer, halve as the tensor axis doubles."""
    trace = job(tmp_path / "t")
    scaled = write_scaled(trace, tmp_path / "s", parallel={"tensor": 4, "data": 8}, law="strong")
    rows = scaled.read("collectives", ranks=[5]).to_pylist()
    sizes = {row["communicator"]: row["size_bytes"] for row in rows if row["operation"] == "all_reduce"}
    assert sorted(sizes.values()) == [(1 << 16) * 2 // 8, (1 << 20) * 2 // 4]
    members = scaled.read("communicators", ranks=[5]).to_pylist()
    assert [(m["group_rank"], m["group_size"]) for m in members] == [(1, 4), (1, 8), (5, 32)]
    spans = scaled.read("spans", ranks=[5]).to_pylist()
    length = {s["name"]: s["end_ns"] - s["start_ns"] for s in spans}
    source = 1 + 2 * 1  # tensor digit 1, data digit 1
    assert length["ampere_sgemm_64x64"] == (9800 + 100 * source) * 2 // 8 // 2
    assert length["elementwise"] == (9000 + 100 * source) * 2 // 8
    assert length["ncclDevKernel_AllReduce"] == 35_000
    notes = " ".join(scaled.notes["extrapolated"])
    for said in (
        "28 added",
        "tensor axis (named by 't0' (mesh_tp)): 2 ranks, 1 apart, on 4",
        "GEMM",
        "batch",
    ):
        assert said in notes


def test_added_ranks_are_virtual(tmp_path):
    scaled = write_scaled(job(tmp_path / "t"), tmp_path / "s", parallel={"data": 4})
    assert scaled.read("ranks")["backend"].to_pylist() == ["host"] * 4 + ["virtual"] * 4


def compute_ps(program):
    """Each agent's compute."""
    busy = np.where(program.ops["kind"] == Op.COMPUTE, program.ops["duration_ps"], 0)
    busy = busy * (program.ops["mode"] == Mode.FOR)
    upto = np.concatenate(([0], np.cumsum(busy)))[program.block_first]
    each = np.diff(upto)[program.calls["block"]] * program.calls["repeat"]
    return np.bincount(program.calls["agent"], each, program.agents)


def assert_same_traffic(scaled, direct):
    """The same messages, flags and counts; a duration may be rounded off by a nanosecond."""
    program = lower(scaled, star(direct.gpus)).program
    for rows, expected in (
        (program.message_rows(), direct.message_rows()),
        (program.wait_rows(), direct.wait_rows()),
    ):
        for column in {"agent", "source", "destination", "size_bytes", "endpoint", "expected"} & set(rows):
            assert np.array_equal(rows[column], expected[column]), column
    assert program.names == direct.names
    assert np.abs(compute_ps(program) - compute_ps(direct)).max() <= 1000 * len(direct.ops["kind"])
    assert [str(p) for p in check(scaled.path) if p.severity == "error"] == []


@pytest.mark.parametrize("edit", ["", '[[kernel]]\nmatch = ".*"\nfactor = 0.5\n'])
@pytest.mark.parametrize(("gpus", "replicas"), [(2, False), (4, False), (5, False), (8, True), (16, False)])
def test_a_captured_fused_kernel_scales_to_a_trace_of_the_same_traffic(tmp_path, gpus, replicas, edit):
    trace = Trace(SAMPLES / "gemv_allreduce_host_4/trace.eidola")
    (tmp_path / "edits.toml").write_text(edit)
    edits = read_edits(tmp_path / "edits.toml") if edit else NONE
    options = {"gpus": gpus, "replicas": replicas, "edits": edits}
    scaled = write_scaled(trace, tmp_path / "s", **options)
    program = scale(trace, fabric=star(gpus), **options).program
    assert_same_traffic(scaled, program)
    if not replicas:  # whose flags have numbers for one job's distances, a trace's for all
        flags = [p.message_rows()["flag"] for p in (lower(scaled, star(gpus)).program, program)]
        assert np.array_equal(*flags)
    if gpus == 4 and not edit:
        for table in ("spans", "writes", "waits"):
            assert scaled.read(table).equals(trace.read(table)), table


def test_what_was_scaled_scales_again(tmp_path):
    """4 to 8 to 16 ranks: a peer's bytes are rounded up twice, who writes to whom and flags are as from 4 to 16."""
    trace = direct(tmp_path / "t")
    once = write_scaled(trace, tmp_path / "16", gpus=16)
    twice = write_scaled(write_scaled(trace, tmp_path / "8", gpus=8), tmp_path / "8 16", gpus=16)
    rows = [t.read("writes", ["rank", "peer", "size_bytes", "flag", "value"]) for t in (once, twice)]
    assert rows[0].equals(rows[1])


@pytest.mark.parametrize("sample", ["gloo_ddp_2", "gemv_allreduce_host_4"])
def test_unchanged_durations_give_the_captured_times(sample):
    trace = Trace(SAMPLES / sample / "trace.eidola")
    works = read_works(trace, make_plan(trace))
    for work in works.all():
        again = replaced_work(work, {})
        assert again is not work
        for old, new in zip(work.items(), again.items(), strict=True):
            assert (old.begin_ns, finish_ns(old)) == (new.begin_ns, finish_ns(new))
