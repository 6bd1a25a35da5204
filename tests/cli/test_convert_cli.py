"""`eidola convert` and `eidola inspect`, as commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRACES = Path(__file__).resolve().parents[2] / "../shared/traces"
MAIN = "import sys; from eidola.cli.main import main; sys.argv[0] = 'eidola'; main()"


def eidola(*arguments):
    return subprocess.run([sys.executable, "-c", MAIN, *map(str, arguments)], capture_output=True, text=True)


def small(folder, rank=0):
    events = [
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": 1, "dur": 2,
         "args": {"correlation": 1}},
        {"ph": "X", "cat": "kernel", "name": "[bold]k[/bold]", "pid": 0, "tid": 7, "ts": 2, "dur": 3,
         "args": {"device": 0, "stream": 7, "correlation": 1}},
    ]  # fmt: skip
    path = folder / f"rank{rank}.json"
    path.write_text(json.dumps({"distributedInfo": {"rank": rank, "world_size": 2}, "traceEvents": events}))
    return path


@pytest.fixture(scope="module")
def dlrm(tmp_path_factory):
    if not TRACES.exists():
        pytest.skip("shared/traces is absent")
    output = tmp_path_factory.mktemp("cli") / "dlrm.eidola"
    traces = sorted((TRACES / "kineto/v100_dlrm_8ranks").glob("*.gz"))
    others = sorted((TRACES / "execution_trace/v100_dlrm_8ranks").glob("*.gz"))
    done = eidola("convert", "kineto", *traces, "--execution-trace", *others, "-o", output)
    assert done.returncode == 0, done.stderr
    return output, done


def test_globs_of_traces_and_execution_traces_convert(dlrm):
    _, done = dlrm
    assert "24 all_reduce, 8 all_to_all, 32 all_to_allv; 8 operations matched" in done.stdout
    assert done.stderr == ""  # no progress bar where there is no terminal


def test_inspect_answers_the_first_questions(dlrm):
    path, _ = dlrm
    shown = eidola("inspect", path)
    assert shown.returncode == 0
    for text in (
        "Tesla V100-SXM2-32GB",
        "collective_ends",
        "all_to_allv",
        "host call",
        "skew us",
        "unnamed 0",
    ):
        assert text in shown.stdout
    summary = json.loads(eidola("inspect", path, "--json").stdout)
    assert [r["rank"] for r in summary["ranks"]] == list(range(8))
    reduce = summary["collectives"]["all_reduce"]
    assert (reduce["rank_records"], reduce["operations"], reduce["on_several_ranks"]) == (24, 3, 3)
    assert reduce["own_time_ns_median"] < reduce["skew_ns_median"]
    assert summary["spans"]["0"]["kernel"] == 245
    assert summary["dependencies"]["launch measured"] == 2116


def test_check_says_ok_or_names_what_is_wrong(dlrm, tmp_path):
    path, _ = dlrm
    good = eidola("convert", "check", path)
    assert (good.returncode, good.stdout) == (0, "ok\n")
    bad = eidola("convert", "check", tmp_path)
    assert bad.returncode == 3
    assert str(tmp_path) in bad.stdout


def test_the_report_is_json_on_request_and_silent_on_request(tmp_path):
    path = small(tmp_path)
    report = json.loads(eidola("convert", "kineto", path, "-o", tmp_path / "a", "--json").stdout)
    assert report["ranks"] == [0]
    assert report["missing_ranks"] == [1]
    assert eidola("convert", "kineto", path, "-o", tmp_path / "b", "-q").stdout == ""


def test_errors_are_one_paragraph_with_their_exit_code(tmp_path):
    path = small(tmp_path)
    assert eidola("convert", "kineto", path, "-o", tmp_path / "a").returncode == 0
    again = eidola("convert", "kineto", path, "-o", tmp_path / "a")
    assert again.returncode == 2
    assert again.stderr.startswith("eidola: ")
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr
    assert eidola("convert", "kineto", path, "-o", tmp_path / "a", "--overwrite").returncode == 0
    (tmp_path / "junk.json").write_bytes(b"\x00\x01")
    junk = eidola("convert", "kineto", tmp_path / "junk.json", "-o", tmp_path / "j")
    assert junk.returncode == 3
    assert "junk.json is no JSON" in junk.stderr
    assert not (tmp_path / "j").exists()


def test_inspect_refuses_what_is_no_trace(tmp_path):
    none = eidola("inspect", tmp_path)
    assert none.returncode == 3
    assert none.stderr.startswith("eidola: ")


def test_inspect_prints_a_runs_summary(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "run"}))
    (tmp_path / "summary.json").write_text(json.dumps({"end_ps": 5, "mode": "dependent"}))
    shown = eidola("inspect", tmp_path)
    assert "dependent" in shown.stdout
    assert json.loads(eidola("inspect", tmp_path, "--json").stdout)["run"]["end_ps"] == 5
