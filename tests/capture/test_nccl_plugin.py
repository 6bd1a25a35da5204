"""The NCCL plugin, driven by a C program that knows only the committed table of NCCL's layouts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eidola.capture import nccl
from eidola.convert.nccl_plugin import read_dump
from eidola.schemas import InputError, UsageError

FOLDER = Path(nccl.__file__).parent
DRIVER = Path(__file__).with_name("nccl_driver.c")
VERSIONS = range(nccl.VERSIONS[0], nccl.VERSIONS[1] + 1)


@pytest.fixture(scope="session")
def driver(c_compiler, tmp_path_factory):
    return compiled(c_compiler[0], tmp_path_factory.mktemp("driver"))


def compiled(compiler, folder, *flags):
    program = folder / "driver"
    command = [compiler, "-std=c11", "-O1", "-g", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", *flags]
    done = subprocess.run(
        [*command, f"-I{FOLDER}", DRIVER, "-o", program, "-pthread", "-ldl"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return program


def drive(driver, out, *arguments, plugin=None, records=1 << 10, **environment):
    """Run the driver under the plugin's environment, and return what it left and said."""
    out.mkdir(exist_ok=True)
    variables = nccl.environment(out, records=records)
    plugin = plugin or variables[nccl.LOADED_BY]
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [driver, plugin, *map(str, arguments)],
        env={**kept, **variables, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return [read_dump(file) for file in sorted(out.glob("nccl.*.ring"))], done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_tells_operations_with_algorithm_protocol_channels_and_bytes(driver, tmp_path, version):
    (dump,), said = drive(driver, tmp_path, "story", version, RANK="3", WORLD_SIZE="16")
    assert (dump.rank, dump.world, dump.interface, dump.lost) == (3, 16, version, 0)
    assert (Path(dump.library).name, dump.timer_hz) == ("driver", 10**9)
    assert dump.path.name.startswith("nccl.rank00003.")
    (communicator,) = dump.communicators
    assert (communicator.identity, communicator.name, communicator.rank) == (
        0xFEDCBA9876543210,
        "data parallel",
        3,
    )
    assert (communicator.ranks, communicator.nodes) == ((16, 2) if version >= 4 else (None, None))
    assert communicator.opened_ns < communicator.closed_ns
    wanted = [
        (7, "AllReduce", "ncclBfloat16", 1000, 2000, "RING", "SIMPLE", 8),
        (8, "AllReduce", "ncclBfloat16", 2000, 4000, "RING", "SIMPLE", 8),
        (None, "Send", "ncclFloat32", 300, 1200, None, None, 2 if version >= 4 else None),
        *([(9, "AllGather", "ncclInt8", 64, 64, "MC", None, None)] if version >= 6 else []),
    ]
    names = [
        "sequence_number",
        "operation",
        "dtype",
        "count",
        "size_bytes",
        "algorithm",
        "protocol",
        "channels",
    ]
    rows = dump.operations.to_pylist()
    assert [tuple(row[name] for name in names) for row in rows] == wanted
    assert [row["peer"] for row in rows[:3]] == [0, 0, 5]
    assert all(row["communicator"] == 0 for row in rows)
    assert int(said.split()[1]) & ~{1: 0x3F, 2: 0x3F, 3: 0xFF, 4: 0xFF, 5: 0xFFF, 6: 0x7FFF}[version] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_transfers_have_peer_and_bytes_and_channels_the_gpus_timer(driver, tmp_path, version):
    (dump,), _ = drive(driver, tmp_path, "story", version)
    first = dump.operations["event"][0].as_py()
    sizes = [(i + 1) << 18 for i in range(3)] if version >= 4 else [None] * 3
    names = ["operation", "channel", "peer", "send", "step", "size_bytes"]
    transfers = dump.transfers.to_pylist()
    assert [tuple(t[name] for name in names) for t in transfers] == [
        (first, 1, peer, send, step, sizes[step])
        for peer, send in ((4, True), (2, False))
        for step in range(3)
    ]
    for t in transfers:
        assert t["start_ns"] <= t["end_ns"]
        assert (t["issue_ns"] is not None) == t["send"]
    channels = dump.channels.to_pylist()
    timers = [(5000, 9000), (5001, 9001)] if version >= 4 else [(None, None)] * 2
    assert [(c["operation"], c["channel"], c["gpu_start_ns"], c["gpu_end_ns"]) for c in channels] == [
        (first, i, *timers[i]) for i in range(2 if version >= 3 else 0)
    ]


def as_rccl(compiler, folder, *flags):
    """The driver as a library of RCCL's name, in a program of its own."""
    library = compiled(compiler, folder, "-shared", "-fPIC", *flags).rename(folder / "librccl.so.1")
    program = folder / "program"
    code = (
        f"import ctypes, sys; a = [x.encode() for x in sys.argv]; "
        f"sys.exit(ctypes.CDLL({str(library)!r}).main(len(a), (ctypes.c_char_p * len(a))(*a)))"
    )
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    return program, library


def test_rccls_timer_counts_ticks_of_a_rate_that_the_device_gives(c_compiler, tmp_path):
    program, library = as_rccl(c_compiler[0], tmp_path, "-DHIP_KHZ=100000")
    (dump,), _ = drive(program, tmp_path / "out", "story", 5)
    assert (dump.library, dump.timer_hz) == (str(library), 100_000_000)
    channels = dump.channels.to_pylist()
    assert [(c["gpu_start_ns"], c["gpu_end_ns"]) for c in channels] == [(50_000, 90_000), (50_010, 90_010)]


def test_rccl_without_a_rate_has_no_gpu_times(c_compiler, tmp_path):
    program, _ = as_rccl(c_compiler[0], tmp_path)
    (dump,), _ = drive(program, tmp_path / "out", "story", 5)
    assert dump.timer_hz is None
    assert dump.channels["gpu_start_ns"].null_count == dump.channels["gpu_end_ns"].null_count == 2


def test_a_stop_after_finalize_and_from_another_thread_is_kept(driver, tmp_path):
    (dump,), _ = drive(driver, tmp_path, "story", 6)
    first, late = dump.operations["enqueued_ns"].to_pylist()[:2]
    closed = dump.communicators[0].closed_ns
    assert first <= closed <= late


def test_another_process_parent_is_not_followed(driver, tmp_path):
    (dump,), _ = drive(driver, tmp_path, "story", 4)
    proxies = dump.records[(dump.records["action"] == 1) & (dump.records["type"] == 3)]
    assert proxies["peer"].tolist() == [4, 2, 9]
    assert 9 not in dump.transfers["peer"].to_pylist()  # it had no steps here
    assert dump.transfers["operation"].null_count == 0


@pytest.mark.parametrize(("threads", "each"), [(8, 100), (8, 4000)])
def test_many_threads_fill_the_ring_and_what_is_lost_is_counted(driver, tmp_path, threads, each):
    capacity = 1 << 12
    (dump,), _ = drive(driver, tmp_path, "threads", 6, threads, each, records=capacity)
    made = 2 * threads * each
    assert len(dump.records) + dump.lost == made
    assert len(dump.records) <= capacity
    if made <= capacity:
        assert dump.lost == 0
        operations = dump.operations
        assert sorted(operations["sequence_number"].to_pylist()) == list(range(threads * each))
        assert operations["enqueued_ns"].null_count == 0
        sequence = operations["sequence_number"].to_numpy()
        assert (
            operations["count"].to_numpy() == sequence // each
        ).all()  # no record mixes two threads' fields
    else:
        assert len(dump.records) > 0.9 * capacity
        assert (np.diff(dump.records["commit"].astype(np.int64)) > 0).all()
        assert dump.records["commit"][0] >= made - capacity


def test_threads_that_lap_each_other_mix_no_records(driver, tmp_path):
    seen = 0
    for run in range(5):
        (dump,), _ = drive(driver, tmp_path / str(run), "laps", 6, 8, 5000, records=16)
        assert len(dump.records) + dump.lost == 2 * 8 * 5000
        starts = dump.records[dump.records["action"] == 1]
        assert (starts["b"] == starts["a"] // 5000).all()  # the thread's number, by both of its fields
        assert (starts["event"] == starts["commit"]).all()
        stops = dump.records[dump.records["action"] == 2]
        assert (stops["event"] < stops["commit"]).all()
        assert (stops["a"] == 0).all()
        seen += len(starts)
    assert seen


def test_a_forked_child_writes_nothing(driver, tmp_path):
    (dump,), _ = drive(driver, tmp_path, "fork", 6)
    assert dump.operations["sequence_number"].to_pylist() == [1, 3]


def test_closed_with_its_last_communicator_and_opened_again_it_goes_on_in_one_file(driver, tmp_path):
    (dump,), _ = drive(driver, tmp_path, "reload", 6)
    assert [c.identity for c in dump.communicators] == [1, 2]
    assert dump.operations["communicator"].to_pylist() == [0, 1]
    assert dump.operations["enqueued_ns"].null_count == 0


def test_a_file_that_is_there_is_left_alone(driver, tmp_path):
    program = tmp_path / "program"  # in the driver's process number, files of earlier containers
    program.write_text(f'#!/bin/sh\n: > "$EIDOLA_NCCL_FOLDER/nccl.$$.ring"\nexec {driver} "$@"\n')
    program.chmod(0o755)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="is no ring file"):
        drive(program, out, "story", 6)
    empty, full = sorted(out.iterdir(), key=lambda file: file.stat().st_size)
    assert full.name == f"{empty.stem}.1.ring"
    assert read_dump(full).lost == 0


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"EIDOLA_NCCL_FOLDER": "/nowhere/at/all"}, "No such file"),
        ({"EIDOLA_NCCL_RECORDS": "1000"}, "Invalid"),
    ],
)
def test_a_plugin_that_cannot_write_turns_itself_off_and_says_so_on_stderr(
    driver, tmp_path, variables, message
):
    dumps, said = drive(driver, tmp_path, "story", 6, **variables)
    assert dumps == []
    assert message in said
    assert "mask 0" in said


