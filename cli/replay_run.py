"""`eidola replay run` and `eidola replay verify`."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..schemas.errors import UsageError
from .durations import parse_ps
from .options import AsJson, Quiet

if TYPE_CHECKING:
    from ..replay import WaitPolicy

EXAMPLES = """Examples:

eidola replay run job.eidola --gpus 64 --fabric hgx-h100 -o run/

eidola replay run job.eidola --wait spin --poll-period 100ns -o spin/

eidola replay run job.eidola --mode target --target 0 --fabric ideal -o target/

`eidola replay explain run/` then ranks what the time went to."""

Mode = StrEnum("Mode", ["dependent", "timed", "target"])
Dispatch = StrEnum("Dispatch", ["ascending", "descending", "shuffled"])
Law = StrEnum("Law", ["weak", "strong"])
Engine = StrEnum("Engine", ["compiled", "reference"])
Record = StrEnum("Record", ["none", "messages", "hops"])
Routing = StrEnum(
    "Routing", {"static": "static", "ecmp": "ecmp", "spray": "spray", "least_loaded": "least-loaded"}
)


def run_command(
    trace: Annotated[Path, typer.Argument(help="Trace folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder to write.")],
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs to replay; default: the captured ranks.")
    ] = None,
    fabric: Annotated[str, typer.Option(help="A preset (see docs/fabrics.md), or a TOML file.")] = "ideal",
    fabric_setting: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the preset, such as rate_gb_per_s=25.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="All closed-loop; all at captured times; or chosen targets closed-loop.")
    ] = Mode.dependent,
    target: Annotated[
        list[int] | None, typer.Option(help="A closed-loop GPU of mode target; default 0.")
    ] = None,
    wait: Annotated[
        str,
        typer.Option(
            help="How waits on flags in memory are served: ideal, spin, monitor, or docs/waiting.md."
        ),
    ] = "ideal",
    poll_period: Annotated[
        str | None,
        typer.Option(help="Of --wait spin: time between polls; default: the capture's own, else 100ns."),
    ] = None,
    wake_latency: Annotated[str, typer.Option(help="Of --wait monitor: from arrival to waking.")] = "0ns",
    arm_cost: Annotated[str, typer.Option(help="Of --wait monitor: time to arm it.")] = "0ns",
    workgroup_slots: Annotated[int, typer.Option(min=0, help="Workgroups on a GPU at once; 0: all.")] = 0,
    dispatch: Annotated[
        Dispatch, typer.Option(help="Order in which workgroups get slots.")
    ] = Dispatch.ascending,
    switch_cost: Annotated[str, typer.Option(help="Time to put a workgroup into a slot.")] = "0ns",
    memory_rate: Annotated[
        int,
        typer.Option(
            min=0, help="MB/s of a GPU's memory, shared by polls, writes, computes; 0: not modelled."
        ),
    ] = 0,
    law: Annotated[
        Law, typer.Option(help="Scaling: a GPU keeps its work, or the work is divided.")
    ] = Law.weak,
    replicas: Annotated[
        bool, typer.Option("--replicas", help="Repeat the whole job; nothing grows.")
    ] = False,
    fill: Annotated[bool, typer.Option("--fill", help="Let captured ranks stand for missing ones.")] = False,
    algorithm: Annotated[
        list[str] | None, typer.Option(metavar="OPERATION=NAME", help="Override, such as all_reduce=ring.")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="Compiled, or the definition in SimPy (slow).")
    ] = Engine.compiled,
    segment_bytes: Annotated[int, typer.Option(help="Unit in which messages move; 0: whole.")] = 65536,
    record: Annotated[Record, typer.Option(help="Rows to keep; explain needs messages.")] = Record.messages,
    routing: Annotated[
        Routing, typer.Option(help="How one of several links towards a GPU is chosen.")
    ] = Routing.static,
    edit: Annotated[
        Path | None, typer.Option(help="TOML of what-ifs: kernels, sizes, algorithms, traffic.")
    ] = None,
    buffer_bytes: Annotated[
        int, typer.Option(min=0, help="Buffer of a link where it enters a switch; 0: unbounded queues.")
    ] = 0,
    events: Annotated[
        Path | None, typer.Option(help="TOML of links, NICs and GPUs that slow down, fail and come back.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Start of random draws.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Replay a trace: simulated traffic at any GPU count, on any fabric."""
    if wait == "spin" and poll_period is None:
        poll_period = _captured_period(trace, quiet or as_json)
    policy = _policy(wait, poll_period or "100ns", wake_latency, arm_cost)
    from ..replay import Device, replay

    switch_ps = parse_ps(switch_cost, "--switch-cost")
    device = Device(workgroup_slots, dispatch.value, switch_ps, memory_rate, seed=seed)
    options: dict[str, Any] = {
        "mode": mode.value, "law": law.value, "engine": engine.value, "record": record.value
    }  # fmt: skip
    with running(engine is Engine.compiled, quiet) as show:
        results = replay(
            trace,
            output,
            gpus=gpus,
            fabric=fabric,
            fabric_settings=parse_settings(fabric_setting, "--fabric-setting"),
            targets=target or (0,),
            wait=policy,
            replicas=replicas,
            fill=fill,
            algorithms=_algorithms(algorithm),
            segment_bytes=segment_bytes,
            seed=seed,
            edits=edit,
            routing=routing.value,
            buffer_bytes=buffer_bytes,
            events=events,
            device=device,
            overwrite=overwrite,
            command=shlex.join(["eidola", *sys.argv[1:]]),
            progress=show,
            **options,
        )
    if as_json:
        typer.echo(json.dumps(results.summary, indent=1))
    elif not quiet:
        from .show import show_run

        show_run(results)


