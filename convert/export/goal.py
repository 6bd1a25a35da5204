"""A trace or a run -> a GOAL schedule: what LogGOPSim and ATLAHS simulate.

The language is what LogGOPSim's src/LogGOPSim/txt2bin.re (commit d5bb14a8) scans: `num_ranks N`, then `rank R
{`, one of `LABEL: calc NS cpu C`, `LABEL: send BYTESb to R tag T cpu C`, `LABEL: recv BYTESb from R tag T cpu C`,
`LABEL requires LABEL` (has ended) a line, and `}`. A receive takes the message whose source and tag are its own
(doc/README-mpi-matching), so every message of two ranks has a tag of its own. `irequires` (has begun) is not used:
ATLAHS' LogGOPSim (spcl/atlahs, commit 350e929f, sim/LogGOPSim/Parser.hpp) forgets when that was. What begins with
another operation requires what that one requires.

Of a trace, collectives become the messages of `expansion`; one that not every rank of its group took part in keeps
its captured time. Of a run, every message that replay simulated is one, with the algorithm that replay ran.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from ...schemas import Trace
from .goal_run import CPUS, write_run
from .job import POINT_TO_POINT, Job, read_job
from .registry import Export, Progress, Source
from .report import ExportReport
from .schedule import Operation, Schedule, read_schedule
from .tags import Tags


def write(source: Source, path: Path, report: ExportReport, progress: Progress) -> None:
    """Write the schedule of `source` to the file `path`."""
    with path.open("w", encoding="ascii") as file:
        if isinstance(source, Trace):
            _write_trace(source, file, report, progress)
        else:
            write_run(source, file, report, progress)


EXPORT = Export(write, runs=True)


def _write_trace(trace: Trace, file: TextIO, report: ExportReport, progress: Progress) -> None:
    job = read_job(trace, progress)
    tags = Tags(job)
    lanes = 0
    file.write(f"num_ranks {job.world_size}\n")
    for rank in range(job.world_size):
        progress("writing ranks", rank, job.world_size)
        file.write(f"\nrank {rank} {{\n")
        schedule = read_schedule(job, rank)
        lanes = max(lanes, len(schedule.lanes))
        _Rank(job, tags, schedule, file, report).write()
        file.write("}\n")
    if lanes > CPUS:
        report.lost.append(
            f"a rank has {lanes} lanes, and a schedule {CPUS} cpus: those that share one take turns in LogGOPSim"
        )
    absent = job.world_size - len(job.ranks)
    if absent:
        report.lost.append(f"{absent} ranks that the trace does not hold compute nothing")
    if kept := tags.without(tags.collectives):
        report.lost.append(
            f"{kept} operations that lack ranks, sizes or a root have their captured time and send nothing"
        )
    report.lost.append(
        "names, channels, algorithms other than rings, chains and pairs, and reduction's own time"
    )


class _Rank:
    """One rank's block."""

    def __init__(self, job: Job, tags: Tags, schedule: Schedule, file: TextIO, report: ExportReport) -> None:
        self.job, self.tags, self.schedule, self.file, self.report = job, tags, schedule, file, report
        self.incoming = len(schedule.lanes) % CPUS
        self.entries: dict[int, list[str]] = {}  # what an operation requires, by its number

    def write(self) -> None:
        """Write the operations in order, each behind what it requires."""
        if not self.schedule.operations:
            self.file.write("o0: calc 0\n")
        for operation in self.schedule.operations:
            cpu = operation.lane % CPUS if operation.lane >= 0 else self.incoming
            label = f"o{operation.number}"
            entry = self._enter(operation, label, cpu)
            if operation.kind in ("send", "recv"):
                self._message(operation, label, cpu)
            elif (key := _key(operation)) in self.tags.collectives:
                self._collective(operation, key, label, cpu, entry)
                continue
            else:
                self._line(f"{label}: calc {operation.own_ns} cpu {cpu}", "calcs")
            self._requires(label, entry)

    def _enter(self, operation: Operation, label: str, cpu: int) -> list[str]:
        """Write the gap before an operation, if any; return the labels that the operation requires."""
        before = [f"o{o.number}" for o in operation.after]
        if operation.begun:
            before = list(dict.fromkeys(before + self.entries[operation.begun.number]))
        if operation.gap_ns:
            gap = f"g{operation.number}"
            self._line(f"{gap}: calc {operation.gap_ns} cpu {cpu}", "gaps")
            self._requires(gap, before)
            before = [gap]
        self.entries[operation.number] = before
        return before

    def _message(self, operation: Operation, label: str, cpu: int) -> None:
        if operation.write:
            tag = self.tags.writes + operation.write[1]
        else:
            key = self.job.pair(self.schedule.rank, operation.row or {})
            tag = self.tags.pairs[key] if key else 0
        self._side(label, operation.kind == "send", operation.size_bytes, operation.peer, tag, cpu)

    def _side(self, label: str, sends: bool, size: int, peer: int, tag: int, cpu: int) -> None:
        verb, word = ("send", "to") if sends else ("recv", "from")
        # LogGOPSim takes (bytes - 1) * G as a message's time: it has no empty messages.
        self._line(f"{label}: {verb} {max(1, size)}b {word} {peer} tag {tag} cpu {cpu}", f"{verb}s")

    def _collective(
        self, operation: Operation, key: tuple[str, int], label: str, cpu: int, entry: list[str]
    ) -> None:
        group = self.job.groups[key[0]]
        messages = self.tags.collectives[key].messages(group.place(self.schedule.rank))
        begin = f"b{operation.number}"
        self._line(f"{begin}: calc 0 cpu {cpu}", "calcs")
        self._requires(begin, entry)
        names = [f"m{operation.number}_{i}" for i in range(len(messages))]
        for name, message in zip(names, messages, strict=True):
            peer = group.ranks[message.peer]
            self._side(name, message.sends, message.size_bytes, peer, self.tags.first[key] + message.tag, cpu)
            self._requires(name, [begin, *(names[i] for i in message.after)])
        self._line(f"{label}: calc 0 cpu {cpu}", "calcs")
        self._requires(label, [begin, *names])
        self.report.written["collectives' parts"] += 1

    def _line(self, text: str, kind: str) -> None:
        self.file.write(text + "\n")
        self.report.written[kind] += 1

    def _requires(self, label: str, before: Iterable[str]) -> None:
        self.file.writelines(f"{label} requires {other}\n" for other in before)


def _key(operation: Operation) -> tuple[str, int]:
    """Return the collective that an operation is a part of; sends and receives have numbers of their own."""
    row = operation.row
    if row is None or row["operation"] in POINT_TO_POINT:
        return "", -1
    return row["communicator"], row["sequence"]
