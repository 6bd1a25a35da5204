"""The doctor: on this machine, on folders that stand for others, on libraries compiled to say what a test wants."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eidola.capture.doctor import Machine, devices, examine, gpu_clock, host, libraries, software
from eidola.capture.gpus import Gpu, Link, NullBackend

STATUSES = {"ok", "gap", "absent"}


def compiled(compiler, source, library):
    library.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler[0], "-shared", "-fPIC", "-x", "c", source, "-o", library]
    subprocess.run(command, check=True, capture_output=True)
    return library


def nccl(compiler, folder, version, *interfaces, name="libnccl.so.2"):
    """A library that says `version` and holds the names of the interfaces that it would look for."""
    source = folder / "source.c"
    names = "".join(f'const char *name{i} = "ncclProfiler_v{i}";\n' for i in interfaces)
    source.write_text(f"int ncclGetVersion(int *v) {{ *v = {version}; return 0; }}\n{names}")
    return compiled(compiler, source, folder / name)


@pytest.mark.parametrize(
    ("version", "interfaces", "status", "seen"),
    [
        (22304, [1], "ok", "2.23.4 .* v1 to v1, takes the plugin as v1"),
        (23007, range(1, 7), "ok", "2.30.7 .* v1 to v6, takes the plugin as v6"),
        (23203, range(1, 8), "ok", "2.32.3 .* v1 to v7, newer than the plugin, which it takes as v6"),
        (24000, range(7, 13), "gap", "2.40.0 .* v7 to v12, newer than the plugin"),
        (22203, [], "gap", "2.22.3 .* takes no profiler plugin"),
    ],
)
def test_nccl_is_matched_with_the_plugin(c_compiler, tmp_path, version, interfaces, status, seen):
    nccl(c_compiler, tmp_path, version, *interfaces)
    (finding,) = libraries.findings((), (tmp_path,))
    assert (finding.topic, finding.status) == ("NCCL", status)
    assert re.search(seen, finding.seen)
    assert bool(finding.remedy) == (status == "gap")
    if status == "gap":
        assert ("upgrade eidola" in finding.remedy) == bool(interfaces)


def test_rccl_and_a_library_in_a_package_are_found_once(c_compiler, tmp_path):
    package = tmp_path / "site" / "torch" / "lib"
    package.mkdir(parents=True)
    nccl(c_compiler, package, 22707, 1, 2, 3, 4, name="librccl.so")
    folder = tmp_path / "rocm"
    folder.mkdir()
    (folder / "librccl.so.1").symlink_to(package / "librccl.so")
    (finding,) = libraries.findings((tmp_path / "site",), (folder,))
    assert finding.topic == "RCCL"
    assert "as RCCL has them" in finding.seen  # AMD's label, not NVIDIA's


def test_nccl_inside_pytorch_is_found_where_there_is_no_other(c_compiler, tmp_path):
    inside = tmp_path / "torch" / "lib"
    inside.mkdir(parents=True)
    nccl(c_compiler, inside, 22707, 1, 2, 3, 4, name="libtorch_cuda.so")
    (finding,) = libraries.findings((tmp_path,), ())
    assert (finding.topic, finding.status) == ("NCCL", "ok")
    assert "2.27.7" in finding.seen


def test_a_plugin_of_the_users_own_is_a_gap(c_compiler, tmp_path, monkeypatch):
    nccl(c_compiler, tmp_path, 22707, 4)
    monkeypatch.setenv("NCCL_PROFILER_PLUGIN", "inspector")
    _, finding = libraries.findings((), (tmp_path,))
    assert (finding.topic, finding.status) == ("NCCL plugin", "gap")
    assert "NCCL_PROFILER_PLUGIN=inspector" in finding.seen
    assert "unset it" in finding.remedy


def test_without_a_cxx_compiler_the_recorder_is_a_gap_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "")
    found = by_topic(software.findings())["C++ compiler"]
    assert found.status == "gap"
    assert "apt install g++" in found.remedy


def test_a_library_that_cannot_be_loaded_is_a_gap(tmp_path):
    (tmp_path / "libnccl.so.2").write_bytes(b"no library ncclProfiler_v4\0")
    (finding,) = libraries.findings((), (tmp_path,))
    assert finding.status == "gap"
    assert "cannot be loaded" in finding.seen


def test_an_interface_name_over_the_end_of_a_chunk_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "_CHUNK", 40)
    file = tmp_path / "libnccl.so"
    for shift in range(45):
        file.write_bytes(b"x" * shift + b"ncclProfiler_v5\0" + b"y" * 60)
        assert libraries.interfaces(file) == [5]


def machine(tmp_path, params=None, scope=None, clocksource=None):
    """Folders that stand for another machine's /proc, /sys and /dev."""
    proc, sys_folder, dev = (tmp_path / name for name in ("proc", "sys", "dev"))
    files = {
        proc / "driver/nvidia/params": params,
        proc / "sys/kernel/yama/ptrace_scope": scope,
        sys_folder / "devices/system/clocksource/clocksource0/current_clocksource": clocksource,
    }
    (dev / "shm").mkdir(parents=True)
    for file, text in files.items():
        if text is not None:
            file.parent.mkdir(parents=True)
            file.write_text(text)
    return proc, sys_folder, dev


