"""The scaling verb: from the captured ranks to any number of GPUs."""

from collections.abc import Iterable, Mapping

from ..schemas import Trace
from .edits import NONE, Edits
from .fabric import Fabric
from .lowering.lower import Lowered, ReplayMode, lower
from .lowering.plan import Law, make_plan


def scale(
    trace: Trace,
    gpus: int | None,
    fabric: Fabric,
    *,
    law: Law = "weak",
    replicas: bool = False,
    fill: bool = False,
    parallel: Mapping[str, int] | None = None,
    axes: Mapping[str, str] | None = None,
    mode: ReplayMode = "dependent",
    targets: Iterable[int] = (0,),
    algorithms: Mapping[str, str] | None = None,
    edits: Edits = NONE,
    seed: int = 0,
) -> Lowered:
    """Lower `trace` to a program of `gpus` GPUs, to be run on `fabric`; `Lowered.notes` lists what it extrapolates.

    One group (default): GPU t repeats captured rank t modulo the ranks, communicators of all ranks grow to all
    GPUs, by `law`, and smaller ones repeat with their ranks. `parallel`: sizes by axis (`{"data": 64}`); each
    communicator grows with the axis that it spans, which `axes` gives by its name or description where it cannot
    be told. `replicas`: the whole job repeats, `gpus` a multiple of its ranks, and nothing grows. Captured
    ranks keep their durations; added ones draw whole steps of the rank that they repeat, from `seed`. Scaled to the
    captured number of ranks, the program is the one that `lower` makes.

    Raises UsageError for shapes that make no sense, and for ranks that the capture lacks unless `fill` lets
    captured ranks stand for them.
    """
    plan = make_plan(
        trace, gpus, law=law, replicas=replicas, fill=fill, parallel=parallel, axes=axes, seed=seed
    )
    return lower(trace, fabric, mode=mode, targets=targets, plan=plan, algorithms=algorithms, edits=edits)
