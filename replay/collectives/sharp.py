"""SHARP: network switches reduce across boxes. As NCCL's CollNetDirect runs it, by chunk.

Members of a box write each chunk to its owner there, who adds up and writes it to the leaf of its rail. Leaves add
up over their boxes; where a rail has several, a spine adds up over them. The sum is multicast back down, and every
owner writes it to the others of its box.
"""

from dataclasses import dataclass, field

from ...schemas import UsageError
from ..program import compute, wait, write
from .multicast import Ops, Rounds, first_alone, rounds_of
from .operation import Call, Track
from .work import Work

SUM, SHARED, FROM_BOX = range(3)
"""Slots of a member: its chunk's sum from the leaf; others' sums from their owners; chunks, by member."""


@dataclass
class Rail:
    """The owners of one place in every box, and the switches that add up for them.

    Slots of a switch: 0 for the sum from the root; behind it one a child.
    """

    work: Work
    owners: list[int]
    place: int
    leaf: dict[int, int] = field(default_factory=dict)
    child: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        under: dict[int, list[int]] = {}
        for rank in self.owners:
            self.leaf[rank] = _leaf(self.work, rank)
            mates = under.setdefault(self.leaf[rank], [])
            self.child[rank] = len(mates)
            mates.append(rank)
        self.under = under
        self.root = _root(self.work, list(under), self.place) if len(under) > 1 else -1
        most = max(len(under), *(len(mates) for mates in under.values()))
        switches = [*under, *([self.root] if self.root >= 0 else [])]
        self.slots = self.work.flags_on(switches, 1 + most, f"rail {self.place}")

    def serve(self, rounds: Rounds, flags: int) -> None:
        """Add the agents of the switches. `flags` are the members'."""
        if self.root >= 0:
            self._add_up(self.root, list(self.under), rounds, self.slots, -1)
        for at, (leaf, mates) in enumerate(self.under.items()):
            members = [self.work.members[rank] for rank in mates]
            self._add_up(leaf, members, rounds, flags + SUM, at)

    def _add_up(self, switch: int, children: list[int], rounds: Rounds, into: int, place: int) -> None:
        """Add up over `children` and multicast into their slot `into`; a leaf asks the root, where there is one."""
        n, rate = len(children), self.work.tuning.reduce_mb_per_s
        asks = place >= 0 and self.root >= 0
        reduce: list[Call] = []
        spread: list[Call] = []
        for first, count, sizes in rounds:
            size = sizes[self.place]
            back = [write(child, size, into) for child in children]
            ops: Ops = [wait(self.slots + 1 + c, first + 1, expected_step=1) for c in range(n)]
            ops += [compute(-(-size * n * 10**6 // rate))] if rate else []
            ops += [write(self.root, size, self.slots + 1 + place)] if asks else back
            reduce.append(self.work.call(ops, count))
            if asks:
                ops = [wait(self.slots, first + 1, expected_step=1), *back]
                spread.append(self.work.call(ops, count))
        self.work.beside(switch, f"rail {self.place} reduction", reduce)
        if spread:
            self.work.beside(switch, f"rail {self.place} multicast", spread)


def all_reduce(work: Work) -> list[Track]:
    """Reduce in the box, in the network, and share in the box."""
    boxes = work.boxes()
    n = len(boxes[0])
    rounds = rounds_of(work, work.operation.size_bytes, n)
    flags = work.flags(FROM_BOX + n, "owners")
    tracks: list[Track] = [[[] for _ in work.members] for _ in range(3 if n > 1 else 2)]
    for place in range(n):
        rail = Rail(work, [box[place] for box in boxes], place)
        rail.serve(rounds, flags)
        for box in boxes:
            made = _member(work, rail, box, rounds, flags)
            for track, calls in zip(tracks, made, strict=False):
                track[box[place]] = calls
    return tracks


def _member(work: Work, rail: Rail, box: list[int], rounds: Rounds, flags: int) -> list[list[Call]]:
    """Return what a member does: add up and send its own chunks, share their sums, give the others theirs."""
    n, h = len(box), rail.place
    rank = box[h]
    group = work.builder.group([work.members[r] for r in box])
    others = [m for m in range(n) if m != h]
    to_leaf = rail.slots + 1 + rail.child[rank]
    calls: list[list[Call]] = [[], [], []]
    for first, count, sizes in first_alone(rounds):
        collect = [wait(flags + FROM_BOX + m, first + 1, expected_step=1) for m in others]
        collect += [
            *work.step(sizes[h], network=True, first=first == 0),
            write(rail.leaf[rank], sizes[h], to_leaf),
        ]
        share = [wait(SUM, first + 1, expected_step=1)]
        share += [write(m - h, sizes[h], SHARED, relative=True) for m in others]
        give = [write(m - h, sizes[m], FROM_BOX + h, relative=True) for m in others]
        calls[0].append(work.call(collect, count))
        calls[1].append(work.call(share, count, group=group, position=h, flags=flags))
        calls[2].append(work.call(give, count, group=group, position=h, flags=flags))
    total = rounds[-1][0] + rounds[-1][1]
    calls[1].append(work.call([wait(SHARED, total * (n - 1))], flags=flags))
    return calls


def _leaf(work: Work, rank: int) -> int:
    found = work.fabric.switches(work.members[rank], direct=False)
    if not found:
        raise UsageError(
            f"{work.operation.operation}, algorithm {work.tuning.algorithm}: GPU {work.members[rank]} reaches no "
            f"network switch of fabric {work.fabric.name} that reduces; set sharp=1, or take another algorithm"
        )
    return found[0]


def _root(work: Work, leaves: list[int], place: int) -> int:
    above = sorted(set.intersection(*(set(work.fabric.switches(leaf, direct=True)) for leaf in leaves)))
    if not above:
        raise UsageError(
            f"{work.operation.operation}, algorithm {work.tuning.algorithm}: no switch of fabric "
            f"{work.fabric.name} that reduces joins the leaves of a rail; set sharp=1, or take another algorithm"
        )
    return above[place % len(above)]
