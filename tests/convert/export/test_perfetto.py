"""Perfetto exports, read back by field number: slices, exact times, and flows that pair up."""

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.convert.export import export
from eidola.convert.export.slices import Slice, begins_and_ends, rows_of
from eidola.schemas import ResultsWriter, Trace, TraceWriter
from eidola.schemas.errors import InputError, UsageError

from ..wire import fields

SAMPLES = Path(__file__).resolve().parents[3] / "sample_traces"
BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4


class Read:
    """A file's tracks, slices and flows, as the definition of TracePacket and TrackEvent has them."""

    def __init__(self, path):
        names, self.tracks, self.slices, self.instants, self.samples = {}, {}, [], [], []
        self.leaving, self.arriving = defaultdict(list), defaultdict(list)
        open_slices = defaultdict(list)
        for data in fields(path.read_bytes())[1]:
            packet = fields(data)
            for interned in packet.get(12, []):
                names |= {e[1][0]: e[2][0].decode() for e in map(fields, fields(interned)[2])}
            if 60 in packet:
                track = fields(packet[60][0])
                process = fields(track[3][0])[6][0].decode() if 3 in track else None
                name = process or track[2][0].decode()
                self.tracks[track[1][0]] = (name, track.get(5, [None])[0])
                continue
            event = fields(packet[11][0])
            kind, track, time = event[9][0], event[11][0], packet[8][0]
            assert track in self.tracks
            name = names[event[10][0]] if 10 in event else None
            for flow in event.get(47, []):
                self.leaving[flow].append(time)
            for flow in event.get(48, []):
                self.arriving[flow].append(time)
            if kind == BEGIN:
                open_slices[track].append((name, time))
            elif kind == END:
                begun, start = open_slices[track].pop()
                self.slices.append((track, begun, start, time))
            elif kind == INSTANT:
                self.instants.append((track, name, time))
            else:
                self.samples.append((track, time))
        assert not any(open_slices.values())

    def lane(self, track):
        name, parent = self.tracks[track]
        return self.tracks[parent][0].split()[1], name


@pytest.mark.parametrize("name", ["gemv_allreduce_host_4", "gloo_ddp_2"])
def test_every_span_is_a_slice_with_exact_nanoseconds(name, tmp_path):
    trace = Trace(SAMPLES / name / "trace.eidola")
    export("perfetto", trace.path, tmp_path / "t.pftrace")
    read = Read(tmp_path / "t.pftrace")
    found = sorted(
        (*read.lane(t), n, a, b) for t, n, a, b in read.slices if not n.startswith("wait for flag")
    )
    rows = trace.read("spans").to_pylist()
    assert found == sorted((str(r["rank"]), r["lane"], r["name"], r["start_ns"], r["end_ns"]) for r in rows)


def test_every_wait_of_the_sample_is_woken_by_the_write_of_its_value(tmp_path):
    trace = Trace(SAMPLES / "gemv_allreduce_host_4/trace.eidola")
    report = export("perfetto", trace.path, tmp_path / "t.pftrace")
    read = Read(tmp_path / "t.pftrace")
    writes, waits = trace.read("writes").to_pylist(), trace.read("waits").to_pylist()
    issued = {(w["peer"], w["flag"], w["value"]): w["issue_ns"] for w in writes if w["flag"] is not None}
    pairs = sorted((issued[w["rank"], w["flag"], w["expected"]], w["end_ns"]) for w in waits)
    assert set(read.leaving) == set(read.arriving)
    assert all(len(times) == 1 for times in [*read.leaving.values(), *read.arriving.values()])
    assert sorted((read.leaving[f][0], read.arriving[f][0]) for f in read.leaving) == pairs
    assert report.written["flows from write to wake-up"] == len(waits)
    assert len(read.instants) == len(writes) + len(waits)


