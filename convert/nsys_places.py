"""Which processes ran on which GPUs in an Nsight Systems database, and which ranks of the job they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..schemas.errors import InputError
from .database import Database
from .nsys_rows import COPIES, GRAPHS, KERNELS, SETS
from .nsys_session import environment
from .nvtx import COMMUNICATOR, DEVICE, RANK, RANKS, name_of, nccl_ranges
from .parts import Group
from .profile import Place, Task
from .rocm import rank_in_environment

_SMALLEST_JOB = 2
"""Ranks in a communicator, or told by a launcher, from which on they number the job's."""


@dataclass(frozen=True)
class Member:
    """A place's rank in one of NCCL's communicators of `size` ranks."""

    communicator: int
    size: int
    rank: int
    place: Place


def find_places(database: Database) -> list[Place]:
    """Return the processes that ran kernels, and where; where none did, those that copied."""
    system = environment(database)
    host = system.get("Hostname")
    physical = _physical(database)
    for tables in ((KERNELS, GRAPHS), (COPIES, SETS)):
        found: set[tuple[int, int]] = set()
        for name in tables:
            table = database.find(name)
            if table is None or "deviceId" not in table.columns:
                continue
            process = "globalPid" if "globalPid" in table.columns else "NULL"
            rows = database.rows(f'SELECT DISTINCT {process}, deviceId FROM "{table.name}"')
            found |= {(p if isinstance(p, int) else -1, d) for p, d in rows if isinstance(d, int)}
        if found:
            break
    else:
        raise InputError(
            f"{database.path} holds no CUDA kernel or copy; was `nsys profile` run with `--trace=cuda,nvtx`?"
        )
    places = [
        Place(
            database.path, "", process, device, pid := process >> 24 & 0xFFFFFF if process >= 0 else 0, host,
            physical.get((pid, device)),
        )
        for process, device in sorted(found, key=lambda pair: (pair[1], pair[0]))
    ]  # fmt: skip
    return [_launched(system, places[0])] if len(places) == 1 else places


def _launched(system: dict[str, str], place: Place) -> Place:
    """Return the only place of a file with the rank that a launcher told nsys, where it started one a rank."""
    pairs = (word.partition("=") for word in system.get("DeviceEnvironment", "").split(";"))
    rank, size = rank_in_environment({name: value for name, _, value in pairs})
    return place if size is None or size < _SMALLEST_JOB else replace(place, rank=rank, world_size=size)


def _physical(database: Database) -> dict[tuple[int, int], int]:
    """Return the host's number of each GPU, by process and the process's own number for it."""
    table = database.find("TARGET_INFO_CUDA_DEVICE")
    if table is None or not {"gpuId", "cudaId", "pid"} <= table.columns:
        return {}
    rows = database.rows(f'SELECT pid, cudaId, gpuId FROM "{table.name}"')
    return {(p, c): g for p, c, g in rows if all(isinstance(n, int) for n in (p, c, g))}


def find_members(database: Database, places: Sequence[Place]) -> list[Member]:
    """Return who is in which communicator, as far as NCCL's payloads say it of one of `places` only."""
    found: dict[Member, None] = {}
    for called in nccl_ranges(database, "ncclComm*"):
        told = called.payload
        communicator, rank, size = (told.get(name) for name in (COMMUNICATOR, RANK, RANKS))
        if communicator is None or rank is None or size is None or not 0 <= rank < size < 1 << 24:
            continue
        near = [p for p in places if p.process == called.global_tid & ~0xFFFFFF or p.process < 0]
        near = [p for p in near if p.device == told.get(DEVICE)] or near
        if len(near) == 1:
            found[Member(communicator, size, rank, near[0])] = None
    return list(found)


def ranked(places: Sequence[Place], members: Sequence[Member]) -> list[Place]:
    """Return places with their ranks in the largest communicator that they are in."""
    best: dict[Place, tuple[int, int]] = {}
    for member in members:
        best[member.place] = max(best.get(member.place, (0, 0)), (member.size, member.rank))
    return [
        replace(p, rank=best[p][1], world_size=best[p][0]) if p in best and best[p][0] >= _SMALLEST_JOB else p
        for p in places
    ]


def groups_of(tasks: Sequence[Task], members: Sequence[Member]) -> tuple[Group, ...]:
    """Return the communicators; the job's ranks are told of those of which every member was found."""
    job_rank = {(t.place.path, t.place.process, t.place.device): t.rank for t in tasks}
    sizes = {member.communicator: member.size for member in members}
    by_rank: dict[int, dict[int, int]] = {communicator: {} for communicator in sizes}
    for member in members:
        place = member.place
        by_rank[member.communicator][member.rank] = job_rank[place.path, place.process, place.device]
    return tuple(
        Group(
            name_of(communicator),
            tuple(own[rank] for rank in sorted(own)) if len(own) == sizes[communicator] else None,
            sizes[communicator],
            None,
        )
        for communicator, own in by_rank.items()
    )
