"""What waits cost: closed forms of every policy, and what the waits and workgroups of one GPU share."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.replay import Device, backoff, monitor, parse_wait, polls_table, replay, run, spin, verify
from eidola.replay.program import Mode, compute, until, wait, write
from eidola.replay.waiting import IDEAL, WaitPolicy
from eidola.schemas import StallError, UsageError

from .programs import Builder, alone, star
from .traces import ideal

NS, US = 1000, 1_000_000
ENGINES = ("compiled", "reference")


def polled(flag, expected=1):
    return wait(flag, expected, mode=Mode.POLL)


def kernel(writes, *groups, slots=4):
    """GPU 1 raises flags of GPU 0 at given times in ns; on GPU 0 each workgroup does its operations."""
    builder = Builder(2)
    builder.flags([0, 1], slots)
    ops = [op for time, flag in writes for op in (until(time * NS - 1), write(0, 8, flag))]
    builder.call(builder.agent(1, "stream"), builder.block(ops))
    for number, group in enumerate(groups):
        builder.call(builder.agent(0, f"workgroup {number}"), builder.block(group))
    return builder.build()


def ends(program, policy, engine="compiled", **device):
    """Ends in ns and reads of GPU 0's workgroups, and its row of what is shared."""
    outcome = run(program, ideal(2), wait=policy, engine=engine, device=Device(**device))
    agents, tables = outcome.final.agents[1:], outcome.tables()
    shared = {k: v[0] for k, v in tables["sharing"].items() if k != "rank"} if "sharing" in tables else {}
    return [end / NS for end in agents["end_ps"].tolist()], agents["polls"].tolist(), shared


@given(
    st.sampled_from([spin(100), backoff(100, 3200), backoff(100, 150), polls_table(((100, 16), (7, 0)))]),
    st.integers(1, 10**8),
)
def test_polls_in_closed_form_are_those_of_a_loop(policy, arrival):
    gaps = [gap for gap, times in policy.rows for _ in range(times or 1)]
    time, reads = 0, 1
    while time < arrival:
        time += gaps[min(reads, len(gaps)) - 1]
        reads += 1
        if arrival > 10**7 and reads > 10**4:
            return
    assert policy.serve(0, arrival) == (time, reads)


def test_back_off_doubles_up_to_its_cap():
    assert backoff(100, 500).rows == ((100_000, 1), (200_000, 1), (400_000, 1), (500_000, 0))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_write_to_another_flag_of_the_line_wakes_in_vain(engine):
    """False wake at 100, read at 110, armed again at 115; the flag at 112 is seen when it is armed."""
    program = kernel([(100, 1), (112, 0)], [polled(0)])
    watching = monitor(10, 5, line_flags=4)
    assert ends(program, watching, engine) == ([125], [3], {"false_wakes": 1, "overflows": 0, "slot_ps": 0})
    comparing = monitor(10, 5)
    assert ends(program, comparing, engine)[:2] == ([122], [1])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_flag_raised_while_its_waiter_is_being_woken_ends_the_wait(engine):
    program = kernel([(100, 1), (108, 0)], [polled(0)])
    found = ends(program, monitor(10, 5, line_flags=4), engine)
    assert found == ([110], [2], {"false_wakes": 0, "overflows": 0, "slot_ps": 0})


@pytest.mark.parametrize("engine", ENGINES)
def test_waits_beyond_the_monitors_spin(engine):
    program = kernel([(1000, 0)], *[[polled(0)]] * 3)
    policy = monitor(10, 0, entries=2, overflow_ns=300)
    assert ends(program, policy, engine)[:2] == ([1010, 1010, 1200], [1, 1, 5])
    assert ends(program, policy, engine)[2]["overflows"] == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_wake_one_takes_the_longest_waiter_first(engine):
    groups = [[compute(500 * NS), polled(0)], [polled(0)], [polled(0)]]
    program = kernel([(1000, 0)], *groups)
    assert ends(program, monitor(10, stagger_ns=50), engine)[0] == [1110, 1010, 1060]
    assert ends(program, monitor(10), engine)[0] == [1010, 1010, 1010]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_spinning_workgroup_keeps_another_from_running(engine):
    """Workgroup 1 would raise the flag that workgroup 0 spins on; a policy that yields lets it."""
    builder = Builder(1)
    builder.flags([0], 2)
    for number, ops in enumerate([[polled(0)], [compute(100 * NS), write(0, 8, 0)]]):
        builder.call(builder.agent(0, f"workgroup {number}"), builder.block(ops))
    program = builder.build()
    with pytest.raises(
        StallError, match=r"oversubscription: 1 workgroups .* workgroup 1, while workgroup 0 wait"
    ):
        run(program, ideal(1), wait=spin(100), engine=engine, device=Device(slots=1))
    last_first = run(
        program, ideal(1), wait=spin(100), engine=engine, device=Device(slots=1, order="descending")
    )
    assert last_first.makespan_ps == 200 * NS  # the flag lands 1 ps after the waiter got the slot
    yielding = run(
        program, ideal(1), wait=monitor(yields=True), engine=engine, device=Device(slots=1, switch_ps=7 * NS)
    )
    assert (
        yielding.makespan_ps == (7 + 100 + 7) * NS + 1
    )  # switched in, computed, and the first switched in again


