"""`eidola capture`: run beside real work and write raw records."""

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .capture_kernel import app as kernel
from .doctor import doctor
from .options import Quiet

app = typer.Typer(no_args_is_help=True, help="Run beside real work and write raw records.")
app.add_typer(kernel, name="kernel")
app.command()(doctor)


class Detail(StrEnum):
    """Which profiler windows are recorded beside the light level."""

    off = "off"
    spaced = "spaced"
    all = "all"


@app.command(context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(help="The command, after --: -- torchrun ... train.py")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Raw capture to write.")] = Path("out"),
    detail: Annotated[
        Detail,
        typer.Option(
            help="Windows with CPU operators and ExecutionTraces: off (collectives, steps and GPU kernels only), "
            "spaced to stay within --budget, or all, one after the other."
        ),
    ] = Detail.off,
    window_steps: Annotated[int, typer.Option(help="Steps a window.")] = 3,
    budget: Annotated[float, typer.Option(help="Per cent of the run's time that windows may cost.")] = 1.0,
    ring_mib: Annotated[
        int,
        typer.Option("--ring-mib", help="Memory a rank for collectives, 8,192 records a MiB; the oldest go."),
    ] = 32,
    nccl_plugin: Annotated[
        bool | None,
        typer.Option(
            "--nccl-plugin/--no-nccl-plugin",
            help="NCCL or RCCL tells algorithms, channels and their GPU times. Default: where PyTorch has one.",
            show_default=False,
        ),
    ] = None,
    telemetry: Annotated[
        float | None,
        typer.Option(
            help="Sample clocks, power and link counters of this machine's GPUs, every so many seconds."
        ),
    ] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Leave host names out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing raw capture.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the capture's manifest as JSON, after what the command prints."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but errors, and what the command prints.")
    ] = False,
) -> None:
    """Run a PyTorch command unchanged and capture every rank; exits with the command's own code."""
    from ..capture.torch_run import run as run_captured

    code = run_captured(
        command,
        output,
        detail=detail.value,
        window_steps=window_steps,
        budget=budget / 100,
        ring_mib=ring_mib,
        nccl_plugin=nccl_plugin,
        telemetry_s=telemetry,
        overwrite=overwrite,
        anonymous=anonymous,
    )
    manifest = json.loads((output / "capture.json").read_text())
    if as_json:
        typer.echo(json.dumps(manifest, indent=1))
    elif not quiet:
        _tell(manifest, output, detail, budget, nccl_plugin=nccl_plugin)
    raise typer.Exit(code)


def _tell(
    manifest: dict[str, Any], output: Path, detail: Detail, budget: float, *, nccl_plugin: bool | None
) -> None:
    """Say on stderr what was captured, what is missing, and what to do next."""
    for line in _summary(manifest, detail, budget):
        typer.echo(line, err=True)
    if nccl_plugin and not list(output.glob("nccl.*.ring")):
        typer.echo("eidola: no NCCL or RCCL took the plugin", err=True)
    typer.echo(f"wrote {output}; next: eidola convert captured {output} -o {output.name}.eidola", err=True)


@app.command()
def recover(
    output: Annotated[Path, typer.Argument(help="Where the killed session was to write its capture.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing raw capture.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the capture's manifest as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Complete the capture of an `eidola.capture.session` whose processes were killed."""
    from ..capture.torch_session import recover as recover_session

    ranks = recover_session(output, overwrite=overwrite)
    manifest = json.loads((output / "capture.json").read_text())
    if as_json:
        typer.echo(json.dumps(manifest, indent=1))
    if as_json or quiet:
        return
    for line in _summary(manifest, Detail.off, 0):
        typer.echo(line, err=True)
    typer.echo(
        f"wrote {output} ({ranks} ranks); next: eidola convert captured {output} -o {output.name}.eidola",
        err=True,
    )


def _summary(manifest: dict[str, Any], detail: Detail, budget: float) -> Iterator[str]:
    """Say what failed, what is missing, and what the windows cost."""
    for failure in manifest["failures"]:
        yield f"eidola: a hook failed, the script went on: {failure}"
    for source in manifest["absent"]:
        yield f"eidola: absent: {source}"
    for rank in manifest["ranks"]:
        for gap in rank["gaps"]:
            yield f"eidola: rank {rank['rank']} has a gap: {gap['reason']}"
        if rank["lost_records"]:
            yield f"eidola: rank {rank['rank']} lost {rank['lost_records']} records; raise --ring-mib"
    cost = manifest["cost"]
    if cost["windows"]:
        parts = {part: cost[f"{part}_ns"] for part in ("open", "slowdown", "stop", "save")}
        total = sum(parts.values())
        share = (
            f" of {cost['run_ns'] / 1e9:.1f} s ({100 * total / cost['run_ns']:.2f} %)"
            if cost["run_ns"]
            else ""
        )
        text = ", ".join(f"{part} {value / 1e6:.0f} ms" for part, value in parts.items())
        on = f"{cost['windows']} windows on rank {cost['rank']}"
        yield f"eidola: {on} cost {total / 1e6:.0f} ms{share}: {text}"
        if detail != Detail.all and total > budget / 100 * cost["run_ns"]:
            yield f"eidola: that is more than {budget:g} %: a window cost more than was foreseen, in a short run"
    elif detail == Detail.spaced:
        run_s = cost["run_ns"] / 1e9
        yield f"eidola: no window fitted into {budget:g} % of {run_s:.1f} s; --detail all records every step"
