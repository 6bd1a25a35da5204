"""The scaling verb: from the captured ranks to any number of GPUs."""

from collections.abc import Iterable, Mapping

from ..schemas import Trace
from .fabric import Fabric
from .lowering.lower import Lowered, ReplayMode, lower
from .lowering.plan import Law, make_plan


def scale(
    trace: Trace,
    gpus: int,
    fabric: Fabric,
    *,
    law: Law = "weak",
    replicas: bool = False,
    fill: bool = False,
    mode: ReplayMode = "dependent",
    targets: Iterable[int] = (0,),
    algorithms: Mapping[str, str] | None = None,
) -> Lowered:
    """Lower `trace` to a program of `gpus` GPUs, to be run on `fabric`; `Lowered.notes` lists what it extrapolates.

    GPU t repeats captured rank t modulo the ranks. One group (default): communicators of all ranks grow to all
    GPUs, by `law`; smaller ones repeat with their ranks. `replicas`: the whole job repeats, `gpus` a multiple of
    its ranks, and nothing grows. Scaled to the captured number of ranks, the program is the one that `lower` makes.

    Raises UsageError for GPU counts that make no sense, and for ranks that the capture lacks unless `fill` lets
    captured ranks stand for them.
    """
    plan = make_plan(trace, gpus, law=law, replicas=replicas, fill=fill)
    return lower(trace, fabric, mode=mode, targets=targets, plan=plan, algorithms=algorithms)
