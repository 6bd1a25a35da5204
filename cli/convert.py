"""`eidola convert`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .captured import captured_command

_ET = "--execution-trace"

app = typer.Typer(no_args_is_help=True, help="Convert other tools' traces, and raw captures, to a trace.")
app.command("captured")(captured_command)


@app.callback()
def _callback() -> None:
    pass


class _Greedy(TyperCommand):
    """A command whose `--execution-trace` takes all names up to the next option, as a glob gives them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its file names."""
        spread: list[str] = []
        greedy = False
        for arg in args:
            if arg.startswith("-"):
                greedy = arg == _ET
                spread += [] if greedy else [arg]
            else:
                spread += [_ET, arg] if greedy else [arg]
        return super().parse_args(ctx, spread)


@app.command(cls=_Greedy)
def kineto(
    traces: Annotated[
        list[Path], typer.Argument(help="Kineto files (*.json, *.json.gz), or folders of them.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Trace folder to write.")],
    execution_trace: Annotated[
        list[Path] | None,
        typer.Option(_ET, help="ExecutionTrace files, or a folder of them, after the traces."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing trace.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Convert PyTorch profiler traces, one file a rank, to a trace."""
    from ..convert import kineto as convert_kineto
    from .progress import progress

    with progress(enabled=not quiet) as show:
        report = convert_kineto(traces, output, execution_trace or (), overwrite=overwrite, progress=show)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    elif not quiet:
        typer.echo("\n".join([*report.lines(), f"look at it with `eidola inspect {output}`"]))


@app.command()
def check(trace: Annotated[Path, typer.Argument(help="Trace or run folder.")]) -> None:
    """Check a trace against the schema: a line a problem, exit code 3 where it breaks the schema."""
    from ..schemas import check as check_folder

    problems = check_folder(trace)
    for problem in problems:
        typer.echo(str(problem))
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(3)
    typer.echo("ok")
