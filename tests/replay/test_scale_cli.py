"""`eidola replay scale` as a user runs it: a real process."""

import json
import subprocess
import sys

import pytest

from eidola.schemas import Trace

from .jobs import job
from .traces import collective, span, write_trace

EIDOLA = [sys.executable, "-c", "from eidola.cli.main import main; main()"]


def eidola(*args, code=0):
    done = subprocess.run([*EIDOLA, *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def stages(path, weight=False, annotated=True):
    """Two pipeline stages of two micro-batches; stage 1 takes twice as long; a send of 4 KiB."""
    rows = {}
    for rank in range(2):
        spans, at = [], 0
        for kind, length in (("Forward", 100), ("Backward", 200), ("Weight", 50))[: 3 if weight else 2]:
            for i in range(2):
                name = f"{kind} {i}" if annotated else "work"
                spans.append(span(len(spans), "thread 1", at, at + 40, "annotation", name))
                kernel = span(len(spans), "stream 7", at + 90, at + 90 + length * (rank + 1))
                spans.append({**kernel, "launch_ns": at + 20})
                at += 1000
        operation = "recv" if rank else "send"
        rows[rank] = {
            "spans": spans,
            "collectives": [collective(None, 0, at, at + 10, operation, 4096, "pp", peer=1 - rank)],
            "communicators": [{"communicator": "pp", "group_rank": rank, "group_size": 2}],
        }
    return write_trace(path, rows)


def test_a_job_at_another_shape(tmp_path):
    job(tmp_path / "t")
    arguments = ["--to", 32, "--tensor-parallel", 4, "--seed", 3]
    done = eidola("replay", "scale", tmp_path / "t", *arguments, "-o", tmp_path / "s")
    assert "32 ranks" in done.stdout
    assert "28 added, marked virtual" in done.stdout
    made = Trace(tmp_path / "s")
    assert made.ranks() == list(range(32))
    assert made.notes["arguments"]["parallel"] == {"tensor": 4}
    assert "--tensor-parallel 4" in made.notes["command"]
    eidola("replay", "scale", tmp_path / "t", *arguments, "-o", tmp_path / "s", code=2)
    told = eidola(
        "replay", "scale", tmp_path / "t", *arguments, "-o", tmp_path / "s", "--overwrite", "--json"
    )
    assert json.loads(told.stdout)["extrapolated"] == made.notes["extrapolated"]


def test_edits_and_axes_from_the_command_line(tmp_path):
    job(tmp_path / "t", mesh="unnamed")
    edits = tmp_path / "e.toml"
    edits.write_text('[[kernel]]\nmatch = "gemm"\nfactor = 0.5\n')
    command = ["replay", "scale", tmp_path / "t", "--data-parallel", 4, "--edit", edits, "-o"]
    done = eidola(*command, tmp_path / "s", "--axis", "t0=tensor")
    assert "4 spans like 'gemm' x 1/2" in done.stdout
    assert "tensor axis (given)" in done.stdout
    refused = eidola(*command, tmp_path / "x", "--axis", "t0=sideways", code=2)
    assert "the axes are tensor, context, expert, data, pipeline" in refused.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved", "zb-h1"])
def test_a_schedule_from_measured_passes(tmp_path, schedule):
    stages(tmp_path / "t", weight=True)
    more = ["--chunks", 2] if schedule == "interleaved" else []
    shape = ["--pipeline-parallel", 4, "--micro-batches", 8, "--schedule", schedule, *more]
    eidola("replay", "scale", tmp_path / "t", *shape, "-o", tmp_path / "s")
    made = Trace(tmp_path / "s").notes["pipeline"]
    assert made["forward_ns"] == [75] * 4  # 100 and 200 on two stages: 300 on four
    apart = schedule == "zb-h1"
    assert made["backward_ns"] == [150 if apart else 150 + 37] * 4
    assert made["weight_ns"] == ([37] * 4 if apart else [])
    assert made["activation_bytes"] == 4096


def test_captured_stages_keep_their_own_durations(tmp_path):
    stages(tmp_path / "t")
    eidola(
        "replay", "scale", tmp_path / "t", "--schedule", "1f1b", "--micro-batches", 6, "-o", tmp_path / "s"
    )
    made = Trace(tmp_path / "s").notes["pipeline"]
    assert (made["forward_ns"], made["backward_ns"]) == ([100, 200], [200, 400])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--schedule", "zb-h1"], "annotations like `Weight 3`; give --forward-ns"),
        (["--schedule", "1f1b", "--forward-ns", 5], "give both --forward-ns and --backward-ns"),
        (["--schedule", "1f1b", "--forward-ns", 5, "--backward-ns", 5], "give --pipeline-parallel"),
        (["--schedule", "1f1b", "--data-parallel", 5], "one pipeline, a GPU a stage"),
        (["--micro-batches", 5], "are for --schedule"),
        (["--pipeline-parallel", 4], "another depth is another schedule"),
    ],
)
def test_what_a_pipeline_lacks_is_said(tmp_path, options, message):
    stages(tmp_path / "t")
    done = eidola("replay", "scale", tmp_path / "t", *options, "-o", tmp_path / "s", code=2)
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "s").exists()


def test_passes_that_nobody_annotated_are_asked_for(tmp_path):
    stages(tmp_path / "t", annotated=False)
    done = eidola("replay", "scale", tmp_path / "t", "--schedule", "1f1b", "-o", tmp_path / "s", code=2)
    assert "annotations like `Forward 3`" in done.stderr
    job(tmp_path / "j")
    done = eidola("replay", "scale", tmp_path / "j", "--schedule", "1f1b", "-o", tmp_path / "s", code=2)
    assert "its ranks are tensor 2, data 2" in done.stderr
