"""`eidola convert captured`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Quiet


def captured_command(
    raw: Annotated[Path, typer.Argument(help="Raw capture: the folder that `eidola capture` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Trace folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing trace.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print path and notes of the trace as JSON.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Convert a raw capture of this tool to a trace."""
    from ..convert.captured import captured
    from ..schemas import Trace
    from .progress import working

    with working("converting", enabled=not quiet):
        path = captured(raw, output, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps({"path": str(path), "notes": Trace(path).notes}, indent=1))
    elif not quiet:
        for note in Trace(path).notes.get("notes", []):
            typer.echo(note)
        typer.echo(f"wrote {path}; look at it with `eidola inspect {path}`")
