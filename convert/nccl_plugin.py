"""Files of the NCCL and RCCL profiler plugin -> a trace: what each rank's GPU did of every operation, and how.

An operation is as long as its channels ran, by the GPU's timer. That timer is tied to the host's clock by what must
be true of every channel: it began after NCCL was called for it, and before a host thread noticed that it had begun.
Operations without GPU times (NCCL before 2.27, or channels that the ring lost) have no place in time and are left
out, with their count in the report. Network transfers are not written: the operations stand for them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas.errors import InputError
from .formats import Format, Head
from .nccl_calls import OF_ALL_RANKS
from .nccl_dump import NcclDump, read_dump
from .nccl_ring import MAGIC, NcclCommunicator, read_header
from .operations import operation_of
from .parts import Group, Part
from .rank import RankRecord
from .sources import rank_in_name

__all__ = ["FORMAT", "NcclDump", "read_dump"]

PATTERN = "nccl.*.ring"
_WITH_PEER = ("broadcast", "reduce", "send", "recv")
Ints = npt.NDArray[np.int64]


def recognise(head: Head) -> bool:
    """Whether a file is a ring of the plugin."""
    return head.start.startswith(MAGIC)


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[Path]:
    """Return the files given, and those in folders; of a rank that was restarted the newest only.

    Raises InputError where there is none.
    """
    del companions
    found = [f for path in paths for f in (sorted(path.rglob(PATTERN)) if path.is_dir() else [path])]
    if not found:
        raise InputError(
            f"no {PATTERN} in {', '.join(map(str, paths))}; give the folder of a GPU job "
            "that `eidola capture run --nccl-plugin` ran"
        )
    told = {file: read_header(file) for file in found}
    newest: dict[int, int] = {}
    for header in told.values():
        newest[header["rank"]] = max(header["restart"], newest.get(header["rank"], -1))
    return [
        f for f, header in told.items() if header["rank"] < 0 or header["restart"] == newest[header["rank"]]
    ]


def read(path: Path, alone: bool) -> list[RankRecord]:
    """Read the one rank of a file. Raises InputError where no operation has a time, or no rank is told."""
    dump = read_dump(path)
    told = _rank(dump, alone)
    rank = told or 0
    unnamed = [] if told is not None else [f"{path.name} does not tell its rank; 0 was taken"]
    start, end, offset, width_ns = gpu_times(dump)
    operations = [
        {**row, "gpu_start_ns": start[row["event"]], "gpu_end_ns": end[row["event"]]}
        for row in dump.operations.to_pylist()
        if row["event"] in start
    ]
    if not operations:
        raise InputError(
            f"{path}: none of {dump.operations.num_rows} operations has GPU times; they come from NCCL 2.27 on, "
            "where EIDOLA_NCCL_EVENTS asks for channels"
        )
    parts = [_part(i, row, dump.communicators, offset) for i, row in enumerate(operations)]
    return [
        RankRecord(
            rank,
            path,
            dump.world,
            _hardware(dump),
            _spans(parts, operations),
            {},
            parts,
            (min(p.start_ns for p in parts), max(p.end_ns for p in parts)),
            dropped=_dropped(dump, len(operations)),
            notes=_notes(dump, rank, width_ns) + unnamed,
        )
    ]


FORMAT = Format(name="nccl-plugin", recognise=recognise, plan=plan, read=read)


def _rank(dump: NcclDump, alone: bool) -> int | None:
    """Return the rank: as torchrun said, else in the file's name, else of the only communicator's only member.

    None where a file alone does not tell.
    """
    if dump.rank is not None:
        return dump.rank
    if (named := rank_in_name(dump.path)) is not None:
        return named
    members = {c.rank for c in dump.communicators}
    only = members.pop() if len(members) == 1 else None
    if only is None and not alone:
        raise InputError(f"{dump.path} does not tell its rank: name the file so that it holds rank<N>")
    return only


def gpu_times(dump: NcclDump) -> tuple[dict[int, int], dict[int, int], int, int]:
    """Return start and end of every operation by the GPU's timer, what that lacks of Unix time, and how well known.

    The last is the width of the bounds; negative where they contradict each other, as they do once clocks drift.
    """
    timed = dump.channels.filter(
        np.logical_and.reduce(
            [
                dump.channels[name].is_valid().to_numpy()
                for name in ("operation", "gpu_start_ns", "gpu_end_ns")
            ]
        )
    )
    owner, first, last, seen = (
        timed[name].to_numpy() for name in ("operation", "gpu_start_ns", "gpu_end_ns", "seen_ns")
    )
    called = dict(
        zip(dump.operations["event"].to_pylist(), dump.operations["start_ns"].to_pylist(), strict=True)
    )
    start: dict[int, int] = {}
    end: dict[int, int] = {}
    for event, a, b in zip(owner.tolist(), first.tolist(), last.tolist(), strict=True):
        start[event] = min(a, start.get(event, a))
        end[event] = max(b, end.get(event, b))
    known = {event: ns for event, ns in start.items() if event in called}
    if not known:
        return {}, {}, 0, 0
    earliest = max(called[event] - ns for event, ns in known.items())
    latest = int((seen - first).min())
    return known, end, (earliest + latest) // 2, latest - earliest


def _part(span: int, row: Mapping[str, Any], communicators: Sequence[NcclCommunicator], offset: int) -> Part:
    operation = operation_of(row["operation"] or "")
    at = row["communicator"]
    group, ranks = _group(communicators[at]) if at is not None else (Group(None, None, None, None), None)
    size = row["size_bytes"]
    if operation in OF_ALL_RANKS:  # NCCL counts one rank's share
        size = size * ranks if size is not None and ranks else None
    return Part(
        span,
        -1,
        operation,
        "profiler plugin",
        group,
        row["gpu_start_ns"] + offset,
        row["gpu_end_ns"] + offset,
        row["start_ns"],
        dtype=_dtype(row["dtype"]),
        size_bytes=size,
        peer=row["peer"] if operation in _WITH_PEER else None,
        algorithm=lowered(row["algorithm"]),
        protocol=lowered(row["protocol"]),
        channels=row["channels"],
    )


def _group(communicator: NcclCommunicator) -> tuple[Group, int | None]:
    name = f"nccl {communicator.identity:016x}"
    return Group(name, None, communicator.ranks, communicator.name or None), communicator.ranks


def _dtype(name: str | None) -> str | None:
    return None if name in (None, "Unknown") else name.removeprefix("nccl").lower()


def lowered(name: str | None) -> str | None:
    """Return NCCL's name of an algorithm or protocol as the schema writes it."""
    return name.lower() if name else None


