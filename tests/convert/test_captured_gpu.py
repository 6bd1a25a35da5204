"""Captures of GPU jobs: a real V100 job's profiler traces as windows, and rings written for them."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eidola.capture import nccl
from eidola.capture.recorder import ring
from eidola.convert import kineto
from eidola.convert.captured import captured
from eidola.convert.nccl_plugin import read_dump
from eidola.schemas import InputError, Trace, check

KINETO = Path(__file__).resolve().parents[2] / "../shared/traces/kineto/v100_dlrm_8ranks"
RANKS = 8
DEVICE = {"device": 3, "vendor": "nvidia", "model": "A test", "uuid": None, "compute_units": 80}


@pytest.fixture(scope="module")
def traces():
    if not KINETO.is_dir():
        pytest.skip(f"{KINETO} is not there")
    return sorted(KINETO.glob("*.json*"))


@pytest.fixture(scope="module")
def alone(traces, tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "t.eidola"
    kineto(traces, path)
    return Trace(path)


def window(trace, first_step):
    return {"trace": trace, "execution_trace": None, "first_step": first_step, "start_ns": 0, "end_ns": 1}


def write_calls(path, launches_ns):
    """Write a ring with one all-reduce of 40 bytes around each launch, in group `g`, as the recorder does."""
    layout = ring.create(path, len(launches_ns), 3)
    records = np.zeros(len(launches_ns), np.dtype(list(ring.FIELDS)))
    for number, launch_ns in enumerate(launches_ns):
        records[number]["sequence"] = number + 1
        records[number]["start_ns"], records[number]["end_ns"] = launch_ns - 5, launch_ns + 5
        records[number]["call"] = number + 1
        records[number]["in_bytes"], records[number]["out_bytes"] = 40, -1
        records[number]["name"], records[number]["group"], records[number]["peer"] = 1, 2, -1
        records[number]["kind"], records[number]["dtype"] = ring.KINDS["call"], 6
        records[number]["number"] = 100 + number
    with path.open("r+b") as file:
        for number, name in enumerate((b"c10d::allreduce_", b"g"), start=1):
            file.seek(layout["names_at"] + number * ring.NAME_BYTES)
            file.write(len(name).to_bytes(4, "little") + name)
        file.seek(layout["records_at"])
        file.write(records.tobytes())


@pytest.fixture
def raw(traces, alone, tmp_path):
    """A capture whose windows are the job's traces; rank 0 has an earlier window of its own."""
    folder = tmp_path / "raw"
    folder.mkdir()
    entries = []
    for rank, trace in enumerate(traces):
        name = f"rank{rank:05d}.0.0001.kineto{''.join(trace.suffixes[-2:] if trace.suffix == '.gz' else ['.json'])}"
        shutil.copy(trace, folder / name)
        spans = alone.read("spans", ranks=[rank]).to_pandas()
        marks = ring.Marks(folder / f"rank{rank:05d}.0.marks.ring", 4)
        marks.write("step", int(spans.start_ns.min()), int(spans.end_ns.max()), number=7)
        marks.write("step", 5, 6, number=8)  # far from the window
        record = {
            "version": 2, "rank": rank, "world_size": RANKS, "restart": 0, "host": "a host", "device": DEVICE,
            "calls": None, "marks": f"rank{rank:05d}.0.marks.ring", "gaps": [], "sealed": "exit",
            "groups": [{"name": "g", "description": "all", "ranks": list(range(RANKS)), "backend": "nccl"}],
            "windows": [window(name, 7)] if rank else [window("gone", 3), window(name, 7)],
        }  # fmt: skip
        (folder / f"rank{rank:05d}.0.json").write_text(json.dumps(record))
        entries.append({"rank": rank, "restart": 0, "file": f"rank{rank:05d}.0.json", "gaps": []})
    manifest = {
        "format": 1, "kind": "torch", "backend": "gpu", "command": "c", "date": "d", "exit_code": 0,
        "oversubscribed": False, "failures": [], "ranks": entries, "earlier_restarts": [],
    }  # fmt: skip
    (folder / "capture.json").write_text(json.dumps(manifest))
    return folder


