"""`replay`: a trace in, the folder of a run out; and `verify`: the same run again."""

import atexit
import hashlib
import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas import InputError, Results, ResultsWriter, Trace
from ..schemas.hashing import HASH_VERSION
from .changes import load_changes
from .device import NO_LIMITS, Device
from .edits import NONE, Edits, read_edits
from .fabric import Fabric
from .lowering.lower import Lowered, ReplayMode, lower
from .lowering.plan import Law, make_plan
from .outcome import Outcome
from .program import Mode, Op
from .routing import routing as routing_policy
from .run import SEGMENT_BYTES, Engine, Record, run
from .wait_text import registered, wait_words
from .waiting import IDEAL, Policy, WaitPolicy

Progress = Callable[[str, int, int], None]
_LIBRARIES = ("eidola-sim", "numpy", "numba", "pyarrow", "simpy")


@dataclass(frozen=True)
class Arguments:
    """What a run was asked for; the manifest keeps it, so that the run can be made again.

    `gpus` None: the captured ranks. `fabric`: a preset's name or the path of a TOML file, with `fabric_settings`
    for the preset. `law`, `replicas` and `fill`: see `scale`. `seed` starts every random draw; `routing` names
    how links are chosen. `parallel` and `axes`: see `scale`; `edits`: the path of a TOML file, see `read_edits`.
    """

    gpus: int | None = None
    fabric: str = "ideal"
    fabric_settings: dict[str, Any] = field(default_factory=dict)
    mode: ReplayMode = "dependent"
    targets: tuple[int, ...] = (0,)
    wait: WaitPolicy = IDEAL
    engine: Engine = "compiled"
    law: Law = "weak"
    replicas: bool = False
    fill: bool = False
    algorithms: dict[str, str] = field(default_factory=dict)
    segment_bytes: int = SEGMENT_BYTES
    record: Record = "messages"
    seed: int = 0
    routing: str = "static"
    buffer_bytes: int = 0
    events: str | None = None
    parallel: dict[str, int] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    edits: str | None = None
    device: Device = NO_LIMITS