@pytest.mark.parametrize("engine", ENGINES)
def test_polls_take_bandwidth_from_a_compute_and_slow_down_when_there_is_none(engine):
    """64 MB/s of memory: a compute of 64,000 B takes 1 ms alone; three spins that want it all leave 1/4."""
    program = kernel([(20_000_000, 0)], [compute(1, 64_000)], *[[polled(0)]] * 3)
    free = ends(program, IDEAL, engine, memory_mb_per_s=64)
    assert free[0][0] == pytest.approx(1_000_000)
    shared = ends(program, spin(100), engine, memory_mb_per_s=64)
    assert shared[0][0] == pytest.approx(4_000_000)
    assert shared[1][1] == pytest.approx(
        4_000_000 / 4000 + 16_000_000 / 3047.6, rel=0.01
    )  # then 21 MB/s a spin
    plenty = ends(program, spin(100), engine, memory_mb_per_s=10**7)
    assert plenty[1][1] == 200_001
    assert plenty[0][1] == 20_000_000


@pytest.mark.parametrize("engine", ENGINES)
def test_incoming_writes_take_bandwidth(engine):
    """1,000 B arrive 1 ns after a compute of as many has begun: they share the 1 GB/s, and both take 2 us."""
    program = alone(2, (0, [compute(1, 1000)]), (1, [write(0, 1000)]))
    outcome = run(program, ideal(2), engine=engine, device=Device(memory_mb_per_s=1000))
    assert outcome.final.agents["end_ps"][0] == pytest.approx(2 * US, rel=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_traffic_is_told_by_kind(engine):
    program = kernel([(1000, 0)], *[[compute(5, 300), polled(0)]] * 3)
    outcome = run(program, ideal(2), wait=monitor(entries=2, overflow_ns=500), engine=engine)
    table = outcome.tables()["memory"]
    rows = list(
        zip(table["rank"].tolist(), table["traffic"], table["operations"], table["size_bytes"], strict=True)
    )
    assert rows == [
        (0, "monitor", 2, 128),
        (0, "overflow", 3, 192),
        (0, "received", 1, 8),
        (0, "compute", 3, 900),
    ]


def test_what_makes_no_sense_is_refused():
    program = kernel([(1, 0)], [polled(0)])
    for policy, device, message in (
        (monitor(entries=2), Device(), "need a spin to fall back to"),
        (backoff(100, 50), Device(), "cap is its longest gap"),
        (backoff(100, 200), Device(memory_mb_per_s=1), "must be constant"),
        (spin(1), Device(slots=-1), "0 or more"),
        (spin(1), Device(slots=1, order="sideways"), "choose ascending, descending, shuffled"),
    ):
        with pytest.raises(UsageError, match=message):
            run(program, star(2), wait=policy, device=device)


DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/waiting.md").read_text()


@pytest.fixture
def registered(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", DOCUMENT, re.S)[1]
    project = tomllib.loads(re.search(r"```toml\n(.*?)```", DOCUMENT, re.S)[1])["project"]
    (tmp_path / "my_waits.py").write_text(code + "\nWRONG = 3\n")
    info = tmp_path / "my_waits-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_waits\nVersion: 1\n")
    entries = project["entry-points"]["eidola.wait_policies"] | {
        "wrong": "my_waits:WRONG",
        "gone": "my_waits:GONE",
    }
    names = "\n".join(f"{name} = {value}" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[eidola.wait_policies]\n{names}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("my_waits", None)


def test_a_registered_table_runs_on_both_engines(registered):
    program = kernel([(2500, 0)], [polled(0)])
    for engine in ENGINES:
        assert ends(program, parse_wait("patient"), engine)[:2] == ([2600], [18])


def test_a_policy_in_python_runs_on_the_reference_engine_only(registered):
    policy = parse_wait("coarse")
    assert isinstance(policy, WaitPolicy)
    program = kernel([(2500, 0)], [polled(0)])
    assert ends(program, policy, "reference")[:2] == ([10_000], [2])
    with pytest.raises(UsageError, match="wait policy coarse is written in Python"):
        run(program, ideal(2), wait=policy)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "is a int; it must be"),
        ("gone", "cannot be imported"),
        ("nobody", "registered: coarse, gone"),
    ],
)
def test_what_is_no_policy_is_refused_by_name(registered, name, message):
    with pytest.raises(UsageError, match=message):
        parse_wait(name)


def test_a_replay_with_limits_is_written_and_verified(tmp_path):
    trace = Path(__file__).resolve().parents[2] / "sample_traces" / "gemv_allreduce_host_2" / "trace.eidola"
    limits = {"wait": monitor(50, 10, line_flags=8, entries=4, overflow_ns=200), "device": Device(slots=8)}
    results = replay(trace, tmp_path / "run", **limits)
    kinds = set(results.read("memory", ["traffic"])["traffic"].to_pylist())
    assert {"monitor", "received"} <= kinds
    assert results.read("sharing").num_rows == 2
    verify(results)
