"""`eidola capture`: run beside real work and write raw records."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .doctor import doctor

app = typer.Typer(no_args_is_help=True, help="Run beside real work and write raw records.")
kernel = typer.Typer(no_args_is_help=True, help="Run and capture a fused computation-collective kernel.")
app.add_typer(kernel, name="kernel")
app.command()(doctor)


@app.command(context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(help="The command, after --: -- torchrun ... train.py")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Raw capture to write.")] = Path("out"),
    steps: Annotated[int, typer.Option(help="Steps that the profiler window of each rank covers.")] = 20,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Leave host names out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing raw capture.")] = False,
) -> None:
    """Run a PyTorch command unchanged and capture every rank; exits with the command's own code."""
    from ..capture.torch_run import run as run_captured

    code = run_captured(command, output, steps=steps, overwrite=overwrite, anonymous=anonymous)
    for failure in json.loads((output / "capture.json").read_text())["failures"]:
        typer.echo(f"eidola: a hook failed, the script went on: {failure}", err=True)
    typer.echo(f"wrote {output}; next: eidola convert captured {output} -o {output.name}.eidola", err=True)
    raise typer.Exit(code)


class Backend(StrEnum):
    """What runs the kernel."""

    host = "host"


@kernel.command("gemv-allreduce")
def gemv_allreduce(
    output: Annotated[Path, typer.Option("--output", "-o", help="Raw capture to write.")] = Path("out"),
    backend: Annotated[
        Backend, typer.Option(help="What runs it; host: CPU threads, truth for order, sizes and counts only.")
    ] = Backend.host,
    gpus: Annotated[int, typer.Option(help="Ranks.")] = 4,
    rows: Annotated[int, typer.Option("--rows", "-m", help="Rows; a multiple of --gpus.")] = 8192,
    columns: Annotated[int, typer.Option("--columns", "-k", help="Columns, split over the ranks.")] = 1024,
    workgroups: Annotated[int, typer.Option(help="Physical workgroups a rank.")] = 8,
    tile_rows: Annotated[int, typer.Option(help="Rows of a logical workgroup's tile.")] = 64,
    iterations: Annotated[int, typer.Option(help="Launches; the first is a warm-up.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of matrix and vectors.")] = 0,
    deadline: Annotated[float, typer.Option(help="Longest wait for one flag, in seconds.")] = 10.0,
    buffer_records: Annotated[int, typer.Option(help="Probe records kept a workgroup.")] = 16384,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Leave the host's name out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing raw capture.")] = False,
) -> None:
    """GEMV + AllReduce, two-phase direct: ranks write slices straight into their peers and raise flags."""
    from ..capture.host.gemv_allreduce import GemvAllReduce, capture_kernel

    spec = GemvAllReduce(
        gpus, rows, columns, workgroups, tile_rows, iterations, seed, deadline, buffer_records=buffer_records
    )
    run = capture_kernel(spec, output, overwrite=overwrite, anonymous=anonymous)
    kept = sum(len(records) for rank in run.records for records in rank)
    typer.echo(
        f"wrote {output}: {kept} of {int(run.emitted.sum())} records of {gpus} ranks on backend "
        f"{backend.value}, result checked; next: eidola convert captured {output} -o {output.name}.eidola"
    )
