"""Expert parallelism: who sends how much for a routing of tokens, and forwarding inside the boxes.

`forwarded`, as DeepEP's kernels for training do it: a token for several GPUs of another box crosses the network
once, to the GPU there at the sender's own place, which forwards it over NVLink. A combine runs the other
way, and the GPU that forwards adds up first.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...schemas import UsageError
from ..fabric import Ints
from .hierarchical import split_of
from .operation import Call, Track
from .work import Work


@dataclass(frozen=True)
class Routed:
    """What a dispatch sends; a combine sends the transposes.

    (N, N) bytes from rank to rank, and (N, B) from rank to box, where a token counts once however many experts it
    has there.
    """

    split_bytes: Ints
    box_bytes: Ints


def routed(
    experts: npt.ArrayLike, ranks: int, total_experts: int, token_bytes: int, box_gpus: int = 8
) -> Routed:
    """Return what the routing matrix `experts` makes ranks send.

    `experts` (N, T, K): the experts of each of the T tokens of each rank, -1 for none; expert e lives on rank
    e // (total_experts / N). A token goes once to a rank, however many of its experts live there.

    Raises UsageError for another shape, experts that do not exist, or experts that the ranks cannot share evenly.
    """
    chosen = np.asarray(experts)
    if chosen.ndim != 3 or len(chosen) != ranks:
        raise UsageError(f"routing of shape {chosen.shape}; give ({ranks}, tokens, experts a token)")
    if total_experts % ranks:
        raise UsageError(f"{total_experts} experts on {ranks} ranks: give as many to each")
    if chosen.max(initial=-1) >= total_experts:
        raise UsageError(f"routing names expert {chosen.max()}; there are {total_experts}, from 0")
    boxes = -(-ranks // box_gpus)
    target = np.where(chosen < 0, -1, chosen // (total_experts // ranks))
    split = np.zeros((ranks, ranks), np.int64)
    box = np.zeros((ranks, boxes), np.int64)
    for rank in range(ranks):
        split[rank] = _tokens(target[rank], ranks)
        box[rank] = _tokens(np.where(target[rank] < 0, -1, target[rank] // box_gpus), boxes)
    return Routed(split * token_bytes, box * token_bytes)


def _tokens(target: Ints, count: int) -> Ints:
    """Return (count,) tokens that name each target at least once; `target` is (T, K)."""
    hit = np.zeros((len(target), count + 1), bool)
    np.put_along_axis(hit, np.where(target < 0, count, target), True, axis=1)
    found: Ints = hit[:, :count].sum(axis=0)
    return found


def dispatch(work: Work) -> list[Track]:
    """Across the network once a box, then forwarded; what stays in the box goes straight."""
    return [_stages(work, split_of(work), back=False)]


def combine(work: Work) -> list[Track]:
    """Add up in each box at the place of the tokens' owner, then cross the network."""
    return [_stages(work, split_of(work), back=True)]


def _stages(work: Work, split: Ints, *, back: bool) -> Track:
    """Return the writes of a dispatch, or in reverse those of a combine, whose `split` is from expert to owner."""
    boxes = work.boxes()
    place = {rank: (b, i) for b, box in enumerate(boxes) for i, rank in enumerate(box)}
    crossing = _crossing(work, split.T if back else split, boxes)
    flag = work.flags(2, "forwarding")
    track: Track = []
    for p in range(work.size):
        b, i = place[p]
        mates = [box[i] for c, box in enumerate(boxes) if c != b]
        # what p holds for the others' tokens: from mate m to p's box, by local GPU
        local = [q for q in boxes[b] if q != p]
        near = {q: int(split[p, q]) for q in local}
        forward = {q: sum(int(split[q, m] if back else split[m, q]) for m in mates) for q in local}
        if back:
            send = {q: near[q] + sum(int(split[p, box[place[q][1]]]) for c, box in enumerate(boxes) if c != b)
                    for q in local}  # fmt: skip
            expect = sum(1 for q in local if split[q, p] + sum(split[q, m] for m in mates))
            far = {m: int(crossing[m, b]) for m in mates}
            first, second = send, far
            later = sum(1 for m in mates if crossing[p, place[m][0]])
        else:
            far = {m: int(crossing[p, place[m][0]]) for m in mates}
            first, second = {**far}, forward
            expect = sum(1 for m in mates if crossing[m, b])
            later = sum(
                1 for q in local if sum(split[box[place[q][1]], p] for c, box in enumerate(boxes) if c != b)
            ) + sum(1 for q in local if split[q, p])
        track.append(_member(work, p, flag, first, expect, second, later, {} if back else near))
    return track


def _member(
    work: Work, p: int, flag: int, first: dict[int, int], expect: int, second: dict[int, int], later: int,
    near: dict[int, int],
) -> list[Call]:  # fmt: skip
    """Write `first`, and `near` for the end; wait for what comes; write `second`; wait for the end."""
    ops = [*work.step(0, network=work.spans_boxes)]
    ops += [work.write(q - p, size) for q, size in first.items() if size]
    ops += [work.write(q - p, size, 1) for q, size in near.items() if size]
    ops += [work.wait(0, expect), *work.step(0)]
    ops += [work.write(q - p, size, 1) for q, size in second.items() if size]
    ops.append(work.wait(1, later))
    return [work.call(ops, group=work.group(), position=p, flags=flag)]


def _crossing(work: Work, split: Ints, boxes: list[list[int]]) -> Ints:
    """Return (N, B) bytes from each rank to each box; without a routing as many as its GPUs get together."""
    given = work.operation.box_bytes
    if given is not None:
        if given.shape != (work.size, len(boxes)):
            raise UsageError(
                f"{work.operation.operation}: bytes to boxes of shape {given.shape}; "
                f"give ({work.size}, {len(boxes)})"
            )
        return given
    return np.stack([split[:, box].sum(axis=1) for box in boxes], axis=1)
