"""Dumps of NCCL's example profiler plugin -> a trace: its operations, and when their channels or proxies ran.

Their layout: NVIDIA/nccl at 145e67e70745 (2.27), ext-profiler/example/print_event.c and plugin.c, and at
1e0c869c39bb (2.29), print_event.cc: asynchronous events of the trace-event format, an event a line, nested by
their order, in us since the plugin was loaded. Older plugins (68b542363f9a, 2.23) write types as numbers, or bare
names and addresses that are no JSON. A communicator of a process writes DUMP-HOST-TID.txt when it is destroyed.
The plugin drops operations, and says nothing, while its pools are full (16 collectives in 2.27, 256 in newer ones,
or NCCL_PROFILE_COLL_POOL_SIZE).

An operation is as long as its channels ran, by the GPU's timer where the plugin wrote it, else as the host noticed;
without channels as long as its proxies did. Operations with neither are left out: their own end says only that they
were enqueued.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError
from .files import find_files, whole
from .formats import Format, Head, read_head
from .nccl_calls import OF_ALL_RANKS
from .nccl_dump import _ELEMENT_BYTES
from .nccl_example_dump import Dump, Operation, read_dump
from .nccl_ranks import Ranks, find_ranks, gaps, sequence_of
from .operations import operation_of
from .parts import Part
from .rank import RankRecord

_EVENT = re.compile(rb'\{"name": "[^"]{0,64}", "cat": "[A-Z0-9_]+", "ph": "[be]", "id": \d+, "pid": ')
_DATATYPES = (
    *(
        "ncclInt8",
        "ncclUint8",
        "ncclInt32",
        "ncclUint32",
        "ncclInt64",
        "ncclUint64",
        "ncclFloat16",
        "ncclFloat32",
    ),
    *("ncclFloat64", "ncclBfloat16", "ncclFloat8e4m3", "ncclFloat8e5m2"),
)
"""ncclDataType_t by number, as NCCL's src/nccl.h.in (v2.27) lists them."""
_OLD_NAMES = {"nvlstree": "nvls_tree", "collnetdirect": "collnet_direct", "collnetchain": "collnet_chain"}
"""Algorithms as NCCL 2.23 wrote them, and as later ones do."""
_ROOTED = ("broadcast", "reduce", "gather", "scatter")


def recognise(head: Head) -> bool:
    """Whether a file begins with an array of the plugin's events."""
    start = head.start[:4096].lstrip()
    return start.startswith(b"[") and bool(_EVENT.match(start[1:].lstrip()))


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Return one task of all dumps: the job's ranks show only in all of them."""
    del companions
    what = "dumps of NCCL's example profiler plugin"
    return [tuple(find_files(paths, lambda file: recognise(read_head(file)), what))]


def read(paths: tuple[Path, ...], alone: bool) -> list[RankRecord]:
    """Read all dumps. Raises InputError where none has an operation that is known to have run."""
    del alone
    files = [read_dump(path) for path in paths]
    for file in files:
        if file.malformed and not file.operations:
            raise InputError(
                f"{file.path} holds no operation that NCCL's example profiler plugin wrote, but {file.malformed} "
                "lines that are not its; leave it out"
            )
    operations = [(file, operation) for file in files for operation in file.operations]
    if not operations:
        raise InputError(
            f"{paths[0]}: no collective, send or receive; set NCCL_PROFILE_EVENT_MASK to 70 (collectives, "
            "point-to-point, channels) and let the job destroy its communicators"
        )
    ranks = find_ranks(
        (operation.place for _, operation in operations),
        {o.place.process: file.path for file, o in operations},
    )
    own: dict[int, list[tuple[Dump, Operation]]] = defaultdict(list)
    for file, operation in operations:
        rank = ranks.of[operation.place]
        if rank is not None:
            own[rank].append((file, operation))
    records = [record for rank, rows in sorted(own.items()) if (record := _record(rank, rows, ranks))]
    if not records:
        raise InputError(
            f"{paths[0]}: of {len(operations)} operations only the enqueueing was recorded; set "
            "NCCL_PROFILE_EVENT_MASK to 70 (NCCL 2.26 and newer), so that channels are recorded"
        )
    return records


FORMAT = Format(name="nccl-example", recognise=recognise, plan=plan, read=read)


def _record(rank: int, rows: list[tuple[Dump, Operation]], ranks: Ranks) -> RankRecord | None:
    offset = _gpu_offset([operation for _, operation in rows])
    timed = [(o, window) for _, o in rows if (window := _window(o, offset))]
    if not timed:
        return None
    timed.sort(key=lambda pair: pair[1])
    counts: dict[tuple[str, str, Any], Iterator[int]] = {}
    parts = [_part(span, o, window, ranks, counts) for span, (o, window) in enumerate(timed)]
    files = {file.path: file for file, _ in rows}
    dropped = {
        "operation of which only the enqueueing was seen": len(rows) - len(timed),
        "malformed event": sum(file.malformed for file in files.values()),
        "copy-engine collective": sum(file.copies for file in files.values()),
        "step of a kernel": sum(file.steps for file in files.values()),
    }
    return RankRecord(
        rank=rank,
        path=rows[0][0].path,
        world_size=None,
        hardware={"backend": "gpu"},
        spans={
            "span": range(len(timed)),
            "lane": [o.place.communicator for o, _ in timed],
            "kind": ["kernel"] * len(timed),
            "name": [_label(o) for o, _ in timed],
            "launch_ns": [o.called_ns for o, _ in timed],
            "start_ns": [window[0] for _, window in timed],
            "end_ns": [window[1] for _, window in timed],
        },
        edges={},
        parts=parts,
        window_ns=(timed[0][1][0], max(end for _, (_, end) in timed)),
        dropped={reason: count for reason, count in dropped.items() if count},
        truncated=not all(file.whole for file in files.values()),
        notes=[*_notes(rank, [o for _, o in rows], offset), ranks.note(rank)],
    )


