"""Logs of the NCCL inspector -> a trace: one line a collective, with its size and how long it took.

Their layout: NVIDIA/nccl at 1e0c869c39bb (NCCL 2.29), ext-profiler/inspector/inspector.cc
(`inspectorCommInfoDump`), output format v4.0. A process writes HOST-pidN.log. Verbose logs
(`NCCL_INSPECTOR_DUMP_VERBOSE=1`) have when the host noticed each channel begin and end; others only the duration
and when the line was written, which is late by up to the dump interval. Of each interval and communicator only the
last collective is written.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError
from .collectives import Part, operation_of
from .files import STRANGE_LINES, find_files, read_lines, whole
from .formats import Format, Head, read_head
from .nccl_ranks import Place, Ranks, find_ranks, gaps, sequence_of
from .rank import RankRecord

_LATEST_US = 2**63 // 1000 - 1


def recognise(head: Head) -> bool:
    """Whether the first line is one of the inspector's."""
    line = head.start.lstrip()[:4096].partition(b"\n")[0]
    return line.startswith(b"{") and b'"header"' in line and b'"metadata"' in line and b'"coll_perf"' in line


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Return one task of all logs: the job's ranks show only in all of them."""
    del companions
    return [tuple(find_files(paths, lambda file: recognise(read_head(file)), "logs of the NCCL inspector"))]


@dataclass(frozen=True)
class _Line:
    place: Place
    host: str | None
    operation: str
    number: int | None
    size_bytes: int | None
    start_ns: int
    end_ns: int
    launch_ns: int | None
    channels: int | None
    source: str
    path: Path


def read(paths: tuple[Path, ...], alone: bool) -> list[RankRecord]:
    """Read all processes' logs. Raises InputError where none holds a whole line, or ranks are not known."""
    del alone
    lines: list[_Line] = []
    files: dict[Hashable, Path] = {}
    broken: Counter[Path] = Counter()
    for path in paths:
        before = len(lines)
        for text in read_lines(path):
            line = _line(path, text) if text.strip() else None
            if line:
                lines.append(line)
                files.setdefault(line.place.process, path)
            else:
                broken[path] += bool(text.strip())
                if broken[path] >= STRANGE_LINES and len(lines) == before:
                    break
        if broken[path] and len(lines) == before:
            raise InputError(f"{path} holds no line that is whole and the NCCL inspector's; leave it out")
    if not lines:
        raise InputError(
            f"{paths[0]}: no whole line of the NCCL inspector's JSON log; set NCCL_INSPECTOR_ENABLE=1, "
            "NCCL_INSPECTOR_DUMP_THREAD_INTERVAL_MICROSECONDS, and not NCCL_INSPECTOR_PROM_DUMP"
        )
    ranks = find_ranks((line.place for line in lines), files)
    own: dict[int, list[_Line]] = defaultdict(list)
    lost: Counter[Hashable] = Counter()
    for line in lines:
        rank = ranks.of[line.place]
        if rank is None:
            lost[line.path] += 1
        else:
            own[rank].append(line)
    return [_record(rank, rows, ranks, lost, broken) for rank, rows in sorted(own.items())]


FORMAT = Format(name="nccl-inspector", recognise=recognise, plan=plan, read=read)


