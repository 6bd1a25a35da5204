"""`eidola replay scale`: a captured job at other GPU counts and shapes, as an ordinary trace."""

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..schemas.errors import UsageError
from .options import Quiet
from .replay_run import Law, parse_settings

if TYPE_CHECKING:
    from ..schemas import Trace

EXAMPLES = """Examples:

eidola replay scale job.eidola --to 1024 -o job1024.eidola

eidola replay scale job.eidola --to 1024 --data-parallel 128 --tensor-parallel 8 -o big.eidola

eidola replay scale stages.eidola --pipeline-parallel 8 --micro-batches 32 --schedule zb-h1 -o deep.eidola"""

Schedule = StrEnum(
    "Schedule", {"gpipe": "gpipe", "one_f_one_b": "1f1b", "interleaved": "interleaved", "zb_h1": "zb-h1"}
)
Axis = Annotated[int | None, typer.Option(min=1, help="Ranks of the axis; default: as captured.")]
TimeNs = Annotated[
    int | None, typer.Option(help="With --schedule: of a stage and micro-batch; default: measured.")
]


def scale_command(
    trace: Annotated[Path, typer.Argument(help="Trace folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Trace to write.")],
    to: Annotated[int | None, typer.Option(min=1, help="GPUs; default: what the axes make.")] = None,
    data_parallel: Axis = None,
    tensor_parallel: Axis = None,
    expert_parallel: Axis = None,
    context_parallel: Axis = None,
    pipeline_parallel: Axis = None,
    axis: Annotated[
        list[str] | None, typer.Option(metavar="NAME=AXIS", help="What a communicator is, such as 7=tensor.")
    ] = None,
    law: Annotated[Law, typer.Option(help="A GPU keeps its batch, or the batch is divided.")] = Law.weak,
    replicas: Annotated[
        bool, typer.Option("--replicas", help="Repeat the whole job; nothing grows.")
    ] = False,
    fill: Annotated[bool, typer.Option("--fill", help="Let captured ranks stand for missing ones.")] = False,
    edit: Annotated[Path | None, typer.Option(help="TOML of what-ifs; see docs/scaling.md.")] = None,
    seed: Annotated[int, typer.Option(help="Start of the draws of added ranks' steps.")] = 0,
    schedule: Annotated[
        Schedule | None, typer.Option(help="Make a pipeline of this schedule from measured passes.")
    ] = None,
    micro_batches: Annotated[
        int | None, typer.Option(min=1, help="With --schedule; default: as captured.")
    ] = None,
    chunks: Annotated[
        int | None, typer.Option(min=1, help="With --schedule interleaved: chunks a stage.")
    ] = None,
    forward_ns: TimeNs = None,
    backward_ns: TimeNs = None,
    weight_ns: TimeNs = None,
    activation_bytes: Annotated[
        int | None,
        typer.Option(min=0, help="With --schedule: what a stage sends the next; default: measured."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing trace.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trace's notes as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write the trace of a captured job at other GPU counts, by the laws of its axes."""
    from ..replay import make_pipeline, read_edits, write_scaled, write_schedule
    from ..replay.edits import NONE
    from .progress import progress

    command = shlex.join(["eidola", *sys.argv[1:]])
    sizes = {
        "tensor": tensor_parallel, "context": context_parallel, "expert": expert_parallel,
        "data": data_parallel, "pipeline": pipeline_parallel,
    }  # fmt: skip
    parallel = {name: size for name, size in sizes.items() if size is not None}
    times = (forward_ns, backward_ns, weight_ns, activation_bytes, chunks, micro_batches)
    if schedule is None:
        if any(value is not None for value in times):
            raise UsageError("micro-batches, chunks and durations of passes are for --schedule; give one")
        with progress(enabled=not quiet) as show:
            made = write_scaled(
                trace, output, gpus=to, replicas=replicas, fill=fill, parallel=parallel,
                law="strong" if law is Law.strong else "weak",
                axes={name: str(value) for name, value in parse_settings(axis, "--axis").items()},
                edits=read_edits(edit) if edit else NONE, seed=seed, overwrite=overwrite, command=command,
                progress=lambda done, total: show("scaling", done, total),
            )  # fmt: skip
    else:
        if set(parallel) - {"pipeline"} or edit or replicas or to not in (None, pipeline_parallel):
            raise UsageError(
                "--schedule makes one pipeline, a GPU a stage: give --pipeline-parallel and no other shape, then "
                "scale what it writes"
            )
        pipeline, told = make_pipeline(
            trace, schedule.value, stages=pipeline_parallel, micro_batches=micro_batches, chunks=chunks,
            forward_ns=forward_ns, backward_ns=backward_ns, weight_ns=weight_ns, activation_bytes=activation_bytes,
        )  # fmt: skip
        made = write_schedule(pipeline, output, notes=told, overwrite=overwrite, command=command)
    if not quiet:
        _show(made, as_json)


def _show(made: "Trace", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"path": str(made.path), **made.notes}, indent=1, default=str))
        return
    typer.echo(f"{made.path}: {len(made.ranks())} ranks")
    for note in made.notes["extrapolated"]:
        typer.echo(f"  {note}")
