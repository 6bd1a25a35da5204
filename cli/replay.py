"""`eidola replay`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..schemas.errors import UsageError
from . import generate, interval, scale, score, sweep
from .options import AsJson, Quiet
from .progress import progress, working
from .replay_run import EXAMPLES, parse_settings, run_command, running, verify_command

if TYPE_CHECKING:
    from ..replay import Confirmation

app = typer.Typer(no_args_is_help=True, help="Replay a trace at any GPU count, and say what holds it back.")
app.command("run", epilog=EXAMPLES)(run_command)
app.command("verify")(verify_command)
app.command("scale", epilog=scale.EXAMPLES)(scale.scale_command)
app.command("sweep", epilog=sweep.EXAMPLES)(sweep.sweep_command)
app.command("interval", epilog=interval.EXAMPLES)(interval.interval_command)
app.command("score", epilog=score.EXAMPLES)(score.score_command)
app.add_typer(generate.app, name="generate")

RunFolder = Annotated[Path, typer.Argument(help="Run folder.")]


@app.callback()
def _callback() -> None:
    pass


@app.command("explain")
def explain_command(
    run: RunFolder,
    top: Annotated[int, typer.Option(min=1, help="How many causes to list.")] = 10,
    confirm: Annotated[
        bool,
        typer.Option("--confirm", help="Run again with each of them twice as fast; reports show it then."),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Rank the causes of a run's length along its critical path, by kernel, link and flag."""
    from ..replay import explain
    from .show import show_confirmations, show_explanation

    found = _confirmed(run, top, quiet) if confirm else ()
    with working("walking the critical path", enabled=not quiet):
        explanation = explain(run, top)
    if as_json:
        told = {"confirmed": [asdict(each) for each in found]} if confirm else {}
        typer.echo(json.dumps(explanation.as_dict() | told, indent=1))
    elif not quiet:
        show_explanation(explanation)
        show_confirmations(found)


def _confirmed(run: Path, top: int, quiet: bool) -> "tuple[Confirmation, ...]":
    from ..replay import confirm

    with running(True, quiet) as show:
        return confirm(run, top, progress=show)


@app.command("compare")
def compare_command(
    run: RunFolder,
    other: Annotated[
        str, typer.Argument(help="Another run, a trace, or `captured`: what the run came from.")
    ] = "captured",
    top: Annotated[int, typer.Option(min=1, help="How many rows of a table to print.")] = 10,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what differs between two runs, or between a run and what was captured, and why."""
    from ..replay import compare
    from .show import show_comparison

    with progress(enabled=not quiet) as show:
        comparison = compare(run, other, progress=show)
    if as_json:
        typer.echo(json.dumps(comparison.as_dict(), indent=1, default=str))
    elif not quiet:
        show_comparison(comparison, top)


@app.command("fabric")
def fabric_command(
    name: Annotated[str, typer.Argument(help="A preset, or the path of a TOML file.")],
    gpus: Annotated[int, typer.Option(min=1, help="How many GPUs.")] = 8,
    setting: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the preset, such as rate_gb_per_s=25.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Draw it into this SVG file.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw and check a fabric: nodes, links and rates, routes of every pair, bisection, paths a pair."""
    from ..replay.cuts import bisection, paths
    from ..replay.drawing import draw
    from ..replay.presets import check_routes, fabric
    from .show import fabric_summary, show_fabric

    found = fabric(name, gpus, **parse_settings(setting, "--setting"))
    with working("following routes", enabled=not quiet):
        summary = fabric_summary(found, check_routes(found), bisection(found), paths(found))
    if output is not None:
        try:
            output.write_text(draw(found), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{output} cannot be written ({error}); choose another -o") from error
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    elif not quiet:
        show_fabric(summary)
