"""`eidola convert captured`."""

from pathlib import Path
from typing import Annotated

import typer


def captured_command(
    raw: Annotated[Path, typer.Argument(help="Raw capture: the folder that `eidola capture` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Trace folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing trace.")] = False,
) -> None:
    """Convert a raw capture of this tool to a trace."""
    from ..convert.captured import captured

    path = captured(raw, output, overwrite=overwrite)
    typer.echo(f"wrote {path}; look at it with `eidola inspect {path}`")
