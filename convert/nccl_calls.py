"""What NCCL or RCCL was called for, as a profiler recorded its API, and which kernels each call launched.

Calls between ncclGroupStart and ncclGroupEnd launch when the outermost group ends; other calls launch themselves. A
kernel belongs to the calls within whose window its thread launched it.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .operations import operation_of
from .parts import Group, Part, shared
from .work import Work

SOURCE = "library call"
"""What parts that are described by calls give as their source."""
DTYPES = (
    ("int8", 1), ("uint8", 1), ("int32", 4), ("uint32", 4), ("int64", 8), ("uint64", 8), ("float16", 2),
    ("float32", 4), ("float64", 8), ("bfloat16", 2), ("float8e4m3", 1), ("float8e5m2", 1),
)  # fmt: skip
"""Name and bytes of ncclDataType_t by value (nccl.h of NCCL 2.24)."""
_POINT_TO_POINT = ("send", "recv")
OF_ALL_RANKS = ("reduce_scatter", "all_to_all", "scatter")
"""Operations whose call counts one rank's share of a buffer that holds all ranks'."""


@dataclass(slots=True)
class Call:
    """One call of the library. `operation` is the schema's, or `group start`, `group end`.

    `count_bytes` is what the call's own count says; `peer` the other side or the root, as a group rank;
    `communicator` its name where it means the same on all ranks, else `handle` tells it apart on this one.
    """

    operation: str
    tid: int
    start_ns: int
    end_ns: int
    correlation: int = -1
    count_bytes: int | None = None
    dtype: str | None = None
    peer: int | None = None
    communicator: str | None = None
    handle: str | None = None


@dataclass(slots=True)
class Launch:
    """When the kernels of some calls were launched, by which thread; `last` is the call that launched them."""

    tid: int
    start_ns: int
    end_ns: int
    last: Call
    calls: list[Call]


def operation_of_call(name: str) -> str | None:
    """Return what the call `ncclAllReduce`, `ncclGroupEnd`... is for; None for those that move no data."""
    if not name.startswith("nccl"):
        return None
    word = name.removeprefix("nccl").removesuffix("_impl").removesuffix("Config")
    if word in ("GroupStart", "GroupEnd"):
        return {"GroupStart": "group start", "GroupEnd": "group end"}[word]
    operation = operation_of(word)
    return None if operation in ("unknown", "wait") else operation


def describe(
    parts: list[Part], work: Work, calls: Iterable[Call], groups: dict[str, Group]
) -> tuple[list[Part], int]:
    """Complete parts by the calls that launched their kernels; return them, and how many kernels no call fits.

    `parts` are used up. A kernel that ran several operations becomes a part each; `groups` are those known.
    """
    launches = _launches(calls)
    by_correlation = {
        launch.last.correlation: i for i, launch in enumerate(launches) if launch.last.correlation >= 0
    }
    made_by = np.full(len(parts), -1)
    for some in work.scratch.few(len(parts)):
        for row, part in enumerate(parts[some], some.start):
            index = _launch_of(part, work, launches)
            if index < 0 and work.launch[part.span] < 0:
                index = by_correlation.get(int(work.correlation[part.span]), -1)
            made_by[row] = index
    several: dict[int, list[Part]] = {}
    unfit = 0
    rows = np.argsort(made_by, kind="stable")
    for own in np.split(rows, np.flatnonzero(np.diff(made_by[rows])) + 1):
        if not len(own) or made_by[own[0]] < 0:
            continue
        places = own.tolist()
        shares = _share(launches[made_by[own[0]]].calls, [parts[row] for row in places])
        unfit += sum(not share for share in shares)
        for row, share in zip(places, shares, strict=True):
            parts[row], *more = _described(parts[row], share, groups)
            if more:
                several[row] = more
    return [p for row, part in enumerate(parts) for p in (part, *several.get(row, ()))], unfit


def _launches(calls: Iterable[Call]) -> list[Launch]:
    """Return the windows in which kernels are launched, in order of (thread, start)."""
    found: list[Launch] = []
    depth: Counter[int] = Counter()
    waiting: dict[int, list[Call]] = defaultdict(list)
    until: dict[int, int] = {}
    for call in sorted(calls, key=lambda c: (c.tid, c.start_ns, -c.end_ns)):
        tid = call.tid
        if call.start_ns < until.get(tid, call.start_ns):
            continue  # within another call, which made it
        if call.operation == "group start":
            depth[tid] += 1
        elif call.operation == "group end":
            depth[tid] = max(0, depth[tid] - 1)
            if not depth[tid] and waiting[tid]:
                found.append(Launch(tid, call.start_ns, call.end_ns, call, waiting.pop(tid)))
        elif depth[tid]:
            waiting[tid].append(call)
        else:
            found.append(Launch(tid, call.start_ns, call.end_ns, call, [call]))
            until[tid] = call.end_ns
    return found


def _launch_of(part: Part, work: Work, launches: Sequence[Launch]) -> int:
    """Return the window in which a part's kernel was launched, or -1."""
    call = int(work.launch[part.span])
    if call < 0:
        return -1
    tid, time = int(work.tid[call]), int(work.start_ns[call])
    index = bisect_right(launches, (tid, time), key=lambda launch: (launch.tid, launch.start_ns)) - 1
    inside = index >= 0 and launches[index].tid == tid and time <= launches[index].end_ns
    return index if inside else -1


