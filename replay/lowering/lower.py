"""Lower a trace to a program: `lower`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from ...schemas import Trace, UsageError
from ..builder import Builder
from ..edits import NONE, Edits
from ..fabric import Fabric
from ..program import Program
from .acts import Grower, traffic_law
from .emit import Emitter
from .expanding import Expander
from .flags import read_flags
from .items import Item, RankWork, read_rank
from .kernels import compute_law
from .matching import Matcher
from .plan import LAWS, Law, Plan, make_plan
from .retiming import scaled_work
from .sizing import Sizer
from .works import Works

ReplayMode = Literal["dependent", "timed", "target"]


@dataclass(frozen=True)
class Lowered:
    """A program, and in sentences what was inferred, extrapolated, or kept as captured to make it."""

    program: Program
    mode: ReplayMode
    law: Law
    captured_ranks: int
    notes: tuple[str, ...]


def lower(
    trace: Trace,
    fabric: Fabric,
    *,
    mode: ReplayMode = "dependent",
    targets: Iterable[int] = (0,),
    plan: Plan | None = None,
    algorithms: Mapping[str, str] | None = None,
    edits: Edits = NONE,
) -> Lowered:
    """Lower `trace` to what `plan` asks for (default: the captured ranks, as they are), to be run on `fabric`.

    `dependent`: every GPU runs on its own. `timed`: what was recorded happens at its captured time, waits only
    observe, and collectives start at each rank's captured start and run on their own inside. `target`: the GPUs in
    `targets` run on their own; of the others (eidolons) only their writes to targets remain, at captured times,
    and they join collectives that a target takes part in at their captured start. `algorithms`, by operation,
    override what was captured or what the library would choose (`{"all_reduce": "direct"}`); `edits` change more.

    Raises UsageError for arguments that make no sense and for captured flags that no count explains, SchemaError
    for a trace that breaks the schema.
    """
    plan = make_plan(trace) if plan is None else plan
    chosen = frozenset(targets) if mode == "target" else frozenset()
    _check(fabric, mode, chosen, plan)
    works = read_works(trace, plan, edits, chosen)
    size = len(plan.job) if plan.replicas else plan.gpus
    grower = Grower(read_flags(works.base.values(), len(plan.job)), size)
    builder = Builder(plan.gpus, epoch_ns=_epoch_ns(trace, works))
    matcher = Matcher(plan)
    for work in works.base.values():
        matcher.add(work)
    sizer = Sizer(plan, edits)
    expander = Expander(builder, fabric, sizer, algorithms or {}, apart=mode == "timed")
    Emitter(builder, fabric, plan, works, grower, matcher, expander, chosen).emit(mode)
    edits.check_used()
    notes = _notes(plan, works, matcher, sizer, mode)
    return Lowered(builder.build(), mode, plan.law, len(works.base), (*notes, *edits.notes()))


def read_works(trace: Trace, plan: Plan, edits: Edits = NONE, targets: frozenset[int] = frozenset()) -> Works:
    """Read the captured ranks, and put laws and edits on their compute.

    At the captured GPU count only writes to `targets` are read of ranks that are none, where there are any.
    """
    laws: dict[tuple[str, str, bool], Fraction] = {}

    def factor(item: Item) -> Fraction:
        key = (item.kind, item.name, bool(item.parts))
        if key not in laws:
            laws[key] = compute_law(item, plan)
        edited = edits.kernels and item.kind in ("kernel", "copy", "phase")
        return laws[key] * edits.kernel_factor(item.name) if edited else laws[key]

    ranks = sorted(set(plan.job))
    plain = len(ranks) == len(plan.job) == plan.gpus
    seen = targets if plain else frozenset()
    captured = {
        rank: read_rank(trace, rank, plan, seen if seen and plan.index[rank] not in seen else None)
        for rank in ranks
    }
    return Works(plan, captured, {rank: scaled_work(work, factor) for rank, work in captured.items()})


def _check(fabric: Fabric, mode: ReplayMode, targets: frozenset[int], plan: Plan) -> None:
    if mode not in get_args(ReplayMode):
        raise UsageError(f"--mode {mode}: choose dependent, timed or target")
    if fabric.gpus < plan.gpus:
        raise UsageError(
            f"fabric {fabric.name} has {fabric.gpus} GPUs, the replay {plan.gpus}; build it for as many"
        )
    outside = [target for target in sorted(targets) if not 0 <= target < plan.gpus]
    if outside or (mode == "target" and not targets):
        shown = f"GPU {outside[0]} is none of" if outside else "name at least one of"
        raise UsageError(f"--target: {shown} GPUs 0 to {plan.gpus - 1}")


def _epoch_ns(trace: Trace, works: Works) -> int:
    """Return when the captured work began. Raises UsageError where there is none."""
    starts = [item.start_ns for work in works.base.values() for item in work.items()]
    if not starts:
        raise UsageError(f"{trace.path} holds no work to replay: no kernel, call, write or collective")
    return min(starts)


def _notes(plan: Plan, works: Works, matcher: Matcher, sizer: Sizer, mode: ReplayMode) -> tuple[str, ...]:
    """Say what the program holds beyond what was captured."""
    notes: list[str] = []
    ranks, gpus = len(plan.job), plan.gpus
    filled = [place for place, rank in enumerate(plan.job) if plan.index[rank] != place]
    if filled:
        notes.append(
            f"{len(filled)} of {ranks} ranks were not captured, and repeat the {len(works.base)} that were"
        )
    if gpus != ranks:
        notes += _grown(plan, works.base)
    notes += plan.layout.notes
    notes += works.notes()
    if mode == "target":
        notes.append(
            "eidolons keep only their writes to targets; a target's collectives start at captured times"
        )
    notes += [f"{count} x {note}" for note, count in sorted(sizer.notes.items())]
    for reason, count in sorted(matcher.unmatched.items()):
        notes.append(f"{count} parts of collectives keep their captured duration: {reason}")
    return tuple(notes)


def _grown(plan: Plan, works: dict[int, RankWork]) -> list[str]:
    ranks, gpus = len(plan.job), plan.gpus
    shape = "copies of the job, on their own" if plan.replicas else "one group"
    shape = "the axes below say" if plan.layout.growth else shape
    notes = [f"GPUs 0..{gpus - 1} repeat captured ranks 0..{min(ranks, gpus) - 1}, as {shape}"]
    if plan.replicas:
        return notes
    notes.append(LAWS[plan.law])
    return notes + traffic_law(works.values(), ranks, gpus)
