"""The replay commands, as a user runs them: real processes on tiny traces."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eidola.cli.durations import parse_ps
from eidola.schemas import TraceWriter, UsageError

SAMPLE = Path(__file__).parents[2] / "sample_traces/gemv_allreduce_host_2/trace.eidola"
EIDOLA = [sys.executable, "-c", "from eidola.cli.main import main; main()"]


def eidola(*args, cwd, code=0):
    done = subprocess.run([*EIDOLA, *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the trace job.eidola of two ranks (a kernel, then an all-reduce of 1 MB), and its run."""
    folder = tmp_path_factory.mktemp("cli")
    with TraceWriter(folder / "job.eidola") as writer:
        for rank in range(2):
            writer.write("ranks", rank, {"backend": ["gpu"], "host": ["a"], "device": [rank]})
            group = {"communicator": ["0"], "group_rank": [rank], "group_size": [2], "name": ["default"]}
            writer.write("communicators", rank, group)
            spans = {"span": [0, 1], "lane": ["stream 7"] * 2, "kind": ["kernel"] * 2,
                     "name": ["gemm", "ncclKernel"], "start_ns": [1000, 9000],
                     "end_ns": [9000, 29000]}  # fmt: skip
            writer.write("spans", rank, spans)
            part = {"span": [1], "communicator": ["0"], "sequence": [0], "operation": ["all_reduce"],
                    "dtype": ["Float"], "size_bytes": [1_000_000], "start_ns": [9000],
                    "end_ns": [29000]}  # fmt: skip
            writer.write("collectives", rank, part)
    eidola("replay", "run", "job.eidola", "--fabric", "star", "-o", "run", cwd=folder)
    return folder


def test_run_says_what_takes_the_time_the_law_and_the_hash(folder):
    text = eidola(
        "replay", "run", "job.eidola", "--gpus", 8, "--fabric", "star", "-o", "eight", cwd=folder
    ).stdout
    assert "the largest share" in text
    assert "the limiting link is" in text
    assert "law: weak" in text
    assert json.loads((folder / "eight/manifest.json").read_text())["results_hash"] in text


def test_run_prints_its_summary_as_json(folder):
    done = eidola("replay", "run", "job.eidola", "--fabric", "star", "-o", "js", "--json", cwd=folder)
    assert json.loads(done.stdout) == json.loads((folder / "js/summary.json").read_text())


def test_quiet_prints_nothing_and_both_engines_agree(folder):
    args = ("replay", "run", "job.eidola", "--fabric", "star", "--engine", "reference", "-o", "ref", "-q")
    done = eidola(*args, cwd=folder)
    assert (done.stdout, done.stderr) == ("", "")
    assert "the same" in eidola("replay", "compare", "run", "ref", cwd=folder).stdout


def test_an_existing_run_is_replaced_only_when_told(folder):
    args = ("replay", "run", "job.eidola", "-o", "twice", "-q")
    eidola(*args, cwd=folder)
    assert "--overwrite" in eidola(*args, cwd=folder, code=2).stderr
    eidola(*args, "--overwrite", cwd=folder)


def test_settings_and_algorithms_change_the_run(folder):
    args = ("--fabric", "star", "--fabric-setting", "rate_gb_per_s=25", "--algorithm", "all_reduce=ring")
    eidola("replay", "run", "job.eidola", *args, "-o", "slow", "-q", cwd=folder)
    found = json.loads(eidola("replay", "compare", "run", "slow", "--json", cwd=folder).stdout)
    changed = {row["input"] for row in found["inputs"]}
    assert {"arguments.fabric_settings.rate_gb_per_s", "arguments.algorithms.all_reduce"} <= changed
    assert found["difference_ps"] > 0


def test_a_run_of_waits_that_read_no_flag_says_so(tmp_path):
    args = ("replay", "run", SAMPLE, "--mode", "target", "--fabric", "ideal")
    assert "reads no flag" in eidola(*args, "-o", "ideal", cwd=tmp_path).stdout
    assert "reads no flag" not in eidola(*args, "--wait", "spin", "-o", "spin", cwd=tmp_path).stdout


