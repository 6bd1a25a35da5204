"""Which rank of the job did what, where a source tells only ranks within NCCL's communicators, and processes.

The largest communicator is taken for the job's: a process is the rank that it has there.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..schemas.errors import InputError
from .parts import Group

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "all_to_all", "unknown")
_NAMED = re.compile(r"(?i)rank[-_.]?(\d{1,9})")


@dataclass(frozen=True)
class Place:
    """A rank within a communicator, in a process; `size` is None where the source does not say."""

    process: Hashable
    communicator: str
    rank: int
    size: int | None


@dataclass
class Ranks:
    """The job's ranks: `of` a place, None where its process drives several GPUs; `groups` by communicator."""

    of: dict[Place, int | None]
    groups: dict[str, Group]
    world: str
    world_size: int | None

    def note(self, rank: int) -> str:
        """Return what a report must say of where a rank's number comes from."""
        return f"rank {rank}: its number is that in the largest communicator, {self.world}, or in its file's name"


def find_ranks(places: Iterable[Place], files: Mapping[Hashable, Path]) -> Ranks:
    """Return the job's ranks; `files` names one file a process, and its rank<N>, where it has one, counts.

    Raises InputError where a process has no place in the largest communicator and no file's name tells its rank.
    """
    places = set(places)
    members: dict[str, set[int]] = defaultdict(set)
    sizes: dict[str, int | None] = {}
    for place in places:
        members[place.communicator].add(place.rank)
        sizes[place.communicator] = place.size
    world = max(sorted(members), key=lambda name: (sizes[name] or 0, len(members[name])))
    own: dict[Hashable, set[int]] = defaultdict(set)
    for place in places:
        own[place.process] |= {place.rank} if place.communicator == world else set()
    of: dict[Place, int | None] = {}
    for place in places:
        named = _NAMED.search(files[place.process].name)
        if not own[place.process] and not named:
            raise InputError(
                f"{files[place.process]} is of a process that has no part in the largest communicator, {world}: "
                "its rank is not known; name the file so that it holds rank<N>, or leave it out"
            )
        if len(own[place.process]) > 1:
            of[place] = place.rank if place.communicator == world else None
        else:
            of[place] = int(named[1]) if named else next(iter(own[place.process]))
    groups = {name: _group(name, members[name], sizes[name], of) for name in members}
    return Ranks(of, groups, world, sizes[world])


def _group(name: str, seen: set[int], size: int | None, of: Mapping[Place, int | None]) -> Group:
    """Return a group; its ranks are known where all of them were seen, in a run from 0."""
    by_rank = {place.rank: rank for place, rank in of.items() if place.communicator == name}
    ranks = [by_rank[rank] for rank in range(len(seen)) if by_rank.get(rank) is not None]
    whole = len(ranks) == len(seen) == (size or len(seen)) and len(set(ranks)) == len(ranks)
    return Group(name, tuple(r for r in ranks if r is not None) if whole else None, size, None)


def sequence_of(operation: str, number: int | None) -> int | None:
    """Return one number for an operation that NCCL numbers by kind within a communicator: equal on all ranks."""
    if number is None or operation not in OPERATIONS:
        return None
    return number * len(OPERATIONS) + OPERATIONS.index(operation)


def gaps(numbers: Mapping[Hashable, set[int]]) -> int:
    """Return how many numbers are missing between the first and the last of each kind."""
    return sum(max(own) - min(own) + 1 - len(own) for own in numbers.values())