def _gpu_offset(operations: Sequence[Operation]) -> int | None:
    """Return what the GPU's timer lacks of the plugin's clock; None where it was not written or is not in ns.

    A channel began after its operation was called, and before the host noticed that.
    """
    seen = [(o, c, c.gpu) for o in operations for c in o.channels if c.gpu and c.end_ns is not None]
    if not seen:
        return None
    on_gpu = max(gpu[1] for *_, gpu in seen) - min(gpu[0] for *_, gpu in seen)
    on_host = max(c.end_ns or 0 for _, c, _ in seen) - min(c.start_ns for _, c, _ in seen)
    if not on_host // 2 <= on_gpu <= on_host * 2:
        return None
    earliest = max(o.called_ns - gpu[0] for o, _, gpu in seen)
    latest = min(c.start_ns - gpu[0] for _, c, gpu in seen)
    return (earliest + latest) // 2


def _window(operation: Operation, offset: int | None) -> tuple[int, int] | None:
    """Return when an operation ran, None where only its enqueueing was seen."""
    timers = [c.gpu for c in operation.channels if c.gpu]
    if offset is not None and timers:
        return min(t[0] for t in timers) + offset, max(t[1] for t in timers) + offset
    ends = [c.end_ns for c in operation.channels if c.end_ns is not None]
    if ends:
        start = min(c.start_ns for c in operation.channels)
        return start, max(start, *ends)
    return (min(operation.proxies), max(operation.proxies)) if operation.proxies else None


def _part(
    span: int,
    operation: Operation,
    window: tuple[int, int],
    ranks: Ranks,
    counts: dict[tuple[str, str, Any], Iterator[int]],
) -> Part:
    args, group = operation.args, ranks.groups[operation.place.communicator]
    kind = operation_of(operation.name.removeprefix("nccl"))
    number = sequence_of(kind, whole(args.get("SeqNum"), 0, 2**56))
    peer = whole(args.get("Peer"), 0, 2**31 - 1) if operation.p2p else None
    peer = operation.root if kind in _ROOTED else peer
    if operation.p2p:
        number = next(counts.setdefault((operation.place.communicator, kind, peer), iter(range(2**62))))
    dtype = _dtype(args.get("Datatype"))
    count, element = whole(args.get("Count"), 0), _ELEMENT_BYTES.get(dtype)
    size = count * element if count is not None and element else None
    if kind in OF_ALL_RANKS:  # NCCL counts one rank's share
        size = size * len(group.ranks) if size is not None and group.ranks else None
    return Part(
        span=span,
        record=-1,
        operation=kind,
        source="example profiler plugin",
        group=group,
        start_ns=window[0],
        end_ns=window[1],
        launch_ns=operation.called_ns,
        sequence=number,
        dtype=dtype.removeprefix("nccl").lower() if dtype else None,
        size_bytes=whole(size, 0),
        peer=peer,
        algorithm=_lower(args.get("Algorithm")),
        protocol=_lower(args.get("Protocol")),
        channels=whole(args.get("nChannels", args.get("nMaxChannels")), 1, 2**15),
    )


def _dtype(value: Any) -> str | None:
    if (number := whole(value, 0, len(_DATATYPES) - 1)) is not None:
        return _DATATYPES[number]
    return value if isinstance(value, str) and value in _ELEMENT_BYTES else None


def _lower(value: Any) -> str | None:
    """Return NCCL's name of an algorithm or protocol as the schema writes it."""
    name = value.lower() if isinstance(value, str) and 0 < len(value) < 64 else None
    return _OLD_NAMES.get(name, name) if name else None


def _label(operation: Operation) -> str:
    told = [operation.args.get("Algorithm"), operation.args.get("Protocol")]
    return " ".join(["nccl", operation.name, *(t[:64] for t in told if isinstance(t, str))])


def _notes(rank: int, operations: Sequence[Operation], offset: int | None) -> list[str]:
    numbers: dict[Hashable, set[int]] = defaultdict(set)
    for operation in operations:
        if (number := whole(operation.args.get("SeqNum"), 0)) is not None:
            numbers[operation.place.communicator, operation.name].add(number)
    clock = "by the GPU's timer" if offset is not None else "as the host noticed, late by its polling"
    notes = [
        f"rank {rank}: {gaps(numbers)} collectives between those in the dump are not there, and others before or "
        "after may not be: the plugin drops silently while its pools are full; raise NCCL_PROFILE_COLL_POOL_SIZE",
        f"rank {rank}: operations last as long as their channels or proxies ran, {clock}",
    ]
    if moved := sum(operation.transfer_bytes for operation in operations):
        notes.append(
            f"rank {rank}: network sends of {moved} bytes were read and not written: the operations stand for them"
        )
    rootless = any(
        o.root is None and operation_of(o.name.removeprefix("nccl")) in _ROOTED for o in operations
    )
    what = "roots, and communicators" if rootless else "communicators"
    return [*notes, f"rank {rank}: {what} of ranks that gave no dump are not told"]