def test_launches_are_flows_from_the_call_to_its_kernel(tmp_path):
    with TraceWriter(tmp_path / "t.eidola") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
        writer.write("spans", 0, {
            "span": [0, 1], "lane": ["thread 1", "stream 7"], "kind": ["host_call", "kernel"],
            "name": ["cudaLaunchKernel", 'gemm<"a,b">'], "start_ns": [10, 17], "end_ns": [15, 40],
        })  # fmt: skip
        writer.write("dependencies", 0, {
            "before": [0], "after": [1], "kind": ["launch"], "origin": ["measured"],
        })  # fmt: skip
        writer.write("counters", 0, {
            "source": ["nvml"], "name": ["power_w"], "time_ns": [12], "value": [0.0],
        })  # fmt: skip
    export("perfetto", tmp_path / "t.eidola", tmp_path / "t.pftrace")
    read = Read(tmp_path / "t.pftrace")
    assert list(read.leaving.values()) == [[10]]
    assert list(read.arriving.values()) == [[17]]
    assert [(read.lane(t)[1], time) for t, time in read.samples] == [("nvml power_w", 12)]


def test_a_run_shows_its_waits_and_the_messages_that_ended_them(tmp_path):
    with ResultsWriter(tmp_path / "run") as writer:
        writer.write("agents", {
            "agent": [0, 1], "rank": [0, 1], "name": ["stream 0", "stream 0"], "start_ps": [0, 0],
            "end_ps": [5_000, 9_500], "compute_ps": [5_000, 0], "wait_ps": [0, 9_500], "writes": [1, 0],
            "waits": [0, 1], "polls": [0, 1],
        })  # fmt: skip
        writer.write("activities", {
            "activity": [0], "agent": [0], "rank": [0], "kind": ["kernel"], "name": ["k"], "source": [0],
            "start_ps": [0], "end_ps": [5_000], "released_by": [-1],
        })  # fmt: skip
        writer.write("messages", {
            "message": [0], "agent": [0], "activity": [0], "source_rank": [0], "destination_rank": [1],
            "size_bytes": [8], "flag": [0], "post_ps": [2_500], "start_ps": [2_500], "arrival_ps": [9_000],
            "queued_ps": [0], "bottleneck_link": [-1], "released_by": [-1],
        })  # fmt: skip
        writer.write("waits", {
            "wait": [0], "agent": [1], "activity": [0], "rank": [1], "flag": [0], "flag_name": [None],
            "expected": [1], "policy": ["event"], "start_ps": [0], "arrival_ps": [9_000], "end_ps": [9_500],
            "polls": [1], "released_by": [0],
        })  # fmt: skip
    export("perfetto", tmp_path / "run", tmp_path / "r.pftrace")
    read = Read(tmp_path / "r.pftrace")
    assert sorted(read.slices) == sorted(
        (t, n, a, b)
        for t, n, a, b in read.slices
        if (*read.lane(t), n, a, b)
        in [("0", "stream 0", "k", 0, 5), ("1", "stream 0", "wait for flag 0", 0, 9)]
    )
    assert len(read.slices) == 2
    assert (read.leaving, read.arriving) == ({1: [2]}, {1: [9]})


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))
def test_slices_of_a_row_open_and_close_as_a_stack_and_none_is_lost(pairs):
    given_slices = [Slice(min(p), max(p), i) for i, p in enumerate(pairs)]
    closed = []
    for row in rows_of(given_slices):
        stack, last = [], 0
        for time, begins, what in begins_and_ends(row):
            assert time >= last
            last = time
            if begins:
                stack.append((what, time))
            else:
                top, start = stack.pop()
                closed.append(Slice(start, time, top))
                assert top == what
    assert sorted(closed, key=lambda s: s.what) == given_slices


def test_nothing_half_written_and_nothing_overwritten(tmp_path):
    with TraceWriter(tmp_path / "empty.eidola") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
    with pytest.raises(InputError, match="nothing to show"):
        export("perfetto", tmp_path / "empty.eidola", tmp_path / "o.pftrace")
    assert [p.name for p in tmp_path.iterdir()] == ["empty.eidola"]
    (tmp_path / "o.pftrace").write_text("mine")
    sample = SAMPLES / "gemv_allreduce_host_2/trace.eidola"
    with pytest.raises(UsageError, match="--overwrite"):
        export("perfetto", sample, tmp_path / "o.pftrace")
    assert (tmp_path / "o.pftrace").read_text() == "mine"
    export("perfetto", sample, tmp_path / "o.pftrace", overwrite=True)
    assert Read(tmp_path / "o.pftrace").slices
    with pytest.raises(UsageError, match="there are chakra"):
        export("otf2", sample, tmp_path / "x")
