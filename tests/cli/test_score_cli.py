"""`eidola replay score` and `interval` as a user runs them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EIDOLA = [sys.executable, "-c", "from eidola.cli.main import main; main()"]
FILE = """table_id,system,ranks,interconnect,library_version,algorithm_or_env,operation,size_bytes,time_us
t,"B200, 8 per node",8,NVLink5 NVSwitch,NCCL,default,all_reduce,1024,25.5
t,"B200, 8 per node",8,NVLink5 NVSwitch,NCCL,default,all_reduce,1073741824,2600
t,Cray-1,8,wires,NCCL,default,all_reduce,1024,1
"""
PAGE = "# Mine\n\nbefore\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n"


def eidola(*arguments, cwd):
    return subprocess.run(
        [*EIDOLA, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "m.csv").write_text(FILE)
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path


def test_a_file_becomes_a_folder_and_the_measured_part_of_a_page(folder):
    done = eidola("replay", "score", "m.csv", "-o", "out", "--into", "page.md", "--jobs", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "3 rows, 2 judged" in done.stdout
    with (folder / "out/validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["covered"] == "true" for row in rows] == [True, True, False]
    page = (folder / "page.md").read_text()
    assert page.startswith("# Mine\n\nbefore\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    assert "Cray-1" in page
    assert (folder / "validation/hgx-b200-one-box.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.csv", "-o", "out"), "none.csv: No such file"),
        (("page.md", "-o", "out"), "page.md: row 1 has no column table_id"),
        (("m.csv", "-o", "m.csv"), "-o m.csv: File exists"),
        (
            ("m.csv", "-o", "out", "--into", "m.csv", "--jobs", "1"),
            "m.csv: has no lines <!-- measured: begin -->",
        ),
    ],
)
def test_mistakes_are_one_line_each(folder, arguments, said):
    done = eidola("replay", "score", *arguments, cwd=folder)
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_interval_is_printed_for_the_step_and_every_collective(folder):
    trace = ROOT / "sample_traces/gloo_ddp_4/trace.eidola"
    done = eidola("replay", "interval", trace, "--seeds", 3, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["intervals"][0]["what"] == "step"
    assert all(row["low_ps"] <= row["high_ps"] for row in found["intervals"])
    assert found["drawn"] > 0
