"""Every picosecond of a run has one cause, and the causes are those that the program's arithmetic gives."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.replay import explain, monitor, spin
from eidola.replay.builder import Builder
from eidola.replay.program import Mode, compute, wait, write
from eidola.schemas import Results, StallError, UsageError

from .programs import MIB, US, all_to_all, fabrics, programs, ring, star
from .saved import saved

SERIALISED = 20_971_520  # 1 MiB at 50 GB/s


def relay(mode: Mode = Mode.EVENT):
    """GPU 0 computes 3 us and writes 1 MiB to GPU 1, which then computes 5 us."""
    builder = Builder(2)
    flag = builder.flags([1], name="ready")
    sender, receiver = builder.agent(0, "stream 7"), builder.agent(1, "stream 9")
    gemm = builder.activity(sender, "kernel", "gemm")
    send = builder.activity(sender, "collective", "send")
    relu = builder.activity(receiver, "kernel", "relu")
    builder.call(sender, builder.block([compute(3 * US)]), activity=gemm)
    builder.call(sender, builder.block([write(1, MIB, flag)]), activity=send)
    builder.call(receiver, builder.block([wait(flag, 1, mode=mode)]))
    builder.call(receiver, builder.block([compute(5 * US)]), activity=relu)
    return builder.build()


def causes(explanation):
    return {(c.what, c.name, c.where): c.duration_ps for c in explanation.causes}


def test_one_message_between_two_kernels(tmp_path):
    found = explain(saved(relay(), star(2), tmp_path / "run", segment_bytes=0))
    assert causes(found) == {
        ("kernel", "gemm", "GPU 0"): 3 * US,
        ("kernel", "relu", "GPU 1"): 5 * US,
        ("serialisation", "send", "link gpu 0 -> switch"): SERIALISED,
        ("latency", "send", "link gpu 0 -> switch"): US,
        ("latency", "send", "link switch -> gpu 1"): US,
    }
    assert found.limiting_link == "gpu 0 -> switch"
    assert found.flags_ps == {"ready of GPU 1": 5 * US + SERIALISED}
    assert [(s.what, s.rank, s.message) for s in found.path] == [
        ("kernel", 0, -1),
        ("serialisation", 0, 0),
        ("latency", 0, 0),
        ("latency", 0, 0),
        ("kernel", 1, -1),
    ]


@pytest.mark.parametrize("segment_bytes", [0, 65536])
def test_a_slower_last_link_is_the_cause_of_the_serialisation(tmp_path, segment_bytes):
    from dataclasses import replace

    fabric = star(2)
    rates = fabric.rate_mb_per_s.copy()
    rates[3] = 25_000  # switch -> gpu 1
    run = saved(relay(), replace(fabric, rate_mb_per_s=rates), tmp_path / "run", segment_bytes=segment_bytes)
    found = explain(run)
    assert found.limiting_link == "switch -> gpu 1"
    assert found.totals_ps["serialisation"] >= 2 * SERIALISED
    assert found.totals_ps.get("queueing", 0) == 0


def test_one_message_behind_another_queues(tmp_path):
    builder = Builder(2)
    flag = builder.flags([1], 2)
    builder.call(builder.agent(0, "stream"), builder.block([write(1, MIB, flag), write(1, MIB, flag + 1)]))
    builder.call(builder.agent(1, "stream"), builder.block([wait(flag + 1, 1)]))
    found = explain(saved(builder.build(), star(2), tmp_path / "run", segment_bytes=0))
    assert found.totals_ps == {"queueing": SERIALISED, "serialisation": SERIALISED, "latency": 2 * US}


def test_an_all_to_all_posted_at_once_is_queueing_behind_the_senders_own_messages(tmp_path):
    found = explain(saved(all_to_all(8), star(8), tmp_path / "run", segment_bytes=0))
    assert found.totals_ps == {"queueing": 6 * SERIALISED, "serialisation": SERIALISED, "latency": 2 * US}


def test_what_a_wait_policy_adds_is_a_cause(tmp_path):
    arrival = 5 * US + SERIALISED
    spun = explain(saved(relay(Mode.POLL), star(2), tmp_path / "spin", segment_bytes=0, wait=spin(4000)))
    assert causes(spun)["polling", "send", "flag ready of GPU 1"] == -arrival % (4 * US)
    woken = explain(saved(relay(Mode.POLL), star(2), tmp_path / "mon", segment_bytes=0, wait=monitor(250)))
    assert causes(woken)["wake latency", "send", "flag ready of GPU 1"] == US // 4


def test_a_wait_on_an_own_flag_waits_for_the_acknowledgement(tmp_path):
    builder = Builder(2)
    fence = builder.flags([0], name="fence")
    builder.call(builder.agent(0, "stream"), builder.block([write(1, MIB, ack=fence), wait(fence, 1)]))
    found = explain(saved(builder.build(), star(2), tmp_path / "run", segment_bytes=0))
    assert found.totals_ps == {"serialisation": SERIALISED, "latency": 2 * US, "acknowledgement": 2 * US}


def test_time_between_activities_is_a_gap_before_the_next(tmp_path):
    builder = Builder(1)
    agent = builder.agent(0, "thread 1")
    first, second = (builder.activity(agent, "host_call", name) for name in ("launch", "sync"))
    builder.call(agent, builder.block([compute(US)]), activity=first)
    builder.call(agent, builder.block([compute(2 * US)]))
    builder.call(agent, builder.block([compute(4 * US)]), activity=second)
    found = explain(saved(builder.build(), star(1), tmp_path / "run"))
    assert causes(found) == {
        ("host_call", "launch", "GPU 0"): US,
        ("gap", "before sync", "GPU 0"): 2 * US,
        ("host_call", "sync", "GPU 0"): 4 * US,
    }


def test_the_path_of_a_ring_passes_every_link(tmp_path):
    found = explain(saved(ring(8), star(8), tmp_path / "run", segment_bytes=0))
    assert found.totals_ps == {"serialisation": 14 * SERIALISED, "latency": 28 * US}
    assert len(found.links_ps) == 16
    assert found.grouped[0].where.startswith("8 links")


def test_a_run_without_messages_is_refused_with_the_remedy(tmp_path):
    run = saved(ring(4), star(4), tmp_path / "run", record="none")
    with pytest.raises(UsageError, match="--record messages"):
        explain(run)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_path_is_gapless_and_its_causes_sum_to_the_makespan(data):
    gpus = data.draw(st.integers(1, 5))
    program, fabric = data.draw(programs(gpus)), data.draw(fabrics(gpus))
    policy = data.draw(st.sampled_from([spin(0.7), monitor(0.3, 0.2)]))
    size = data.draw(st.sampled_from([0, 1000, 65536]))
    with tempfile.TemporaryDirectory() as folder:
        try:
            run: Results = saved(program, fabric, Path(folder) / "run", segment_bytes=size, wait=policy)
        except StallError:
            return
        found = explain(run)
        makespan = run.summary["makespan_ps"]
    times = [0, *(segment.end_ps for segment in found.path)]
    assert [segment.start_ps for segment in found.path] == times[:-1]
    assert times == sorted(set(times))
    assert times[-1] == found.makespan_ps == makespan
    for sums in (found.causes, found.grouped):
        assert sum(cause.duration_ps for cause in sums) == makespan
    assert sum(found.totals_ps.values()) == makespan
