"""The three modes: what is recorded, what is predicted."""

import numpy as np
import pytest

from eidola.replay import lower, run
from eidola.replay.generate import GemvAllReduce, generate
from eidola.replay.lowering.plan import make_plan
from eidola.schemas import UsageError

from .programs import star
from .traces import data, ideal, raised, replayed, span, times_ns, waited, write_trace


@pytest.fixture
def exchange(tmp_path):
    """Three ranks; each writes 1 MiB and a flag to both others at 400 and 500 ns, then waits for both."""
    ranks = {}
    for rank in range(3):
        peers = [(rank + hop) % 3 for hop in (1, 2)]
        sources = [(rank - hop) % 3 for hop in (1, 2)]
        ranks[rank] = {
            "spans": [span(0, "workgroup 0", rank, 500, "phase"), span(1, "workgroup 0", 600, 990, "phase")],
            "writes": [
                row
                for peer, time in zip(peers, (400, 500), strict=True)
                for row in (data(peer, time, 1 << 20, span=0), raised(peer, time, rank, 1, span=0))
            ],
            "waits": [
                waited(source, 1, 600 + 100 * i, 700 + 100 * i, span=1) for i, source in enumerate(sources)
            ],
        }
    return write_trace(tmp_path / "t", ranks)


def test_timed_issue_and_start_times_are_exact(exchange):
    """However slow the fabric: recorded times stay, and late arrivals count as causality violations."""
    lowered, outcome = replayed(exchange, star(3), mode="timed")
    posted = outcome.final.rows.messages["post_ps"] // 1000 + lowered.program.epoch_ns
    assert np.unique(posted).tolist() == [400, 500]
    for gpu in range(3):
        assert times_ns(outcome, gpu) == {0: (gpu, 500), 1: (600, 990)}
    assert outcome.causality_violations() == 6


def test_timed_has_no_violation_where_the_fabric_is_ideal(exchange):
    _, outcome = replayed(exchange, mode="timed")
    assert outcome.causality_violations() == 0


def test_dependent_waits_delay_what_follows(exchange):
    _, outcome = replayed(exchange, star(3))
    last = outcome.final.rows.messages["arrival_ps"].max()
    assert outcome.makespan_ps == last + 190_000


def test_target_keeps_only_the_eidolons_writes_to_it(exchange):
    lowered, outcome = replayed(exchange, star(3), mode="target", targets=[1])
    rows = lowered.program.message_rows()
    assert set(rows["destination"][rows["source"] != 1].tolist()) == {1}
    assert set(rows["destination"][rows["source"] == 1].tolist()) == {0, 2}
    assert set(lowered.program.wait_rows()["endpoint"].tolist()) == {1}
    posted = outcome.final.rows.messages["post_ps"] // 1000 + lowered.program.epoch_ns
    eidolons = rows["source"] != 1
    assert sorted(posted[eidolons].tolist()) == [400, 400, 500, 500]


@pytest.mark.parametrize("targets", [(0,), (1,), (0, 2)])
def test_a_target_sees_of_its_eidolons_what_the_trace_holds(tmp_path, targets):
    """Issue times and sizes of the writes that reach a target are the captured rows, at their times."""
    trace = generate(GemvAllReduce(gpus=4, rows=64, columns=512, tile_rows=4, jitter_ns=300), tmp_path / "t")
    lowered, outcome = replayed(trace, star(4), mode="target", targets=targets)
    rows = lowered.program.message_rows()
    issued_ns = outcome.final.rows.messages["post_ps"] // 1000 + lowered.program.epoch_ns
    columns = (rows["source"], rows["destination"], rows["size_bytes"], issued_ns)
    found = zip(*(column.tolist() for column in columns), strict=True)
    captured = trace.read("writes", ["rank", "peer", "size_bytes", "issue_ns"]).to_pylist()
    wanted = [
        tuple(row.values()) for row in captured if row["peer"] in targets and row["rank"] not in targets
    ]
    assert sorted(row for row in found if row[0] not in targets) == sorted(wanted)


def test_what_eidolons_write_to_one_another_changes_nothing_for_the_target(tmp_path):
    kernel = GemvAllReduce(gpus=4, rows=64, columns=512, tile_rows=4, jitter_ns=300)
    whole, concerned = (generate(kernel, tmp_path / str(only), targets=only) for only in (None, 1))
    (_, first), (_, second) = (replayed(trace, star(4), mode="target") for trace in (whole, concerned))
    for ours, theirs in zip(first.final.rows, second.final.rows, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("gpus", [4, 8])
def test_flags_that_no_target_waits_for_take_one_slot_a_class(exchange, gpus):
    """So that a program's flags grow with its GPUs, not with their square."""
    slots = lower(exchange, ideal(gpus), mode="target", plan=make_plan(exchange, gpus)).program.flags
    assert slots.tolist() == [gpus] + [1] * (gpus - 1)


def test_overlapping_spans_keep_their_times_in_timed_mode(tmp_path):
    spans = [span(0, "stream 7", 0, 100), span(1, "stream 7", 90, 150), span(2, "stream 7", 100, 120)]
    trace = write_trace(tmp_path / "t", {0: {"spans": spans}})
    _, outcome = replayed(trace, mode="timed")
    assert times_ns(outcome) == {0: (0, 100), 1: (90, 150), 2: (100, 120)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sideways"}, "choose dependent, timed or target"),
        ({"mode": "target", "targets": [3]}, "GPU 3 is none of GPUs 0 to 2"),
        ({"mode": "target", "targets": []}, "name at least one"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(exchange, options, message):
    with pytest.raises(UsageError, match=message):
        lower(exchange, ideal(3), **options)


def test_a_fabric_that_is_too_small_is_refused(exchange):
    with pytest.raises(UsageError, match="fabric ideal has 2 GPUs, the replay 3"):
        lower(exchange, ideal(2))


def test_both_engines_agree_on_a_lowered_trace(exchange):
    for mode in ("dependent", "timed", "target"):
        program = lower(exchange, star(3), mode=mode).program
        compiled, reference = (run(program, star(3), engine=engine) for engine in ("compiled", "reference"))
        for ours, theirs in zip(compiled.final.rows, reference.final.rows, strict=True):
            assert np.array_equal(ours, theirs)