def verify_command(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a run again, as its manifest says, and verify that the results have the same hash."""
    from ..replay import verify
    from ..schemas import Results

    results = Results(run)
    compiled = results.manifest.get("arguments", {}).get("engine") == "compiled"
    with running(compiled, quiet) as show:
        again = verify(results, progress=show)
    digest = again.manifest["results_hash"]
    if as_json:
        typer.echo(json.dumps({"run": str(run), "same": True, "results_hash": digest}, indent=1))
    elif not quiet:
        typer.echo(f"{run}: the same results again, hash {digest}")


def parse_settings(given: list[str] | None, option: str) -> dict[str, Any]:
    """Return `name=value` pairs, numbers as numbers; raises UsageError, naming `option`, for anything else."""
    settings: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} {text}: give a name and a value, as in name=value")
        try:
            settings[name] = float(value) if "." in value else int(value)
        except ValueError:
            settings[name] = value
    return settings


def _algorithms(given: list[str] | None) -> dict[str, str]:
    """Return what was given by operation; raises UsageError for an operation or a name that is not known."""
    from ..replay.collectives import algorithms

    chosen = {name: str(value) for name, value in parse_settings(given, "--algorithm").items()}
    for operation, name in chosen.items():
        if operation not in algorithms.operations():
            raise UsageError(
                f"--algorithm {operation}: no such operation; there are {', '.join(algorithms.operations())}"
            )
        algorithms.algorithm(operation, name)
    return chosen


def _captured_period(trace: Path, quiet: bool) -> str:
    """Return the poll period of a capture that measured it, and say so."""
    from ..replay.polling import captured_period_ns
    from ..schemas import Trace

    period_ns = captured_period_ns(Trace(trace))
    if period_ns is None:
        return "100ns"
    if not quiet:
        typer.echo(f"poll period: {period_ns:.0f} ns, as captured; --poll-period sets another", err=True)
    return f"{period_ns}ns"


def _policy(wait: str, poll_period: str, wake_latency: str, arm_cost: str) -> "WaitPolicy":
    """Return the wait policy that the options describe."""
    from ..replay import parse_wait

    if wait == "spin":
        if parse_ps(poll_period, "--poll-period") == 0:
            raise UsageError("--poll-period 0: a spin needs time between its polls; give at least 1ps")
        wait = f"spin {poll_period}"
    if wait == "monitor":
        parse_ps(wake_latency, "--wake-latency")
        parse_ps(arm_cost, "--arm-cost")
        wait = f"monitor wake {wake_latency} arm {arm_cost}"
    return parse_wait(wait)


@contextmanager
def running(compiled: bool, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show progress; say so where the engine has yet to be compiled, which happens once."""
    from .progress import progress

    if compiled and not quiet:
        from ..replay.engine.jit import is_compiled

        if not is_compiled():
            typer.echo("compiling the engine: once for this version, about 20 seconds", err=True)
    with progress(enabled=not quiet) as show:
        yield show
