"""Who is lowered from whom: the captured ranks, the GPUs to replay, and the laws between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from ...schemas import Trace, UsageError
from .axes import find_axes, target_sizes
from .groups import Group
from .layout import Layout, one_group, shaped

Law = Literal["weak", "strong"]

LAWS = {
    "weak": "weak scaling: every GPU keeps its share of the batch, and so its compute",
    "strong": "strong scaling: the batch is divided, and compute with it",
}


@dataclass(frozen=True)
class Plan:
    """From the ranks of a captured job to `gpus` GPUs.

    `job[i]` is the captured rank that stands for the i-th rank of the job: itself, or another one where it is
    missing and was filled in. `index` holds each captured rank's own place; `layout` which place each GPU repeats.
    With `replicas` every block of `len(job)` GPUs is a job of its own. `seed` starts the draws of added ranks.
    """

    job: tuple[int, ...]
    index: dict[int, int]
    groups: dict[str, Group]
    gpus: int
    law: Law
    replicas: bool
    layout: Layout
    seed: int = 0

    def source(self, gpu: int) -> int:
        """Return the captured rank that `gpu` is lowered from."""
        return self.job[self.layout.place[gpu]]

    def place(self, rank: int) -> int:
        """Return the place of `rank` in the job. Raises UsageError where nobody stands for it."""
        place = self.index.get(rank, rank if len(self.job) > len(self.index) else -1)
        if not 0 <= place < len(self.job):
            raise UsageError(
                f"rank {rank} is written to and was not captured; pass --fill to let a captured rank stand for it"
            )
        return place

    def captured(self, gpu: int) -> bool:
        """Whether `gpu` is a captured rank itself, not a copy of one."""
        return self.layout.block[gpu] == 0 and self.own(self.layout.place[gpu])

    def own(self, place: int) -> bool:
        """Whether the rank at a place of the job was captured itself."""
        return self.index[self.job[place]] == place

    @property
    def batch(self) -> Fraction:
        """Return by how much a GPU's part of the batch, and with it its compute, changes."""
        if self.law != "strong" or self.replicas:
            return Fraction(1)
        captured, target = self.layout.growth.get("data", (len(self.job), self.gpus))
        return (
            Fraction(1)
            if self.layout.growth and "data" not in self.layout.growth
            else Fraction(captured, target)
        )

    @property
    def sharding(self) -> Fraction:
        """Return by how much a GPU's shard of the weights, and the compute on it, changes: with the tensor axis."""
        return Fraction(*self.layout.growth.get("tensor", (1, 1)))


def make_plan(
    trace: Trace,
    gpus: int | None = None,
    *,
    law: Law = "weak",
    replicas: bool = False,
    fill: bool = False,
    parallel: Mapping[str, int] | None = None,
    axes: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Plan:
    """Plan for `gpus` GPUs (None: the captured ranks, as they are, or what `parallel` makes).

    `parallel` gives sizes by axis, `axes` the axis of communicators by name or description; see `find_axes`.
    Raises UsageError for a GPU count or shape that makes no sense, and for ranks that the capture lacks, unless
    `fill` lets captured ranks stand for them.
    """
    if law not in LAWS:
        raise UsageError(f"--law {law}: choose {' or '.join(LAWS)}")
    ranks = trace.ranks()
    rows = trace.read("communicators").to_pylist()
    world = max([ranks[-1] + 1, *(row["group_size"] for row in rows)])
    missing = world - len(ranks)
    if missing and (gpus is not None or parallel) and not fill:
        shown = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
        wanted = "other axes" if gpus is None else f"{gpus} GPUs"
        raise UsageError(
            f"{trace.path} holds {len(ranks)} of the {world} ranks of its job ({shown}), so it cannot be scaled to "
            f"{wanted} as it is; pass --fill to let captured ranks stand for the missing ones"
        )
    filled = [r if r in set(ranks) else ranks[r % len(ranks)] for r in range(world)] if fill else ranks
    job = tuple(filled)
    index = {rank: rank if fill else place for place, rank in enumerate(ranks)}
    groups = _groups(rows, index)
    if parallel or axes:
        layout = _shaped(trace, gpus, len(job), groups, parallel or {}, axes or {}, replicas)
    else:
        total = len(job) if gpus is None else gpus
        _check_count(total, len(job), replicas, groups)
        layout = one_group(len(job), total, groups, replicas)
    return Plan(job, index, groups, len(layout.place), law, replicas, layout, seed)


def _groups(rows: list[dict[str, Any]], index: dict[int, int]) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for row in rows:
        if row["rank"] in index:
            new = Group(row["communicator"], row["group_size"], {}, row["name"] or "")
            group = groups.setdefault(row["communicator"], new)
            group.members[row["group_rank"]] = index[row["rank"]]
    return groups


def _shaped(
    trace: Trace,
    gpus: int | None,
    ranks: int,
    groups: dict[str, Group],
    parallel: Mapping[str, int],
    given: Mapping[str, str],
    replicas: bool,
) -> Layout:
    if replicas:
        raise UsageError("--replicas repeats the whole job and grows no axis; leave the axes out")
    if trace.read("writes", ["rank"]).num_rows:
        raise UsageError(
            f"{trace.path} holds peer writes, which grow as one group of all GPUs; scale it by --to alone"
        )
    operations: dict[str, set[str]] = {}
    rows = trace.read("collectives", ["communicator", "operation"])
    for name, operation in zip(rows["communicator"].to_pylist(), rows["operation"].to_pylist(), strict=True):
        operations.setdefault(name, set()).add(operation)
    found = find_axes(groups, ranks, operations, given, parallel)
    return shaped(found, target_sizes(found, gpus, parallel))


def _check_count(gpus: int, ranks: int, replicas: bool, groups: dict[str, Group]) -> None:
    if gpus < 1:
        raise UsageError(f"--gpus {gpus}: a replay needs at least one GPU")
    if replicas and gpus % ranks:
        raise UsageError(
            f"--gpus {gpus} is no multiple of the {ranks} ranks of one replica; choose one that is"
        )
    inner = [group.name for group in groups.values() if group.size < ranks]
    if inner and gpus % ranks:
        raise UsageError(
            f"--gpus {gpus} is no multiple of the {ranks} captured ranks, and group {inner[0]!r} of only some of "
            "them repeats with all of them; choose a multiple"
        )