def by_topic(findings):
    return {finding.topic: finding for finding in findings}


def test_what_the_kernel_restricts_is_read_from_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    proc, sys_folder, dev = machine(
        tmp_path, "ResmanDebugLevel: 1\nRmProfilingAdminOnly: 1\n", "2\n", "hpet\n"
    )
    rows = by_topic(host.findings(proc, sys_folder, dev, tmp_path, vendor="nvidia"))
    assert rows["GPU performance counters"].status == "gap"
    assert "NVreg_RestrictProfilingToAdminUsers=0" in rows["GPU performance counters"].remedy
    assert (rows["ptrace"].status, rows["ptrace"].seen) == ("gap", "ptrace_scope 2")
    assert rows["Host clock"].status == "gap"
    assert "hpet" in rows["Host clock"].seen
    (proc / "driver/nvidia/params").write_text("RmProfilingAdminOnly: 0\n")
    (proc / "sys/kernel/yama/ptrace_scope").write_text("1\n")
    (sys_folder / "devices/system/clocksource/clocksource0/current_clocksource").write_text("tsc\n")
    rows = by_topic(host.findings(proc, sys_folder, dev, tmp_path, vendor="nvidia"))
    assert {row.status for row in rows.values()} == {"ok"}


def test_amds_device_node_and_shared_memory_are_asked_for(tmp_path, monkeypatch):
    proc, sys_folder, dev = machine(tmp_path)
    rows = by_topic(host.findings(proc, sys_folder, dev, tmp_path, vendor="amd"))
    assert rows["AMD device nodes"].status == "gap"
    assert "--device=/dev/kfd" in rows["AMD device nodes"].remedy
    (dev / "kfd").touch()
    monkeypatch.setattr(host, "ENOUGH_SHARED_BYTES", 1 << 60)
    rows = by_topic(host.findings(proc, sys_folder, dev, tmp_path, vendor="amd"))
    assert rows["AMD device nodes"].status == "ok"
    assert rows["Shared memory"].status == "gap"
    assert "--shm-size" in rows["Shared memory"].remedy


def test_a_folder_that_cannot_hold_rings_is_a_gap(tmp_path):
    proc, sys_folder, dev = machine(tmp_path)
    rows = by_topic(host.findings(proc, sys_folder, dev, Path("/proc/self/fd/none"), vendor=None))
    assert rows["Out folder"].status == "gap"
    assert "choose another folder with -o" in rows["Out folder"].remedy
    rows = by_topic(host.findings(proc, sys_folder, dev, tmp_path / "not" / "there" / "yet", vendor=None))
    assert rows["Out folder"].status == "ok"


class Listed(NullBackend):
    """GPUs and links that the test lists."""

    def __init__(self, gpus, links):
        super().__init__("")
        self._gpus, self._links = gpus, links

    def gpus(self):
        return self._gpus

    def links(self):
        return self._links


def gpus(count):
    return [Gpu(i, "nvidia", "H100", f"u{i}", f"p{i}", "580.1") for i in range(count)]


def test_denied_peer_access_names_the_pairs():
    links = [Link(0, 1, "nvlink", 4, 26_562_000_000, True), Link(1, 0, "pcie", 1, None, False)]
    rows = by_topic(devices.findings(Listed(gpus(2), links)))
    assert rows["GPU"].seen == "2 x H100"
    assert (rows["Peer access"].status, rows["Peer access"].seen) == ("gap", "denied from GPU 1 to 0")
    assert rows["Links"].seen == "GPU 0: 4 nvlink to GPU 1, 26.562 GB/s each"


def test_one_gpu_has_no_peers():
    rows = by_topic(devices.findings(Listed(gpus(1), [])))
    assert rows["Peer access"].status == "absent"
    assert "--backend virtual" in rows["Peer access"].remedy


def test_the_smallest_step_of_a_gpus_clock():
    readings = np.array([5, 5, 37, 69, 133, 133], np.uint64)
    assert gpu_clock.step_ns(readings, 10**9) == 32
    assert gpu_clock.step_ns(readings, 10**8) == 320
    assert gpu_clock.step_ns(readings[:2], 10**9) == 0


