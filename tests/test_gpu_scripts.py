"""tests/gpu's commands on a machine without a GPU: they say so and leave nothing."""

import os
import shutil
import subprocess
import tarfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("gpu")
SCRIPTS = ["run.sh", "amd.sh"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_a_gpu_the_script_says_so_and_writes_nothing(name, tmp_path):
    if shutil.which("nvidia-smi") or Path("/dev/kfd").exists():
        pytest.skip("this machine has a GPU")
    done = subprocess.run(
        [FOLDER / name, tmp_path / "out"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"tests/gpu/{name}: no ")
    assert line.endswith("nothing was run")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name):
    if not (shellcheck := shutil.which("shellcheck")):
        pytest.skip("no shellcheck here")
    done = subprocess.run(
        [shellcheck, FOLDER / name], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture
def collect():
    spec = spec_from_file_location("collect", FOLDER / "collect.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("command", "status", "last"),
    [
        ("echo why; exit 7", 7, "why"),
        ("false | cat", 1, ""),
        ("echo begun; sleep 100 & sleep 100", "stopped at its limit", "begun"),
    ],
)
def test_a_step_ends_with_its_status_and_its_last_line(collect, command, status, last, tmp_path):
    with (tmp_path / "log").open("w") as log:
        told = collect.step("one", command, 2, log)
    assert (told["status"], told["last"]) == (status, last)


def test_captures_too_large_to_send_are_left_out_and_named(collect, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "LARGEST_BYTES", 20_000)
    (tmp_path / "captures").mkdir()
    for name, size in (("a", 100), ("large", 100_000), ("z", 100)):
        (tmp_path / "captures" / name).write_bytes(os.urandom(size))
    assert collect.pack(tmp_path / "captures", tmp_path / "captures.tar.gz") == ["large"]
    with tarfile.open(tmp_path / "captures.tar.gz") as packed:
        assert packed.getnames() == ["captures/a", "captures/z"]
    assert (tmp_path / "captures.tar.gz").stat().st_size < 20_000
