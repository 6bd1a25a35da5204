"""The scaling verb as a trace: `write_scaled` writes an ordinary trace of N ranks, for every exporter to read.

It has the plan, laws, draws and edits of `scale`; lowered at its own size it is the program that `scale` makes,
apart from which times count as captured. Ranks that nobody captured are `virtual`, and keep no clock.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..schemas import TRACE_TABLES, Trace, TraceWriter
from .edits import NONE, Edits
from .lowering.acts import traffic_law
from .lowering.items import Item, Part, RankWork, finish_ns
from .lowering.lower import read_works
from .lowering.matching import Instance, Matcher, copy_name
from .lowering.plan import LAWS, Law, Plan, make_plan
from .lowering.sizing import Sizer
from .lowering.works import Works
from .scaled_traffic import ScaledTraffic

Rows = dict[str, list[Any]]


def write_scaled(
    trace: Trace | str | Path,
    output: str | Path,
    *,
    gpus: int | None = None,
    law: Law = "weak",
    replicas: bool = False,
    fill: bool = False,
    parallel: Mapping[str, int] | None = None,
    axes: Mapping[str, str] | None = None,
    edits: Edits = NONE,
    seed: int = 0,
    overwrite: bool = False,
    command: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """Write `trace` at `gpus` GPUs, or with the axes in `parallel`, to `output`; arguments as of `scale`.

    Notes hold what was asked and, in sentences, what was extrapolated. `progress` is called with (ranks done,
    ranks).
    Raises UsageError for shapes that make no sense, for captured flags that no count explains, and where an edit
    asks for another algorithm of a collective than a trace can hold.
    """
    source = trace if isinstance(trace, Trace) else Trace(trace)
    gpus = edits.replay.get("gpus", gpus)
    parallel = {**(parallel or {}), **edits.replay.get("parallel", {})}
    plan = make_plan(
        source, gpus, law=law, replicas=replicas, fill=fill, parallel=parallel, axes=axes, seed=seed
    )
    scaled = _Scaled(source, plan, edits)
    with TraceWriter(output, overwrite=overwrite) as writer:
        for gpu in range(plan.gpus):
            for name, table in scaled.tables(gpu).items():
                writer.write(name, gpu, table)
            if progress:
                progress(gpu + 1, plan.gpus)
        edits.check_used()
        asked = {"gpus": plan.gpus, "law": law, "replicas": replicas, "fill": fill, "seed": seed}
        writer.notes = {
            "source": "eidola replay scale",
            "scaled_from": str(source.path.resolve()),
            "arguments": asked | {"parallel": parallel, "axes": dict(axes or {})},
            "edits": {"path": edits.path, "sha256": edits.sha256, "content": dict(edits.content)},
            "extrapolated": scaled.notes(),
            "command": command,
            "truth": "captured ranks' own durations; all else as `extrapolated` says",
        }
    return Trace(output)


@dataclass
class _Scaled:
    """Tables of each GPU. What copies of a rank share is read once."""

    trace: Trace
    plan: Plan
    edits: Edits
    works: Works = field(init=False)
    matcher: Matcher = field(init=False)
    sizer: Sizer = field(init=False)
    traffic: ScaledTraffic = field(init=False)
    _read: dict[tuple[str, int], pa.Table] = field(default_factory=dict)
    _timed: dict[int, pa.Table] = field(default_factory=dict)
    _launched: dict[int, dict[tuple[str, int, str], dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.works = read_works(self.trace, self.plan, self.edits)
        self.matcher = Matcher(self.plan)
        for work in self.works.base.values():
            self.matcher.add(work)
        self.sizer = Sizer(self.plan, self.edits)
        self.traffic = ScaledTraffic(self.trace, self.plan, self.works)

    def tables(self, gpu: int) -> dict[str, pa.Table | Rows]:
        """Return the tables of one GPU; what only a captured rank has (clock, links, counters) only for those."""
        plan, rank, work = self.plan, self.plan.source(gpu), self.traffic.work(gpu)
        tables: dict[str, pa.Table | Rows] = {
            "ranks": self._ranks(rank, plan.captured(gpu)),
            "spans": self._spans(rank, work),
            "dependencies": self._own("dependencies", rank),
            "communicators": self._communicators(gpu),
            "collectives": self._collectives(gpu, work),
            **self.traffic.tables(gpu),
        }
        if plan.captured(gpu):
            tables["clocks"], tables["counters"] = self._own("clocks", rank), self._own("counters", rank)
        return {name: _of_rank(table, gpu) for name, table in tables.items()}

    def _own(self, name: str, rank: int) -> pa.Table:
        if (name, rank) not in self._read:
            self._read[name, rank] = self.trace.read(name, ranks=[rank])
        return self._read[name, rank]

    def _ranks(self, rank: int, captured: bool) -> pa.Table:
        table = self._own("ranks", rank)
        if captured:
            return table
        keep = {name: table[name] for name in ("vendor", "model", "compute_units", "memory_bytes")}
        return pa.table({"backend": ["virtual"], **keep})

    def _spans(self, rank: int, work: RankWork) -> pa.Table:
        """Return the source rank's spans at the work's times; as they are where nothing changed."""
        table = self._own("spans", rank)
        if work is self.works.captured[rank]:
            return table
        if id(work) not in self._timed:
            self._timed[id(work)] = _retimed(table, self.works.captured[rank], work)
        return self._timed[id(work)]

    def _communicators(self, gpu: int) -> Rows:
        """Return the copies of its source's communicators that a GPU is in, and its position there."""
        rows: Rows = {"communicator": [], "group_rank": [], "group_size": [], "name": []}
        source = self._own("communicators", self.plan.source(gpu)).to_pylist()
        for row in source:
            group = self.plan.groups[row["communicator"]]
            copy = self.plan.layout.copy(group.name, gpu)
            members = self.matcher.members(group, copy)
            if members is not None and gpu not in members:
                continue
            rows["communicator"].append(copy_name(group.name, copy))
            rows["group_rank"].append(row["group_rank"] if members is None else members.index(gpu))
            rows["group_size"].append(group.size if members is None else len(members))
            rows["name"].append(row["name"])
        return rows

    def _collectives(self, gpu: int, work: RankWork) -> Rows:
        rank = self.plan.source(gpu)
        if rank not in self._launched:
            rows = self._own("collectives", rank).to_pylist()
            self._launched[rank] = {(r["communicator"], r["sequence"], r["operation"]): r for r in rows}
        as_captured = work is self.works.captured[rank]
        rows = [
            self._collective(gpu, None if as_captured else item, item.span, part)
            for item in work.items()
            for part in item.parts
        ]
        columns = TRACE_TABLES["collectives"].by_name
        return {c: [row.get(c) for row in rows] for c in columns if c != "rank"}

    def _collective(self, gpu: int, item: Item | None, span: int, part: Part) -> dict[str, Any]:
        """Return a part's row; `item` says when, None: as captured."""
        row = self._launched[self.plan.source(gpu)][part.communicator, part.sequence, part.operation]
        start_ns, end_ns = (item.start_ns, item.end_ns) if item else (part.start_ns, part.end_ns)
        copy = self.plan.layout.copy(part.communicator, gpu)
        found: dict[str, Any] = {
            "span": None if span < 0 else span,
            "communicator": copy_name(part.communicator, copy),
            "sequence": part.sequence,
            "operation": part.operation,
            "dtype": row["dtype"],
            "size_bytes": None if part.size_bytes < 0 else part.size_bytes,
            "peer": part.peer,
            "algorithm": part.algorithm,
            "protocol": part.protocol,
            "channels": part.channels,
            "start_ns": start_ns,
            "end_ns": end_ns,
        }
        if row["launch_ns"] is not None:
            found["launch_ns"] = row["launch_ns"] + start_ns - part.start_ns
        instance = self.matcher.find(gpu, part)
        return found if instance is None else found | self._sized(gpu, part, instance)

    def _sized(self, gpu: int, part: Part, instance: Instance) -> dict[str, Any]:
        """Return what the laws and edits say of a matched operation's size, splits, algorithm and peer."""
        operation, at = self.sizer.operation(instance), instance.members.index(gpu)
        found: dict[str, Any] = {"size_bytes": operation.size_bytes}
        if chosen := self.sizer.chosen(instance):
            found["algorithm"] = chosen
        if instance.operation == "barrier" and part.size_bytes < 0:
            found["size_bytes"] = None
        if operation.split_bytes is not None:
            split = operation.split_bytes
            found |= {"operation": operation.operation, "size_bytes": int(split[at].sum())}
            found |= {"in_split_bytes": split[at].tolist(), "out_split_bytes": split[:, at].tolist()}
        if instance.operation == "send":
            group = self.plan.groups[part.communicator]
            members = self.matcher.members(group, instance.copy) or list(instance.members)
            other = next((m for m in instance.members if m != gpu), gpu)
            found["peer"] = members.index(other)
        return found

    def notes(self) -> list[str]:
        """Say what is not as captured."""
        plan, ranks = self.plan, len(self.plan.job)
        added = sum(not plan.captured(gpu) for gpu in range(plan.gpus))
        notes = [f"{plan.gpus} ranks of {ranks}: {added} added, marked virtual"] if added else []
        notes += [LAWS[plan.law], *plan.layout.notes] if added or plan.layout.growth else []
        if not plan.replicas:
            notes += traffic_law(self.works.base.values(), ranks, plan.gpus)
        notes += [*self.works.notes(), *(f"{n} x {note}" for note, n in sorted(self.sizer.notes.items()))]
        notes += [
            f"{count} parts of collectives are as captured: {reason}"
            for reason, count in sorted(self.matcher.unmatched.items())
        ]
        return [*notes, *self.edits.notes()]


