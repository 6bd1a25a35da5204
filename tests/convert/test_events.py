"""Reading events: exact times, pieces, and what is kept."""

import gzip
import json
import re
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.convert import json_stream
from eidola.convert.events import _from_bytes, _from_objects, read_all, read_events
from eidola.convert.scanner import INTEGERS, scan

REAL = [
    "kineto/v100_dlrm_8ranks/rank0.json.gz",
    "kineto/a100_nccl_rank0of2.json.gz",
    "kineto/mi300x_resnet_rank0of8.json.gz",
    "kineto/a100_2of128ranks/sampled_rank-0.json.gz",
]


def scanned(text):
    """What the scanner reads of one kernel's timestamp."""
    found = scan(f'{{"ph":"X","cat":"kernel","ts":{text}}}'.encode(), False)
    return None if found is None else found.columns["start_ns"].tolist()[0]


@given(st.integers(0, 2**62 // 1000), st.text("0123456789", max_size=9), st.sampled_from(["", "-"]))
def test_digits_become_the_same_nanoseconds_that_exact_decimals_give(whole, fraction, sign):
    text = f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"
    assert scanned(text) == int(Decimal(text) * 1000)


_texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    [
        "record_param_comms",
        "nccl:all_reduce",
        "cudaLaunchKernel",
        "X",
        "kernel",
        "cpu_op",
        "stream 7",
        '"}, {"',
        "\\",
    ]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_arguments = st.dictionaries(
    st.sampled_from([*INTEGERS.values(), "grid", "Collective name", "other"]),
    st.integers(-5, 2**64) | st.lists(st.integers(0, 9), max_size=3) | _values,
    max_size=5,
)
_event = st.fixed_dictionaries(
    {},
    optional={
        "ph": st.sampled_from("XMsfi") | _values,
        "cat": st.sampled_from(["kernel", "Kernel", "cpu_op", "cuda_runtime", "python_function"]) | _values,
        "name": _texts | _values,
        "ts": st.integers(0, 2**53) | st.decimals(0, 2**40, places=3).map(str) | _values,
        "dur": st.integers(0, 2**53) | st.decimals(0, 2**40, places=3).map(float) | _values,
        "pid": st.integers(0, 99) | _values,
        "tid": st.integers(0, 2**63) | st.sampled_from(["stream 7", "12 of 34", ""]) | _values,
        "args": _arguments | _values,
        "id": _values,
    },
)


@settings(max_examples=300)
@given(
    events=st.lists(_event, max_size=4),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]),
    ascii_only=st.booleans(),
    everything=st.booleans(),
)
def test_the_scanner_reads_what_a_json_parser_reads_or_gives_the_piece_back(
    events, separators, ascii_only, everything
):
    text = json.dumps(events, separators=separators, ensure_ascii=ascii_only)[1:-1]
    scanned = _from_bytes(text.encode("utf-8", "replace"), everything)
    parsed = _from_objects([json_stream.decode_json(json.dumps(event)) for event in events], everything)
    if scanned is not None:
        assert scanned.table.to_pylist() == parsed.table.to_pylist()
        assert scanned.details == parsed.details
        assert scanned.dropped == parsed.dropped


def test_the_digits_of_an_escape_are_no_threads_number():
    thread = [{"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": 1, "tid": "stream \x1f7"}]
    assert _from_bytes(json.dumps(thread)[1:-1].encode(), everything=True) is None
    assert _from_objects(thread, everything=True).table["tid"].to_pylist() == [7]


@pytest.mark.parametrize("written", ['"ph": "\\u0058", "cat": "kernel"', '"ph": "X", "cat": "k\\u0065rnel"'])
def test_an_escaped_phase_or_category_is_read_by_the_json_parser(write, written):
    text = f'{{"traceEvents": [{{{written}, "name": "k", "ts": 1, "dur": 1, "tid": 7}}]}}'
    assert read_events(write("rank0.json", text)).table["name"].to_pylist() == ["k"]


@given(st.binary(max_size=40), st.integers(0, 200), st.booleans())
def test_no_bytes_make_the_scanner_read_beyond_them_or_loop(junk, at, everything):
    whole = (
        b'{"ph":"X","cat":"kernel","name":"k\\n","pid":1,"tid":"s 7","ts":1.5,"dur":2,'
        b'"args":{"grid":[1],"stream":7}}'
    )
    scan(whole[:at] + junk + whole[at:], everything)
    scan(whole[:at] + junk, everything)


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
def test_real_files_read_the_same_by_the_scanner_and_event_by_event(shared, name):
    path = shared(name)
    events = read_events(path)
    document = json_stream.decode_json(gzip.decompress(path.read_bytes()).decode())
    listed = document.pop("traceEvents")
    piece = _from_objects(listed)
    assert events.table.to_pylist() == piece.table.to_pylist()
    assert list(events.details) == piece.details
    assert events.metadata == document
    assert not events.dropped
    assert not events.truncated
    everything = pa.concat_tables(read_all(path))
    assert everything.to_pylist() == _from_objects(listed, everything=True).table.to_pylist()
    assert everything.num_rows == len(listed)


@pytest.mark.parametrize("name", REAL)
def test_the_selective_read_of_a_real_file_is_the_full_one_filtered(shared, name):
    rows = pa.concat_tables(read_all(shared(name))).to_pylist()
    calls = re.compile("(?i)launch|memcpy|memset|eventrecord|streamwaitevent|synchronize")
    records = re.compile("record_param_comms$|(nccl|rccl|gloo|ucc|mpi|xccl):")
    gpu = {"kernel", "gpu_memcpy", "gpu_memset", "user_annotation", "cuda_sync"}
    operators, runtime = {"cpu_op"}, {"cuda_runtime", "cuda_driver", "hip_runtime", "hip_driver"}
    wanted = [
        row for row in rows
        if row["phase"] == "X" and (
            row["category"] in gpu
            or (row["category"] in runtime and calls.search(row["name"]))
            or (row["category"] in operators and records.match(row["name"]))
        )
    ]  # fmt: skip
    table = read_events(shared(name)).table.drop_columns("kind")
    assert table.to_pylist() == [{key: row[key] for key in table.column_names} for row in wanted]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("size", [4096, 65553])
def test_the_size_of_pieces_changes_nothing(shared, monkeypatch, name, size):
    whole = read_events(shared(name))
    monkeypatch.setattr(json_stream, "PIECE_BYTES", size)
    cut = read_events(shared(name))
    assert cut.table.to_pylist() == whole.table.to_pylist()
    assert (list(cut.details), cut.metadata) == (list(whole.details), whole.metadata)


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
