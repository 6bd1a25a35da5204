"""Who is lowered from whom: the captured ranks, the GPUs to replay, and the laws between them."""

from dataclasses import dataclass
from typing import Literal

from ...schemas import Trace, UsageError

Law = Literal["weak", "strong"]

LAWS = {
    "weak": "weak scaling: every GPU keeps its share of the batch, and so its compute",
    "strong": "strong scaling: the batch is divided, and compute with it",
}


@dataclass(frozen=True)
class Group:
    """A communicator: its captured members (indices into the job) by position, and its full size."""

    name: str
    size: int
    members: dict[int, int]

    @property
    def complete(self) -> bool:
        """Whether all its members were captured."""
        return len(self.members) == self.size


@dataclass(frozen=True)
class Plan:
    """From the ranks of a captured job to `gpus` GPUs.

    `job[i]` is the captured rank that stands for the i-th rank of the job: itself, or another one where it is
    missing and was filled in. GPU t is lowered from `job[t % len(job)]`. `index` holds each captured rank's own
    place. With `replicas` every block of `len(job)` GPUs is a job of its own; otherwise a group of all ranks
    grows to all GPUs, and smaller groups repeat by block.
    """

    job: tuple[int, ...]
    index: dict[int, int]
    groups: dict[str, Group]
    gpus: int
    law: Law
    replicas: bool

    def source(self, gpu: int) -> int:
        """Return the captured rank that `gpu` is lowered from."""
        return self.job[gpu % len(self.job)]

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
        return gpu < len(self.job) and self.index[self.job[gpu]] == gpu

    def grows(self, group: Group) -> bool:
        """Whether `group` spans all GPUs, however many; otherwise it repeats by block of the job."""
        return group.size == len(self.job) and not self.replicas

    @property
    def compute(self) -> tuple[int, int]:
        """Return numerator and denominator by which the law scales compute."""
        return (len(self.job), self.gpus) if self.law == "strong" and not self.replicas else (1, 1)


def make_plan(
    trace: Trace,
    gpus: int | None = None,
    *,
    law: Law = "weak",
    replicas: bool = False,
    fill: bool = False,
) -> Plan:
    """Plan for `gpus` GPUs (None: the captured ranks, as they are).

    Raises UsageError for a GPU count that makes no sense, and for ranks that the capture lacks, unless `fill`
    lets captured ranks stand for them.
    """
    if law not in LAWS:
        raise UsageError(f"--law {law}: choose {' or '.join(LAWS)}")
    ranks = trace.ranks()
    rows = trace.read("communicators").to_pylist()
    world = max([ranks[-1] + 1, *(row["group_size"] for row in rows)])
    missing = world - len(ranks)
    if missing and gpus is not None and not fill:
        shown = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
        raise UsageError(
            f"{trace.path} holds {len(ranks)} of the {world} ranks of its job ({shown}), so it cannot be scaled to "
            f"{gpus} GPUs as it is; pass --fill to let captured ranks stand for the missing ones"
        )
    filled = [r if r in set(ranks) else ranks[r % len(ranks)] for r in range(world)] if fill else ranks
    job = tuple(filled)
    index = {rank: rank if fill else place for place, rank in enumerate(ranks)}
    members: dict[str, tuple[int, dict[int, int]]] = {}
    for row in rows:
        if row["rank"] in index:
            _, found = members.setdefault(row["communicator"], (row["group_size"], {}))
            found[row["group_rank"]] = index[row["rank"]]
    groups = {name: Group(name, size, found) for name, (size, found) in members.items()}
    total = len(job) if gpus is None else gpus
    _check_count(total, len(job), replicas, groups)
    return Plan(job, index, groups, total, law, replicas)


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
