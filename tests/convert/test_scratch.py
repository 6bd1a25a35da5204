"""Ranks larger than memory: how much is held at once changes nothing, and memory does not grow with a rank."""

import json
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.convert import convert, find_format
from eidola.convert.scratch import Scratch, scratch_in
from eidola.convert.sorting import Lookup, every, grouped, order_of
from eidola.schemas import Trace
from eidola.schemas.errors import UsageError
from eidola.schemas.tables import TRACE_TABLES

CALLS = (
    "cudaLaunchKernel", "cudaMemcpyAsync", "cudaMemcpy", "cudaStreamWaitEvent", "cudaEventSynchronize",
    "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventRecord", "cudaGraphLaunch",
)  # fmt: skip
KERNELS = (
    "gemm", "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", "ncclDevKernel_SendRecv(x)",
    "Memcpy DtoH (Device -> Pageable)", "Memcpy DtoD (Device -> Device)",
)  # fmt: skip
WAITS = {"cudaStreamWaitEvent": "Stream Wait Event", "cudaEventSynchronize": "Event Sync"}
REAL = (
    ("nsys/sm90_2gpu_training.sqlite", "nsys"), ("kineto/a100_nccl_rank0of2.json.gz", "kineto"),
    ("kineto/mi300x_resnet_rank0of8.json.gz", "kineto"), ("kineto/v100_dlrm_8ranks", "kineto"),
    ("kineto/a100_2of128ranks", "kineto"),
)  # fmt: skip
SMALL = st.lists(st.tuples(st.integers(-20, 20), st.integers(0, 3)), max_size=60)


@pytest.fixture
def little(monkeypatch):
    """Hold next to nothing in memory, and work on few rows at a time."""

    def set_rows(rows):
        for name in ("scratch.BLOCK_ROWS", "sorting.SORTED_ROWS", "narrow.CHUNK_ROWS", "database.BATCH_ROWS"):
            monkeypatch.setattr(f"eidola.convert.{name}", rows)
        monkeypatch.setattr("eidola.convert.columns.ROW_GROUP_ROWS", rows)
        monkeypatch.setattr("eidola.convert.scratch.IN_MEMORY_BYTES", 0)
        monkeypatch.setattr("eidola.convert.scratch.SEGMENT_BYTES", 1 << 16)

    return set_rows


@pytest.mark.parametrize(
    ("name", "kind", "rows"),
    [*((name, kind, rows) for name, kind in REAL for rows in (997, 64)),
     ("rocprofv3/mi350x_results.json.gz", "rocprofv3", 997)],
)  # fmt: skip
def test_how_much_is_held_at_once_changes_nothing(shared, tmp_path, little, name, kind, rows):
    path = shared(name)
    convert(find_format(kind), [path], tmp_path / "whole")
    little(rows)
    convert(find_format(kind), [path], tmp_path / "parts")
    for table in TRACE_TABLES:
        assert Trace(tmp_path / "parts").read(table).equals(Trace(tmp_path / "whole").read(table)), table
    assert not [file for file in tmp_path.rglob("*") if "eidola-" in file.name]


def random_events(seed):
    """Return events of three host threads and three streams, with all calls that make edges, in any order."""
    draw = random.Random(seed)
    at, events = 1000, []

    def add(category, name, start, dur, tid, **args):
        kind = {"ph": "X", "cat": category, "name": name, "pid": 9, "tid": tid}
        events.append({**kind, "ts": start, "dur": draw.choice(dur), "args": args})

    for number in range(1, draw.choice([40, 200, 500])):
        at += draw.choice([0, 1, 3, 10, 70])
        tid, what = draw.choice([100, 100, 200, 300]), draw.random()
        call = number if draw.random() < 0.9 else max(1, number - draw.randrange(5))
        if what < 0.7:
            name = draw.choice(CALLS)
            add("cuda_runtime", name, at, [0, 1, 2, 8, 60], tid, correlation=call)
            for _ in range(draw.choice([0, 1, 1, 3])):
                kernel, stream = draw.choice(KERNELS), draw.choice([7, 7, 20, 24])
                add("gpu_memcpy" if "Memcpy" in kernel else "kernel", kernel, at + draw.choice([-1, 0, 5, 100]),
                    [0, 1, 4, 20, 90], stream, correlation=call, stream=stream,
                    device=draw.choice([0, 0, 0, 1]))  # fmt: skip
            if seed % 3 == 0 and name in WAITS:
                add("cuda_sync", WAITS[name], at, [1], 7, correlation=call, device=0, stream=draw.choice([7, 20]),
                    wait_on_stream=draw.choice([7, 20, 24]),
                    wait_on_cuda_event_record_corr_id=draw.randrange(1, number + 1))  # fmt: skip
        elif what < 0.85:
            told = {"Collective name": draw.choice(["allreduce", "wait", "send"]), "In msg nelems": 16}
            add("cpu_op", "record_param_comms", at, [5, 50], tid, dtype="Float", **told)
        else:
            add(
                "user_annotation",
                draw.choice(["nccl:all_reduce", "step", "gloo:all_reduce"]),
                at,
                [1, 30],
                tid,
            )
    if seed % 2:
        draw.shuffle(events)
    return events


