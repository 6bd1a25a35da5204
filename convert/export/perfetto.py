"""A trace or a run -> a Perfetto trace: a process a rank, a track a lane, flows from a write to the wake-up.

A trace is read a rank at a time, a run BLOCK_ROWS rows at a time. Slices that overlap without nesting, which a
track cannot show, get a further track of the same name. Of a run, times are cut to nanoseconds, and the exact
picoseconds are notes of the event.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...schemas import Results, Trace
from ...schemas.errors import InputError
from .packets import BEGIN, END, INSTANT, PacketWriter
from .registry import Export, Progress, Source
from .report import ExportReport
from .slices import Slice, begins_and_ends, rows_of
from .wakeups import FlagWrites, read_flag_writes

_DESCRIBED = ("communicator", "sequence", "operation", "size_bytes", "dtype", "algorithm", "protocol")
_PS = 1000  # picoseconds a nanosecond
BLOCK_ROWS = 100_000


def write(source: Source, path: Path, report: ExportReport, progress: Progress) -> None:
    """Write `source` to the file `path`."""
    with PacketWriter(path) as file:
        if isinstance(source, Trace):
            _write_trace(source, file, report, progress)
        else:
            _write_run(source, file, report, progress)
    report.written["packets"] = file.packets


EXPORT = Export(write, runs=True)


def _write_trace(trace: Trace, file: PacketWriter, report: ExportReport, progress: Progress) -> None:
    flags = read_flag_writes(trace)
    woken = _Woken(trace, flags)
    ranks = trace.ranks()
    for done, rank in enumerate(ranks):
        progress("writing ranks", done, len(ranks))
        _Rank(trace, rank, file, report, woken).write()
    if report.written["slices"] == 0:
        raise InputError(f"{trace.path} holds no spans and no waits: there is nothing to show")
    if late := woken.unmatched:
        report.lost.append(
            f"{late} waits have no flow: no captured write brought their flag to its value in time"
        )


class _Woken:
    """Flow ids of the writes that ended a wait; every flow of the file has a number of its own."""

    def __init__(self, trace: Trace, flags: FlagWrites) -> None:
        self.flags = flags
        self.unmatched = 0
        self.released: npt.NDArray[np.bool_] = np.zeros(len(flags.rank), bool)
        for rank in trace.ranks():
            for wait in trace.read("waits", ["flag", "expected", "end_ns"], [rank]).to_pylist():
                if (index := self.index(rank, wait)) >= 0:
                    self.released[index] = True
                elif wait["end_ns"] is not None and wait["expected"] > 0:
                    self.unmatched += 1
        self.next_flow = len(flags.rank) + 1

    def index(self, rank: int, wait: Mapping[str, Any]) -> int:
        """Return the write that ended `wait`, -1 where none did before its end."""
        index = self.flags.releasing(rank, wait["flag"], wait["expected"])
        in_time = wait["end_ns"] is not None and index >= 0 and self.flags.issue_ns[index] <= wait["end_ns"]
        return index if in_time else -1

    def leaving(self, rank: int) -> dict[int, int]:
        """Return the flow of each row of `rank`'s writes that ended a wait."""
        own = np.flatnonzero(self.released & (self.flags.rank == rank))
        return dict(zip(self.flags.row[own].tolist(), (own + 1).tolist(), strict=True))


