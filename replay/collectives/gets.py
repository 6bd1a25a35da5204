"""All-reduce by gets, as custom kernels do it: after a barrier every GPU loads from its peers' memories.

A get is a request of one header a packet, which the peer's memory answers. `one_shot`: everyone loads all buffers.
`two_shot`: everyone loads its slice of all buffers, and after a second barrier the sums of the others.
"""

from ..program import wait, write
from .operation import Call, Track
from .work import Work

BARRIER, DATA = range(2)
"""Slots of a member; behind them one a peer and phase for requests."""


def one_shot(work: Work) -> list[Track]:
    """Load every peer's whole buffer."""
    return _load(work, [[work.operation.size_bytes] * work.size])


def two_shot(work: Work) -> list[Track]:
    """Load the own slice from everyone, add up, and load everyone's sum."""
    big, small, large = work.slices(work.operation.size_bytes, work.size)
    slices = [big if p < large else small for p in range(work.size)]
    return _load(work, [slices, []], sums=slices)


def _load(work: Work, phases: list[list[int]], sums: list[int] | None = None) -> list[Track]:
    """Let each member get `phases[0][p]` bytes from every peer; then, where `sums` are given, each peer's sum."""
    n, group = work.size, work.group()
    flags = work.flags(2 + len(phases) * n, "gets")
    track: Track = []
    for p in range(n):
        calls: list[Call] = []
        memory: list[dict[str, int]] = []
        for phase, wanted in enumerate(phases):
            ops = [*work.step(0)]
            ops += [write(i, 0, BARRIER, relative=True) for i in range(1, n)]
            ops.append(work.wait(BARRIER, (phase + 1) * (n - 1)))
            for i in range(1, n):
                peer, asker = (p + i) % n, (p - i) % n
                size = wanted[p] if wanted else (sums or [])[peer]
                request = work.requests(work.members[p], work.members[peer], size)
                ops.append(write(i, request, 2 + phase * n + p, relative=True))
                answer = wanted[asker] if wanted else (sums or [])[p]
                memory += [wait(2 + phase * n + asker, 1), write(-i, answer, DATA, relative=True)]
            ops.append(work.wait(DATA, (phase + 1) * (n - 1)))
            calls.append(work.call(ops, group=group, position=p, flags=flags))
        work.beside(work.members[p], "memory", [work.call(memory, group=group, position=p, flags=flags)])
        track.append(calls)
    return [track]
