"""Whether the causes of a run's length are what they seem: each made twice as fast, and the run made again."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..schemas import Results
from ..schemas.folder import write_json
from ..schemas.results import CONFIRMED
from .api import Progress, prepare, recorded, silent
from .changes import load_changes
from .explanation import Cause, Explanation, explain
from .faster import Speedup, faster_fabric, faster_policy, faster_program, speedup
from .routing import routing as routing_policy
from .run import run


@dataclass(frozen=True)
class Confirmation:
    """A cause, what was made twice as fast, and what that gave.

    `expected_ps` is half the time that it takes on the critical path: what the run saves if the path stays the one
    it is. `saved_ps` is what the run, made again, saved: less where another path then takes over, more where it
    also acts off the path or where waits fall into another pattern. Both None where nothing makes the cause faster
    by itself.
    """

    cause: Cause
    change: str
    expected_ps: int | None
    saved_ps: int | None


def confirm(
    results: Results | str | Path, top: int = 10, *, progress: Progress | None = None
) -> tuple[Confirmation, ...]:
    """Make the run again with each of its `top` causes twice as fast, and keep the outcome in the run's folder.

    Causes are those of `Explanation.grouped`. Queueing and serialisation are halved by links of twice the rate,
    polling by polls twice as often; work that nobody captured and idling until a captured time stay. The program is
    that of the run: algorithms are not chosen anew for a faster link. Raises what `explain` and `verify` raise.
    """
    results = results if isinstance(results, Results) else Results(results)
    explanation = explain(results, top)
    again = _again(results, progress or silent)
    known: dict[Speedup, int | None] = {}
    made = []
    for at, cause in enumerate(explanation.grouped[:top]):
        (progress or silent)("confirming", at, min(top, len(explanation.grouped)))
        change = _change(explanation, cause)
        if change is not None and change not in known:
            known[change] = again(change)
        made.append(_judged(explanation, cause, change, known[change] if change else None))
    rows = [asdict(each.cause) | {k: v for k, v in asdict(each).items() if k != "cause"} for each in made]
    write_json(results.path / CONFIRMED, {"makespan_ps": explanation.makespan_ps, "causes": rows})
    return tuple(made)


def _judged(
    explanation: Explanation, cause: Cause, change: Speedup | None, makespan_ps: int | None
) -> Confirmation:
    if change is None:
        return Confirmation(cause, "nothing makes it faster by itself", None, None)
    if makespan_ps is None:
        return Confirmation(cause, "idles until a captured time", None, None)
    covered = sum(s.end_ps - s.start_ps for s in explanation.path if change.covers(s.what, s.name, s.link))
    return Confirmation(cause, str(change), covered // 2, explanation.makespan_ps - makespan_ps)


def _change(explanation: Explanation, cause: Cause) -> Speedup | None:
    """Return what halves a grouped cause: on every link where it acts."""
    same = [c for c in explanation.causes if (c.what, c.name) == (cause.what, cause.name)]
    return speedup(cause.what, cause.name, [c.where.removeprefix("link ") for c in same])


def _again(results: Results, progress: Progress) -> Callable[[Speedup], int | None]:
    """Return what runs the run again with a change, and returns its makespan; None where nothing changes."""
    trace, arguments, edits = recorded(results)
    lowered, network = prepare(trace, arguments, edits, arguments.fabric, progress)

    def makespan_ps(change: Speedup) -> int | None:
        fabric, program = faster_fabric(network, change), faster_program(lowered.program, change)
        if change.part == "compute" and program is lowered.program:
            return None
        outcome = run(
            program,
            fabric,
            wait=faster_policy(arguments.wait, change),
            routing=routing_policy(arguments.routing, arguments.seed),
            engine=arguments.engine,
            segment_bytes=arguments.segment_bytes,
            buffer_bytes=arguments.buffer_bytes,
            changes=load_changes(arguments.events, fabric) if arguments.events else (),
            record="none",
            device=arguments.device,
        )
        return outcome.makespan_ps

    return makespan_ps
