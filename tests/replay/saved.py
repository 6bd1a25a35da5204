"""Runs of programs built by hand, saved as folders of results."""

from pathlib import Path

from eidola.replay import Fabric, Outcome, Program, run
from eidola.schemas import Results, ResultsWriter


def save(outcome: Outcome, path: Path, **inputs: object) -> Results:
    with ResultsWriter(path) as writer:
        outcome.write(writer)
        digest = writer.results_hash()
        writer.summary = {"makespan_ps": outcome.makespan_ps, "results_hash": digest}
        writer.manifest = {"results_hash": digest, **inputs}
    return Results(path)


def saved(program: Program, fabric: Fabric, path: Path, **options: object) -> Results:
    return save(run(program, fabric, **options), path)
