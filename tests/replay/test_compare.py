"""What differs between runs, and between a run and its capture, is found, aligned and summed."""

import pytest

from eidola.replay import compare, replay, run
from eidola.replay.builder import Builder
from eidola.replay.program import Collective, compute, wait, write
from eidola.schemas import TraceWriter, UsageError

from .programs import MIB, US, ring, star
from .saved import save, saved

SERIALISED = 20_971_520  # 1 MiB at 50 GB/s
STEP = SERIALISED + 2 * US
EPOCH_NS = 1_700_000_000_000_000_123  # beyond what a float holds to the nanosecond


def job(gpus: int = 2, gemm_ps: int = 3 * US, *, captured: bool = True):
    """Each GPU computes, then all write 1 MiB to the next one; captured as starting 1 us apart, 20 us long."""
    builder = Builder(gpus, epoch_ns=EPOCH_NS)
    everyone = builder.group(list(range(gpus)))
    flag = builder.flags(list(range(gpus)), name="ready")
    swap = builder.collective(Collective("all_reduce", "default", 5, MIB, "ring"))
    exchange = builder.block([write(1, MIB, flag, relative=True), wait(flag, 1)])
    work = builder.block([compute(gemm_ps)])
    for gpu in range(gpus):
        agent = builder.agent(gpu, "stream 7")
        starts = [EPOCH_NS, EPOCH_NS + 3000 + 1000 * gpu]
        times = [
            {"captured_start_ns": start, "captured_end_ns": end} if captured else {}
            for start, end in zip(starts, (starts[1], EPOCH_NS + 25_000), strict=True)
        ]
        gemm = builder.activity(agent, "kernel", "gemm", **times[0])
        reduce = builder.activity(agent, "collective", "ncclAllReduce", collective=swap, **times[1])
        builder.call(agent, work, activity=gemm)
        builder.call(agent, exchange, group=everyone, position=gpu, activity=reduce)
    return builder.build()


def test_a_run_compared_with_itself_has_no_difference(tmp_path):
    first = save(run(job(), star(2)), tmp_path / "a")
    second = save(run(job(), star(2), engine="reference"), tmp_path / "b")
    found = compare(first, second)
    assert found.same is True
    assert found.difference_ps == 0
    assert not len(found.inputs)
    for table in (found.causes, found.kernels, found.collectives, found.links, found.flags):
        difference = next(name for name in table.columns if name.startswith("difference"))
        assert len(table)
        assert not table[difference].any()
    assert "same" in found.sentence


def test_a_halved_rate_is_serialisation_and_link_time_and_an_input(tmp_path):
    options = {"segment_bytes": 0}
    a = save(run(job(), star(2), **options), tmp_path / "a", inputs={"fabric": "star", "gpus": 2})
    b = save(run(job(), star(2, 25_000), **options), tmp_path / "b", inputs={"fabric": "slow", "gpus": 2})
    found = compare(a, b)
    assert found.same is False
    assert found.difference_ps == SERIALISED
    assert found.causes.iloc[0].to_dict() == {
        "what": "serialisation",
        "a_ps": SERIALISED,
        "b_ps": 2 * SERIALISED,
        "difference_ps": SERIALISED,
    }
    assert found.causes["difference_ps"].sum() == found.difference_ps
    assert found.named["difference_ps"].sum() == found.difference_ps
    assert found.inputs.to_dict("records") == [{"input": "inputs.fabric", "a": "star", "b": "slow"}]
    assert found.links["difference_ps"].tolist() == [SERIALISED] * 4
    kernels = found.kernels.set_index("name")
    assert kernels.loc["gemm", "difference_ps"] == 0
    assert kernels.loc["ncclAllReduce", "difference_ps"] == 2 * SERIALISED
    assert found.collectives[["a_ps", "b_ps"]].values.tolist() == [[STEP, STEP + SERIALISED]]


def test_a_longer_kernel_is_the_difference(tmp_path):
    a, b = (saved(job(gemm_ps=time), star(2), tmp_path / f"{time}") for time in (3 * US, 7 * US))
    found = compare(a, b)
    assert found.kernels.iloc[0][["name", "difference_ps", "matched"]].tolist() == ["gemm", 8 * US, 2]
    assert found.causes.iloc[0][["what", "difference_ps"]].tolist() == ["kernel", 4 * US]


