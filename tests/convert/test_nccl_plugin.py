"""Files of the NCCL plugin as a trace; the files come from the plugin itself, driven as NCCL would drive it."""

import os
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from eidola.capture import nccl
from eidola.capture.host.build import compiler
from eidola.convert import auto, convert, find_format
from eidola.schemas import InputError, MissingError, Trace, check

DRIVER = Path(__file__).parents[1] / "capture" / "nccl_driver.c"
RANKS, COLLECTIVES = 2, 5


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    try:
        command = compiler()[0]
    except MissingError as error:
        pytest.skip(str(error))
    program = tmp_path_factory.mktemp("driver") / "driver"
    include = f"-I{Path(nccl.__file__).parent}"
    flags = ["-std=c11", "-D_GNU_SOURCE", include, "-pthread", "-ldl"]
    subprocess.run([command, DRIVER, "-o", program, *flags], check=True, capture_output=True)
    return program


def run(driver, out, version, ranks=RANKS):
    """Run every rank of a job at once, each under the plugin."""
    out.mkdir()
    variables = {**os.environ, **nccl.environment(out, records=1 << 10), "WORLD_SIZE": str(ranks)}
    plugin = variables[nccl.LOADED_BY]
    at = str(time.monotonic_ns() + 1_000_000_000)  # when all are up
    jobs = [
        subprocess.Popen(
            [driver, plugin, "job", str(version), str(rank), str(ranks), str(COLLECTIVES), at],
            env={**variables, "RANK": str(rank)},
        )
        for rank in range(ranks)
    ]
    assert [job.wait(60) for job in jobs] == [0] * ranks
    return out


@pytest.fixture(scope="module")
def rings(driver, tmp_path_factory):
    return run(driver, tmp_path_factory.mktemp("job") / "rings", 6)


@pytest.fixture(scope="module")
def trace(rings, tmp_path_factory):
    out = tmp_path_factory.mktemp("trace") / "job.eidola"
    report = convert(find_format("nccl-plugin"), [rings], out)
    return Trace(out), report


def test_operations_come_with_algorithm_protocol_channels_and_bytes(trace):
    rows = trace[0].read("collectives").to_pylist()
    names = ("operation", "dtype", "size_bytes", "algorithm", "protocol", "channels", "peer")
    assert [(row["rank"], *(row[name] for name in names)) for row in rows] == [
        (rank, "all_reduce", "bfloat16", 2000, "ring", "simple", 8, None)
        for rank in range(RANKS)
        for _ in range(COLLECTIVES)
    ]
    for row in rows:
        assert row["communicator"] == "nccl 0000000000abcdef"
        assert row["end_ns"] > row["start_ns"]


def test_an_operation_runs_after_its_call_and_on_the_hosts_clock(trace):
    """The driver's GPU timer is 1,000 s ahead; the bounds find that within what lies between call and channel."""
    rows = [row for row in trace[0].read("collectives").to_pylist() if row["rank"] == 0]
    for row, following in pairwise(rows):
        assert row["launch_ns"] <= row["start_ns"]
        assert row["end_ns"] <= following["start_ns"]
    (note,) = [n for n in trace[1].notes if n.startswith("rank 0: its GPU's timer")]
    assert 0 < float(note.split()[-2]) < 1e5


def test_the_trace_is_whole_and_its_ranks_match(trace):
    assert check(trace[0].path) == []
    report = trace[1]
    assert report.matched == COLLECTIVES
    assert report.sources == {"profiler plugin": RANKS * COLLECTIVES}
    assert report.dropped == {rank: {"operation without GPU times": 1} for rank in range(RANKS)}  # the send
    assert trace[0].read("clocks")["method"].to_pylist() == ["reference", "collective_ends"]
    assert trace[0].read("ranks")["vendor"].to_pylist() == ["nvidia"] * RANKS


def test_the_files_are_recognised_whatever_they_are_called(rings, tmp_path):
    for i, file in enumerate(sorted(rings.iterdir())):
        (tmp_path / f"kept-{i}.bin").write_bytes(file.read_bytes())
    report = auto(sorted(tmp_path.glob("*.bin")), tmp_path / "t.eidola")
    assert report.matched == COLLECTIVES


def test_of_a_restarted_rank_the_newest_file_counts(rings, tmp_path):
    files = sorted(rings.iterdir())
    (tmp_path / "nccl.rank00000.1.ring").write_bytes(files[0].read_bytes())
    restarted = bytearray(files[0].read_bytes())
    restarted[36:40] = (1).to_bytes(4, "little")  # TORCHELASTIC_RESTART_COUNT
    newer = tmp_path / "nccl.rank00000.2.ring"
    newer.write_bytes(restarted)
    other = tmp_path / "nccl.rank00001.1.ring"
    other.write_bytes(files[1].read_bytes())
    assert find_format("nccl-plugin").plan([tmp_path], []) == [newer, other]


def test_records_without_gpu_times_are_no_trace_and_say_why(driver, tmp_path):
    rings = run(driver, tmp_path / "rings", 3, ranks=1)
    with pytest.raises(InputError, match=r"none of 6 operations has GPU times; they come from NCCL 2\.27 on"):
        convert(find_format("nccl-plugin"), [rings], tmp_path / "t.eidola")
    assert not (tmp_path / "t.eidola").exists()


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no nccl\.\*\.ring in .*; give the folder of a GPU job"):
        convert(find_format("nccl-plugin"), [tmp_path], tmp_path / "t.eidola")