@pytest.mark.parametrize("kind", ["thread", "address,undefined"])
def test_sanitizers_find_nothing(c_compiler, tmp_path, kind):
    flags = [f"-fsanitize={kind}", "-fno-sanitize-recover=all"]
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    built = subprocess.run([c_compiler[0], *flags, probe, "-o", tmp_path / "probe"], capture_output=True)
    if built.returncode or subprocess.run([tmp_path / "probe"], capture_output=True).returncode:
        pytest.skip(f"no -fsanitize={kind} here")
    plugin = tmp_path / "plugin.so"
    command = [c_compiler[0], *nccl.FLAGS, "-g", *flags, FOLDER / "plugin.c", "-o", plugin]
    subprocess.run(command, check=True, capture_output=True)
    driver = compiled(c_compiler[0], tmp_path, *flags)
    for version in VERSIONS:
        out = tmp_path / f"story{version}"
        (dump,), said = drive(driver, out, "story", version, plugin=plugin)
        assert dump.lost == 0
        assert "Sanitizer" not in said
    (dump,), said = drive(driver, tmp_path / "threads", "threads", 6, 4, 2000, plugin=plugin, records=64)
    assert "Sanitizer" not in said
    assert len(dump.records) + dump.lost == 2 * 4 * 2000


def test_a_file_cut_short_or_foreign_is_named(driver, tmp_path):
    (dump,), _ = drive(driver, tmp_path, "story", 6)
    short = tmp_path / "short.ring"
    short.write_bytes(dump.path.read_bytes()[:-64])
    with pytest.raises(InputError, match=r"short\.ring has \d+ bytes instead of \d+: copy it again"):
        read_dump(short)
    foreign = tmp_path / "foreign.ring"
    foreign.write_bytes(b"\0" * 100_000)
    with pytest.raises(InputError, match=r"foreign\.ring is no ring file"):
        read_dump(foreign)


