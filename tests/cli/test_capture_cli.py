import subprocess
import sys

import pytest

from eidola.schemas import Trace


def eidola(*arguments, cwd, path=None):
    code = "from eidola.cli.main import main; main()"
    environment = {"PATH": path} if path is not None else None
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


KERNEL = ("capture", "kernel", "gemv-allreduce", "--backend", "host")


def test_a_kernel_is_captured_converted_and_read(tmp_path):
    made = eidola(*KERNEL, "--gpus", "2", "-m", "256", "-k", "32", "-o", "raw", cwd=tmp_path)
    if made.returncode == 6:
        pytest.skip(made.stderr)
    assert made.returncode == 0, made.stderr
    assert "result checked" in made.stdout
    converted = eidola("convert", "captured", "raw", "-o", "k.eidola", cwd=tmp_path)
    assert converted.returncode == 0, converted.stderr
    assert Trace(tmp_path / "k.eidola").ranks() == [0, 1]


def test_a_machine_without_a_compiler_is_told_of_the_bundled_capture(tmp_path):
    done = eidola(*KERNEL, "-o", "raw", cwd=tmp_path, path=str(tmp_path))
    assert done.returncode == 6
    assert "no C compiler" in done.stderr
    assert "sample_traces/gemv_allreduce_host_4" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_arguments_that_make_no_sense_are_refused_in_one_paragraph(tmp_path):
    done = eidola(*KERNEL, "--gpus", "3", "-m", "100", "-o", "raw", cwd=tmp_path)
    assert done.returncode == 2
    assert "no multiple of gpus 3" in done.stderr
    assert "Traceback" not in done.stderr
