"""Reading events: exact times, pieces, and what is kept."""

import gzip
import json
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.convert import json_stream
from eidola.convert.events import _from_objects, read_events, whole_ns

REAL = [
    "kineto/v100_dlrm_8ranks/rank0.json.gz",
    "kineto/a100_nccl_rank0of2.json.gz",
    "kineto/mi300x_resnet_rank0of8.json.gz",
    "kineto/a100_2of128ranks/sampled_rank-0.json.gz",
]


@given(st.integers(0, 2**62 // 1000), st.text("0123456789", max_size=3))
def test_digits_become_the_same_nanoseconds_that_exact_decimals_give(whole, fraction):
    text = f"{whole}.{fraction}" if fraction else str(whole)
    exact = Decimal(text) * 1000
    got = whole_ns(pa.array([Decimal(text)], pa.decimal128(38, 9)))
    assert got.to_pylist() == [int(exact)]


@pytest.mark.parametrize("as_text", [False, True])
@settings(max_examples=25)
@given(
    times=st.lists(
        st.tuples(st.integers(0, 9_000_000_000_000_000), st.integers(0, 999)), min_size=1, max_size=8
    )
)
def test_times_survive_the_whole_reader_to_the_nanosecond(tmp_path_factory, times, as_text):
    texts = [f"{us}.{ns:03d}" for us, ns in times]
    quote = '"' if as_text else ""
    events = ",\n".join(
        f'{{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": {quote}{t}{quote}, "dur": 1.001, '
        f'"args": {{"device": 0, "stream": 7, "correlation": {i}}}}}'
        for i, t in enumerate(texts)
    )
    path = tmp_path_factory.mktemp("t") / "trace.json"
    path.write_text(f'{{"schemaVersion": 1, "traceEvents": [\n{events}\n], "displayTimeUnit": "ms"}}')
    table = read_events(path).table
    assert table["start_ns"].to_pylist() == [us * 1000 + ns for us, ns in times]
    assert set(table["duration_ns"].to_pylist()) == {1001}


@pytest.mark.parametrize("name", REAL)
def test_real_files_read_the_same_by_arrow_and_event_by_event(shared, name):
    path = shared(name)
    events = read_events(path)
    document = json_stream.decode_json(gzip.decompress(path.read_bytes()).decode())
    piece = _from_objects(document.pop("traceEvents"))
    assert events.table.combine_chunks().equals(piece.tables[0])
    assert events.details == piece.details
    assert events.metadata == document
    assert not events.dropped
    assert not events.truncated


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("size", [4096, 65553])
def test_the_size_of_pieces_changes_nothing(shared, monkeypatch, name, size):
    whole = read_events(shared(name))
    monkeypatch.setattr(json_stream, "PIECE_BYTES", size)
    cut = read_events(shared(name))
    assert cut.table.combine_chunks().equals(whole.table.combine_chunks())
    assert (cut.details, cut.metadata) == (whole.details, whole.metadata)


def test_a_real_files_times_are_what_its_digits_say(shared):
    path = shared("kineto/a100_nccl_rank0of2.json.gz")
    events = read_events(path)
    document = json.loads(gzip.decompress(path.read_bytes()), parse_float=Decimal)
    kernels = [e for e in document["traceEvents"] if e.get("cat") == "kernel"]
    mine = events.table.filter(pa.compute.equal(events.table["kind"], 0))
    assert mine["start_ns"].to_pylist() == [int(Decimal(e["ts"]) * 1000) for e in kernels]
    assert mine["duration_ns"].to_pylist() == [int(Decimal(e["dur"]) * 1000) for e in kernels]
    # A float could not have held them: this is what the digits are kept for.
    floats = np.array([float(e["ts"]) for e in kernels]) * 1000 + events.base_ns
    assert (floats.astype(np.int64) != np.array(mine["start_ns"].to_pylist()) + events.base_ns).any()


def test_strings_that_look_like_json_do_not_cut_events(write, make):
    names = [
        'a},{"b',
        'x}, {"ph": "X"',
        "]}",
        '"], "traceName": "',
        "{lambda()#1}, {",
        'tid": "7',
        "é" * 3000,
    ]
    events = [
        make.kernel(i, 10 * i, 5, name=n, extra=[{"a": 1}, {"b": [{"c": 2}]}]) for i, n in enumerate(names)
    ]
    path = write("trace.json", make.document(events))
    assert read_events(path).table["name"].to_pylist() == names


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_base_time_counts_wherever_it_stands(write, make, place):
    document = make.document([make.kernel(1, "0.001", 1)])
    if place == "before":
        document = {"baseTimeNanoseconds": document.pop("baseTimeNanoseconds"), **document}
    events = read_events(write("trace.json", document))
    assert events.base_ns == 1_700_000_000_000_000_000
    assert events.table["start_ns"].to_pylist() == [1]


def test_old_categories_and_the_bare_array_form_are_read(write):
    events = [
        {
            "ph": "X",
            "cat": "Kernel",
            "name": "k",
            "pid": 0,
            "tid": "stream 7",
            "ts": 5,
            "dur": 2,
            "args": {"device": 0},
        },
        {"ph": "X", "cat": "Runtime", "name": "cudaLaunchKernel", "pid": 9, "tid": "9", "ts": 3, "dur": 1},
        {"ph": "X", "cat": "Operator", "name": "aten::add", "pid": 9, "tid": "9", "ts": 3, "dur": 1},
    ]
    table = read_events(write("old.json", json.dumps(events))).table
    assert table["name"].to_pylist() == ["k", "cudaLaunchKernel"]
    assert table["stream"].to_pylist()[0] == 7
    assert table["tid"].to_pylist()[1] == 9


def test_operators_are_left_out_and_what_replay_needs_is_kept(shared):
    events = read_events(shared("kineto/v100_dlrm_8ranks/rank0.json.gz"))
    counts = {k: events.table["kind"].to_pylist().count(k) for k in range(5)}
    assert counts[0] == 245
    assert counts[1] == 16
    names = set(events.table["name"].to_pylist())
    assert {"record_param_comms", "nccl:all_to_all", "ProfilerStep#10", "cudaDeviceSynchronize"} <= names
    assert not any(name.startswith("aten::") for name in names)


def test_memory_does_not_grow_with_the_file(tmp_path):
    script = (
        "import resource, sys; from pathlib import Path; from eidola.convert.events import read_events; "
        "rows = read_events(Path(sys.argv[1])).table.num_rows; "
        "print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    args = {"External id": 7, "Ev Idx": 7, "Input Dims": [[2, 3], [4]], "Call stack": "a;b;c;d;e;f;g"}
    common = {"ph": "X", "pid": 1, "tid": 1, "ts": 1.25, "dur": 2.5}
    filler = json.dumps({**common, "cat": "cpu_op", "name": "aten::add", "args": args})
    kernel = json.dumps({**common, "cat": "kernel", "name": "k", "args": {"stream": 7}})
    peak = {}
    for megabytes in (40, 160):
        path = tmp_path / f"{megabytes}.json"
        with path.open("w") as file:
            file.write('{"traceEvents": [' + kernel)
            block = (",\n" + filler) * 5000
            for _ in range(megabytes * 1_000_000 // len(block)):
                file.write(block)
            file.write("]}")
        run = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
        rows, kibibytes = map(int, run.stdout.split())
        assert rows == 1
        peak[megabytes] = kibibytes
    assert peak[160] - peak[40] < 40_000  # KiB; the file grew by 120 MB
