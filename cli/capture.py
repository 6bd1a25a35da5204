"""`eidola capture`: run beside real work and write raw records."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .capture_kernel import app as kernel
from .doctor import doctor

app = typer.Typer(no_args_is_help=True, help="Run beside real work and write raw records.")
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
