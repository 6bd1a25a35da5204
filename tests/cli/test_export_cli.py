"""`eidola convert export`, as a command."""

import json
import subprocess
import sys
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[2] / "sample_traces/gemv_allreduce_host_2/trace.eidola"
MAIN = "import sys; from eidola.cli.main import main; sys.argv[0] = 'eidola'; main()"


def eidola(*arguments):
    return subprocess.run([sys.executable, "-c", MAIN, *map(str, arguments)], capture_output=True, text=True)


def test_an_export_says_what_it_wrote_and_what_was_lost(tmp_path):
    done = eidola("convert", "export", "goal", SAMPLE, "-o", tmp_path / "x.goal", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["written"]["sends"] == report["written"]["recvs"] > 0
    assert report["lost"]
    again = eidola("convert", "export", "goal", SAMPLE, "-o", tmp_path / "x.goal")
    assert again.returncode == 2
    assert "pass --overwrite" in again.stderr
    assert len(again.stderr.splitlines()) == 1
