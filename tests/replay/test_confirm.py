"""A cause twice as fast saves what the program's arithmetic says, and the run's folder keeps it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eidola.cli.main import app
from eidola.replay import confirm, explain, monitor, replay, run, spin
from eidola.replay.builder import Builder
from eidola.replay.faster import faster_fabric, faster_policy, faster_program, speedup
from eidola.replay.program import Mode, compute, until
from eidola.schemas import InputError, Results

from .programs import US, star
from .saved import saved
from .test_explain import SERIALISED, relay

SAMPLE = Path(__file__).resolve().parents[2] / "sample_traces/gemv_allreduce_host_4/trace.eidola"
LINKS = ["gpu 0 -> switch", "switch -> gpu 1"]


def saving(what, name="", links=(), policy=None, mode=Mode.EVENT):
    """What the relay of `test_explain` saves with one cause twice as fast."""
    change, options = speedup(what, name, links), {"segment_bytes": 0}
    before = run(relay(mode), star(2), **options, **({"wait": policy} if policy else {}))
    wait = {"wait": faster_policy(policy, change)} if policy else {}
    after = run(faster_program(relay(mode), change), faster_fabric(star(2), change), **options, **wait)
    return before.makespan_ps - after.makespan_ps


@pytest.mark.parametrize(
    ("what", "name", "links", "saved_ps"),
    [
        ("kernel", "gemm", (), 1.5 * US),
        ("kernel", "relu", (), 2.5 * US),
        ("copy", "gemm", (), 0),
        ("kernel", "none", (), 0),
        ("latency", "send", LINKS, US),
        ("serialisation", "send", LINKS, SERIALISED // 2),
        ("queueing", "send", LINKS, SERIALISED // 2),
        ("serialisation", "send", LINKS[:1], 0),  # the other link then limits
    ],
)
def test_one_cause_twice_as_fast(what, name, links, saved_ps):
    assert saving(what, name, links) == saved_ps


def test_waits_are_served_sooner():
    """The flag lands after 3 + 20.97 + 1 + 1 us: a spin of 10 us sees it at 30, and so does one of 5 us."""
    assert saving("polling", policy=spin(10_000), mode=Mode.POLL) == 0
    assert saving("polling", policy=spin(8_000), mode=Mode.POLL) == 32 * US - 28 * US
    assert saving("wake latency", policy=monitor(wake_ns=500), mode=Mode.POLL) == 250_000


def test_nothing_makes_an_acknowledgement_faster():
    assert speedup("acknowledgement", "send", ()) is None
    assert speedup("delivery", "send", ()) is None


def test_gaps_are_named_as_on_the_critical_path():
    builder = Builder(1)
    agent = builder.agent(0, "thread 1")
    call = builder.activity(agent, "host_call", "launch")
    builder.call(agent, builder.block([until(US)]))
    builder.call(agent, builder.block([compute(4 * US)]))
    builder.call(agent, builder.block([compute(8 * US)]), activity=call)
    builder.call(agent, builder.block([compute(16 * US)]))
    program = builder.build()
    ends = {
        name: run(faster_program(program, speedup("gap", name, ())), star(1)).makespan_ps / US
        for name in ("before launch", "after launch", "before nothing")
    }
    assert ends == {"before launch": 27, "after launch": 21, "before nothing": 29}


def test_a_job_is_confirmed_and_its_folder_keeps_it(tmp_path):
    results = replay(SAMPLE, tmp_path / "run", gpus=8, fabric="hgx-h100")
    assert results.confirmed is None
    found = confirm(results)
    explanation = explain(results)
    assert [each.cause for each in found] == list(explanation.grouped[:10])
    kept = Results(tmp_path / "run").confirmed
    assert kept["makespan_ps"] == explanation.makespan_ps
    assert [row["saved_ps"] for row in kept["causes"]] == [each.saved_ps for each in found]
    work = [each for each in found if each.cause.what in ("phase", "gap") and each.saved_ps is not None]
    assert work
    assert all(each.expected_ps == each.cause.duration_ps // 2 for each in work)
    assert any(each.saved_ps > 0 for each in found if each.saved_ps is not None)


def test_the_command_confirms(tmp_path):
    replay(SAMPLE, tmp_path / "run", gpus=8, fabric="hgx-h100")
    done = CliRunner().invoke(app, ["replay", "explain", str(tmp_path / "run"), "--confirm", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["confirmed"]
    assert [each["saved_ps"] for each in told] == [
        row["saved_ps"] for row in Results(tmp_path / "run").confirmed["causes"]
    ]


def test_a_run_whose_trace_is_not_known_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be run again"):
        confirm(saved(relay(), star(2), tmp_path / "run"))