def test_the_last_window_that_all_ranks_have_is_converted_as_the_profilers_trace(raw, alone, tmp_path):
    made = Trace(captured(raw, tmp_path / "t.eidola"))
    assert not [p for p in check(made.path) if p.severity == "error"]
    assert made.notes["first_step"] == 7
    what = ["rank", "sequence", "operation", "size_bytes", "start_ns", "end_ns"]
    assert made.read("collectives", what).equals(alone.read("collectives", what))
    ranks = made.read("ranks").to_pandas()
    assert set(ranks.backend) == {"gpu"}
    assert set(ranks.model) == {"A test"}
    spans = made.read("spans", ranks=[0]).to_pandas()
    assert spans[spans.lane == "steps"].name.tolist() == ["step 7"]


def test_a_kernel_launched_during_a_call_is_that_calls(raw, alone, tmp_path):
    for rank in range(RANKS):
        own = alone.read("collectives", ["launch_ns", "start_ns"], ranks=[rank]).to_pandas()
        clock = alone.read("clocks", ["offset_ns"], ranks=[rank])["offset_ns"][0].as_py()
        write_calls(raw / f"rank{rank:05d}.0.calls.ring", sorted(own.launch_ns.dropna().astype(int) - clock))
        record = json.loads((raw / f"rank{rank:05d}.0.json").read_text())
        record["calls"] = f"rank{rank:05d}.0.calls.ring"
        (raw / f"rank{rank:05d}.0.json").write_text(json.dumps(record))
    made = Trace(captured(raw, tmp_path / "t.eidola")).read("collectives").to_pandas()
    launched = made[made.launch_ns.notna()]
    assert len(launched)
    assert set(launched.communicator) == {"g"}
    assert set(launched.size_bytes) == {40}
    assert launched.sequence.min() == 100


PLAYED = """
import ctypes, os, sys
driver = ctypes.CDLL(sys.argv[1])
driver.driver_open(os.environ["NCCL_PROFILER_PLUGIN"].encode(), 6, 0, 8)
driver.driver_collective.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_size_t]
for number in range(int(sys.argv[2])):
    driver.driver_collective(b"AllReduce", b"ncclFloat32", 5 + number, 10)
"""


def test_what_nccl_told_joins_the_window_by_number(raw, alone, nccl_in_process, tmp_path):
    """The plugin's records of rank 0 are as many all-reduces of 40 bytes, the first within the first call."""
    own = alone.read("collectives", ["launch_ns"], ranks=[0]).to_pandas()
    clock = alone.read("clocks", ["offset_ns"], ranks=[0])["offset_ns"][0].as_py()
    launches = sorted(own.launch_ns.dropna().astype(int) - clock)
    write_calls(raw / "rank00000.0.calls.ring", launches)
    variables = {**os.environ, **nccl.environment(raw, records=1 << 12), "RANK": "0"}
    played = subprocess.Popen(
        [sys.executable, "-c", PLAYED, nccl_in_process, str(len(launches))], env=variables
    )
    assert played.wait(120) == 0
    (file,) = raw.glob("nccl.rank00000.*")
    content = bytearray(file.read_bytes())
    opened_ns, first_ns = (struct.unpack_from("<Q", content, at)[0] for at in (4104, 36872))
    began_ns = launches[0] - (first_ns - opened_ns)  # by Unix time
    struct.pack_into("<Q", content, 4120, began_ns)
    file.write_bytes(content)
    record = json.loads((raw / "rank00000.0.json").read_text())
    record |= {"calls": "rank00000.0.calls.ring", "pid": played.pid}
    (raw / "rank00000.0.json").write_text(json.dumps(record))
    made = Trace(captured(raw, tmp_path / "t.eidola"))
    assert not [p for p in check(made.path) if p.severity == "error"]
    rows = made.read("collectives", ranks=[0]).to_pandas()
    described = rows[rows.communicator == "g"]
    (note,) = [note for note in made.notes["notes"] if note.startswith("rank 0: NCCL told")]
    joined = int(note.partition("of which ")[2].split()[0])
    assert joined > 0
    assert (described.channels == 8).sum() >= joined  # the profiler itself tells it of some of these kernels
    shown = made.read("spans", ranks=[0]).to_pandas()
    assert (shown.lane == "nccl channel 1").sum() == joined


