"""Replay one case: a program of its operation, run by the ordinary engine on its fabric."""

from dataclasses import dataclass, replace

import numpy as np

from ...schemas import EidolaError
from ..builder import Builder
from ..collectives import Operation, Tuning, expand, tuning
from ..fabric import Fabric
from ..presets import preset
from ..program import Program
from ..routing import Routing, RoutingPolicy
from ..run import SEGMENT_BYTES, run
from .case import Case
from .launch import iteration_us

SEGMENTS = 2**18
"""Segments in a run, at most about: larger messages move in larger segments, so that a row takes seconds."""
CHUNKS = 4096
"""Chunks of a pipeline, at most: larger buffers move in larger ones. Fills of pipelines grow by under a percent."""

MOST_RANKS = 128
"""Rings and trees of more ranks are replayed at this number and at half of it, and grow from there."""
TREES = "tree", "nvls_tree"


@dataclass(frozen=True)
class Prediction:
    """What a case takes, and how it was run; or in `covered` why it could not be."""

    predicted_us: float = 0
    algorithm: str = ""
    protocol: str = ""
    covered: str = "true"


def predict(case: Case) -> Prediction:
    """Return what the replay predicts; a case that no program stands for says why."""
    try:
        fabric = preset(case.machine.preset, case.machine.gpus, **case.settings)
        members = list(range(case.ranks))
        how = tuning(fabric, _operation(case), members, case.algorithm or None, case.method.protocol or None,
                     case.method.channels or None, case.without,
                     case.machine.network.nvls_tree_chunk_bytes)  # fmt: skip
        how = _over(case, how) if how.algorithm == "tree" and case.machine.boxes > 1 else how
        how = replace(how, chunk_bytes=max(how.chunk_bytes, -(-case.size_bytes // CHUNKS)))
        took_us = _grown(case, how) if _is_large(case, how) else _replayed(case, how)
    except EidolaError as error:
        return Prediction(covered=f"no program: {error}")
    return Prediction(round(iteration_us(case, took_us), 3), how.algorithm, how.protocol)


def _replayed(case: Case, how: Tuning) -> float:
    """Return how long a program of the case takes, in microseconds."""
    fabric = preset(case.machine.preset, case.machine.gpus, **case.settings)
    routing = RoutingPolicy(Routing.SPRAY if case.machine.boxes > 1 else Routing.STATIC)
    program = _program(case, fabric, how)
    done = run(program, fabric, record="none", segment_bytes=_segment_bytes(case), routing=routing)
    return done.makespan_ps / 1e6


def _is_large(case: Case, how: Tuning) -> bool:
    """Return whether a case has more boxes than are replayed one by one."""
    grows = how.algorithm in ("ring", *TREES)
    return grows and case.groups == 1 and case.machine.boxes > _most_boxes(case)


def _most_boxes(case: Case) -> int:
    return max(2, MOST_RANKS // case.machine.gpus_a_box)


def _grown(case: Case, how: Tuning) -> float:
    """Return how long a case of many boxes takes, from the same in two smaller numbers of boxes.

    A ring's time grows with its steps, and so with the boxes, while slices stay as large; that of a chain with its
    members; a tree's with its levels, the logarithm of the boxes.
    """
    most, boxes = _most_boxes(case), case.machine.boxes
    sliced = how.algorithm == "ring" and case.method.operation not in ("broadcast", "reduce")
    took = []
    for fewer in (most // 2, most):
        machine = replace(case.machine, boxes=fewer)
        size_bytes = max(1, case.size_bytes * fewer // boxes) if sliced else case.size_bytes
        took.append(_replayed(replace(case, machine=machine, ranks=machine.gpus, size_bytes=size_bytes), how))
    times = 2 * (boxes / most - 1) if how.algorithm == "ring" else np.log2(boxes / most)
    return float(took[1] + (took[1] - took[0]) * times)


def _segment_bytes(case: Case) -> int:
    """Return the size of a segment: 64 KiB, or so many times as keep their number small."""
    moved = case.size_bytes * case.ranks * case.groups * 8
    times = -(-moved // (SEGMENT_BYTES * SEGMENTS))
    return SEGMENT_BYTES * int(2 ** np.ceil(np.log2(times)))


def _program(case: Case, fabric: Fabric, how: Tuning) -> Program:
    """Return a program of the case's groups."""
    builder = Builder(fabric.gpus)
    for first in range(0, case.ranks * case.groups, case.ranks):
        members = list(range(first, first + case.ranks))
        calls = expand(builder, fabric, members, _operation(case), how, f"group {first}").calls
        for member, made in zip(members, calls, strict=True):
            agent = builder.agent(member, "stream")
            for call in made:
                builder.call(agent, **call)
    return builder.build()


def _over(case: Case, how: Tuning) -> Tuning:
    """Return how a tree runs over the machine's network: its chunks, and what a NIC takes for each message.

    Two trees a GPU of a box carry a chunk each at a time; together these are a message a channel.
    """
    net, nics = case.machine.network, case.machine.nics or case.machine.gpus_a_box
    chunk_bytes = max(how.chunk_bytes, net.tree_chunk_bytes)
    mb_per_s, moved = how.network_lane_mb_per_s * how.lanes, chunk_bytes * 2 * case.machine.gpus_a_box
    if net.message_us and mb_per_s:
        took_us = moved / mb_per_s + net.message_us * how.lanes / nics
        mb_per_s = round(moved / took_us)
    return replace(how, chunk_bytes=chunk_bytes, network_lane_mb_per_s=mb_per_s // how.lanes)


def _operation(case: Case) -> Operation:
    """Return the operation of one group, in the schema's sizes."""
    name, size, n = case.method.operation, case.size_bytes, case.ranks
    if name == "shift":
        return Operation("all_to_allv", size, _shift(case))
    if name in ("all_gather", "gather"):
        size //= n
    return Operation(name, max(size, 1), element_bytes=1)


def _shift(case: Case) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    """Return who sends how much to whom, (N, N)."""
    n = case.ranks
    split = np.zeros((n, n), np.int64)
    for p in range(n):
        to = {"pairs": p ^ 1, "half": p + n // 2}.get(case.method.pattern, (p + 1) % n)
        if to < n:
            split[p, to] = case.size_bytes
    return split
