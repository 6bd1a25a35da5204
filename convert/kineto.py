"""PyTorch profiler traces (Kineto), with or without ExecutionTraces, -> a trace of the schema.

Each rank is read and analysed on its own (`read_rank`, a function of its files alone); what needs all ranks
(names of communicators, matching, clocks) comes after.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError
from .coalesced import spread
from .collectives import find_parts
from .conversion import convert
from .dependencies import find_edges
from .events import Events, read_events
from .execution_trace import ExecutionTrace, read_execution_trace
from .formats import Format, Head
from .hardware import rank_columns
from .host_records import HostRecords
from .parts import Group, Part
from .rank import RankRecord
from .reading import Progress
from .report import ConversionReport
from .scanner import ANNOTATION, CALL, CATEGORIES
from .sources import Source, find_sources, rank_in_name
from .work import Work, build_work, span_columns


def kineto(
    traces: Iterable[str | Path],
    output: str | Path,
    execution_traces: Iterable[str | Path] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert Kineto traces, one file a rank, into the trace folder `output`.

    `traces` and `execution_traces` are files, or folders whose `*.json` and `*.json.gz` are taken. `progress`
    is called with (what, done, total). Raises UsageError for arguments that make no sense, InputError for
    files that cannot be one job's traces; nothing is then left under `output`.
    """
    return convert(
        FORMAT, traces, output, companions=execution_traces, overwrite=overwrite, progress=progress
    )


def recognise(head: Head) -> bool:
    """Whether a file starts like the profiler's: an object with schemaVersion and traceEvents, or their array."""
    start = head.start.lstrip()
    if start[:1] == b"[":
        return b'"ph"' in start and any(f'"{category}"'.encode() in start for category in CATEGORIES)
    return start[:1] == b"{" and any(
        mark in start
        for mark in (b'"traceEvents"', b'"deviceProperties"', b'"distributedInfo"', b'"traceName"')
    )


def plan(traces: Sequence[Path], execution_traces: Sequence[Path]) -> list[Source]:
    """Return a source a rank: its trace, and its ExecutionTrace where one is given."""
    return find_sources(traces, execution_traces)


def read(source: Source, alone: bool) -> list[RankRecord]:
    """Read the one rank of `source`."""
    return [read_rank(source, alone=alone)]


FORMAT = Format(
    name="kineto",
    recognise=recognise,
    plan=plan,
    read=read,
    companion="execution-trace",
)


def read_rank(source: Source, *, alone: bool = False) -> RankRecord:
    """Read and analyse one rank's files. Pure: nothing is shared between ranks.

    Raises InputError where the file is no trace or does not tell its rank (`alone`: it is then rank 0).
    """
    events = read_events(source.trace)
    if not len(events.rows):
        raise InputError(
            f"{source.trace} holds no GPU work and no collectives; was the profiler run with CUDA activities?"
        )
    trace = read_execution_trace(source.execution_trace) if source.execution_trace else None
    notes = []
    work = build_work(events)
    if trace and trace.pid is not None and not _is_of(work, trace.pid):
        notes.append(f"{trace.path.name} is of process {trace.pid}, which {source.trace.name} does not show")
    if trace and trace.truncated:
        notes.append(f"{trace.path.name} breaks off; what it would tell of later collectives is missing")
    host_records = HostRecords(work, events)
    parts = spread(find_parts(work, host_records, trace), work, host_records)
    edges = find_edges(work, host_records, parts)
    rank, world_size = _identity(events, alone, notes)
    _complete_groups(parts, events, trace)
    return RankRecord(
        rank=rank,
        path=source.trace,
        world_size=world_size,
        hardware=rank_columns(events, work),
        spans=span_columns(work),
        edges=edges.columns(),
        parts=parts,
        window_ns=work.window_ns(),
        dropped=dict(events.dropped),
        truncated=events.truncated,
        contradicted=edges.contradicted + Counter({"launch": work.early}),
        base_ns=events.base_ns,
        notes=notes,
    )


def _is_of(work: Work, pid: int) -> bool:
    """Say whether a host span is of process `pid`, which Kineto's host events have as their device."""
    return any((work.device[spans] == pid).any() for spans in work.find(CALL, ANNOTATION))


def _identity(events: Events, alone: bool, notes: list[str]) -> tuple[int, int | None]:
    """Return rank and world size, from the trace, else the rank from the file's name."""
    info = events.metadata.get("distributedInfo")
    info = info if isinstance(info, dict) else {}
    rank, size = info.get("rank"), info.get("world_size")
    if not isinstance(rank, int) or rank < 0:
        rank = rank_in_name(events.path)
        if rank is None and not alone:
            raise InputError(f"{events.path} does not tell its rank; name the file so that it holds rank<N>")
        rank = rank or 0
        notes.append(f"{events.path.name} does not tell its rank; {rank} was taken")
    return rank, size if isinstance(size, int) and size > 0 else None


def _complete_groups(parts: list[Part], events: Events, trace: ExecutionTrace | None) -> None:
    """Complete groups from the process-group configuration of Kineto or the ExecutionTrace.

    Where it lists one group only, parts that name none are in that one.
    """
    info = events.metadata.get("distributedInfo")
    given = info.get("pg_config") if isinstance(info, dict) else None
    configs = [c for c in (given if isinstance(given, list) else []) if isinstance(c, dict)]
    configs += trace.groups if trace else []
    groups = {str(c["pg_name"]): _configured(c) for c in reversed(configs) if c.get("pg_name") is not None}
    only = next(iter(groups.values())) if len(groups) == 1 else None
    for part in parts:
        known = only if part.group.name is None else groups.get(part.group.name)
        if known and (part.group.name is None or part.group.ranks is None):
            part.group = known


def _configured(config: dict[str, Any]) -> Group:
    """Return a group as PyTorch's configuration lists it; keys differ by version, and lists may be left empty."""
    ranks = config.get("ranks")
    whole = isinstance(ranks, list) and all(isinstance(r, int) for r in ranks)
    size = config.get("pg_size", config.get("group_size"))
    return Group(
        str(config["pg_name"]),
        (tuple(ranks) or None) if isinstance(ranks, list) and whole else None,
        size if isinstance(size, int) and size > 0 else None,
        str(config["pg_desc"]) if config.get("pg_desc") else None,
    )
