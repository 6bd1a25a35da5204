"""PyTorch profiler traces (Kineto), with or without ExecutionTraces, -> a trace of the schema.

Each rank is read and analysed on its own (`read_rank`, a function of its files alone); what needs all ranks
(names of communicators, matching, clocks) comes after.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..schemas import TraceWriter
from ..schemas.errors import InputError
from .clocks import Clock, align
from .collectives import Group, HostRecords, Part, find_parts
from .dependencies import find_edges
from .events import Events, read_events
from .execution_trace import ExecutionTrace, read_execution_trace
from .hardware import rank_columns
from .matching import Matching, Member, match
from .report import ConversionReport
from .sources import Source, find_sources, rank_in_name
from .work import KIND_NAMES, Work, build_work

RUN_GAP_NS = 1_000_000_000
"""Ranks whose windows lie further apart than this, far more than clocks differ, are of different runs."""

_ABSOLUTE_NS = 10**18  # 2001: no trace is older, and no host has been up for so long

Progress = Callable[[str, int, int], None]


@dataclass
class RankRecord:
    """One rank, on its own clock, ready to be aligned and written."""

    rank: int
    path: Path
    world_size: int | None
    hardware: dict[str, Any]
    spans: dict[str, Any]
    edges: dict[str, pa.Array]
    parts: list[Part]
    window_ns: tuple[int, int]
    dropped: dict[str, int]
    truncated: bool
    contradicted: Counter[str]
    base_ns: int
    notes: list[str] = field(default_factory=list)

    @property
    def absolute(self) -> bool:
        """Whether times count from 1970, as those of a trace without a base time may not."""
        return self.window_ns[0] > _ABSOLUTE_NS

    def shift(self, offset_ns: int) -> None:
        """Add `offset_ns` to all times of the rank."""
        for name in ("launch_ns", "start_ns", "end_ns"):
            self.spans[name] = pc.add(self.spans[name], pa.scalar(offset_ns, pa.int64()))
            for part in self.parts:
                if (time := getattr(part, name)) is not None:
                    setattr(part, name, time + offset_ns)
        self.window_ns = (self.window_ns[0] + offset_ns, self.window_ns[1] + offset_ns)


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
    sources = find_sources(traces, execution_traces)
    writer = TraceWriter(output, overwrite=overwrite)
    with writer:
        records = []
        for done, source in enumerate(sources):
            if progress:
                progress(f"reading {source.trace.name}", done, len(sources))
            records.append(read_rank(source, alone=len(sources) == 1))
        records.sort(key=lambda record: record.rank)
        _lend_base(records)
        _check_one_run(records)
        report = _write(writer, records)
        writer.notes = {"source": "kineto", **report.as_dict()}
        del writer.notes["path"]
    if progress:
        progress("done", len(sources), len(sources))
    return report


def read_rank(source: Source, *, alone: bool = False) -> RankRecord:
    """Read and analyse one rank's files. Pure: nothing is shared between ranks.

    Raises InputError where the file is no trace or does not tell its rank (`alone`: it is then rank 0).
    """
    events = read_events(source.trace)
    if not events.table.num_rows:
        raise InputError(
            f"{source.trace} holds no GPU work and no collectives; was the profiler run with CUDA activities?"
        )
    trace = read_execution_trace(source.execution_trace) if source.execution_trace else None
    notes = []
    work = build_work(events)
    if trace and trace.pid is not None and trace.pid not in set(work.device[~work.on_gpu].tolist()):
        notes.append(f"{trace.path.name} is of process {trace.pid}, which {source.trace.name} does not show")
    host_records = HostRecords(work, events)
    parts = find_parts(work, host_records, trace)
    edges = find_edges(work, events, host_records, parts)
    rank, world_size = _identity(events, alone, notes)
    _complete_groups(parts, events, trace)
    return RankRecord(
        rank=rank,
        path=source.trace,
        world_size=world_size,
        hardware=rank_columns(events, work),
        spans=_span_columns(work),
        edges=edges.columns(),
        parts=parts,
        window_ns=(int(work.start_ns.min()), int(work.end_ns.max())),
        dropped=dict(events.dropped),
        truncated=events.truncated,
        contradicted=edges.contradicted + Counter({"launch": work.early}),
        base_ns=events.base_ns,
        notes=notes,
    )


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


def _span_columns(work: Work) -> dict[str, Any]:
    kinds = np.array([KIND_NAMES[k] for k in sorted(KIND_NAMES)], dtype=object)
    launched = work.launch >= 0
    launch_ns = pa.array(np.where(launched, work.start_ns[work.launch], 0), mask=~launched)
    lanes = pa.DictionaryArray.from_arrays(
        pa.array(work.lane, pa.int32()), pa.array(work.lane_names, pa.string())
    )
    return {
        "span": pa.array(np.arange(len(work))),
        "lane": lanes.cast(pa.string()),
        "kind": pa.array(kinds[work.kind], pa.string()),
        "name": work.names,
        "launch_ns": launch_ns,
        "start_ns": pa.array(work.start_ns),
        "end_ns": pa.array(work.end_ns),
        "correlation": pa.array(work.correlation, mask=work.correlation < 0),
    }


def _lend_base(records: Sequence[RankRecord]) -> None:
    """Give a truncated rank, whose base time was behind the cut, the base that all others share."""
    bases = {record.base_ns for record in records if record.base_ns}
    for record in records:
        if record.truncated and not record.absolute and len(bases) == 1:
            record.shift(next(iter(bases)))
            record.notes.append(
                f"{record.path.name} ends before its base time; that of the other ranks was taken"
            )


def _check_one_run(records: Sequence[RankRecord]) -> None:
    """Refuse ranks that cannot be of one run."""
    first = records[0]
    for record, following in pairwise(records):
        if record.rank == following.rank:
            raise InputError(
                f"{record.path} and {following.path} are both of rank {record.rank}; give one file a rank"
            )
    for record in records[1:]:
        if None not in (first.world_size, record.world_size) and first.world_size != record.world_size:
            raise InputError(
                f"{first.path} is of a job of {first.world_size} ranks, {record.path} of one of "
                f"{record.world_size}: different runs; give the files of one run"
            )
        gap = max(record.window_ns[0] - first.window_ns[1], first.window_ns[0] - record.window_ns[1])
        if gap > RUN_GAP_NS and first.absolute == record.absolute:
            raise InputError(
                f"{first.path} and {record.path} lie {gap / 1e9:.1f} s apart and never overlap: different "
                "runs or steps; give files of one run and step"
            )
    size = next((r.world_size for r in records if r.world_size), None)
    if size is not None and records[-1].rank >= size:
        raise InputError(f"{records[-1].path} is of rank {records[-1].rank}, but the job has {size} ranks")


def _write(writer: TraceWriter, records: Sequence[RankRecord]) -> ConversionReport:
    """Match, align and write all ranks; return the report."""
    world_size = next((r.world_size for r in records if r.world_size), None)
    matching = match({r.rank: r.parts for r in records}, world_size)
    clocks = align([r.rank for r in records], matching)
    for record in records:
        record.shift(clocks[record.rank].offset_ns)
        _write_rank(writer, record, matching, clocks[record.rank])
    return _report(writer.path, records, matching, clocks, world_size)


def _write_rank(writer: TraceWriter, record: RankRecord, matching: Matching, clock: Clock) -> None:
    rank = record.rank
    writer.write("ranks", rank, {name: [value] for name, value in record.hardware.items()})
    writer.write("clocks", rank, {
        "method": [clock.method], "offset_ns": [clock.offset_ns], "residual_ns": [clock.residual_ns],
        "anchors": [clock.anchors],
    })  # fmt: skip
    writer.write("spans", rank, record.spans)
    writer.write("dependencies", rank, record.edges)
    own = [m for m in matching.members if m.rank == rank]
    writer.write("communicators", rank, {
        name: [getattr(m, name) for m in own] for name in ("communicator", "group_rank", "group_size", "name")
    })  # fmt: skip
    writer.write("collectives", rank, _collective_columns(record.parts, matching))


_PART_COLUMNS = (
    "span", "sequence", "operation", "dtype", "size_bytes", "in_split_bytes", "out_split_bytes", "peer",
    "algorithm", "protocol", "channels", "launch_ns", "start_ns", "end_ns",
)  # fmt: skip


def _collective_columns(parts: Sequence[Part], matching: Matching) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [getattr(p, name) for p in parts] for name in _PART_COLUMNS}
    columns["communicator"] = [matching.name_of(p) for p in parts]
    return columns


def _report(
    path: Path,
    records: Sequence[RankRecord],
    matching: Matching,
    clocks: Mapping[int, Clock],
    world_size: int | None,
) -> ConversionReport:
    ranks = [r.rank for r in records]
    report = ConversionReport(path, ranks, sorted(set(range(world_size or 0)) - set(ranks)))
    for record in records:
        report.spans += len(record.spans["span"])
        pairs = zip(record.edges["kind"].to_pylist(), record.edges["origin"].to_pylist(), strict=True)
        report.dependencies.update(f"{kind} {origin}" for kind, origin in pairs)
        report.collectives.update(p.operation for p in record.parts)
        report.sources.update(p.source for p in record.parts)
        report.contradicted.update(record.contradicted)
        report.notes += record.notes
        if record.dropped:
            report.dropped[record.rank] = record.dropped
        if record.truncated:
            report.truncated_ranks.append(record.rank)
    residuals = [
        c.residual_ns for c in clocks.values() if c.method == "collective_ends" and c.residual_ns is not None
    ]
    report.residual_ns = max(residuals, default=None)
    report.contradicted = +report.contradicted
    _report_matches(report, matching, ranks)
    report.notes += [*_group_notes(matching), *_clock_notes(clocks)]
    return report


def _report_matches(report: ConversionReport, matching: Matching, ranks: Sequence[int]) -> None:
    groups: dict[str, list[Member]] = {}
    for member in matching.members:
        groups.setdefault(member.communicator, []).append(member)
    for (name, sequence), by_rank in sorted(matching.operations.items()):
        part = next(iter(by_rank.values()))[0]
        expected = {m.rank for m in groups[name]}
        expected_all = expected | (
            {*ranks} if len(ranks) <= groups[name][0].group_size == len(ranks) else set()
        )
        if part.operation in ("send", "recv"):
            continue
        if expected_all == set(by_rank):
            report.matched += 1
        else:
            report.unmatched.append(
                f"{part.operation} {sequence} of {name}: on ranks {sorted(by_rank)}, not on "
                f"{sorted(expected_all - set(by_rank))}"
            )


def _group_notes(matching: Matching) -> list[str]:
    notes = []
    for name, by in sorted(matching.by.items()):
        if by == "ends":
            notes.append(
                f"communicator {name}: operations matched by the times of their ends, as orders differ"
            )
        if any(m.inferred for m in matching.members if m.communicator == name):
            notes.append(
                f"communicator {name}: the source does not give its ranks; size and places are inferred"
            )
    return notes


def _clock_notes(clocks: Mapping[int, Clock]) -> list[str]:
    return [
        f"rank {rank}: no collective ties its clock to the others'; its times are its own"
        for rank, clock in sorted(clocks.items())
        if clock.method == "none"
    ]
