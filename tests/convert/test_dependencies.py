"""Edges, on small traces whose order is known."""

import pytest

from eidola.convert import kineto
from eidola.schemas import Trace


@pytest.fixture
def edges(tmp_path, write, make):
    """Convert events; return the edges as (before's name, after's name, kind, origin), and the report."""

    def find(events):
        report = kineto(
            [write("rank0.json", make.document(events, world=1))], tmp_path / "out.eidola", overwrite=True
        )
        trace = Trace(report.path)
        names = trace.read("spans")["name"].to_pylist()
        rows = trace.read("dependencies").to_pylist()
        return {(names[r["before"]], names[r["after"]], r["kind"], r["origin"]) for r in rows}, report

    return find


def call(make, name, ts, dur=2, tid=100, correlation=0):
    return make.launch(correlation, ts, dur, tid, name)


def named(event, name):
    return {**event, "name": name}


def record(ts, dur, tid=100, operation=None):
    args = {"External id": 5} | ({"Collective name": operation} if operation else {})
    return {
        "ph": "X",
        "cat": "cpu_op",
        "name": "record_param_comms",
        "pid": 1,
        "tid": tid,
        "ts": ts,
        "dur": dur,
        "args": args,
    }


def test_a_kernel_hangs_on_the_call_that_launched_it(make, edges):
    found, report = edges([named(make.launch(1, 10), "launch A"), make.kernel(1, 12, 5, name="A")])
    assert found == {("launch A", "A", "launch", "measured")}  # it began before the call had ended
    assert not report.contradicted


def test_a_reused_correlation_id_belongs_to_the_latest_call_before(make, edges):
    events = [named(make.launch(1, t), f"launch {t}") for t in (10, 100)]
    events += [make.kernel(1, t + 5, 5, name=f"k{t}") for t in (10, 100)]
    found, _ = edges(events)
    assert found == {(f"launch {t}", f"k{t}", "launch", "measured") for t in (10, 100)}


def test_a_graph_launch_starts_all_its_kernels(make, edges):
    events = [call(make, "cudaGraphLaunch", 0, correlation=3)]
    events += [make.kernel(3, 10 * i + 10, 5, name=f"k{i}") for i in range(3)]
    found, _ = edges(events)
    assert found == {("cudaGraphLaunch", f"k{i}", "launch", "measured") for i in range(3)}


def test_a_kernel_before_its_call_or_without_one_has_no_launch(make, edges):
    events = [make.launch(1, 50), make.kernel(1, 10, 5), make.kernel(9, 60, 5)]
    found, report = edges(events)
    assert found == set()
    assert report.contradicted == {"launch": 1}
    assert report.spans == 3


def collective_events(make, busy_until, collective_start, consumer_start):
    """Compute A, a collective C on another stream, a wait, compute B."""
    return [
        make.launch(1, 10), make.kernel(1, 20, busy_until - 20, name="A"),
        record(30, 30), call(make, "cudaStreamWaitEvent", 32), make.launch(2, 40),
        {**make.collective(2, collective_start, 50), "name": "ncclKernel_AllReduce_RING_LL_Sum_float()"},
        record(70, 10, operation="wait"), call(make, "cudaStreamWaitEvent", 72),
        make.launch(3, 90), make.kernel(3, consumer_start, 5, name="B"),
    ]  # fmt: skip


def test_a_collective_waits_for_the_current_stream_and_is_waited_for(make, edges):
    found, report = edges(collective_events(make, 55, 60, 120))
    events = {row for row in found if row[2] == "event"}
    name = "ncclKernel_AllReduce_RING_LL_Sum_float()"
    assert events == {("A", name, "event", "inferred"), (name, "B", "event", "inferred")}
    assert not report.contradicted


def test_what_the_times_contradict_is_left_out_and_counted(make, edges):
    found, report = edges(collective_events(make, 75, 60, 100))
    assert {row for row in found if row[2] == "event"} == set()
    assert report.contradicted == {"event": 2}


