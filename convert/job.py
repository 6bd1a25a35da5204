"""The ranks of one job, however they were read -> a trace: matched, put on one clock, written, reported."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..schemas import TraceWriter
from ..schemas.errors import InputError
from .clocks import Clock, align
from .columns import Columns, kept, moved, row_count, slices
from .matching import Matching, Member, match
from .parts import Part
from .rank import RankRecord
from .report import ConversionReport

MOST_RANKS = 1 << 20
"""Ranks that a job may have: all that are missing are listed, so that a damaged number would fill the memory."""
RUN_GAP_NS = 1_000_000_000
"""Ranks whose windows lie further apart than this, far more than clocks differ, are of different runs."""
_PARTS_AT_ONCE = 1 << 12


def write_job(writer: TraceWriter, records: Sequence[RankRecord], source: str) -> ConversionReport:
    """Match, align and write the ranks of one job, which format `source` was read from; return the report.

    Raises InputError where the ranks cannot be of one run.
    """
    records = sorted(records, key=lambda record: record.rank)
    _lend_base(records)
    _check_one_run(records)
    _leave_out_writes_elsewhere(records)
    world_size = next((r.world_size for r in records if r.world_size), None)
    if world_size is not None and world_size > MOST_RANKS:
        raise InputError(
            f"{records[0].path} says that its job has more than {MOST_RANKS} ranks: it is damaged; copy it again"
        )
    matching = match({r.rank: r.parts for r in records}, world_size)
    clocks = _clocks(records, matching)
    report = _report(writer.path, records, matching, clocks, world_size)
    for record in records:
        clock = clocks[record.rank]
        report.spans += row_count(record.spans)
        report.dependencies.update(_edge_counts(record.edges))
        record.shift_parts(clock.offset_ns, clock.drift_ppb, clock.at_ns)
        _write_rank(writer, record, matching, clock)
        record.spans, record.edges, record.more = {}, {}, {}  # a rank's rows are held while they are written
    writer.notes = {"source": source, **report.as_dict()}
    del writer.notes["path"]
    return report


def _clocks(records: Sequence[RankRecord], matching: Matching) -> dict[int, Clock]:
    """Align clocks on the ends of collectives, unless those were noticed late."""
    if any(record.late for record in records):
        return {record.rank: Clock("none", 0, None, 0) for record in records}
    shared = {record.rank: record.clock for record in records}
    return align(list(shared), matching, shared)


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


def _leave_out_writes_elsewhere(records: Sequence[RankRecord]) -> None:
    """Leave out, and count, writes to ranks that the job has no files of; the schema refers to known ranks only."""
    ranks = [record.rank for record in records]
    for record in records:
        writes = record.more.get("writes", {})
        inside = kept(writes, "peer", ranks)
        if inside is not writes:
            record.more["writes"] = inside
            reason = "write to a rank of which no file was given"
            left = row_count(writes) - row_count(inside)
            record.dropped[reason] = record.dropped.get(reason, 0) + left


def _write_rank(writer: TraceWriter, record: RankRecord, matching: Matching, clock: Clock) -> None:
    rank = record.rank
    writer.write("ranks", rank, {name: [value] for name, value in record.hardware.items()})
    writer.write("clocks", rank, {
        "method": [clock.method], "offset_ns": [clock.offset_ns], "drift_ppb": [clock.drift_ppb],
        "residual_ns": [clock.residual_ns], "anchors": [clock.anchors],
    })  # fmt: skip
    tables = {"spans": record.spans, "dependencies": record.edges, **record.more}
    for name, columns in tables.items():
        aligned = moved(columns, clock.offset_ns, clock.drift_ppb, clock.at_ns)
        writer.write_slices(name, rank, slices(aligned))
    own = [m for m in matching.members if m.rank == rank]
    writer.write("communicators", rank, {
        name: [getattr(m, name) for m in own] for name in ("communicator", "group_rank", "group_size", "name")
    })  # fmt: skip
    writer.write_slices("collectives", rank, _collective_columns(record.parts))


_PART_COLUMNS = (
    "span", "communicator", "sequence", "operation", "dtype", "size_bytes", "in_split_bytes", "out_split_bytes",
    "peer", "algorithm", "protocol", "channels", "launch_ns", "start_ns", "end_ns",
)  # fmt: skip


def _collective_columns(parts: Sequence[Part]) -> Iterator[dict[str, list[Any]]]:
    for begin in range(0, len(parts), _PARTS_AT_ONCE):
        some = parts[begin : begin + _PARTS_AT_ONCE]
        yield {name: [getattr(part, name) for part in some] for name in _PART_COLUMNS}


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
        report.collectives.update(p.operation for p in record.parts)
        report.sources.update(p.source for p in record.parts)
        report.contradicted.update(record.contradicted)
        report.notes += [note for note in record.notes if note not in report.notes]
        if record.dropped:
            report.dropped[record.rank] = record.dropped
        if record.truncated:
            report.truncated_ranks.append(record.rank)
    residuals = [c.residual_ns for c in clocks.values() if c.anchors and c.residual_ns is not None]
    report.residual_ns = max(residuals, default=None)
    report.contradicted = +report.contradicted
    _report_matches(report, matching, ranks)
    late = any(record.late for record in records)
    if matching.outside:
        report.notes.append(
            f"{matching.outside} sends and receives name a peer beyond their group's size; it was left out"
        )
    report.notes += [*_group_notes(matching), *([] if late else _clock_notes(clocks))]
    return report


def _edge_counts(edges: Columns) -> Counter[str]:
    """Count edges by `kind origin`."""
    counts = Counter[str]()
    for some in slices(edges):
        pair = (pc.dictionary_encode(pa.array(some[name], pa.string())) for name in ("kind", "origin"))
        table = pa.table(dict(zip(("kind", "origin"), pair, strict=True)))
        for row in table.group_by(["kind", "origin"]).aggregate([([], "count_all")]).to_pylist():
            counts[f"{row['kind']} {row['origin']}"] += row["count_all"]
    return counts


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
