"""Rings: everyone sends to the next and receives from the previous one, a slice or a chunk at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from .operation import Ring, Track
from .work import Work, first_alone, runs

Stretch = tuple[int, int, bool]
"""Equal steps of a member: the first, how many, whether of large slices."""


def all_reduce(work: Work) -> list[Track]:
    """2(N - 1) steps: reduce-scatter, then all-gather. Member p sends slices p, p - 1, ... around twice."""
    return [_steps(work, ring, 2 * (work.size - 1)) for ring in work.rings()]


def reduce_scatter(work: Work) -> list[Track]:
    """N - 1 steps of a slice of the input."""
    return [_steps(work, ring, work.size - 1) for ring in work.rings()]


def all_gather(work: Work) -> list[Track]:
    """N - 1 steps of a member's contribution."""
    whole = [replace(ring, size_bytes=ring.size_bytes * work.size) for ring in work.rings()]
    return [_steps(work, ring, work.size - 1) for ring in whole]


def _steps(work: Work, ring: Ring, steps: int) -> Track:
    """Every member forwards `steps` slices of the ring's buffer, waiting after each for the next to come.

    Who sends out of its box pays the network's latency once a turn around the box: slices that have been over the
    network as often as one another are under way together.
    """
    n, order, group = work.size, ring.order, work.group(ring.order)
    flag = work.flags(1, "ring")
    big, small, large = work.slices(ring.size_bytes, n)
    track: Track = [[] for _ in order]
    box = max(1, n // len(work.ranks_by_box()))
    shared: dict[tuple[int, bool, bool, bool], int] = {}
    for p, rank in enumerate(order):
        network = work.leaves_box(rank, order[(p + 1) % n])
        stretches = runs(p, steps, n, large, -1)
        for turn, length, is_big in _turns(stretches, box) if network else stretches:
            again = network and turn % box > 0
            key = turn, is_big, network, again
            if key not in shared:
                size = big if is_big else small
                ops = [
                    *work.step(size, ring, network=network, again=again),
                    work.write(1, size),
                    work.wait(0, 1 + turn, expected_step=1),
                ]
                shared[key] = work.builder.block(ops)
            track[rank].append(
                {"block": shared[key], "repeat": length, "group": group, "position": p, "flag_offset": flag}
            )
        if last := work.last(big, ring):
            track[rank].append(work.call(last))
    return track


def _turns(stretches: Iterable[Stretch], box: int) -> Iterator[Stretch]:
    """Cut every `box`-th step, the first included, out of its stretch."""
    for turn, length, is_big in stretches:
        at, end = turn, turn + length
        while at < end:
            count = 1 if at % box == 0 else min(end, at - at % box + box) - at
            yield at, count, is_big
            at += count


def broadcast(work: Work) -> list[Track]:
    """Chunks travel from the root around each ring, one after another."""
    return [_chain(work, ring, 0) for ring in work.rings()]


def reduce(work: Work) -> list[Track]:
    """Chunks travel from behind the root around each ring and end there."""
    return [_chain(work, ring, 1) for ring in work.rings()]


def _chain(work: Work, ring: Ring, start: int) -> Track:
    """Send chunks from the member `start` places after the root; the last one keeps what the others forward."""
    n, order, group = work.size, ring.order, work.group(ring.order)
    flag = work.flags(1, "chain")
    chunks = work.chunks(ring.size_bytes)
    big, small, large = work.slices(ring.size_bytes, chunks)
    head = order.index(work.operation.root) + start
    track: Track = [[] for _ in order]
    for distance in range(n):
        p = (head + distance) % n
        rank = order[p]
        network = work.leaves_box(rank, order[(p + 1) % n])
        if distance == n - 1:
            track[rank] = [work.call([work.wait(0, chunks)], flags=flag)]
            continue
        for first, count, size in first_alone(((0, large, big), (large, chunks - large, small))):
            arrived = [work.wait(0, 1 + first, expected_step=1)] if distance else []
            step = work.step(size, ring, network=network, first=first == 0)
            ops = [*arrived, *step, work.write(1, size)]
            track[rank].append(work.call(ops, count, group=group, position=p, flags=flag))
    return track
