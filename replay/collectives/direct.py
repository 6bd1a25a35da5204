"""Direct: every member writes straight to every other one, all at once or a pair at a time."""

import numpy as np

from ..fabric import Ints
from ..program import compute
from .operation import Call, Track
from .work import Work, runs

_LISTED = 1024
"""Members up to which an even exchange over boxes lists its sends one by one, in NCCL's order."""


def all_to_all(work: Work) -> list[Track]:
    """Post everything at once, to the next member first; then wait for all."""
    if work.operation.split_bytes is not None:
        return [_posted(work, np.array(work.splits(), np.int64))]
    if work.spans_boxes and work.size <= _LISTED and work.operation.operation == "all_to_all":
        big, small, large = work.slices(work.operation.size_bytes, work.size)
        row = np.array([big if q < large else small for q in range(work.size)], np.int64)
        return [_posted(work, np.tile(row, (work.size, 1)))]
    flag = work.flags(1, "all_to_all")
    end = work.call([*busy(work), work.wait(0, work.size - 1)], flags=flag)
    return [[[*_start(work), *_scatter(work, p, flag), end] for p in range(work.size)]]


def reduce_scatter(work: Work) -> list[Track]:
    """Write each slice to its owner; the owner adds up what comes."""
    return all_to_all(work)


def all_gather(work: Work) -> list[Track]:
    """Write the own contribution to everyone."""
    flag = work.flags(1, "all_gather")
    end = work.call([work.wait(0, work.size - 1)], flags=flag)
    size = work.operation.size_bytes
    return [[[*_start(work), _to_all(work, p, size, flag), end] for p in range(work.size)]]


def all_reduce(work: Work) -> list[Track]:
    """Two phases: each slice to its owner, who adds up and writes the sum back to everyone."""
    flag = work.flags(2, "all_reduce")
    big, small, large = work.slices(work.operation.size_bytes, work.size)
    middle = work.call([work.wait(0, work.size - 1), *work.step(0)], flags=flag)
    end = work.call([work.wait(1, work.size - 1)], flags=flag)
    return [
        [
            [*_start(work), *_scatter(work, p, flag), middle,
             _to_all(work, p, big if p < large else small, flag + 1), end]
            for p in range(work.size)
        ]
    ]  # fmt: skip


def one_shot(work: Work) -> list[Track]:
    """Everyone writes the whole buffer to everyone, and adds up."""
    return all_gather(work)


def pairwise(work: Work) -> list[Track]:
    """Step i: send to the i-th next, and wait for the i-th previous, before the next step."""
    flag = work.flags(work.size - 1, "all_to_all step")
    if work.operation.split_bytes is not None:
        return [[_pairs_by_split(work, p, flag) for p in range(work.size)]]
    big, small, large = work.slices(work.operation.size_bytes, work.size)
    track: Track = []
    for p in range(work.size):
        calls = []
        for turn, length, is_big in runs(p + 1, work.size - 1, work.size, large, 1):
            size = big if is_big else small
            ops = [
                *work.step(size),
                work.write(1 + turn, size, peer_step=1, flag_step=1),
                work.wait(flag_step=1),
            ]
            calls.append(work.call(ops, length, group=work.group(), position=p, flags=flag + turn))
        track.append(calls)
    return [track]


def gather(work: Work) -> list[Track]:
    """Everyone writes to the root."""
    root, flag = work.operation.root, work.flags(1, "gather")
    ends = [work.call([work.wait(0, work.size - 1)], flags=flag)]
    size = work.operation.size_bytes
    return [[ends if p == root else _one(work, p, root, size, flag) for p in range(work.size)]]


def scatter(work: Work) -> list[Track]:
    """Let the root write to everyone."""
    root, flag = work.operation.root, work.flags(1, "scatter")
    posts = [*_start(work), *_scatter(work, root, flag)]
    end = [work.call([work.wait()], flags=flag)]
    return [[posts if p == root else end for p in range(work.size)]]


