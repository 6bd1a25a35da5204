"""The public entry: a trace in, the folder of a run out."""

import json
from pathlib import Path

import pytest

from eidola.replay import monitor, replay, spin, verify
from eidola.schemas import InputError, Trace, UsageError, check

from .traces import span, write_trace

SAMPLES = Path(__file__).resolve().parents[2] / "sample_traces"
GEMV = SAMPLES / "gemv_allreduce_host_2/trace.eidola"


def test_a_run_is_a_folder_that_keeps_to_the_schema(tmp_path):
    run = replay(GEMV, tmp_path / "run", fabric="star", wait=spin(500), command="eidola replay run")
    assert check(run.path) == []
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["gpus"] == summary["captured_ranks"] == 2
    assert summary["backends"] == ["host"]
    assert summary["makespan_ps"] == max(run.read("agents")["end_ps"].to_pylist())
    assert summary["flag_reads"] == sum(run.read("waits")["polls"].to_pylist())
    assert summary["extrapolated"] == []
    assert summary["results_hash"] == run.manifest["results_hash"]
    assert run.manifest["arguments"]["fabric"] == "star"


def test_two_runs_and_both_engines_have_one_hash(tmp_path):
    runs = [replay(GEMV, gpus=4, fabric="star", engine=e) for e in ("compiled", "compiled", "reference")]
    assert len({run.manifest["results_hash"] for run in runs}) == 1
    assert (
        replay(GEMV, gpus=4, fabric="star", wait=monitor(5)).manifest["results_hash"]
        != runs[0].manifest["results_hash"]
    )


def test_a_run_verifies_from_its_manifest_alone(tmp_path):
    trace = Trace(write_trace(tmp_path / "t", {0: {"spans": [span(0, "stream 7", 5, 90)]}}).path)
    run = replay(trace, tmp_path / "run", gpus=3, law="strong")
    assert verify(tmp_path / "run").manifest["results_hash"] == run.manifest["results_hash"]
    write_trace(trace.path, {0: {"spans": [span(0, "stream 7", 5, 91)]}})
    with pytest.raises(InputError, match="has changed since"):
        verify(run)


def test_what_was_extrapolated_is_listed(tmp_path):
    notes = replay(GEMV, gpus=8).summary["extrapolated"]
    assert notes[0] == "GPUs 0..7 repeat captured ranks 0..1, as one group"
    assert "weak scaling" in notes[1]


def test_progress_tells_every_stage():
    stages = []
    replay(GEMV, progress=lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["lowering", "running", "writing", "done"]


def test_a_refused_run_leaves_nothing(tmp_path):
    with pytest.raises(UsageError):
        replay(GEMV, tmp_path / "run", gpus=4, fabric="nowhere")
    with pytest.raises(UsageError):
        replay(GEMV, tmp_path / "run", mode="target", targets=[9])
    assert list(tmp_path.iterdir()) == []