def _line(path: Path, text: bytes) -> _Line | None:
    """Return what one line says; None where it is cut or is not one of the inspector's."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    told = told if isinstance(told, dict) else {}
    parts = [part for key in ("header", "metadata", "coll_perf") if isinstance(part := told.get(key), dict)]
    if len(parts) != 3:
        return None
    header, metadata, performance = parts
    rank, size = whole(header.get("rank"), 0, 2**31 - 1), whole(header.get("n_ranks"), 1, 2**31 - 1)
    name, kind, host = header.get("id"), performance.get("coll"), metadata.get("hostname")
    times = _times(metadata, performance)
    if rank is None or times is None or not isinstance(name, str) or not isinstance(kind, str):
        return None
    if size is not None and rank >= size:
        return None
    start_ns, end_ns, launch_ns, channels, source = times
    operation = operation_of(kind)
    length = whole(performance.get("coll_msg_size_bytes"), 0)
    if operation == "reduce_scatter":  # NCCL counts what one rank receives
        length = whole(length * size, 0) if length is not None and size else None
    return _Line(
        Place((host if isinstance(host, str) else None, whole(metadata.get("pid"))), name, rank, size),
        host if isinstance(host, str) else None,
        operation,
        whole(performance.get("coll_sn"), 0, 2**56),
        length,
        start_ns,
        end_ns,
        launch_ns,
        channels,
        source,
        path,
    )


def _times(
    metadata: dict[str, Any], performance: dict[str, Any]
) -> tuple[int, int, int | None, int | None, str] | None:
    """Return start, end, call, channels and what timed it: the channels where the log is verbose."""
    said = performance.get("coll_timing_source")
    source = said if isinstance(said, str) and len(said) < 64 else "unknown"
    trace = performance.get("event_trace_ts")
    trace = trace if isinstance(trace, dict) else {}
    events = trace.get("kernel_events")
    rows = [e for e in events if isinstance(e, dict)] if isinstance(events, list) else []
    starts = [t for e in rows if (t := whole(e.get("kernel_start_ts"), 1, _LATEST_US))]
    ends = [t for e in rows if (t := whole(e.get("kernel_stop_ts"), 1, _LATEST_US))]
    called = whole(trace.get("coll_start_ts"), 1, _LATEST_US)
    if starts and ends and max(ends) >= min(starts):
        return (
            min(starts) * 1000,
            max(ends) * 1000,
            called * 1000 if called else None,
            len(starts),
            "channels",
        )
    written = whole(metadata.get("dump_timestamp_us"), 1, _LATEST_US)
    length = whole(performance.get("coll_exec_time_us"), 0, _LATEST_US)
    if written is None or length is None or length > written:
        return None
    return (written - length) * 1000, written * 1000, None, None, source


def _record(
    rank: int, lines: list[_Line], ranks: Ranks, lost: Counter[Hashable], broken: Counter[Path]
) -> RankRecord:
    lines.sort(key=lambda line: (line.start_ns, line.end_ns))
    parts = [
        Part(
            span=span,
            record=-1,
            operation=line.operation,
            source="inspector",
            group=ranks.groups[line.place.communicator],
            start_ns=line.start_ns,
            end_ns=line.end_ns,
            launch_ns=line.launch_ns,
            sequence=sequence_of(line.operation, line.number),
            size_bytes=line.size_bytes,
            channels=line.channels,
        )
        for span, line in enumerate(lines)
    ]
    paths = {line.path for line in lines}
    dropped = {
        "line that is cut or not the inspector's": sum(broken[path] for path in paths),
        "collective of one of several GPUs of its process": sum(lost[path] for path in paths),
    }
    late = any(line.source != "channels" for line in lines)
    return RankRecord(
        rank=rank,
        path=lines[0].path,
        world_size=ranks.world_size,
        hardware={"backend": "gpu", "host": lines[0].host},
        spans={
            "span": range(len(lines)),
            "lane": [f"communicator {line.place.communicator}" for line in lines],
            "kind": ["kernel"] * len(lines),
            "name": [f"nccl {line.operation}" for line in lines],
            "launch_ns": [line.launch_ns for line in lines],
            "start_ns": [line.start_ns for line in lines],
            "end_ns": [line.end_ns for line in lines],
        },
        edges={},
        parts=parts,
        window_ns=(min(line.start_ns for line in lines), max(line.end_ns for line in lines)),
        dropped={reason: count for reason, count in dropped.items() if count},
        notes=_notes(rank, lines, late),
        late=late,
    )


def _notes(rank: int, lines: list[_Line], late: bool) -> list[str]:
    numbers: dict[Hashable, set[int]] = defaultdict(set)
    for line in lines:
        if line.number is not None:
            numbers[line.place.communicator, line.operation].add(line.number)
    notes = []
    if missing := gaps(numbers):
        notes.append(
            f"rank {rank}: {missing} collectives between those in the log are not there: the inspector writes the "
            "last of each interval; set NCCL_INSPECTOR_DUMP_THREAD_INTERVAL_MICROSECONDS lower"
        )
    if late:
        sources = Counter(line.source for line in lines)
        text = ", ".join(f"{count} timed by {source}" for source, count in sorted(sources.items()))
        notes.append(
            f"rank {rank}: ends are when lines were written, late by up to the dump interval, and align no clock; "
            f"durations are the inspector's ({text}); NCCL_INSPECTOR_DUMP_VERBOSE=1 logs when channels ran"
        )
    else:
        notes.append(f"rank {rank}: starts and ends are when the host noticed each channel begin and end")
    return [*notes, f"rank {rank}: the log has no type, algorithm or protocol"]
