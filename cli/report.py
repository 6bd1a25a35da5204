"""`eidola report`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Quiet

if TYPE_CHECKING:
    from collections.abc import Sequence


def report(
    path: Annotated[Path, typer.Argument(help="Run, trace or sweep folder.")],
    other: Annotated[
        str | None,
        typer.Argument(help="Compare the run with this run or trace, or `captured`: what it came from."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file to write; replaced if there.")
    ] = Path("report.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print where it was written as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a run, a trace, a sweep or a comparison as one HTML file that needs no network."""
    from ..report import report as write
    from ..report import report_comparison
    from .progress import progress

    with progress(enabled=not quiet) as show:
        if other is None:
            show("walking the critical path", 0, 0)
            written = write(path, output, _critical_path(path), show)
        else:
            from ..replay import compare

            written = report_comparison(compare(path, other, progress=show).as_dict(), output)
    if as_json:
        typer.echo(json.dumps({"path": str(written), "bytes": written.stat().st_size}, indent=1))
    elif not quiet:
        typer.echo(f"wrote {written}; open it in a browser")


def _critical_path(path: Path) -> "Sequence[dict[str, Any]] | None":
    """Return the critical path of a run that recorded its messages; None of any other folder."""
    if not (path / "messages.parquet").is_file() or not (path / "waits.parquet").is_file():
        return None
    from dataclasses import asdict

    from ..replay import explain

    return [asdict(segment) for segment in explain(path).path]
