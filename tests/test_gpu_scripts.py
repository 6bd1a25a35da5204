"""tests/gpu's commands on a machine without a GPU: they say so and leave nothing."""

import shutil
import subprocess
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
