"""Size laws: what a rank's part in a collective becomes when its group, or another axis of the job, grows.

Data parallel: the buffer of an all-reduce is constant. FSDP: the full parameters are constant, so shards of
all-gather shrink while reduce-scatter's whole input stays. Expert parallel: the bytes a rank sends in an all-to-all
are constant, so every peer's share shrinks. Tensor parallel: the message (a layer's activations) is constant, and
as every GPU then holds less of the weights, buffers of data-parallel groups shrink with it. Strong scaling
divides the batch, and what depends on it: all-to-all, send and receive, and the messages of tensor-parallel groups.
"""

from fractions import Fraction
from math import lcm

import numpy as np

from ..fabric import Ints
from .items import Part
from .plan import Plan

_KEPT = "buffer kept"
LAW_OF = {
    "all_reduce": f"{_KEPT} (data parallel)",
    "all_gather": "full size kept, each rank's shard shrinks (FSDP)",
    "reduce_scatter": "full size kept, each rank's shard shrinks (FSDP)",
    "all_to_all": "bytes a rank kept, each peer's share shrinks (expert parallel)",
    "all_to_allv": "bytes a rank kept, its captured splits repeated (expert parallel)",
    "gather": "each rank's contribution kept",
}
_BATCH = ("all_to_all", "all_to_allv", "send", "recv")


def law_of(operation: str, plan: Plan, communicator: str) -> str:
    """Return the law of an operation in words."""
    axis = plan.layout.axis_of.get(communicator, "")
    law = "message kept (tensor parallel)" if axis == "tensor" else LAW_OF.get(operation, _KEPT)
    if _batched(operation, axis) and plan.batch != 1:
        law += "; the batch divided"
    if _weights(operation, axis) and plan.sharding != 1:
        law += f"; the weights of a GPU x {plan.sharding}"
    return law


def _batched(operation: str, axis: str) -> bool:
    return operation in _BATCH or axis in ("tensor", "context")


def _weights(operation: str, axis: str) -> bool:
    return "data" in axis and "tensor" not in axis and operation not in _BATCH


def size_ratio(operation: str, plan: Plan, communicator: str, captured: int, members: int) -> Fraction:
    """Return by how much a rank's buffer changes in a group of `members` that was captured with `captured`."""
    axis = plan.layout.axis_of.get(communicator, "")
    ratio = Fraction(captured, members) if operation == "all_gather" else Fraction(1)
    if _batched(operation, axis):
        ratio *= plan.batch
    return ratio * plan.sharding if _weights(operation, axis) else ratio


def scaled(size_bytes: int, ratio: Fraction) -> int:
    """Return a size times a ratio, rounded up to whole bytes."""
    return -(-size_bytes * ratio.numerator // ratio.denominator)


def split_bytes(parts: list[Part], captured: int, ratio: Fraction) -> Ints:
    """Return (N, N) bytes from each member to each, for members that each repeat one of `captured` ranks.

    A part without splits shares its buffer out evenly.
    """
    members = len(parts)
    rows: dict[int, Ints] = {}
    for part in parts:
        if id(part) not in rows:
            split = part.in_split_bytes or (1,) * captured
            total = sum(split) if part.in_split_bytes else part.size_bytes
            rows[id(part)] = tiled(split, members, scaled(total, ratio), part.element_bytes)
    return np.stack([rows[id(part)] for part in parts])


def tiled(split: tuple[int, ...], members: int, total_bytes: int, unit_bytes: int = 1) -> Ints:
    """Share `total_bytes` out over `members` in the captured proportions, repeated; (members,), the sum exact.

    Shares are whole units where what was captured is. With the captured number and total it is the captured split.
    """
    size = len(split)
    copies = [len(range(j % size, members, size)) for j in range(members)]
    common = lcm(*set(copies))
    weights = [split[j % size] * common // copies[j] for j in range(members)]
    unit = unit_bytes if all(size % unit_bytes == 0 for size in (*split, total_bytes)) else 1
    whole, upto, before = sum(weights), [0], 0
    for weight in weights:
        before += weight
        upto.append(total_bytes // unit * before // whole * unit if whole else 0)
    return np.diff(np.array(upto, np.int64)).astype(np.int64)
