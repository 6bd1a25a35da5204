"""`eidola convert export`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Quiet


def export_command(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="chakra, goal, perfetto or writes.")],
    source: Annotated[Path, typer.Argument(help="Trace folder; for goal and perfetto also a run folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write; for chakra, a folder.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a trace or a run as what other tools read: Chakra, GOAL, Perfetto, or a CSV list of peer writes."""
    from ..convert.export import export
    from .progress import progress

    with progress(enabled=not quiet) as show:
        report = export(format_name, source, output, overwrite=overwrite, progress=show)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    elif not quiet:
        typer.echo("\n".join(report.lines()))