@pytest.mark.parametrize("seed", range(12))
def test_edges_and_launches_do_not_depend_on_what_is_held_at_once(tmp_path, write, make, little, seed):
    path = write("rank0.json", make.document(random_events(seed)))
    convert(find_format("kineto"), [path], tmp_path / "whole")
    little(17)
    report = convert(find_format("kineto"), [path], tmp_path / "parts")
    assert sum(report.dependencies.values())
    for table in TRACE_TABLES:
        assert Trace(tmp_path / "parts").read(table).equals(Trace(tmp_path / "whole").read(table)), table


@given(SMALL, st.integers(1, 70), st.integers(0, 5))
def test_sorting_a_part_at_a_time_is_sorting(pairs, at_once, every_nth):
    first, second = (np.array([pair[i] for pair in pairs], np.int64) for i in range(2))
    chosen = np.flatnonzero(np.arange(len(pairs)) % (every_nth + 1) == 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eidola.convert.sorting.SORTED_ROWS", at_once)
        patch.setattr("eidola.convert.scratch.BLOCK_ROWS", at_once)
        order = order_of(Scratch(), first, np.array_split(chosen, 3), lambda rows: (second[rows],))
    assert order.tolist() == chosen[np.lexsort((second[chosen], first[chosen]))].tolist()


@given(SMALL, st.integers(1, 70))
def test_places_are_grouped_by_value(pairs, at_once):
    values = np.array([pair[0] for pair in pairs], np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eidola.convert.scratch.BLOCK_ROWS", at_once)
        found = {value: places.tolist() for value, places in grouped(Scratch(), values).items()}
    assert found == {value: np.flatnonzero(values == value).tolist() for value in np.unique(values).tolist()}


@given(st.lists(st.integers(-100, 100)), st.lists(st.integers(-(2**40), 2**40) | st.integers(-100, 100)))
def test_of_several_rows_with_a_key_the_last_is_found(keys, sought):
    narrow_keys = np.array(keys, np.int8)
    scratch = Scratch()
    found = Lookup(scratch, narrow_keys, every(scratch, len(keys))).find(np.array(sought, np.int64))
    last = {key: row for row, key in enumerate(keys)}
    assert found.tolist() == [last.get(key, -1) for key in sought]


def opened():
    """Return what the process has open, by number and file."""
    files = [(fd.name, fd) for fd in Path("/proc/self/fd").iterdir()]
    return {f"{fd.readlink()} {number}" for number, fd in files if fd.is_symlink()}


def test_arrays_beyond_the_budget_are_files_without_names(tmp_path, monkeypatch):
    monkeypatch.setattr("eidola.convert.scratch.IN_MEMORY_BYTES", 1 << 16)
    before = opened()
    pool = pa.default_memory_pool().backend_name
    with scratch_in(tmp_path):
        scratch = Scratch()
        assert pa.default_memory_pool().backend_name == "system"
    assert pa.default_memory_pool().backend_name == pool
    some = scratch.empty(1 << 12, np.int64)
    assert opened() == before
    many = scratch.empty(1 << 20, np.int64)
    many[:] = np.arange(1 << 20)
    kept = [scratch.keep(np.arange(n, dtype=np.int16)) for n in range(0, 3000, 7)]
    scratch.release()
    assert many.tolist() == list(range(1 << 20))
    assert [k.tolist() for k in kept] == [list(range(n)) for n in range(0, 3000, 7)]
    assert any(where.startswith(str(tmp_path)) for where in opened() - before)
    assert not list(tmp_path.iterdir())
    del some, many, kept, scratch
    assert opened() == before


def test_a_disk_without_room_is_told_with_what_to_do(tmp_path, shared, little):
    little(1000)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limit[1]))
    try:
        with pytest.raises(UsageError, match=r"no room on the disk .*choose -o on another disk"):
            convert(find_format("kineto"), [shared("kineto/a100_nccl_rank0of2.json.gz")], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list(tmp_path.iterdir())


GROWING = """
import json, resource, sys
from pathlib import Path
import numpy as np
from eidola.convert import narrow, scratch, sorting
from eidola.convert.profile import Place, Profile, Rows, Task, build_record, dictionary
from eidola.convert.job import write_job
from eidola.convert.scanner import CALL, COPY, KERNEL, SYNC
from eidola.schemas import TraceWriter
scratch.IN_MEMORY_BYTES = scratch.SEGMENT_BYTES = 4 << 20
scratch.BLOCK_ROWS = 1 << 15
sorting.SORTED_ROWS = 1 << 16
out, launches = Path(sys.argv[1]), int(sys.argv[2])
rows = Rows()
words = ["cudaLaunchKernel", "kernel", "cudaStreamWaitEvent", "cudaEventSynchronize", "cudaMemcpyAsync",
         "Memcpy DtoD (Device -> Device)", "Stream Wait Event"]
for begin in range(0, launches, 1 << 14):
    n = np.arange(begin, min(begin + (1 << 14), launches))
    at = n * 10_000
    def add(kind, word, which, start, end, **columns):
        own = which(n)
        rows.add(kind, dictionary(words, np.full(own.sum(), words.index(word))), start[own], end[own],
                 **{name: values[own] for name, values in columns.items()})
    all_, tenth = (lambda n: n >= 0), (lambda n: n % 10 == 0)
    tid = 1 + n // 1000 % 2
    add(CALL, "cudaLaunchKernel", all_, at, at + 3000, tid=tid, correlation=4 * n + 1)
    add(KERNEL, "kernel", all_, at + 5000, at + 9000, device=n * 0, stream=n % 4, correlation=4 * n + 1)
    add(CALL, "cudaMemcpyAsync", tenth, at + 3000, at + 3500, tid=tid, correlation=4 * n + 2)
    add(COPY, "Memcpy DtoD (Device -> Device)", tenth, at + 9000, at + 9500, device=n * 0, stream=n % 4,
        correlation=4 * n + 2, peer=n * 0, size_bytes=n)
    add(CALL, "cudaStreamWaitEvent", tenth, at + 3600, at + 3700, tid=tid, correlation=4 * n + 3)
    add(SYNC, "Stream Wait Event", tenth, at + 3600, at + 3700, device=n * 0, stream=n % 4, correlation=4 * n + 3,
        wait_stream=(n + 1) % 4, wait_record=4 * n + 1)
    add(CALL, "cudaEventSynchronize", tenth, at + 4000, at + 8000, tid=tid, correlation=4 * n + 4)
with scratch.scratch_in(out.parent), TraceWriter(out) as writer:
    record = build_record(Profile(Task(Place(Path("f"), "", 1, 0, 1), 0), rows))
    del rows
    report = write_job(writer, [record], "test")
print(json.dumps([report.spans, sum(report.dependencies.values()),
                  resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def test_memory_does_not_grow_with_a_rank(tmp_path):
    """Eight times the spans, in a process each; those 1.7 million more took 93 MiB more when all was in memory."""
    launches = (100_000, 800_000)
    found = []
    for count in launches:
        done = subprocess.run(
            [sys.executable, "-c", GROWING, str(tmp_path / f"{count}"), str(count)],
            env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(json.loads(done.stdout))
    (spans, edges, small), (many_spans, many_edges, large) = found
    assert (many_spans, many_edges > 7 * edges) == (8 * spans, True)
    assert large - small < 50, found
