"""`eidola replay sweep`."""

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .durations import us
from .options import Quiet
from .progress import progress

if TYPE_CHECKING:
    from ..replay.sweeping import Study, Sweep

EXAMPLES = """Examples:

eidola replay sweep study.toml -o study/

eidola replay sweep study.toml -o study/ --cluster tcp://host:8786

The same command again goes on where the last one stopped. See docs/sweeps.md for study.toml."""
_SHOWN = 5


def sweep_command(
    study: Annotated[Path, typer.Argument(help="TOML file: a trace, fixed arguments, and a grid.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Points at once on this machine; default: a core each.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler, to run on its workers.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run finished points again, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Replay a trace at every point of a grid of arguments: all results in one table, and plotted.

    Points are independent runs; one that fails has a row that says why, and the exit code is then 1.
    """
    from ..replay.sweeping import read_study, sweep
    from ..report import report

    found = read_study(study)
    _tell(found, cluster is not None or quiet)
    command = shlex.join(["eidola", *sys.argv[1:]])
    with progress(enabled=not quiet) as show:
        rate = _Rate(show)
        try:
            swept = sweep(found, output, jobs=jobs, cluster=cluster, overwrite=overwrite, command=command,
                          progress=rate)  # fmt: skip
        except KeyboardInterrupt:
            there = f"{_finished(output):,} of {len(found.points):,} points are there"
            typer.echo(
                f"eidola: interrupted; {there}, and the same command goes on with the others", err=True
            )
            raise typer.Exit(130) from None
    report(swept.path, swept.path / "report.html")
    if as_json:
        typer.echo(json.dumps(swept.table.to_pylist(), indent=1))
    elif not quiet:
        _show(swept)
    _show_failed(swept)


def _tell(study: "Study", silent: bool) -> None:
    """Say so where the engine has yet to be compiled, which every process then does for itself."""
    from ..replay.engine.jit import is_compiled

    if not silent and not is_compiled() and any(p.arguments.engine == "compiled" for p in study.points):
        typer.echo("compiling the engine: once for this version, about 20 seconds a process", err=True)


class _Rate:
    """Progress of a sweep with points a second; what was there before does not count."""

    def __init__(self, show: Callable[[str, int, int], None]) -> None:
        self.show, self.began, self.kept, self.done = show, time.monotonic(), -1, 0

    def __call__(self, what: str, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self.kept < 0:
            self.began, self.kept = time.monotonic(), done
        rate = (done - self.kept) / max(time.monotonic() - self.began, 1e-9)
        self.show(
            f"{done:,} of {total:,} {what}" + (f", {rate:.3g}/s" if done > self.kept else ""), done, total
        )


def _finished(output: Path) -> int:
    """Count the points that are there."""
    runs = output / "runs"
    return sum(run.name[0] != "." for run in runs.iterdir()) if runs.is_dir() else 0


def _show(swept: "Sweep") -> None:
    """Print the fastest and the slowest point, and where everything is."""
    rows = [row for row in swept.table.to_pylist() if row["makespan_ps"] is not None]
    for what, row in zip(
        ("least", "most"), sorted(rows, key=_makespan)[:: max(len(rows) - 1, 1)], strict=False
    ):
        typer.echo(f"{what}: {us(row['makespan_ps'])} us at {swept.name(row)}")
    kept = f", {swept.kept:,} of them from before" if swept.kept else ""
    typer.echo(
        f"{swept.table.num_rows:,} points{kept}: {swept.path / 'results.csv'}, {swept.path / 'report.html'}"
    )


def _makespan(row: dict[str, Any]) -> int:
    return int(row["makespan_ps"])


def _show_failed(swept: "Sweep") -> None:
    """Print what failed and leave with 1; return where nothing did."""
    failed = [row for row in swept.table.to_pylist() if row["error"] is not None]
    for row in failed[:_SHOWN]:
        typer.echo(f"eidola: point {swept.name(row)} failed: {row['error']}", err=True)
    if failed:
        typer.echo(
            f"eidola: {len(failed)} of {swept.table.num_rows} points failed; results.csv has why", err=True
        )
        raise typer.Exit(1)
