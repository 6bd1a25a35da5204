"""`eidola replay interval`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .durations import us
from .options import AsJson, Quiet
from .replay_run import running
from .tables import say

EXAMPLES = """Examples:

eidola replay interval job.eidola --fabric dgx1-v100 --seeds 20"""


def interval_command(
    trace: Annotated[Path, typer.Argument(help="Trace.")],
    fabric: Annotated[str, typer.Option(help="A preset, or the path of a TOML file.")] = "ideal",
    gpus: Annotated[
        int | None, typer.Option(min=1, help="How many GPUs; default: the captured ranks.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="How many draws.")] = 20,
    percent: Annotated[float, typer.Option(min=1, max=99, help="Of the draws that lie inside.")] = 90,
    skip: Annotated[
        int, typer.Option(min=0, help="Steps at the beginning that warm up: not drawn, nor drawn from.")
    ] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say between what a replay's times lie: captured gaps are drawn anew, once a seed."""
    from ..replay import lower
    from ..replay.jitter import captured_steps, spread
    from ..replay.lowering.plan import make_plan
    from ..replay.presets import fabric as load
    from ..schemas import Trace

    with running(True, quiet) as show:
        show("lowering", 0, 0)
        read = Trace(trace)
        built = load(fabric, gpus or len(read.ranks()))
        lowered = lower(read, built, plan=make_plan(read, gpus))
        found = spread(
            lowered.program,
            built,
            seeds,
            steps=None if gpus else captured_steps(read),
            skip=skip,
            progress=lambda done, total: show("seeds", done, total),
        )
    low, high = found.interval(percent)
    names = ["step", *(f"{c.operation} {c.sequence}" for c in lowered.program.collectives)]
    ends = [(n, int(a), int(b)) for n, a, b in zip(names, low, high, strict=True)]
    if as_json:
        rows = [{"what": name, "low_ps": a, "high_ps": b} for name, a, b in ends]
        made = {"seeds": seeds, "percent": percent, "drawn": found.drawn, "intervals": rows}
        typer.echo(json.dumps(made, indent=1))
    if as_json or quiet:
        return
    typer.echo(f"{seeds} seeds, {found.drawn:,} gaps drawn; {percent:g} % lie between")
    for name, a, b in ends:
        say(f"  {name}: {us(a)} to {us(b)} us")
