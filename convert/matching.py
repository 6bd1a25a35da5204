"""Match ranks' collectives into operations: same communicator, same place in its order.

Communicators get names that mean the same on every rank. Where the source numbers a communicator's
operations, those numbers match them; else their order does; and where orders disagree (files that cover
different windows, or hold samples only), the times at which they end do.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..schemas.errors import InputError
from .ends import Rows, ends_agree, kind, number_by_ends
from .parts import Group, Part

SYNCHRONISING = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "all_to_allv", "barrier")
"""Operations that no rank can end before the last one has begun, so that all end together."""
_POINT_TO_POINT = ("send", "recv")
_LARGEST = 1 << 24  # ranks that a group may have
_ALIKE = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "barrier", "all_to_all")
"""Operations to which every rank brings as much."""


@dataclass
class Member:
    """One rank in one communicator."""

    rank: int
    communicator: str
    group_rank: int
    group_size: int
    name: str | None
    inferred: bool = False


@dataclass
class Matching:
    """The ranks' parts by communicator and sequence.

    `operations` maps (communicator, sequence) to the parts by rank, `pairs` the same of sends and receives, which
    are numbered by themselves; `by` says how each communicator was matched: number, order or ends. `outside`
    counts peers that were left out, as the group has none such.
    """

    members: list[Member] = field(default_factory=list)
    operations: dict[tuple[str, int], dict[int, list[Part]]] = field(default_factory=dict)
    pairs: dict[tuple[str, int], dict[int, list[Part]]] = field(default_factory=dict)
    by: dict[str, str] = field(default_factory=dict)
    outside: int = 0


def match(parts: Mapping[int, Sequence[Part]], world_size: int | None) -> Matching:
    """Name communicators, number their operations, and match them across ranks.

    Sets every part's `sequence` and `communicator`. Raises InputError where ranks give one number to different
    operations: they are then of different runs.
    """
    matching = Matching()
    named = _name_communicators(parts)
    for name, by_rank in named.items():
        size = world_size or max(len(parts), _needed(by_rank))
        for rank, own in by_rank.items():
            for part in own:
                part.communicator = name
            member = _member(name, rank, own, size)
            matching.members.append(member)
            matching.outside += _leave_out_peers(own, member.group_size)
        matching.by[name] = _number(name, by_rank, list(named.values()))
        for rank, own in by_rank.items():
            for part in own:
                key = (name, part.sequence or 0)
                found = matching.pairs if part.operation in _POINT_TO_POINT else matching.operations
                found.setdefault(key, {}).setdefault(rank, []).append(part)
    return matching


def _name_communicators(parts: Mapping[int, Sequence[Part]]) -> dict[str, dict[int, list[Part]]]:
    """Group parts by communicator and rank.

    A process group's name is the same on all of its ranks; disjoint groups that share one are told apart by
    their ranks. Parts that do not name their group take the one that others on their stream (on a host: on any
    thread) name; what is left is numbered by first use, which all ranks of a job share.
    """
    named: dict[str, dict[int, list[Part]]] = defaultdict(lambda: defaultdict(list))
    rosters: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for own in parts.values():
        for part in own:
            if part.group.name is not None and part.group.ranks:
                rosters[part.group.name].add(part.group.ranks)
    for rank, own in parts.items():
        homes = _homes(own)
        order: dict[int | str | None, int] = {}
        for part in own:
            stream = part.stream if part.group.handle is None else part.group.handle
            group = part.group if part.group.name is not None else homes.get(stream, part.group)
            part.group = group
            if group.name is None:
                name = f"unnamed {order.setdefault(group.handle, len(order))}"
            elif len(rosters[group.name]) > 1 and group.ranks:
                name = f"{group.name} [{', '.join(map(str, group.ranks))}]"
            else:
                name = group.name
            named[name][rank].append(part)
    return named


def _homes(own: Sequence[Part]) -> dict[int | str | None, Group]:
    """Return the group that the named parts of each stream belong to, where it is one."""
    found: dict[int | str | None, set[Group]] = defaultdict(set)
    for part in own:
        if part.group.name is not None:
            found[part.stream].add(part.group)
    return {
        stream: next(iter(groups)) for stream, groups in found.items() if len({g.name for g in groups}) == 1
    }


def _needed(by_rank: Mapping[int, Sequence[Part]]) -> int:
    """Return the ranks that a group must have for its operations' peers."""
    peers = [p.peer for own in by_rank.values() for p in own if p.peer is not None and p.peer < _LARGEST]
    return 1 + max(peers, default=0)