def test_wait_policies_reach_the_manifest(folder):
    args = ("--wait", "spin", "--poll-period", "0.5us", "-o", "spin", "-q")
    eidola("replay", "run", "job.eidola", *args, cwd=folder)
    wait = json.loads((folder / "spin/manifest.json").read_text())["arguments"]["wait"]
    assert wait["period_ps"] == 500_000


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--wait", "spin", "--poll-period", "100"), "such as 100ns"),
        (("--wait", "spin", "--poll-period", "0ns"), "at least 1ps"),
        (("--algorithm", "all_reduce"), "as in name=value"),
        (("--algorithm", "all_reduce=magic"), "magic"),
        (("--fabric", "star", "--fabric-setting", "colour=3"), "no setting colour"),
        (("--fabric", "nothing"), "no fabric 'nothing'"),
        (("--segment-bytes", "-1"), "--segment-bytes"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(folder, args, says):
    assert says in eidola("replay", "run", "job.eidola", *args, "-o", "bad", cwd=folder, code=2).stderr
    assert not (folder / "bad").exists()


def test_a_folder_that_is_no_trace_is_an_input_error(folder):
    eidola("replay", "run", "missing.eidola", "-o", "bad", cwd=folder, code=3)
    eidola("replay", "explain", "job.eidola", cwd=folder, code=3)


def test_an_interrupted_run_exits_130_and_leaves_nothing(folder):
    args = ["replay", "run", "job.eidola", "--fabric", "star", "--gpus", "64", "-o", "cut"]
    args += ["--engine", "reference", "--segment-bytes", "16"]
    with subprocess.Popen([*EIDOLA, *args], cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(4)  # the SimPy engine takes minutes for this
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == "eidola: interrupted; nothing that looks complete was left behind"
    assert "Traceback" not in said
    assert not list(folder.glob("*cut*"))


def test_explain_ranks_causes_that_sum_to_the_makespan(folder):
    found = json.loads(eidola("replay", "explain", "run", "--json", "--top", 1000, cwd=folder).stdout)
    assert sum(cause["duration_ps"] for cause in found["causes"]) == found["makespan_ps"]
    text = eidola("replay", "explain", "run", cwd=folder).stdout
    assert found["sentence"] in text
    assert "kernel gemm" in text


def test_explain_of_a_run_without_messages_names_the_remedy(folder):
    eidola("replay", "run", "job.eidola", "--record", "none", "-o", "bare", "-q", cwd=folder)
    assert "--record messages" in eidola("replay", "explain", "bare", cwd=folder, code=2).stderr


def test_compare_with_the_capture_gives_the_error_of_each_collective(folder):
    found = json.loads(eidola("replay", "compare", "run", "captured", "--json", cwd=folder).stdout)
    (row,) = found["collectives"]
    assert (row["operation"], row["b_ps"], row["ranks_b"]) == ("all_reduce", 20_000_000, 2)
    assert found["errors"]["collectives_worst"] == pytest.approx(abs(row["a_ps"] - 20e6) / 20e6)
    with_trace = json.loads(eidola("replay", "compare", "run", "job.eidola", "--json", cwd=folder).stdout)
    assert with_trace["collectives"] == found["collectives"]


def test_verify_makes_the_run_again_and_refuses_another_result(folder):
    assert "the same results again" in eidola("replay", "verify", "run", cwd=folder).stdout
    eidola("replay", "run", "job.eidola", "--fabric", "star", "-o", "forged", "-q", cwd=folder)
    file = folder / "forged/manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"results_hash": "0" * 64}))
    assert "gives results hash" in eidola("replay", "verify", "forged", cwd=folder, code=3).stderr
    file.write_text(json.dumps(manifest | {"results_hash_version": 1}))
    assert "hash is of definition 1" in eidola("replay", "verify", "forged", cwd=folder, code=3).stderr


def test_fabric_lists_links_and_checks_routes(folder):
    found = json.loads(eidola("replay", "fabric", "star", "--gpus", 4, "--json", cwd=folder).stdout)
    assert found["pairs_by_links"] == {"2": 12}
    assert sum(link["count"] for link in found["links"]) == 8
    assert found["bisection_mb_per_s"] == 100_000
    assert found["paths"] == {"pairs": 12, "paths": [1, 1.0, 1], "links": [2, 2.0, 2]}
    shown = eidola("replay", "fabric", "star", "--gpus", 4, "-o", "star.svg", cwd=folder).stdout
    assert "all 12 pairs have a route" in shown
    assert "first half of the GPUs" in shown
    assert (folder / "star.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("text", "ps"),
    [("100ns", 100_000), ("1.5us", 1_500_000), ("2 ms", 2 * 10**9), ("0.001ns", 1), ("1s", 10**12)],
)
def test_durations_have_units(text, ps):
    assert parse_ps(text, "--x") == ps


@pytest.mark.parametrize("text", ["100", "-1ns", "1ns2", "0.5ps", "nan", "1e3ns", ""])
def test_other_durations_are_refused(text):
    with pytest.raises(UsageError, match="--x"):
        parse_ps(text, "--x")