def test_the_kernel_that_reads_the_gpus_clock_compiles(tmp_path):
    if not (nvcc := shutil.which("nvcc")):
        pytest.skip("no nvcc here")
    (tmp_path / "clock.cu").write_text(gpu_clock.source())
    command = [nvcc, "-std=c++17", "-arch=sm_90", "-ptx", tmp_path / "clock.cu", "-o", tmp_path / "clock.ptx"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "globaltimer" in (tmp_path / "clock.ptx").read_text().split(".entry eidola_readings")[1]


def test_this_machine_is_examined_and_every_gap_has_a_remedy(tmp_path):
    findings = examine(Machine(out=tmp_path))
    assert {f.status for f in findings} <= STATUSES
    assert all(f.remedy for f in findings if f.status == "gap")
    assert by_topic(findings)["Python"].status == "ok"
    assert len(by_topic(findings)) >= 7


def test_the_command_prints_the_same_as_json_and_as_a_table(c_compiler, tmp_path):
    nccl(c_compiler, tmp_path, 24000, 9)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "COLUMNS": "300"}
    command = [sys.executable, "-c", "from eidola.cli.main import main; main()", "capture", "doctor"]

    def said(*options):
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    content = json.loads(said("--json"))
    rows = {row["topic"]: row for row in content["findings"]}
    assert rows["NCCL"]["status"] == "gap"
    assert "v9 to v9, newer than the plugin" in rows["NCCL"]["seen"]
    table = said()
    for topic, row in rows.items():
        line = next(line for line in table.splitlines() if line.startswith(topic))
        assert row["status"] in line
    for row in content["support"]:
        assert row["feature"] in table


def test_nvmls_answers_become_gpus_links_and_readings(c_compiler, tmp_path):
    pytest.importorskip("pynvml")
    compiled(c_compiler, Path(__file__).with_name("fake_nvml.c"), tmp_path / "libnvidia-ml.so.1")
    code = """
import importlib.util
import json
from dataclasses import asdict
from eidola.capture.gpus import find_backend
b = find_backend()
rows = lambda found: [list(asdict(row).values()) for row in found]
print(json.dumps([b.name, rows(b.gpus()), rows(b.links()), rows(b.readings()), rows(b.readings())]))
b.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    name, found, links, first, second = json.loads(done.stdout)
    assert name == "nvml"
    assert found == [
        [i, "nvidia", "Fake H1", f"GPU-{i}", f"00000000:{0x1A + i:02x}:00.0", "580.1"] for i in range(3)
    ]
    assert links == [
        [0, 1, "nvlink", 4, 26_562_000_000, True],
        [0, None, "nvlink", 2, 26_562_000_000, None],
        [0, 2, "pcie", 1, None, True],
        [1, 0, "nvlink", 4, 26_562_000_000, True],
        [1, 2, "pcie", 1, None, True],
        [2, 0, "pcie", 1, None, True],
        [2, 1, "pcie", 1, None, False],
    ]
    values = [{(gpu, name): value for gpu, name, value in rows} for rows in (first, second)]
    assert values[0][0, "sm_clock_mhz"] == 1980
    assert values[0][0, "power_mw"] == 71000
    assert (2, "power_mw") not in values[0]  # not supported: left out, not guessed
    assert (0, "pcie_rx_bytes") not in values[0]
    assert values[0][2, "pcie_tx_bytes"] == 7
    names = {name for gpu, name in values[0] if gpu == 1 and name.startswith("nvlink")}
    assert names == {f"nvlink{i}_{way}_kib" for i in range(4) for way in ("tx", "rx")}
    assert values[1][1, "nvlink3_rx_kib"] > values[0][1, "nvlink3_rx_kib"]


def test_amdsmis_answers_become_gpus_links_and_readings(c_compiler, tmp_path):
    """The package is the real one; below it, a library of stubs."""
    if not (package := importlib.util.find_spec("amdsmi")):
        pytest.skip("amdsmi is not installed")
    program = Path(__file__).with_name("amdsmi_stubs.py")
    wrapper = Path(package.origin).with_name("amdsmi_wrapper.py")
    source = subprocess.run([sys.executable, program, wrapper], capture_output=True, check=True).stdout
    (tmp_path / "stubs.c").write_bytes(source)
    compiled(c_compiler, tmp_path / "stubs.c", tmp_path / "libamd_smi.so")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "ROCM_PATH": str(tmp_path)}
    environment.pop("ROCM_HOME", None)
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found, links, readings = json.loads(done.stdout)
    assert [(gpu[0], gpu[1], gpu[4]) for gpu in found] == [
        (0, "amd", "0000:10:00.0"),
        (1, "amd", "0000:20:00.0"),
    ]
    assert links == [[0, 1, "xgmi", 1, 64_000_000_000, True], [1, 0, "xgmi", 1, 64_000_000_000, False]]
    assert {name: value for gpu, name, value in readings if gpu == 1} == {
        "gfx_clock_mhz": 2100,
        "memory_clock_mhz": 1300,
        "power_w": 140,  # the current one is 0xFFFF: not there
        "xgmi0_rx_kb": 1000,
        "xgmi0_tx_kb": 2000,
    }