def test_measured_waits_replace_inferred_ones(make, edges):
    def sync(correlation, ts, stream, **args):
        return {
            "ph": "X",
            "cat": "cuda_sync",
            "name": "Stream Wait Event",
            "pid": 0,
            "tid": stream,
            "ts": ts,
            "dur": 0,
            "args": {"stream": stream, "correlation": correlation, "device": 0, **args},
        }

    events = [
        make.launch(1, 0), make.kernel(1, 5, 5, stream=7, name="A"),
        call(make, "cudaEventRecord", 10, correlation=50),
        make.launch(2, 20), make.kernel(2, 25, 5, stream=7, name="after the event"),
        call(make, "cudaStreamWaitEvent", 30, correlation=51),
        sync(51, 31, 9, wait_on_stream=7, wait_on_cuda_event_record_corr_id=50, wait_on_cuda_event_id=1),
        make.launch(4, 40), make.kernel(4, 45, 5, stream=9, name="B"),
    ]  # fmt: skip
    found, _ = edges(events)
    assert {row for row in found if row[2] == "event"} == {("A", "B", "event", "measured")}


@pytest.mark.parametrize(("end", "count"), [(80, 1), (101, 0)])
def test_a_synchronising_call_ends_after_the_work_unless_times_say_no(make, edges, end, count):
    events = [
        make.launch(1, 0),
        make.kernel(1, 5, end - 5, name="A"),
        call(make, "cudaDeviceSynchronize", 50, 50),
    ]
    found, report = edges(events)
    assert len({row for row in found if row[2] == "sync"}) == count
    assert report.contradicted == ({} if count else {"sync": 1})


def test_a_blocking_copy_holds_its_caller_and_an_async_one_does_not(make, edges):
    def copy(correlation, ts, name):
        return {**make.kernel(correlation, ts, 5, name=name), "cat": "gpu_memcpy"}

    events = [
        call(make, "cudaMemcpyAsync", 0, 50, correlation=1), copy(1, 20, "Memcpy DtoH (Device -> Pageable)"),
        call(make, "cudaMemcpyAsync", 100, 50, correlation=2), copy(2, 120, "Memcpy DtoH (Device -> Pinned)"),
    ]  # fmt: skip
    found, _ = edges(events)
    assert {row[:3] for row in found if row[2] == "sync"} == {
        ("Memcpy DtoH (Device -> Pageable)", "cudaMemcpyAsync", "sync")
    }


def test_an_event_synchronisation_waits_for_the_work_that_ended_in_it(make, edges):
    events = [
        make.launch(1, 0),
        make.kernel(1, 10, 20, name="A"),
        make.launch(2, 5),
        make.kernel(2, 30, 40, name="B"),
        make.launch(3, 6),
        make.kernel(3, 70, 400, name="C"),
        call(make, "cudaEventSynchronize", 20, 60),
    ]
    found, _ = edges(events)
    assert {row[:2] for row in found if row[2] == "sync"} == {("B", "cudaEventSynchronize")}


def test_threads_hand_over_where_one_pauses_while_the_other_works(make, edges):
    def burst(tid, begin, name):
        return [
            {**make.launch(0, begin + 10 * i, 5, tid), "name": f"cudaLaunchKernel {name}{i}"}
            for i in range(3)
        ]

    events = (
        burst(1, 0, "main ") + burst(2, 300, "backward ") + burst(1, 900, "step ") + [make.kernel(99, 0, 1)]
    )
    found, _ = edges(events)
    assert {(b.split("Kernel ")[1], a.split("Kernel ")[1]) for b, a, kind, _ in found if kind == "thread"} == {
        ("main 2", "backward 0"), ("backward 2", "step 0"),
    }  # fmt: skip


def test_threads_that_work_side_by_side_do_not_hand_over(make, edges):
    events = [make.launch(0, 10 * i, 5, tid=1 + i % 2) for i in range(40)] + [make.kernel(99, 0, 1)]
    found, _ = edges(events)
    assert {row for row in found if row[2] == "thread" and row[0] != row[1]} == set()