def send(work: Work) -> list[Track]:
    """Let the first member send to the second."""
    flag = work.flags(1, "send")
    return [[_one(work, 0, 1, work.operation.size_bytes, flag), [work.call([work.wait()], flags=flag)]]]


def recv(work: Work) -> list[Track]:
    """Let the first member receive from the second."""
    flag = work.flags(1, "recv")
    return [[[work.call([work.wait()], flags=flag)], _one(work, 1, 0, work.operation.size_bytes, flag)]]


def busy(work: Work) -> list[dict[str, int]]:
    """Return what channels need for the bytes that were posted, if more than the links: they end no sooner."""
    return [compute(work.tuning.kernel_ps)] if work.tuning.kernel_ps else []


def _start(work: Work) -> list[Call]:
    """Return the step that the kernel takes before it posts, if it costs anything."""
    step = work.step(0, network=work.spans_boxes)
    return [work.call(step)] if step else []


def _one(work: Work, p: int, to: int, size: int, flag: int) -> list[Call]:
    """Return one write from member `p` to member `to`."""
    ops = [*work.step(size), work.write(to - p, size)]
    return [work.call(ops, group=work.group(), position=p, flags=flag)]


def _to_all(work: Work, p: int, size: int, flag: int) -> Call:
    """Return a write of `size` bytes to every other member."""
    ops = [work.write(1, size, peer_step=1)]
    return work.call(ops, work.size - 1, group=work.group(), position=p, flags=flag)


def _scatter(work: Work, p: int, flag: int) -> list[Call]:
    """Return the writes of each slice of the buffer to its member, the next one first."""
    big, small, large = work.slices(work.operation.size_bytes, work.size)
    calls = []
    for turn, length, is_big in runs(p + 1, work.size - 1, work.size, large, 1):
        ops = [work.write(1 + turn, big if is_big else small, peer_step=1)]
        calls.append(work.call(ops, length, group=work.group(), position=p, flags=flag))
    return calls


def _posted(work: Work, split: Ints) -> Track:
    """Post what the split (N, N) says; pairs without data send nothing. Members that send alike share a block."""
    n = work.size
    flag, group = work.flags(1, "all_to_allv"), work.group()
    shared: dict[tuple[bytes, int, tuple[int, ...]], int] = {}
    track: Track = []
    for p in range(n):
        sent = np.roll(split[p], -p)
        expected = int(np.count_nonzero(split[:, p])) - int(split[p, p] > 0)
        order = _order(work, p)
        key = sent[1:].tobytes(), expected, order
        if key not in shared:
            ops = [work.write(i, int(sent[i])) for i in order if sent[i]]
            shared[key] = work.builder.block([*ops, *busy(work), work.wait(0, expected)])
        call: Call = {"block": shared[key], "group": group, "position": p, "flag_offset": flag}
        track.append([*_start(work), call])
    return track


def _order(work: Work, p: int) -> tuple[int, ...]:
    """Return how many places on the members are that `p` sends to, in order.

    Over boxes by box, each from the own place on (NCCL's schedule, scheduleP2pTasks in src/init.cc): members of a
    box never all send to one member first.
    """
    n = work.size
    if not work.spans_boxes or len({len(box) for box in work.ranks_by_box()}) > 1:
        return tuple(range(1, n))
    boxes = work.ranks_by_box()
    at = next(b for b, box in enumerate(boxes) if p in box)
    place, per = boxes[at].index(p), len(boxes[at])
    turned = [boxes[(at + b) % len(boxes)][(place + i) % per] for b in range(len(boxes)) for i in range(per)]
    return tuple((q - p) % n for q in turned[1:])


def _pairs_by_split(work: Work, p: int, flag: int) -> list[Call]:
    """Return a member's steps; a pair without data sends nothing, and nobody waits for it."""
    split, n = work.splits(), work.size
    ops: list[dict[str, int]] = []
    for i in range(1, n):
        if size := int(split[p][(p + i) % n]):
            ops += [*work.step(size), work.write(i, size, i - 1)]
        if split[(p - i) % n][p]:
            ops.append(work.wait(i - 1))
    return [work.call(ops, group=work.group(), position=p, flags=flag)] if ops else []