def _spans(parts: Sequence[Part], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = [
        " ".join(filter(None, ("nccl", row["operation"], row["algorithm"], row["protocol"])))
        for row in operations
    ]
    return {
        "span": [part.span for part in parts],
        "lane": [part.group.name or "nccl" for part in parts],
        "kind": ["kernel"] * len(parts),
        "name": names,
        "launch_ns": [part.launch_ns for part in parts],
        "start_ns": [part.start_ns for part in parts],
        "end_ns": [part.end_ns for part in parts],
    }


def _hardware(dump: NcclDump) -> dict[str, Any]:
    amd = "rccl" in Path(dump.library).name or dump.timer_hz not in (None, 10**9)
    software = {"library": Path(dump.library).name, "profiler_interface": f"v{dump.interface}"}
    return {
        "backend": "gpu",
        "vendor": "amd" if amd else "nvidia",
        "software": json.dumps(software, sort_keys=True),
    }


def _dropped(dump: NcclDump, kept: int) -> dict[str, int]:
    without = dump.operations.num_rows - kept
    counts = {"record lost by the ring": dump.lost, "operation without GPU times": without}
    return {reason: count for reason, count in counts.items() if count}


def _notes(dump: NcclDump, rank: int, width_ns: int) -> list[str]:
    notes = [f"rank {rank}: its GPU's timer is tied to the host's clock within {abs(width_ns) / 2000:.1f} us"]
    if dump.transfers.num_rows:
        moved = sum(size or 0 for size in dump.transfers["size_bytes"].to_pylist())
        notes.append(
            f"rank {rank}: {dump.transfers.num_rows} network transfers of {moved} bytes were read and not written: "
            "the operations stand for them"
        )
    return notes