class _Rank:
    """One rank of a trace."""

    def __init__(
        self, trace: Trace, rank: int, file: PacketWriter, report: ExportReport, woken: _Woken
    ) -> None:
        self.trace, self.rank, self.file, self.report, self.woken = trace, rank, file, report, woken
        row = trace.read("ranks", ["model", "backend"], [rank]).to_pylist()[0]
        self.process = file.process(rank, f"rank {rank} ({row['model'] or row['backend']})")
        self.lanes: dict[str, int] = {}
        self.lane_of: dict[int, str] = {}

    def write(self) -> None:
        """Write the rank's slices, then what has no duration."""
        slices = self._spans()
        for lane, found in self._waits().items():
            slices.setdefault(lane, []).extend(found)
        for lane, found in sorted(slices.items()):
            for number, row in enumerate(rows_of(found)):
                track = self._lane(lane) if number == 0 else self.file.track(self.process, lane)
                for time, begins, what in begins_and_ends(row):
                    self.file.event(track, time, BEGIN if begins else END, **(what if begins else {}))
                self.report.written["slices"] += len(row)
        self._wakes()
        self._writes()
        self._counters()

    def _lane(self, name: str) -> int:
        if name not in self.lanes:
            self.lanes[name] = self.file.track(self.process, name)
        return self.lanes[name]

    def _spans(self) -> dict[str, list[Slice]]:
        leaving, arriving = self._launches()
        described = {
            row.pop("span"): row
            for row in self.trace.read("collectives", ["span", *_DESCRIBED], [self.rank]).to_pylist()
            if row["span"] is not None
        }
        slices: dict[str, list[Slice]] = defaultdict(list)
        for batch in self.trace.read("spans", ranks=[self.rank]).to_batches(1 << 14):
            for row in batch.to_pylist():
                span = row["span"]
                self.lane_of[span] = row["lane"]
                what = {
                    "name": row["name"],
                    "category": row["kind"],
                    "flows": leaving.get(span, ()),
                    "ends": arriving.get(span, ()),
                    "notes": {"span": span, "correlation": row["correlation"], **described.get(span, {})},
                }
                slices[row["lane"]].append(Slice(row["start_ns"], row["end_ns"], what))
        return slices

    def _launches(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        leaving: dict[int, list[int]] = defaultdict(list)
        arriving: dict[int, list[int]] = defaultdict(list)
        launches = self.trace.read(
            "dependencies", ["before", "after"], [self.rank], filters=pc.field("kind") == "launch"
        )
        for before, after in zip(launches["before"].to_pylist(), launches["after"].to_pylist(), strict=True):
            leaving[before].append(self.woken.next_flow)
            arriving[after].append(self.woken.next_flow)
            self.woken.next_flow += 1
        self.report.written["flows from launch to kernel"] += launches.num_rows
        return leaving, arriving

    def _waits(self) -> dict[str, list[Slice]]:
        slices: dict[str, list[Slice]] = defaultdict(list)
        for row in self._rows("waits"):
            if row["end_ns"] is not None:
                what = {
                    "name": f"wait for flag {row['flag']}",
                    "category": "wait",
                    "notes": {"expected": row["expected"], "polls": row["polls"]},
                }
                slices[self._place(row)].append(Slice(row["start_ns"], row["end_ns"], what))
        return slices

    def _wakes(self) -> None:
        for row in self._rows("waits"):
            if (index := self.woken.index(self.rank, row)) >= 0:
                track = self._lane(self._place(row))
                self.file.event(track, row["end_ns"], INSTANT, "woken", category="wait", ends=[index + 1])
                self.report.written["flows from write to wake-up"] += 1

    def _writes(self) -> None:
        leaving = self.woken.leaving(self.rank)
        for number, row in enumerate(self._rows("writes")):
            notes = {name: row[name] for name in ("size_bytes", "region", "offset_bytes", "flag", "value")}
            self.file.event(
                self._lane(self._place(row)),
                row["issue_ns"],
                INSTANT,
                f"{row['kind']} to {row['peer']}",
                category="write",
                flows=[leaving[number]] if number in leaving else (),
                notes=notes,
            )
            self.report.written["writes"] += 1

    def _counters(self) -> None:
        tracks: dict[tuple[str, str], int] = {}
        for row in self._rows("counters"):
            key = (row["source"], row["name"])
            if key not in tracks:
                tracks[key] = self.file.track(self.process, " ".join(key), counter=True)
            self.file.count(tracks[key], row["time_ns"], row["value"])
            self.report.written["samples"] += 1

    def _rows(self, table: str) -> Iterator[dict[str, Any]]:
        for batch in self.trace.read(table, ranks=[self.rank]).to_batches(1 << 14):
            yield from batch.to_pylist()

    def _place(self, row: Mapping[str, Any]) -> str:
        """Return the lane of a write or wait: its span's, else its workgroup's."""
        if row["span"] in self.lane_of:
            return self.lane_of[row["span"]]
        return "memory" if row["workgroup"] is None else f"workgroup {row['workgroup']}"


def _write_run(run: Results, file: PacketWriter, report: ExportReport, progress: Progress) -> None:
    agents = run.read("agents", ["agent", "rank", "name"]).sort_by("agent").to_pylist()
    released = _releasing(run)
    by_rank: dict[int, dict[int, str]] = defaultdict(dict)
    for agent in agents:
        by_rank[agent["rank"]][agent["agent"]] = agent["name"]
    ranks = sorted(by_rank)
    rows = sum(run.read(table, [column]).num_rows for table, column in _SIZED if table in run.tables())
    step = max(1, len(ranks) * BLOCK_ROWS // max(1, rows))
    for first in range(0, len(ranks), step):
        progress("writing GPUs", first, len(ranks))
        block = {rank: by_rank[rank] for rank in ranks[first : first + step]}
        _write_block(run, block, file, released, report)


_SIZED = (("activities", "agent"), ("waits", "agent"), ("messages", "agent"))


def _write_block(
    run: Results,
    block: Mapping[int, Mapping[int, str]],
    file: PacketWriter,
    released: npt.NDArray[np.bool_],
    report: ExportReport,
) -> None:
    """Write some endpoints of a run: `block` has each one's agents by number, with their names."""
    processes = {rank: file.process(rank, f"endpoint {rank}") for rank in block}
    home = {
        agent: (processes[rank], name) for rank, agents in block.items() for agent, name in agents.items()
    }
    tracks = {agent: file.track(process, name) for agent, (process, name) in home.items()}
    slices: dict[int, list[Slice]] = defaultdict(list)
    for row in _run_rows(run, "activities", tracks):
        slices[row["agent"]].append(_run_slice(row, row["name"], row["kind"], ()))
    wakes = []
    for row in _run_rows(run, "waits", tracks):
        if row["end_ps"] >= row["start_ps"]:
            name = f"wait for {row['flag_name'] or 'flag'} {row['flag']}"
            slices[row["agent"]].append(_run_slice(row, name, "wait", ("policy", "expected", "polls")))
            if row["released_by"] >= 0:
                wakes.append((row["agent"], row["end_ps"] // _PS, row["released_by"] + 1))
    for agent, found in sorted(slices.items()):
        for number, line in enumerate(rows_of(found)):
            track = tracks[agent] if number == 0 else file.track(*home[agent])
            for time, begins, what in begins_and_ends(line):
                file.event(track, time, BEGIN if begins else END, **(what if begins else {}))
            report.written["slices"] += len(line)
    for agent, time, flow in wakes:
        file.event(tracks[agent], time, INSTANT, "woken", category="wait", ends=[flow])
    report.written["flows from write to wake-up"] += len(wakes)
    _run_messages(run, file, tracks, released, report)


def _run_messages(
    run: Results,
    file: PacketWriter,
    tracks: Mapping[int, int],
    released: npt.NDArray[np.bool_],
    report: ExportReport,
) -> None:
    for row in _run_rows(run, "messages", tracks):
        number = row["message"]
        file.event(
            tracks[row["agent"]],
            row["post_ps"] // _PS,
            INSTANT,
            f"write to {row['destination_rank']}",
            category="write",
            flows=[number + 1] if number < len(released) and released[number] else (),
            notes={name: row[name] for name in ("size_bytes", "post_ps", "arrival_ps", "queued_ps", "flag")},
        )
        report.written["writes"] += 1


def _releasing(run: Results) -> npt.NDArray[np.bool_]:
    """Return which messages ended a wait."""
    by = run.read("waits", ["released_by"])["released_by"].to_numpy()
    released: npt.NDArray[np.bool_] = np.zeros(int(by.max(initial=-1)) + 1, bool)
    released[by[by >= 0]] = True
    return released


def _run_rows(run: Results, table: str, agents: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table that are of `agents`."""
    if table in run.tables():
        wanted = pa.array(list(agents), pa.int64())
        for batch in run.read(table, filters=pc.field("agent").isin(wanted)).to_batches(1 << 14):
            yield from batch.to_pylist()


def _run_slice(row: Mapping[str, Any], name: str, category: str, more: Iterable[str]) -> Slice:
    notes = {key: row[key] for key in ("start_ps", "end_ps", *more)}
    return Slice(
        row["start_ps"] // _PS, row["end_ps"] // _PS, {"name": name, "category": category, "notes": notes}
    )
