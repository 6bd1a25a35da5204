"""`eidola replay score`."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from .options import Quiet
from .progress import progress

EXAMPLES = """Examples:

eidola replay score measurements.csv -o validation/

writes validation/validation.csv, the rows with what was predicted for them, and validation/validation.md."""


def score_command(
    file: Annotated[Path, typer.Argument(help="CSV of published measurements, in nccl-tests' conventions.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine; default: a core each.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Also write the measured part between the marks of this page.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the errors as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Predict published measurements of collectives, and say how far off the predictions are.

    Each row is mapped to a fabric and a program by what its columns say of it. A row that cannot be mapped is no
    error: its column `covered` says why.
    """
    from ..replay.scoring import score
    from ..replay.scoring.page import write_into
    from ..replay.scoring.statistics import CLASSES, errors_of, judged, sweeps

    with progress(enabled=not quiet) as show:
        made = score(file, output, jobs=jobs or os.cpu_count() or 1, progress=show)
    if into is not None:
        write_into(made, into)
    rows = judged(made.rows)
    if as_json:
        found = [
            {
                "sweep": name,
                "sizes": CLASSES[i][0],
                "rows": errors.rows,
                "median": errors.median,
                "high": errors.high,
            }
            for name, part in sweeps(rows).items()
            for i in range(len(CLASSES))
            if (errors := errors_of(part, i))
        ]
        typer.echo(json.dumps({"rows": len(made.rows), "judged": len(rows), "errors": found}, indent=1))
        return
    if quiet:
        return
    typer.echo(
        f"{len(made.rows):,} rows, {len(rows):,} judged; median and 90th percentile of the error, full sweeps:"
    )
    for name, part in sweeps(rows).items():
        for i, (label, _, _) in enumerate(CLASSES):
            if errors := errors_of(part, i):
                typer.echo(f"  {name}, {label}: {errors.median:.1%}, {errors.high:.1%} of {errors.rows} rows")
    typer.echo(f"{output / 'validation.csv'}, {output / 'validation.md'}")