def test_the_environment_refuses_what_cannot_work(c_compiler, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"1000 records .* power of two"):
        nccl.environment(tmp_path, records=1000)
    monkeypatch.setenv(nccl.LOADED_BY, "inspector")
    with pytest.raises(UsageError, match="NCCL_PROFILER_PLUGIN=inspector is set already"):
        nccl.environment(tmp_path)


def offered(tmp_path, version_py, **environment):
    """What `capture run` would give a job by default, where PyTorch's version.py is this one."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(version_py)
    code = (
        "import json, pathlib; from eidola.capture import nccl;"
        "print(json.dumps(nccl.offer(pathlib.Path('out'), None)))"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept = {key: value for key, value in os.environ.items() if key != nccl.LOADED_BY}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | {"PYTHONPATH": path} | environment, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


VERSION_PY = "__version__ = '2.13.0'\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = {hip}\n"


@pytest.mark.parametrize(("cuda", "hip"), [("'12.8'", "None"), ("None", "'7.0.2'")])
def test_where_pytorch_has_nccl_or_rccl_the_plugin_is_part_of_every_capture(c_compiler, tmp_path, cuda, hip):
    variables, absent = offered(tmp_path, VERSION_PY.format(cuda=cuda, hip=hip))
    assert Path(variables[nccl.LOADED_BY]).is_file()
    assert variables["EIDOLA_NCCL_FOLDER"] == str(tmp_path / "out")
    assert absent == []


def test_where_pytorch_has_neither_nothing_is_said(tmp_path):
    assert offered(tmp_path, VERSION_PY.format(cuda="None", hip="None")) == [{}, []]


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({nccl.LOADED_BY: "inspector"}, "NCCL_PROFILER_PLUGIN=inspector is the job's own plugin"),
        ({"PATH": "/nowhere", "CC": "", "XDG_CACHE_HOME": "/nowhere"}, "no C compiler"),
    ],
)
def test_what_keeps_the_plugin_out_is_said_and_stops_nothing(tmp_path, environment, why):
    variables, (absent,) = offered(tmp_path, VERSION_PY.format(cuda="'12.8'", hip="None"), **environment)
    assert variables == {}
    assert absent.startswith("records of NCCL: ")
    assert why in absent


@pytest.mark.parametrize("version", [1, 6])
def test_a_file_cut_to_its_records_says_the_same(driver, tmp_path, version):
    (whole,), _ = drive(driver, tmp_path, "story", version)
    nccl.compact(whole.path)
    cut = read_dump(whole.path)
    assert whole.path.stat().st_size < 1 << 16
    for table in ("operations", "transfers", "channels"):
        assert getattr(cut, table).equals(getattr(whole, table))
    assert cut.lost == whole.lost == 0


def test_a_full_file_loses_nothing_more_when_cut(driver, tmp_path):
    (whole,), _ = drive(driver, tmp_path, "threads", 6, 4, 100, records=64)
    nccl.compact(whole.path)
    cut = read_dump(whole.path)
    assert cut.lost == whole.lost > 0
    assert cut.operations.equals(whole.operations)
