"""Records that count a GPU's cycles: what the converter makes of them, from buffers written word by word."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.capture import RankProbes, write_probes
from eidola.convert import probe_clock
from eidola.convert.captured import captured
from eidola.schemas import InputError, Trace, UsageError, check

PHASE_BEGIN, PHASE_END, DATA, FLAG, WAIT_BEGIN, WAIT_END, ANCHOR = range(1, 8)
NO_PEER, NO_FLAG = 0xFFFF, 0xFFFFFFFF


def record(time, kind, name=0, peer=NO_PEER, flag=NO_FLAG, value=0, extra=0):
    return [time, kind | name << 8 | peer << 16 | flag << 32, value, extra]


def launch(cycles, real, ticks_a_cycle, unit, *events):
    """One launch of one workgroup: `events` are (cycles since its start, fields of a record)."""
    last = max(since for since, *_ in events) + 10
    body = [record(cycles + since, *fields) for since, *fields in events]
    begin = record(cycles, ANCHOR, value=real, extra=unit)
    return [begin, *body, record(cycles + last, ANCHOR, value=real + round(last * ticks_a_cycle), extra=unit)]


def rank(*workgroups, hz=10**9, capacity=64, lost=0, **more):
    words = np.zeros((len(workgroups), capacity, 4), np.uint64)
    for number, records in enumerate(workgroups):
        words[number, : len(records)] = np.array(records, np.uint64).reshape(-1, 4)
    counts = np.array([[len(records) + lost, len(records)] for records in workgroups], np.uint64)
    return RankProbes(words, counts, anchor_hz=hz, **more)


def convert(tmp_path, ranks, **options):
    names = {"phases": ["work", "wait"], "regions": ["results"]}
    write_probes(tmp_path / "raw", ranks, **{**names, **options})
    trace = captured(tmp_path / "raw", tmp_path / "own.eidola")
    assert not [problem for problem in check(trace) if problem.severity == "error"]
    return Trace(trace)


EVENTS = (
    (100, PHASE_BEGIN, 0, NO_PEER, NO_FLAG, 1),
    (200, DATA, 0, 1, NO_FLAG, 4096, 512),
    (300, FLAG, 0, 1, 7, 1),
    (400, PHASE_END, 0, NO_PEER, NO_FLAG, 1),
    (500, WAIT_BEGIN, 0, NO_PEER, 3, 1),
    (900, WAIT_END, 0, NO_PEER, 3, 1, 25),
)


def test_cycles_become_nanoseconds_by_each_launchs_own_anchors(tmp_path):
    # Two launches: the clock ran at 2 GHz, then, on another unit whose counter differs, at 1 GHz.
    first = launch(5_000_000, 1_000_000, 0.5, 11, *EVENTS)
    second = launch(70, 2_000_000, 1.0, 12, *EVENTS)
    trace = convert(tmp_path, [rank([*first, *second]), rank([])])
    spans, writes, waits = (trace.read(table).to_pandas() for table in ("spans", "writes", "waits"))
    assert spans[["start_ns", "end_ns"]].values.tolist() == [[1_000_050, 1_000_200], [2_000_100, 2_000_400]]
    assert writes.issue_ns.tolist() == [1_000_100, 1_000_150, 2_000_200, 2_000_300]
    assert writes.kind.tolist() == ["data", "flag"] * 2
    assert writes.size_bytes.tolist() == [4096, 8] * 2
    assert waits[["start_ns", "end_ns"]].values.tolist() == [[1_000_250, 1_000_450], [2_000_500, 2_000_900]]
    assert waits.polls.tolist() == [25, 25]
    assert trace.notes["compute_units"] == {"0": [11], "1": []}


def test_amds_ticks_are_told_by_the_rate_that_the_device_gave(tmp_path):
    slow = rank(launch(0, 500, 0.1, 1, *EVENTS), hz=100_000_000)
    trace = convert(tmp_path, [slow, rank([])])
    assert trace.read("spans")["start_ns"].to_pylist() == [500 * 10 + 100]  # 10 ns a tick, 10 cycles a tick


def test_a_full_buffer_is_marked_truncated_and_converts(tmp_path):
    whole = launch(0, 0, 1, 1, *EVENTS)
    cut = [*whole[:4], whole[-1]]  # the first records, then the last anchor, which has its place
    trace = convert(tmp_path, [rank(cut, lost=3), rank([])])
    assert trace.notes["truncated"] == [{"rank": 0, "workgroup": 0, "kept": 5, "emitted": 8}]
    assert trace.read("writes").num_rows == 2
    assert trace.read("spans").num_rows == 0  # its end was lost


def test_a_launch_that_did_not_end_is_refused(tmp_path):
    whole = launch(0, 0, 1, 1, *EVENTS)
    with pytest.raises(InputError, match=r"none at its end; call eidola_end"):
        convert(tmp_path, [rank(whole[:-1])])


def test_records_outside_a_launch_are_refused(tmp_path):
    whole = launch(0, 0, 1, 1, *EVENTS)
    with pytest.raises(InputError, match=r"record 8 \(workgroup 0\) lies between no two anchors"):
        convert(tmp_path, [rank([*whole, record(5, PHASE_BEGIN)])])


def test_the_step_of_the_clock_is_its_residual(tmp_path):
    workgroups = [launch(0, 1024 * n, 1.024, n, (990, PHASE_BEGIN)) for n in range(4)]
    trace = convert(tmp_path, [rank(*workgroups)], backend="virtual")
    assert trace.read("clocks")["residual_ns"].to_pylist() == [1024]


def test_only_gpus_of_their_own_are_truth_for_delays(tmp_path):
    one = launch(0, 0, 1, 1, *EVENTS)
    trace = convert(tmp_path, [rank(one), rank(one)], backend="virtual")
    assert set(trace.read("links")["kind"].to_pylist()) == {"local_memory"}
    assert "never link rates" in trace.notes["truth"]
    assert trace.read("clocks")["method"].to_pylist() == ["reference", "reference"]


def test_gpus_without_a_common_clock_say_so(tmp_path):
    one = launch(0, 0, 1, 1, *EVENTS)
    trace = convert(tmp_path, [rank(one), rank(one)])
    assert trace.read("clocks")["method"].to_pylist() == ["reference", "none"]
    assert trace.read("links").num_rows == 0
    assert "truth" not in trace.notes


def test_ping_pongs_move_a_rank_onto_rank_0s_clock(tmp_path):
    one = launch(0, 1_000_000, 1, 1, *EVENTS)
    alignment = {"offset_ns": -400, "drift_ppb": 1_000_000, "at_ns": 0, "residual_ns": 350, "anchors": 9}
    trace = convert(tmp_path, [rank(one), rank(one, details={"alignment": alignment})])
    starts = trace.read("spans")["start_ns"].to_pylist()
    assert starts == [1_000_100, 1_000_100 + 1000 - 400]  # 0.1 % of 1 ms, and the offset
    clock = trace.read("clocks", ranks=[1]).to_pylist()[0]
    assert (clock["method"], clock["offset_ns"], clock["residual_ns"]) == ("ping_pong", -400, 350)


@given(
    start=st.integers(0, 2**62),
    rate=st.floats(0.01, 10),
    events=st.lists(st.integers(0, 10**9), min_size=1, max_size=20).map(sorted),
)
def test_mapped_times_keep_their_order_and_stay_between_their_anchors(start, rate, events):
    cycles = np.array([10, *(10 + e for e in events), 10 + events[-1] + 1], np.int64)
    rows = np.zeros(len(cycles), [("kind", "u1"), ("value", "u8"), ("extra", "u8")])
    end = start + round((events[-1] + 1) * rate)
    rows["kind"][[0, -1]], rows["value"][[0, -1]] = ANCHOR, (start, end)
    workgroup = np.zeros(len(cycles), np.int64)
    times, units, _ = probe_clock.nanoseconds("file", cycles, rows, workgroup, ANCHOR, 10**9)
    assert (np.diff(times) >= 0).all()
    assert (times[0], times[-1]) == (start, end)
    assert units == [0]


def test_buffers_that_do_not_fit_their_counts_are_refused(tmp_path):
    words = np.zeros((2, 4, 4), np.uint64)
    counts = np.array([[9, 9], [0, 0]], np.uint64)
    with pytest.raises(UsageError, match=r"counts 9 kept records in buffers of 4"):
        write_probes(tmp_path / "raw", [RankProbes(words, counts)], phases=[])
    with pytest.raises(UsageError, match="of one size each"):
        write_probes(tmp_path / "raw", [RankProbes(words[:, :1, :1], counts)], phases=[])
    with pytest.raises(UsageError, match="backend is 'dream'"):
        write_probes(tmp_path / "raw", [RankProbes(words, counts * 0)], phases=[], backend="dream")
    assert not list(tmp_path.iterdir())


def test_an_early_capture_still_names_its_times_time_ns(tmp_path):
    one = [record(50, PHASE_BEGIN), record(90, PHASE_END)]
    write_probes(tmp_path / "raw", [rank(one, hz=None)], phases=["work"], backend="host")
    file = tmp_path / "raw/capture.json"
    manifest = json.loads(file.read_text())
    assert manifest["record"]["fields"][0] == ["time", "<u8"]
    manifest["record"]["fields"][0][0] = "time_ns"
    del manifest["record"]["kinds"]["anchor"]
    file.write_text(json.dumps(manifest))
    spans = Trace(captured(tmp_path / "raw", tmp_path / "t.eidola")).read("spans")
    assert spans["start_ns"].to_pylist() == [50]
