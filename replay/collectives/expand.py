"""Operations as calls: pick the algorithm, and give side-by-side tracks agents of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...schemas import UsageError
from ..builder import Builder
from ..fabric import Fabric
from ..program import compute, wait, write
from . import algorithms
from .operation import Call, Operation, Track, Tuning
from .plugins import Algorithm
from .work import Work


@dataclass(frozen=True)
class Expansion:
    """An operation, expanded: each member's calls for its own stream's agent, in the order of `members`.

    `agents` run beside them: the channels', by track and member, and those of switches and memories.
    """

    calls: list[list[Call]]
    agents: list[list[int]]


def expand(
    builder: Builder,
    fabric: Fabric,
    members: Sequence[int],
    operation: Operation,
    tuning: Tuning,
    communicator: str = "",
) -> Expansion:
    """Emit the blocks of one operation of the group `members` (endpoints, in group order).

    Every expansion reserves fresh flags. Where an algorithm has several tracks, each member has an agent a track
    and `communicator`; its stream then starts them and waits for them all, over local flags.

    Raises UsageError for an operation or algorithm that is not known, and where they make no sense together.
    """
    algorithm = _algorithm(operation, tuning, members)
    if operation.operation == "barrier":
        operation = replace(
            operation, size_bytes=1
        )  # as PyTorch does it on NCCL: an all-reduce of one element
    work = Work(builder, fabric, list(members), operation, tuning, communicator)
    base = [work.call([compute(tuning.base_ps)])] if tuning.base_ps else []
    if len(members) == 1:
        return Expansion([base], [])
    tracks = algorithm(work)
    if len(tracks) == 1:
        return Expansion([[*base, *calls] for calls in tracks[0]], [work.agents] if work.agents else [])
    return _side_by_side(work, tracks, base, communicator)


def _algorithm(operation: Operation, tuning: Tuning, members: Sequence[int]) -> Algorithm:
    known = algorithms.names(operation.operation)
    if not known:
        every = ", ".join(algorithms.operations())
        raise UsageError(
            f"operation {operation.operation!r} of {len(members)} ranks cannot be expanded: nobody knows what it "
            f"sends; label it in the trace as one of {every}, or replay its captured writes"
        )
    found = algorithms.algorithm(operation.operation, tuning.algorithm)
    n, split = len(members), operation.split_bytes
    if split is not None and split.shape != (n, n):
        raise UsageError(
            f"{operation.operation}: splits of shape {split.shape} for {n} ranks; give ({n}, {n})"
        )
    if operation.operation in ("all_to_allv", "dispatch", "combine") and split is None:
        raise UsageError(f"{operation.operation} without split sizes; give the bytes from each rank to each")
    if operation.operation in ("send", "recv") and n != 2:
        raise UsageError(f"{operation.operation} of {n} ranks; give the two that take part, the caller first")
    if not 0 <= operation.root < n:
        raise UsageError(f"{operation.operation}: root {operation.root} is no rank of a group of {n}")
    return found


def _side_by_side(work: Work, tracks: list[Track], base: list[Call], communicator: str) -> Expansion:
    """Give each track its agents; the streams raise one start flag each, and wait for the tracks that they have."""
    name = work.operation.name or work.operation.operation
    builder, group = work.builder, work.group()
    first = work.flags(len(tracks) + 1, "channel start")
    agents: list[list[int]] = []
    own: list[list[int]] = [[] for _ in work.members]
    for t, track in enumerate(tracks):
        agents.append([])
        begin = builder.block([wait(t, 1)])
        end = builder.block([write(0, 0, len(tracks), relative=True)])
        for p, calls in enumerate(track):
            if not calls:
                continue
            own[p].append(t)
            agent = builder.shared_agent(work.members[p], f"{communicator} channel {t}".strip())
            agents[-1].append(agent)
            builder.call(agent, begin, flag_offset=first)
            activity = builder.activity(agent, "other", f"{name} channel {t}")
            for call in calls:
                builder.call(agent, activity=activity, **call)
            builder.call(agent, end, group=group, position=p, flag_offset=first)
    streams = []
    for p in range(work.size):
        started = [write(0, 0, t, relative=True) for t in own[p]]
        ops = [*started, wait(len(tracks), len(own[p]))]
        streams.append([*base, work.call(ops, group=group, position=p, flags=first)])
    return Expansion(streams, [*agents, work.agents] if work.agents else agents)