def test_operations_that_one_run_lacks_are_counted_not_matched(tmp_path):
    a, b = (saved(job(gpus), star(gpus), tmp_path / f"{gpus}") for gpus in (2, 3))
    gemm = compare(a, b).kernels.set_index("name").loc["gemm"]
    assert gemm[["matched", "only_a", "only_b"]].tolist() == [2, 0, 1]


@pytest.mark.parametrize("gpus", [2, 3])
def test_predictions_are_set_against_what_was_captured(tmp_path, gpus):
    found = compare(saved(job(gpus), star(gpus), tmp_path / "run", segment_bytes=0))
    row = found.collectives.iloc[0]
    captured = 25_000_000 - (3 + gpus - 1) * US
    assert (row["a_ps"], row["b_ps"]) == (STEP, captured)
    assert (row["skew_a_ps"], row["skew_b_ps"]) == (0, (gpus - 1) * US)
    assert (row["end_a_ps"], row["end_b_ps"]) == (3 * US + STEP, 25 * US)  # since the first operation began
    assert found.makespan_b_ps == 25 * US
    assert found.same is None
    errors = found.errors()
    assert errors["collectives_median"] == pytest.approx(abs(STEP - captured) / captured)
    assert errors["makespan"] == pytest.approx((3 * US + STEP - 25 * US) / (25 * US))
    assert "off by" in found.sentence


def test_a_run_is_compared_with_a_trace_by_the_same_operations(tmp_path):
    a = saved(job(), star(2), tmp_path / "run", segment_bytes=0)
    with TraceWriter(tmp_path / "t.eidola") as writer:
        for rank in range(2):
            start = [EPOCH_NS, EPOCH_NS + 3000 + 1000 * rank]
            end = [start[1], EPOCH_NS + 25_000]
            spans = {"span": [0, 1], "lane": ["stream 7"] * 2, "kind": ["kernel"] * 2,
                     "name": ["gemm", "ncclAllReduce"], "start_ns": start, "end_ns": end}  # fmt: skip
            writer.write("spans", rank, spans)
            part = {"span": [1], "communicator": ["default"], "sequence": [5], "operation": ["all_reduce"],
                    "start_ns": start[1:], "end_ns": end[1:]}  # fmt: skip
            writer.write("collectives", rank, part)
    traced, captured = compare(a, tmp_path / "t.eidola"), compare(a, "captured")
    assert traced.makespan_b_ps == captured.makespan_b_ps
    for table in ("kernels", "collectives"):
        assert getattr(traced, table).to_dict() == getattr(captured, table).to_dict()


def test_a_run_of_which_nothing_was_captured_is_refused(tmp_path):
    run_ = saved(job(captured=False), star(2), tmp_path / "run")
    with pytest.raises(UsageError, match="nothing in this run was captured"):
        compare(run_)


def test_runs_without_messages_compare_all_but_the_causes(tmp_path):
    a, b = (saved(ring(4, size), star(4), tmp_path / f"{size}", record="none") for size in (MIB, 2 * MIB))
    found = compare(a, b)
    assert not len(found.causes)
    assert (found.links["difference_ps"] > 0).all()
    assert found.as_dict()["causes"] == []


def test_a_capture_that_is_no_truth_for_times_says_so_and_time_sliced_ones_are_refused(tmp_path):
    def captured_on(backend):
        with TraceWriter(tmp_path / f"{backend}.eidola") as writer:
            for rank in range(2):
                writer.write("ranks", rank, {"backend": [backend]})
                span = {"span": [0], "lane": ["workgroup 0"], "kind": ["phase"], "name": ["work"]}
                writer.write("spans", rank, {**span, "start_ns": [1000], "end_ns": [2000]})
        return tmp_path / f"{backend}.eidola"

    replay(captured_on("gpu"), tmp_path / "own")
    assert compare(tmp_path / "own").caution == ""
    assert compare(tmp_path / "own", captured_on("virtual")).caution.startswith("Captured on backend virtual")
    replay(captured_on("host"), tmp_path / "host")
    assert "validate no link rate" in compare(tmp_path / "host").as_dict()["caution"]
    with pytest.raises(UsageError, match="took turns on one GPU"):
        compare(tmp_path / "own", captured_on("timesliced"))
