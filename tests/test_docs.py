"""Pages whose commands run as they are written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAIN = "import sys; from eidola.cli.main import main; sys.argv[0] = 'eidola'; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("docs")
    (path / "sample_traces").symlink_to(ROOT / "sample_traces")
    return path


def eidola(folder, *words):
    return subprocess.run([sys.executable, "-c", MAIN, *words], cwd=folder, capture_output=True, text=True)


def test_a_job_goes_from_8_to_1024_gpus(folder):
    page = (ROOT / "docs/eight_to_1024.md").read_text()
    for line in re.findall(r"^    eidola (.*)$", page, re.M):
        done = eidola(folder, *line.split())
        assert done.returncode == 0, (line, done.stderr)
    told = json.loads(eidola(folder, "replay", "compare", "run8", "run1024", "--json").stdout)
    reduces = [row for row in told["collectives"] if row["operation"] == "all_reduce"]
    for what, row in (("first", reduces[0]), ("last", reduces[-1])):
        a, b = re.search(rf"\| the {what} all_reduce.*?\| ([\d.]+) \| ([\d.]+) \|", page).groups()
        assert row["a_ps"] / 1e6 == pytest.approx(float(a), abs=0.06)
        assert row["b_ps"] / 1e6 == pytest.approx(float(b), abs=0.06)


def test_the_first_five_minutes_run_as_they_are_written(folder):
    page = (ROOT / "docs/index.md").read_text()
    lines = re.findall(r"^    eidola (.*)$", page, re.M)
    assert [line.split()[0] for line in lines] == ["inspect", "replay", "replay", "report"]
    for line in lines:
        done = eidola(folder, *line.split(), *(["--overwrite"] if " run " in f" {line} " else []))
        assert done.returncode == 0, (line, done.stderr)
    assert "the largest share" in eidola(folder, "replay", "explain", "run").stdout


def test_a_newcomer_needs_five_commands_from_clone_to_report(folder):
    """Those of the README, with PyTorch profiles as the newcomer's own."""
    block = re.search(
        r"^## Start\n.*?\n\n((?:    [^\n]+\n)+)", (ROOT / "README.md").read_text(), re.M | re.S
    )[1]
    commands = [line.split("  #")[0].strip() for line in block.splitlines()]
    assert len(commands) <= 5
    profiles = sorted((ROOT.parent / "shared/traces/kineto/v100_dlrm_8ranks").glob("*.json.gz"))
    if not profiles:
        pytest.skip("no Kineto traces beside the repository")
    (folder / "traces").mkdir()
    for profile in profiles:
        (folder / "traces" / profile.name).symlink_to(profile)
    for line in commands:
        if line.startswith("eidola "):
            globbed = (
                sorted(map(str, folder.glob(word))) if "*" in word else [word] for word in line.split()
            )
            words = [name for names in globbed for name in names][1:]
            done = eidola(folder, *words, *(["--overwrite"] if "run" in words else []))
            assert done.returncode == 0, (line, done.stderr)
    assert (folder / "report.html").stat().st_size > 1_000_000