def _share(calls: list[Call], parts: Sequence[Part]) -> list[list[Call]]:
    """Return which calls each part's kernel ran; none where that cannot be told."""
    if len(parts) == 1:
        return [calls]
    if len(parts) == len(calls):
        return [[call] for call in calls]
    if len(calls) == 1:
        return [calls, *([] for _ in parts[1:])]
    return [[] for _ in parts]


def _described(part: Part, calls: Sequence[Call], groups: dict[str, Group]) -> list[Part]:
    """Return what a part becomes by its calls: one, whole, or one an operation."""
    if not calls:
        return [part]
    if part.operation.startswith("all_to_all") and all(c.operation in _POINT_TO_POINT for c in calls):
        return [_exchange(_grouped(part, calls[0], groups), calls)]
    if len(calls) == 1:
        return [_one(part, calls[0], groups)]
    if all(c.operation in _POINT_TO_POINT for c in calls):
        if any(c.peer is None for c in calls):
            return [part]
        group = _grouped(part, calls[0], groups).group
        peers = [
            sorted(c.peer for c in calls if c.operation == o and c.peer is not None) for o in _POINT_TO_POINT
        ]
        if len(calls) > 2 and group.size and peers[0] == peers[1] == list(range(group.size)):
            whole = replace(part, operation="all_to_all", source=SOURCE)
            return [_exchange(_grouped(whole, calls[0], groups), calls)]
    return [_one(part, call, groups) for call in calls]


def _one(part: Part, call: Call, groups: dict[str, Group]) -> Part:
    """Return a part as one call describes it; what better sources said of it stays."""
    told = _grouped(part, call, groups)
    if told.operation == "unknown" or told.source in ("kernel name", "nothing", "annotation"):
        told = replace(told, operation=call.operation, source=SOURCE)
    if told.size_bytes is None and call.count_bytes is not None:
        ranks = told.group.size if call.operation in OF_ALL_RANKS else 1
        told.size_bytes = call.count_bytes * ranks if ranks else None
    told.dtype = told.dtype or call.dtype
    told.peer = call.peer if told.peer is None else told.peer
    return told


def _exchange(part: Part, calls: Sequence[Call]) -> Part:
    """Return an all-to-all with the sizes of the sends and receives that it is made of."""
    sent, received = ([c for c in calls if c.operation == o] for o in _POINT_TO_POINT)
    sizes = [c.count_bytes for c in sent]
    if part.size_bytes is None and sizes and None not in sizes:
        part.size_bytes = sum(size for size in sizes if size is not None)
    size = part.group.size
    splits = [_split(own, size) for own in (sent, received)]
    if all(split is not None for split in splits) and len({n for split in splits for n in split or ()}) > 1:
        part.operation = "all_to_allv"
        part.in_split_bytes, part.out_split_bytes = splits
    part.dtype = part.dtype or calls[0].dtype
    return part


def _split(calls: Sequence[Call], size: int | None) -> list[int] | None:
    """Return the bytes of each group rank, or None where the calls do not tell."""
    if size is None or any(c.peer is None or c.count_bytes is None or not 0 <= c.peer < size for c in calls):
        return None
    split = [0] * size
    for call in calls:
        split[call.peer or 0] += call.count_bytes or 0
    return split


def _grouped(part: Part, call: Call, groups: dict[str, Group]) -> Part:
    """Return a part in its call's communicator, unless a better source named its group."""
    group = part.group
    if group.name is None and call.communicator is not None:
        group = groups.get(call.communicator) or shared(Group(call.communicator, None, None, None))
    elif group.name is None and call.handle is not None:
        group = shared(replace(group, handle=call.handle))
    return replace(part, group=group)
