"""Logs of the NCCL inspector -> a trace: one line an operation, with its size and how long it took.

Their layout: NVIDIA/nccl at 1e0c869c39bb (NCCL 2.29), ext-profiler/inspector/inspector.cc
(`inspectorCommInfoDump`), output format v4.0, and plugins/profiler/inspector/inspector_json.cc, v4.2 (35d819ec) to
v4.4 (`inspector_log`). A process writes HOST-pidN.log. Verbose logs (`NCCL_INSPECTOR_DUMP_VERBOSE=1`) have when the
host noticed each channel begin and end; others only the duration and when the line was written, which is late by up
to the dump interval. v4.0 writes the last collective of each interval and communicator, later ones what their rings
hold, also sends and receives.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..schemas.errors import InputError
from .files import find_files
from .formats import Format, Head, read_head
from .inspector_log import CHANNELS, Line, Log, lane_of, read_log
from .nccl_ranks import Ranks, find_ranks, gaps, sequence_of
from .parts import Part
from .rank import RankRecord

_MARKS = (b'"coll_perf"', b'"p2p_perf"', b'"dump_stats"', b'"proxy_trace"')


def recognise(head: Head) -> bool:
    """Whether the first line is one of the inspector's."""
    line = head.start.lstrip()[:4096].partition(b"\n")[0]
    told = b'"header"' in line and b'"metadata"' in line and any(mark in line for mark in _MARKS)
    return line.startswith(b"{") and told


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Return one task of all logs: the job's ranks show only in all of them."""
    del companions
    return [tuple(find_files(paths, lambda file: recognise(read_head(file)), "logs of the NCCL inspector"))]


def read(paths: tuple[Path, ...], alone: bool) -> list[RankRecord]:
    """Read all processes' logs. Raises InputError where none holds a whole line, or ranks are not known."""
    del alone
    logs = [read_log(path) for path in paths]
    for log in logs:
        if log.broken and not log.lines:
            raise InputError(f"{log.path} holds no line that is whole and the NCCL inspector's; leave it out")
    lines = [line for log in logs for line in log.lines]
    if not lines:
        raise InputError(
            f"{paths[0]}: no operation in the NCCL inspector's log; set NCCL_INSPECTOR_ENABLE=1, "
            "NCCL_INSPECTOR_DUMP_THREAD_INTERVAL_MICROSECONDS, and not NCCL_INSPECTOR_PROM_DUMP"
        )
    ranks = find_ranks((line.place for line in lines), {line.place.process: line.path for line in lines})
    own: dict[int, list[Line]] = defaultdict(list)
    lost: Counter[Path] = Counter()
    for line in lines:
        rank = ranks.of[line.place]
        if rank is None:
            lost[line.path] += 1
        else:
            own[rank].append(line)
    by_path = {log.path: log for log in logs}
    return [_record(rank, rows, ranks, lost, by_path) for rank, rows in sorted(own.items())]


FORMAT = Format(name="nccl-inspector", recognise=recognise, plan=plan, read=read)


def _part(span: int, line: Line, ranks: Ranks) -> Part:
    return Part(
        span=span,
        record=-1,
        operation=line.operation,
        source="inspector",
        group=replace(ranks.groups[line.place.communicator], description=line.description),
        start_ns=line.start_ns,
        end_ns=line.end_ns,
        launch_ns=line.launch_ns,
        sequence=sequence_of(line.operation, line.number),
        size_bytes=line.size_bytes,
        peer=line.peer,
        algorithm=line.algorithm,
        protocol=line.protocol,
        channels=line.channels,
    )


def _record(
    rank: int, lines: list[Line], ranks: Ranks, lost: Counter[Path], by_path: Mapping[Path, Log]
) -> RankRecord:
    lines.sort(key=lambda line: (line.start_ns, line.end_ns))
    logs = [by_path[path] for path in dict.fromkeys(line.path for line in lines)]
    dropped = {
        "line that is cut or not the inspector's": sum(log.broken for log in logs),
        "collective of one of several GPUs of its process": sum(lost[log.path] for log in logs),
        "operation that the inspector's rings lost": sum(
            log.lost[place] for log in logs for place in {line.place for line in lines}
        ),
        "record of the network's progress": sum(log.proxies for log in logs),
    }
    late = any(line.source != CHANNELS for line in lines)
    return RankRecord(
        rank=rank,
        path=lines[0].path,
        world_size=ranks.world_size,
        hardware={"backend": "gpu", "host": lines[0].host},
        spans={
            "span": range(len(lines)),
            "lane": [lane_of(line) for line in lines],
            "kind": ["kernel"] * len(lines),
            "name": [f"nccl {line.operation}" for line in lines],
            "launch_ns": [line.launch_ns for line in lines],
            "start_ns": [line.start_ns for line in lines],
            "end_ns": [line.end_ns for line in lines],
        },
        edges={},
        parts=[_part(span, line, ranks) for span, line in enumerate(lines)],
        window_ns=(min(line.start_ns for line in lines), max(line.end_ns for line in lines)),
        dropped={reason: count for reason, count in dropped.items() if count},
        truncated=any(log.cut for log in logs),
        notes=[*_notes(rank, lines, logs, late), ranks.note(rank)],
        late=late,
    )


def _notes(rank: int, lines: list[Line], logs: Sequence[Log], late: bool) -> list[str]:
    numbers: dict[Hashable, set[int]] = defaultdict(set)
    for line in lines:
        if line.number is not None:
            numbers[line.place.communicator, line.operation].add(line.number)
    notes = []
    if missing := gaps(numbers):
        why = (
            "its rings lost them (raise NCCL_INSPECTOR_DUMP_COLL_RING_SIZE), or they were smaller than "
            "NCCL_INSPECTOR_DUMP_MIN_SIZE_BYTES or without the GPU's timing"
            if any(log.ringed for log in logs)
            else "the inspector writes the last of each interval; set "
            "NCCL_INSPECTOR_DUMP_THREAD_INTERVAL_MICROSECONDS lower"
        )
        notes.append(f"rank {rank}: {missing} collectives between those in the log are not there: {why}")
    if any(log.lost_pairs for log in logs):
        notes.append(
            f"rank {rank}: sends or receives were lost, so that those which are paired by their order may not "
            "belong together; raise NCCL_INSPECTOR_DUMP_P2P_RING_SIZE"
        )
    if late:
        sources = Counter(line.source for line in lines)
        text = ", ".join(f"{count} timed by {source}" for source, count in sorted(sources.items()))
        notes.append(
            f"rank {rank}: ends are when lines were written, or when what followed began: late by up to the dump "
            f"interval, and align no clock; durations are the inspector's ({text}); NCCL_INSPECTOR_DUMP_VERBOSE=1 "
            "logs when channels ran"
        )
    else:
        notes.append(f"rank {rank}: starts and ends are when the host noticed each channel begin and end")
    known = any(line.algorithm or line.protocol for line in lines)
    return [*notes, f"rank {rank}: the log has no {'types' if known else 'type, algorithm or protocol'}"]