def _leave_out_peers(own: Sequence[Part], size: int) -> int:
    """Leave out the peers that a group of `size` does not have; return how many."""
    outside = [p for p in own if p.peer is not None and not 0 <= p.peer < size]
    for part in outside:
        part.peer = None
    return len(outside)


def _member(name: str, rank: int, own: Sequence[Part], inferred: int) -> Member:
    group = own[0].group
    size = max(group.size or 0, len(group.ranks or ())) or inferred
    member = Member(rank, name, rank % size, size, group.description)
    if group.ranks and rank in group.ranks:
        member.group_rank = group.ranks.index(rank)
    elif group.start is not None and group.stride and (rank - group.start) % group.stride == 0:
        member.group_rank = max(0, min((rank - group.start) // group.stride, size - 1))
    else:
        member.inferred = True
    return member


def _number(name: str, by_rank: Mapping[int, list[Part]], all_groups: Sequence[Rows]) -> str:
    """Give each part its sequence; return how."""
    if _numbered(by_rank):
        _check_numbers(name, by_rank)
        if any(p.sequence is None for own in by_rank.values() for p in own):
            _number_point_to_point(by_rank)
        return "number"
    rows = {r: [p for p in own if p.operation not in _POINT_TO_POINT] for r, own in by_rank.items()}
    same_order = len({tuple(kind(p) for p in row) for row in rows.values()}) == 1
    synchronising = [[p for p in row if p.operation in SYNCHRONISING] for row in rows.values()]
    # Ends on a host depend on when its threads were scheduled, too much to doubt an order that agrees.
    on_host = not all(p.on_gpu for row in rows.values() for p in row)
    if on_host and len(by_rank) > 1 and _number_alike(rows):
        by = "order"
    elif len(by_rank) == 1 or (same_order and (on_host or ends_agree(synchronising))):
        for row in rows.values():
            for index, part in enumerate(row):
                part.sequence = index
        by = "order"
    else:
        number_by_ends(rows, all_groups)
        by = "ends"
    _number_point_to_point(by_rank)
    return by


def _number_alike(rows: Rows) -> bool:
    """Give a host's operations their sequence where all ranks have the same ones, in whatever order; say whether.

    Several threads may begin two operations in another order on each rank. The first of a type and size on one
    rank is the first of these on all others, and its number is its place on the first rank.
    """
    alike = {rank: [_alike(part) for part in row] for rank, row in rows.items()}
    first, *others = alike.values()
    if any(Counter(own) != Counter(first) for own in others):
        return False
    places: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, key in enumerate(first):
        places[key].append(place)
    for rank, row in rows.items():
        seen: Counter[tuple[object, ...]] = Counter()
        for part, key in zip(row, alike[rank], strict=True):
            part.sequence = places[key][seen[key]]
            seen[key] += 1
    return True


def _alike(part: Part) -> tuple[object, ...]:
    return (kind(part), part.dtype, part.size_bytes) if part.operation in _ALIKE else (kind(part),)


def _numbered(by_rank: Mapping[int, list[Part]]) -> bool:
    """Whether the source gives each operation, but perhaps sends and receives, a number of its own on a rank."""
    for own in by_rank.values():
        sides = Counter((p.sequence, p.operation, p.peer) for p in own if p.sequence is not None)
        numbers = Counter(p.sequence for p in own if p.operation not in _POINT_TO_POINT)
        if None in numbers or max((*sides.values(), *numbers.values()), default=0) > 1:
            return False
    return any(p.sequence is not None for own in by_rank.values() for p in own)


def _check_numbers(name: str, by_rank: Mapping[int, list[Part]]) -> None:
    seen: dict[int, tuple[int, str]] = {}
    for rank, own in by_rank.items():
        for part in own:
            if part.operation in (*_POINT_TO_POINT, "unknown"):
                continue
            other, operation = seen.setdefault(part.sequence or 0, (rank, part.operation))
            if operation != part.operation:
                raise InputError(
                    f"operation {part.sequence} of communicator {name!r} is {operation} on rank {other} and "
                    f"{part.operation} on rank {rank}: they are of different runs; give the files of one"
                )


def _number_point_to_point(by_rank: Mapping[int, list[Part]]) -> None:
    """Give sends and receives between two ranks their order as number, which both sides share."""
    for own in by_rank.values():
        counts: Counter[tuple[str, int | None]] = Counter()
        for part in own:
            if part.operation in _POINT_TO_POINT:
                key = (part.operation, part.peer)
                part.sequence = counts[key]
                counts[key] += 1