def replay(
    trace: Trace | str | Path,
    output: str | Path | None = None,
    *,
    gpus: int | None = None,
    fabric: str | Path | Fabric = "ideal",
    fabric_settings: dict[str, Any] | None = None,
    mode: ReplayMode = "dependent",
    targets: Iterable[int] = (0,),
    wait: WaitPolicy = IDEAL,
    engine: Engine = "compiled",
    law: Law = "weak",
    replicas: bool = False,
    fill: bool = False,
    algorithms: dict[str, str] | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    record: Record = "messages",
    seed: int = 0,
    routing: str = "static",
    buffer_bytes: int = 0,
    events: str | Path | None = None,
    parallel: dict[str, int] | None = None,
    axes: dict[str, str] | None = None,
    edits: str | Path | None = None,
    device: Device = NO_LIMITS,
    overwrite: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Results:
    """Lower `trace`, run it, and write the folder `output`; without one, a folder that goes with the process.

    `gpus` is how many to replay (default: the captured ranks), `fabric` a preset's name, a TOML file, or a
    Fabric. See `lower` for `mode`, `targets` and `algorithms`, `scale` for `law`, `replicas` and `fill`,
    `run` for what else there is, `Device` for what a GPU's agents may share. `routing`: static, ecmp, spray
    or least-loaded, its hash drawn from `seed`. `events`: a TOML file of links, NICs and GPUs that slow down,
    fail and come back, see docs/fabrics.md. `command` is noted in the manifest. `edits`: a TOML file that
    asks what if, see docs/scaling.md; what it says of `gpus`, `fabric` and `parallel` goes before the
    arguments. `progress` is called with (stage, done, total).

    Raises UsageError and InputError for what cannot be replayed as asked, StallError, naming who waits for what,
    where the program cannot go on; nothing is then left at `output`.
    """
    asked = read_edits(edits) if edits else NONE
    gpus, fabric = asked.replay.get("gpus", gpus), asked.replay.get("fabric", fabric)
    parallel = {**(parallel or {}), **asked.replay.get("parallel", {})}
    name = fabric.name if isinstance(fabric, Fabric) else str(fabric)
    arguments = Arguments(
        gpus, name, dict(fabric_settings or {}), mode, tuple(targets), wait, engine, law, replicas, fill,
        dict(algorithms or {}), segment_bytes, record, seed, routing, buffer_bytes,
        str(Path(events).resolve()) if events else None, parallel, dict(axes or {}), asked.path or None, device,
    )  # fmt: skip
    source = trace if isinstance(trace, Trace) else Trace(trace)
    path = _temporary() if output is None else Path(output)
    writer = ResultsWriter(path, overwrite=overwrite)
    return _replay(source, arguments, asked, writer, fabric, command, progress or silent)


def verify(results: Results | str | Path, *, progress: Progress | None = None) -> Results:
    """Make a run again as its manifest says; return the new run, in a folder that goes with the process.

    Raises InputError where an input changed since, is gone, or where the results' hash is another one.
    """
    old = results if isinstance(results, Results) else Results(results)
    trace, arguments, asked = recorded(old)
    expected = old.manifest["results_hash"]
    if (version := old.manifest.get("results_hash_version", 1)) != HASH_VERSION:
        raise InputError(
            f"{old.path}: its results hash is of definition {version}, this eidola's of {HASH_VERSION}; "
            "replay it anew"
        )
    writer = ResultsWriter(_temporary())
    new = _replay(trace, arguments, asked, writer, arguments.fabric, None, progress or silent)
    if new.manifest["results_hash"] != expected:
        raise InputError(
            f"{old.path}: running it again gives results hash {new.manifest['results_hash']}, not {expected}; "
            f"made by {old.manifest['versions']}, now {new.manifest['versions']}"
        )
    return new


def recorded(old: Results) -> tuple[Trace, Arguments, Edits]:
    """Return what a run was made of, by its manifest; raises InputError where an input changed or is gone."""
    try:
        arguments = _arguments(old.manifest["arguments"])
        inputs = old.manifest["inputs"]
        trace = Trace(inputs["trace"]["path"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{old.path}: its manifest lacks {error}, so it cannot be run again") from error
    for name, given in inputs.items():
        file = Path(given["path"])
        if not file.exists():
            raise InputError(f"{file}, an input of {old.path} ({name}), is gone; replay it anew")
        if (digest_folder(file) if file.is_dir() else _digest(file)) != given["sha256"]:
            raise InputError(f"{file} has changed since {old.path} was made; replay it anew")
    return trace, arguments, read_edits(arguments.edits) if arguments.edits else NONE


def prepare(
    trace: Trace, arguments: Arguments, edits: Edits, fabric: str | Path | Fabric, progress: Progress
) -> tuple[Lowered, Fabric]:
    """Return the program of a run and its fabric."""
    plan = make_plan(
        trace,
        arguments.gpus,
        law=arguments.law,
        replicas=arguments.replicas,
        fill=arguments.fill,
        parallel=arguments.parallel,
        axes=arguments.axes,
        seed=arguments.seed,
    )
    network = fabric if isinstance(fabric, Fabric) else _fabric(fabric, plan.gpus, arguments.fabric_settings)
    progress("lowering", 0, plan.gpus)
    return lower(
        trace,
        network,
        mode=arguments.mode,
        targets=arguments.targets,
        plan=plan,
        algorithms=arguments.algorithms,
        edits=edits,
    ), network


def _replay(
    trace: Trace,
    arguments: Arguments,
    edits: Edits,
    writer: ResultsWriter,
    fabric: str | Path | Fabric,
    command: str | None,
    progress: Progress,
) -> Results:
    started = time.monotonic()
    policy = routing_policy(arguments.routing, arguments.seed)
    lowered, network = prepare(trace, arguments, edits, fabric, progress)
    changes = load_changes(arguments.events, network) if arguments.events else ()
    messages = lowered.program.messages
    progress("running", 0, messages)
    outcome = run(
        lowered.program,
        network,
        wait=arguments.wait,
        routing=policy,
        engine=arguments.engine,
        segment_bytes=arguments.segment_bytes,
        buffer_bytes=arguments.buffer_bytes,
        changes=changes,
        record=arguments.record,
        device=arguments.device,
        progress=lambda landed, _: progress("running", landed, messages),
    )
    progress("writing", messages, messages)
    with writer:
        outcome.write(writer)
        digest = writer.results_hash()
        writer.summary = summarise(trace, lowered, outcome, arguments) | {"results_hash": digest}
        writer.manifest = {
            "inputs": _inputs(trace, fabric, edits, arguments.events),
            "arguments": asdict(arguments),
            "versions": _versions(),
            "seed": arguments.seed,
            "results_hash": digest,
            "results_hash_version": HASH_VERSION,
            "command": command,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "elapsed_s": round(time.monotonic() - started, 3),
        }
    progress("done", messages, messages)
    return Results(writer.path)


def summarise(trace: Trace, lowered: Lowered, outcome: Outcome, arguments: Arguments) -> dict[str, Any]:
    """Return a run's summary: what was asked, what came out, what was extrapolated.

    `gpus_a_box`: of a full box; null where boxes differ. `captured_ps` is what the captured ranks took; null where
    the GPUs are others. `causality_violations`: waits of mode `timed` that the capture ended before their simulated
    arrival; null in other modes or without records.
    """
    program = lowered.program
    operations = Counter(collective.operation for collective in program.collectives)
    waits = program.ops["kind"] == Op.WAIT
    observed = bool((program.ops["mode"][waits] == Mode.OBSERVE).any())
    return {
        "gpus": program.gpus,
        "captured_ranks": lowered.captured_ranks,
        "backends": sorted(set(trace.read("ranks", ["backend"])["backend"].to_pylist())),
        "fabric": outcome.fabric.name,
        "gpus_a_box": _gpus_a_box(outcome.fabric),
        "mode": lowered.mode,
        "law": lowered.law,
        "wait": wait_text(outcome.wait),
        "routing": arguments.routing,
        "buffer_bytes": arguments.buffer_bytes,
        "engine": arguments.engine,
        "segment_bytes": outcome.segment_bytes,
        "makespan_ps": outcome.makespan_ps,
        "captured_ps": _captured_ps(lowered),
        "agents": program.agents,
        "messages": program.messages,
        "waits": program.waits,
        "flag_reads": int(outcome.final.agents["polls"].sum()),
        "collectives": dict(sorted(operations.items())),
        "causality_violations": outcome.causality_violations() if observed and outcome.recorded else None,
        "extrapolated": list(lowered.notes),
        "stalled": [],
    }


def _gpus_a_box(fabric: Fabric) -> int | None:
    """Return how many GPUs a full box has; None where boxes differ."""
    sizes = np.bincount(fabric.box)
    return int(sizes[0]) if (sizes[:-1] == sizes[0]).all() and sizes[-1] <= sizes[0] else None


def _captured_ps(lowered: Lowered) -> int | None:
    """Return from the first captured start to the last captured end, where GPUs and captured ranks are the same."""
    ends = lowered.program.activities["captured_end_ns"]
    if lowered.program.gpus != lowered.captured_ranks or not len(ends):
        return None
    return int((ends.max() - lowered.program.epoch_ns) * 1000)


def wait_text(wait: WaitPolicy) -> str:
    """Return a wait policy in words."""
    if wait.kind is Policy.SPIN:
        return f"spin, a poll each {_ns(wait.period_ps)}"
    if wait.kind is Policy.MONITOR and wait == WaitPolicy(
        Policy.MONITOR, arm_ps=wait.arm_ps, wake_ps=wait.wake_ps
    ):
        return f"monitor, {_ns(wait.arm_ps)} to arm, {_ns(wait.wake_ps)} to wake"
    return wait_words(wait)


def _ns(duration_ps: int) -> str:
    """Return picoseconds as nanoseconds, exactly: `1,003,908.25 ns`."""
    return f"{duration_ps / 1000:,.3f}".rstrip("0").rstrip(".") + " ns"


def _fabric(name: str | Path, gpus: int, settings: dict[str, Any]) -> Fabric:
    from .presets import fabric

    return fabric(name, gpus, **settings)


def _inputs(trace: Trace, fabric: str | Path | Fabric, edits: Edits, events: str | None) -> dict[str, Any]:
    """Return where each input was, and the SHA-256 of its content; of edits the content too."""
    inputs: dict[str, Any] = {
        "trace": {"path": str(trace.path.resolve()), "sha256": digest_folder(trace.path)}
    }
    if not isinstance(fabric, Fabric) and Path(fabric).suffix == ".toml":
        inputs["fabric"] = {"path": str(Path(fabric).resolve()), "sha256": _digest(Path(fabric))}
    if events:
        inputs["events"] = {"path": events, "sha256": _digest(Path(events))}
    if edits.path:
        inputs["edits"] = {"path": edits.path, "sha256": edits.sha256, "content": dict(edits.content)}
    return inputs


def digest_folder(folder: Path) -> str:
    """Return one SHA-256 of all files under `folder`: of their paths in it and their contents, in order."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()} {_digest(file)}\n".encode())
    return digest.hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _arguments(given: dict[str, Any]) -> Arguments:
    saved = given["wait"]
    table = tuple((gap, times) for gap, times in saved.get("table", ()))
    wait = WaitPolicy(**{**saved, "kind": Policy(saved["kind"]), "table": table})
    if wait.name:
        wait = registered(wait.name)
    device = Device(**given.get("device", {}))
    return replace(Arguments(**{**given, "wait": wait, "device": device}), targets=tuple(given["targets"]))


def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="eidola-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "run"


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