def _of_rank(table: pa.Table | Rows, gpu: int) -> pa.Table | Rows:
    if isinstance(table, dict) or "rank" not in table.column_names:
        return table if isinstance(table, dict) else {c: table[c] for c in table.column_names}
    return table.set_column(
        table.column_names.index("rank"),
        table.schema.field("rank"),
        pa.array(np.full(len(table), gpu, np.int32)),
    )


def _retimed(table: pa.Table, captured: RankWork, work: RankWork) -> pa.Table:
    """Put the work's times into spans; annotations and launches move with the host's calls around them."""
    pairs = list(zip(captured.items(), work.items(), strict=True))
    times = {new.span: (new.begin_ns, finish_ns(new)) for _, new in pairs if new.span >= 0}
    host = [(a.begin_ns, b.begin_ns) for a, b in pairs if a.kind == "host_call"]
    moved = _Moved(host or [(a.begin_ns, b.begin_ns) for a, b in pairs])
    starts, ends = [], []
    for span, start, end in zip(*(table[c].to_pylist() for c in ("span", "start_ns", "end_ns")), strict=True):
        new = times.get(span) or (moved(start), max(moved(start), moved(end)))
        starts.append(new[0])
        ends.append(new[1])
    launch = [None if t is None else moved(t) for t in table["launch_ns"].to_pylist()]
    for name, values in (("launch_ns", launch), ("start_ns", starts), ("end_ns", ends)):
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(name), pa.array(values, pa.int64()))
    return table


class _Moved:
    """Where a time lies once those of some items are others: with the latest item that began by then."""

    def __init__(self, pairs: list[tuple[int, int]]) -> None:
        self._old, new = (np.array(column, np.int64) for column in zip(*sorted(pairs), strict=True))
        self._new = np.maximum.accumulate(new)

    def __call__(self, time_ns: int) -> int:
        at = max(0, int(np.searchsorted(self._old, time_ns, side="right")) - 1)
        return int(self._new[at]) + time_ns - int(self._old[at])
