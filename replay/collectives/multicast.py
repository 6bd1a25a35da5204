"""What NVLink SHARP does in one box, by chunk: the switch collects, reduces and hands back; or it multicasts.

Every member owns (is the head of) every n-th chunk. To reduce, the owner sends a request, the switch passes it to
all members, their memories answer with the chunk, the switch reduces and returns it. To multicast, the owner writes
once and the switch writes to all members, the owner too. Agents of the switch serve the chunks in one order, round
by round (round k: chunk k of each owner); so do the memories.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...schemas import UsageError
from ..program import compute, wait, write
from .operation import Call
from .work import Work

Ops = list[dict[str, int]]
Rounds = list[tuple[int, int, list[int]]]
"""(first round, how many, bytes of each owner's chunk in each of them)."""

READY, SERVE, RESULT, DONE, PARENT, CHILDREN = range(6)
"""Slots of a member: own data may be read; a request came; a reduced chunk came; a multicast chunk came; what the
other boxes send (two children). Behind them those of the switch: a request, an answer, a chunk to multicast,
each by member."""
_BEHIND = CHILDREN + 2

WINDOW = 8
"""Chunks of an owner that are under way at once: NCCL's buffers hold 8 (NCCL_STEPS, src/include/device.h)."""


@dataclass
class Plane:
    """One switch, the group ranks that it serves in a box, and the rounds that its part of the data is cut into.

    Of `trees` that it serves at once this is number `tree`: with agents, and a part of its rate, of its own.
    """

    work: Work
    ranks: list[int]
    switch: int
    rounds: Rounds
    tree: int = 0
    trees: int = 1

    def __post_init__(self) -> None:
        self.n = len(self.ranks)
        self.members = [self.work.members[r] for r in self.ranks]
        self.flags = self.work.flags_on(
            [*self.members, self.switch], _BEHIND + 3 * self.n, f"switch {self.switch}"
        )
        self.group = self.work.builder.group([*self.members, self.switch])

    @property
    def count(self) -> int:
        """Rounds in all."""
        return self.rounds[-1][0] + self.rounds[-1][1]

    def slot(self, what: int, member: int) -> int:
        """Return the switch's slot: `what` 0 for requests, 1 for answers, 2 for chunks to multicast."""
        return _BEHIND + what * self.n + member

    def spans(self, *cuts: int) -> Iterator[tuple[int, int, list[int]]]:
        """Yield the rounds, split before each of the rounds `cuts`."""
        for first, count, sizes in self.rounds:
            ends = sorted({first, *(c for c in cuts if first < c < first + count), first + count})
            for start, end in pairwise(ends):
                yield start, end - start, sizes

    def request(self) -> dict[str, int]:
        """Return the write of a request from member 0: one header for each packet of a chunk."""
        size = self.work.requests(self.members[0], self.switch, max(self.rounds[0][2]))
        return write(self.n, size, self.slot(0, 0), relative=True)

    def ask(self, h: int) -> dict[str, int]:
        """Return the write of owner `h`'s request for a chunk."""
        return self.request() | {"peer": self.n - h, "flag": self.slot(0, h)}

    def hand_up(self, h: int, size: int) -> dict[str, int]:
        """Return the write of owner `h`'s chunk to be multicast."""
        return write(self.n - h, size, self.slot(2, h), relative=True)

    def open(self, h: int, *, ahead: int) -> list[Call]:
        """Return what member `h` begins with: its data may be read, and `ahead` requests."""
        ops = [write(0, 0, READY, relative=True), *[self.ask(h)] * ahead]
        return [self.call(ops, 1, h)]

    def close(self) -> list[Call]:
        """Return what a member ends with: all chunks have come."""
        return [self.call([wait(DONE, self.count * self.n)], 1, 0)]

    def call(self, ops: Ops, repeat: int, position: int, group: int | None = None) -> Call:
        """Return a call in the box's group, or another that begins with the same members."""
        group = self.group if group is None else group
        return self.work.call(ops, repeat, group=group, position=position, flags=self.flags)

    def serve_reduction(self) -> None:
        """Add the agents that answer requests: the switch's two and every member's memory."""
        n, position = self.n, self.n
        ask = {"size_bytes": self.request()["size_bytes"]}
        forward, reduce = [], []
        for first, count, sizes in self.rounds:
            pass_on: Ops = []
            collect: Ops = []
            for h, size in enumerate(sizes):
                pass_on.append(wait(self.slot(0, h), first + 1, expected_step=1))
                pass_on += [write(m - n, ask["size_bytes"], SERVE, relative=True) for m in range(n)]
                collect += [self._next(self.slot(1, m), first, h) for m in range(n)]
                collect += self._reduce(size)
                collect.append(write(h - n, size, RESULT, relative=True))
            forward.append(self.call(pass_on, count, position))
            reduce.append(self.call(collect, count, position))
        self._beside(self.switch, "requests", forward)
        self._beside(self.switch, "reduction", reduce)
        for m, member in enumerate(self.members):
            self._beside(member, "memory", self._memory(m))

    def _beside(self, endpoint: int, role: str, calls: list[Call]) -> None:
        self.work.beside(endpoint, f"{role} {self.tree}" if self.tree else role, calls)

    def _reduce(self, size: int) -> Ops:
        rate = self.work.tuning.reduce_mb_per_s
        return [compute(-(-size * self.n * self.trees * 10**6 // rate))] if rate else []

    def _next(self, slot: int, first: int, h: int) -> dict[str, int]:
        """Return the wait for the next of all owners' chunks in one slot."""
        return wait(slot, first * self.n + h + 1, expected_step=self.n)

    def _memory(self, m: int) -> list[Call]:
        calls = [self.call([wait(READY, 1)], 1, m)]
        for first, count, sizes in self.rounds:
            ops: Ops = []
            for h, size in enumerate(sizes):
                ops += [self._next(SERVE, first, h), write(self.n - m, size, self.slot(1, m), relative=True)]
            calls.append(self.call(ops, count, m))
        return calls

    def serve_multicast(self) -> None:
        """Add the agent of the switch that writes every owner's chunks to all members."""
        calls = []
        for first, count, sizes in self.rounds:
            ops: Ops = []
            for h, size in enumerate(sizes):
                ops.append(wait(self.slot(2, h), first + 1, expected_step=1))
                ops += [write(m - self.n, size, DONE, relative=True) for m in range(self.n)]
            calls.append(self.call(ops, count, self.n))
        self._beside(self.switch, "multicast", calls)


def rounds_of(work: Work, size_bytes: int, owners: int) -> Rounds:
    """Cut a buffer into chunks that its owners take in turn; as many rounds as the tuning's chunk asks for."""
    count = work.chunks(-(-size_bytes // owners))
    big, small, large = work.slices(size_bytes, owners * count)
    full, rest = divmod(large, owners)
    cut = [(0, full, [big] * owners), (full, min(rest, 1), [big] * rest + [small] * (owners - rest))]
    cut.append((full + min(rest, 1), count - full - min(rest, 1), [small] * owners))
    return [entry for entry in cut if entry[1]]


def first_alone(rounds: Rounds) -> Rounds:
    """Return the rounds with the first one by itself."""
    first, count, sizes = rounds[0]
    return [(first, 1, sizes), (first + 1, count - 1, sizes), *rounds[1:]] if count > 1 else rounds


def rounds_of_each(work: Work, size_bytes: int, owners: int) -> Rounds:
    """Cut every owner's own buffer of this size."""
    count = work.chunks(size_bytes)
    big, small, large = work.slices(size_bytes, count)
    cut = [(0, large, [big] * owners), (large, count - large, [small] * owners)]
    return [entry for entry in cut if entry[1]]


def planes(work: Work, ranks: Sequence[int]) -> list[int]:
    """Return the switches that can reduce and multicast for all these group ranks.

    Raises UsageError where there is none.
    """
    reached = [set(work.fabric.switches(work.members[r], direct=True)) for r in ranks]
    found = sorted(set.intersection(*reached))
    if not found:
        raise UsageError(
            f"{work.operation.operation}, algorithm {work.tuning.algorithm}: no switch of fabric "
            f"{work.fabric.name} that reduces joins the {len(ranks)} GPUs of a box; take a box with "
            "NVLink SHARP, such as hgx-h100, or another algorithm"
        )
    return found