def test_without_windows_what_nccl_told_is_the_trace(raw, nccl_in_process, tmp_path):
    """Both ranks' calls are written around what the driver, which plays NCCL, was called for."""
    for file in raw.glob("rank*.json"):
        file.unlink()
    variables = {**os.environ, **nccl.environment(raw, records=1 << 12)}
    command = [sys.executable, "-c", PLAYED, nccl_in_process, "5"]
    played = [subprocess.Popen(command, env=variables | {"RANK": str(rank)}) for rank in (0, 1)]
    assert [process.wait(120) for process in played] == [0, 0]
    for rank, process in enumerate(played):
        (file,) = raw.glob(f"nccl.rank{rank:05d}.*")
        write_calls(raw / f"rank{rank:05d}.0.calls.ring", read_dump(file).operations["start_ns"].to_pylist())
        record = {
            "version": 2, "rank": rank, "world_size": 2, "restart": 0, "host": None, "device": DEVICE,
            "calls": f"rank{rank:05d}.0.calls.ring", "marks": f"rank{rank:05d}.0.marks.ring", "gaps": [],
            "groups": [{"name": "g", "description": "all", "ranks": [0, 1], "backend": "nccl"}],
            "windows": [], "pid": process.pid, "sealed": "exit",
        }  # fmt: skip
        (raw / f"rank{rank:05d}.0.json").write_text(json.dumps(record))
    manifest = json.loads((raw / "capture.json").read_text())
    manifest["ranks"] = manifest["ranks"][:2]
    (raw / "capture.json").write_text(json.dumps(manifest))
    made = Trace(captured(raw, tmp_path / "t.eidola"))
    assert not [p for p in check(made.path) if p.severity == "error"]
    names = ("rank", "communicator", "sequence", "operation", "size_bytes", "algorithm", "channels")
    assert [tuple(row[n] for n in names) for row in made.read("collectives").to_pylist()] == [
        (rank, "g", 100 + i, "all_reduce", 40, "ring", 8) for rank in (0, 1) for i in range(5)
    ]
    assert "of GPU work only what NCCL told is shown" in " ".join(made.notes["notes"])


def test_samples_of_a_gpu_are_its_ranks_whatever_its_number(raw, tmp_path):
    gpus = [
        {
            "index": i,
            "vendor": "nvidia",
            "model": "A",
            "uuid": f"GPU-{i}f",
            "pci": f"0000:{i:02x}:00.0",
            "driver": "1",
        }
        for i in range(4)
    ]
    link = {
        "gpu": 0,
        "peer": 1,
        "kind": "nvlink",
        "count": 2,
        "rate_bytes_per_s": 25_000_000_000,
        "access": True,
    }
    head = {"format": 1, "source": "nvml", "missing": None, "interval_s": 0.1, "gpus": gpus, "links": [link]}
    reading = [[i, "power_w", 100.0 + i] for i in range(4)]
    sample = {"time_ns": 10**18, "readings": reading, "cpu_ns": 2_000_000, "took_ns": 1}
    (raw / "telemetry.jsonl").write_text(json.dumps(head) + "\n" + json.dumps(sample) + "\n")
    devices = {5: {"uuid": "0F"}, 6: {"uuid": None, "pci": [0, 1, 0]}, 7: {"uuid": "2f"}, 0: {"uuid": "2f"}}
    for rank, device in devices.items():
        file = raw / f"rank{rank:05d}.0.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"device": DEVICE | device}))
    made = Trace(captured(raw, tmp_path / "t.eidola"))
    assert not [p for p in check(made.path) if p.severity == "error"]
    rows = made.read("counters").to_pylist()
    assert [(row["rank"], row["source"], row["name"], row["value"]) for row in rows] == [
        (5, "nvml", "power_w", 100.0),
        (6, "nvml", "power_w", 101.0),
    ]
    names = ("rank", "peer", "kind", "count", "rate_bytes_per_s")
    assert [tuple(row[n] for n in names) for row in made.read("links").to_pylist()] == [
        (5, 6, "nvlink", 2, 25_000_000_000)
    ]
    assert "telemetry: 1 samples of nvml took 2 ms of a core" in made.notes["notes"]
    assert "telemetry of GPUs [2, 3] was left out: no rank is known to have used them" in made.notes["notes"]


def test_without_a_window_on_every_rank_the_error_says_what_to_do(raw, tmp_path):
    record = json.loads((raw / "rank00003.0.json").read_text())
    (raw / "rank00003.0.json").write_text(json.dumps(record | {"windows": []}))
    with pytest.raises(InputError, match=r"no profiler window was sealed on every rank.*--detail all"):
        captured(raw, tmp_path / "t.eidola")
