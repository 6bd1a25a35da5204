"""`eidola capture doctor`: what this machine can capture."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, Quiet
from .progress import working

STYLES = {"ok": "green", "gap": "yellow", "absent": "dim"}


def doctor(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that captures will be written to.")
    ] = Path(),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what this machine can capture, and what to do about each gap."""
    from ..capture.doctor import Machine, examine
    from ..capture.support import labels

    with working("looking at this machine", enabled=not quiet):
        findings = examine(Machine(out=output))
    if as_json:
        content = {"findings": [f.as_json() for f in findings], "support": labels()}
        typer.echo(json.dumps(content, indent=1))
        return
    if quiet:
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "", "seen", "what to do"):
        table.add_column(name, overflow="fold")
    for f in findings:
        style = STYLES[f.status]
        table.add_row(f.topic, f"[{style}]{f.status}[/]", escape(f.seen), escape(f.remedy))
    console = Console()
    console.print(table)
    support = Table("what it has been tried on", *labels()[0]["vendors"], box=None, pad_edge=False)
    for row in labels():
        support.add_row(row["feature"], *(escape(text) for text in row["vendors"].values()))
    console.print()
    console.print(support)
