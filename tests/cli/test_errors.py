"""What a user gets wrong: one paragraph that names the thing and the remedy, an exit code, no traceback."""

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from eidola.cli.main import main

TRACE = Path(__file__).resolve().parents[2] / "sample_traces/gemv_allreduce_host_2/trace.eidola"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder, files that are no TOML, JSON or CSV of ours, a trace, and a trace that is cut."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty").mkdir()
    (folder / "bad.toml").write_text("x = [")
    (folder / "odd.toml").write_text("foo = 1")
    (folder / "bad.json").write_text("not json")
    (folder / "odd.csv").write_text("a,b\n1,2\n")
    shutil.copytree(TRACE, folder / "t")
    shutil.copytree(TRACE, folder / "cut")
    (folder / "cut/waits/rank00000.parquet").write_bytes(b"x")
    return folder


WRONG = {  # a command: the thing that it names, the remedy
    "inspect nowhere": ("nowhere is no trace", "eidola convert"),
    "inspect empty": ("empty is no trace: it has no trace.json", "eidola convert"),
    "inspect bad.json": ("bad.json is no trace: it is a file", "eidola convert"),
    "inspect cut": ("cut/waits/rank00000.parquet", "eidola convert check cut"),
    "report empty": ("empty is neither", "eidola replay run"),
    "report t -o empty/a/b.html": ("empty/a/b.html cannot be written", "another -o"),
    "report t captured": ("t is no run: it is a trace", "eidola replay run"),
    "convert auto nowhere -o a": ("nowhere", "give files"),
    "convert auto bad.json -o a": ("recognised", "eidola convert FORMAT"),
    "convert kineto bad.json -o a": ("bad.json", "give a Kineto trace"),
    "convert captured empty -o a": ("empty is no raw capture", "capture.json"),
    "convert export nosuch t -o x": ("nosuch", "perfetto"),
    "replay run nowhere -o r": ("nowhere", "eidola convert"),
    "replay run t -o empty": ("empty", "--overwrite"),
    "replay run t -o r --fabric nosuch": ("nosuch", "hgx-h100"),
    "replay run t -o r --fabric bad.toml": ("bad.toml", "TOML"),
    "replay run t -o r --fabric odd.toml": ("'foo'", "keys are"),
    "replay run t -o r --fabric star --fabric-setting x=3": ("no setting x", "rate_gb_per_s"),
    "replay run t -o r --fabric-setting rate": ("--fabric-setting rate", "name=value"),
    "replay run t -o r --wait nosuch": ("nosuch", "spin 100ns"),
    "replay run t -o r --wait spin --poll-period fast": ("--poll-period fast", "100ns"),
    "replay run t -o r --algorithm all_reduce=nosuch": ("'nosuch'", "ring"),
    "replay run t -o r --algorithm nosuch=ring": ("--algorithm nosuch", "all_reduce"),
    "replay run t -o r --events bad.toml": ("bad.toml", "[[event]]"),
    "replay run t -o r --edit odd.toml": ("'foo'", "kernel"),
    "replay run t -o r --mode target --target 99": ("--target: GPU 99", "0 to 1"),
    "replay explain t": ("t is no run: it is a trace", "eidola replay run"),
    "replay compare nowhere": ("nowhere is no run: there is no such folder", "eidola replay run"),
    "replay verify t": ("t is no run", "eidola replay run"),
    "replay scale t -o s --schedule gpipe": ("t:", "--forward-ns"),
    "replay sweep odd.toml -o s": ("odd.toml", "a study has"),
    "replay interval empty": ("empty is no trace", "eidola convert"),
    "replay score odd.csv -o s": ("odd.csv", "needs"),
    "replay generate gemv-allreduce --gpus 3 -o g": ("--rows 8192", "8193"),
    "replay generate poisson -o g": ("no rate", "--rate-per-s"),
    "replay fabric star -o empty/a/b.svg": ("empty/a/b.svg cannot be written", "another -o"),
    "capture run -o c -- /no/such/program": ("/no/such/program", "cannot be started"),
    "capture kernel gemv-allreduce --gpus 3 -o k": ("8192", "multiple"),
}


@pytest.mark.parametrize("line", WRONG)
def test_one_paragraph_names_the_thing_and_the_remedy(line, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["eidola", *shlex.split(line)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err.strip()
    assert ended.value.code in (2, 3, 6)
    assert told.startswith("eidola: ")
    assert "\n" not in told
    assert all(text in told for text in WRONG[line])
    assert not {"r", "s", "g", "a", "x"} & {path.name for path in folder.iterdir()}
