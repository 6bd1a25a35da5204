"""Collectives as sends and receives, for formats that have nothing else: one algorithm an operation.

Rings of one channel carry all_reduce, all_gather and reduce_scatter; a chain in pieces of PIECE_BYTES broadcast and
reduce; every pair one message all_to_all, gather and scatter; a dissemination of one byte a barrier. (NCCL's rings
and chains: src/device/{all_reduce,all_gather,reduce_scatter,broadcast,reduce}.h, v2.27; dissemination: Hensgen,
Finkel and Manber, "Two algorithms for barrier synchronization", 1988.)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PIECE_BYTES = 512 << 10
MOST_PIECES = 64


@dataclass(frozen=True)
class Message:
    """One side of one message of a collective.

    `peer` is a place in the group, `tag` counts from the operation's first, `after` are indexes of earlier messages
    of the same rank that must be done before it starts.
    """

    sends: bool
    peer: int
    size_bytes: int
    tag: int
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Collective:
    """One operation of a whole group; `parts` has each place's row of the table `collectives`."""

    operation: str
    parts: Sequence[Mapping[str, Any]]

    @property
    def size(self) -> int:
        """Ranks in the group."""
        return len(self.parts)

    @property
    def sized(self) -> bool:
        """Whether the operation is known, and every rank's size told."""
        told = all(part["size_bytes"] is not None or part["in_split_bytes"] for part in self.parts)
        return self.operation in _EXPANSIONS and (told or self.operation == "barrier")

    @property
    def known(self) -> bool:
        """Whether its root, where it has one, is told too, so that it can be expanded."""
        root = self.parts[0]["peer"]
        return self.sized and (self.operation not in _ROOTED or (root is not None and 0 <= root < self.size))

    @property
    def tags(self) -> int:
        """How many tags its messages use."""
        n = self.size
        if self.operation in ("broadcast", "reduce"):
            return len(self.pieces())
        return max(1, 2 * n if self.operation in _RINGS else n.bit_length())

    def bytes_of(self, place: int) -> int:
        """Return the input of `place` in bytes."""
        return int(self.parts[place]["size_bytes"] or 0)

    def part(self, chunk: int) -> int:
        """Return the bytes of `chunk` where the input is cut into one for each rank."""
        whole, rest = divmod(self.bytes_of(0), self.size)
        return whole + (chunk % self.size < rest)

    def pieces(self) -> list[int]:
        """Return the bytes of each piece of a pipelined buffer, the root's."""
        size = self.bytes_of(int(self.parts[0]["peer"]))
        count = min(MOST_PIECES, max(1, -(-size // PIECE_BYTES)))
        return [size // count + (i < size % count) for i in range(count)]

    def between(self, source: int, destination: int) -> int:
        """Return the bytes that `source` has for `destination` in an all-to-all."""
        splits = self.parts[source]["in_split_bytes"]
        if splits and len(splits) == self.size:
            return int(splits[destination])
        whole, rest = divmod(self.bytes_of(source), self.size)
        return whole + (destination < rest)

    def messages(self, place: int) -> list[Message]:
        """Return what `place` sends and receives, in order; raises KeyError where there is no expansion."""
        return list(_EXPANSIONS[self.operation](self, place)) if self.size > 1 else []


def _ring(
    op: Collective, place: int, steps: int, first_tag: int, begin: int, size: Callable[[int], int], after: int
) -> Iterator[Message]:
    """Pass chunks on around a ring, first the one `begin` places before the own, then what has come."""
    n = op.size
    for step in range(steps):
        chunk = (place - begin - step) % n
        dependency = (after,) if after >= 0 else ()
        yield Message(True, (place + 1) % n, size(chunk), first_tag + step, dependency)
        yield Message(False, (place - 1) % n, size((chunk - 1) % n), first_tag + step)
        after = 2 * (first_tag + step) + 1


def _all_reduce(op: Collective, place: int) -> Iterator[Message]:
    n = op.size
    yield from _ring(op, place, n - 1, 0, 0, op.part, -1)
    yield from _ring(op, place, n - 1, n - 1, -1, op.part, 2 * (n - 2) + 1)


def _reduce_scatter(op: Collective, place: int) -> Iterator[Message]:
    return _ring(op, place, op.size - 1, 0, 1, op.part, -1)


def _all_gather(op: Collective, place: int) -> Iterator[Message]:
    return _ring(op, place, op.size - 1, 0, 0, op.bytes_of, -1)


def _chain(op: Collective, place: int, at: int) -> Iterator[Message]:
    """Pass pieces along a chain in which this rank is `at`."""
    n, count = op.size, 0
    for tag, size in enumerate(op.pieces()):
        if at > 0:
            yield Message(False, (place - 1) % n, size, tag)
            count += 1
        if at < n - 1:
            yield Message(True, (place + 1) % n, size, tag, (count - 1,) if at > 0 else ())
            count += 1


def _broadcast(op: Collective, place: int) -> Iterator[Message]:
    return _chain(op, place, (place - int(op.parts[0]["peer"])) % op.size)


def _reduce(op: Collective, place: int) -> Iterator[Message]:
    return _chain(op, place, (place - int(op.parts[0]["peer"]) - 1) % op.size)


def _all_to_all(op: Collective, place: int) -> Iterator[Message]:
    n = op.size
    for step in range(1, n):
        to, origin = (place + step) % n, (place - step) % n
        if size := op.between(place, to):
            yield Message(True, to, size, 0)
        if size := op.between(origin, place):
            yield Message(False, origin, size, 0)


def _gather(op: Collective, place: int) -> Iterator[Message]:
    root = int(op.parts[0]["peer"])
    if place != root:
        yield Message(True, root, op.bytes_of(place), 0)
        return
    for other in range(op.size):
        if other != root:
            yield Message(False, other, op.bytes_of(other), 0)


def _scatter(op: Collective, place: int) -> Iterator[Message]:
    root = int(op.parts[0]["peer"])
    if place != root:
        yield Message(False, root, op.between(root, place), 0)
        return
    for other in range(op.size):
        if other != root:
            yield Message(True, other, op.between(root, other), 0)


def _barrier(op: Collective, place: int) -> Iterator[Message]:
    n = op.size
    for tag in range((n - 1).bit_length()):
        yield Message(True, (place + (1 << tag)) % n, 1, tag, (2 * tag - 1,) if tag else ())
        yield Message(False, (place - (1 << tag)) % n, 1, tag)


_EXPANSIONS: Mapping[str, Callable[[Collective, int], Iterator[Message]]] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "broadcast": _broadcast,
    "reduce": _reduce,
    "all_to_all": _all_to_all,
    "all_to_allv": _all_to_all,
    "gather": _gather,
    "scatter": _scatter,
    "barrier": _barrier,
}
_RINGS = ("all_reduce", "all_gather", "reduce_scatter")
_ROOTED = ("broadcast", "reduce", "gather", "scatter")
