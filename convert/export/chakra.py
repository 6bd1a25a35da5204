"""A trace -> Chakra execution traces: NAME.RANK.et a rank and the ranks of each group, as ASTRA-sim takes them.

ASTRA-sim (astra-sim/workload/Workload.cc, commit 0383c203) reads NAME.<rank>.et, takes `duration_micros` of compute
nodes, `comm_type`, `comm_size` and `pg_name` of collectives, `comm_src`, `comm_dst` and `comm_tag` of the rest (as
the types that src/feeder/et_feeder_node.cpp of mlcommons/chakra, 02da5d05, takes them for), waits for `data_deps`,
refuses communication with `is_cpu_op`, and takes group 0 for all ranks. A rank runs one operation of the host, one
kernel and one communication at a time (workload/HardwareResource.cc). Sizes of a collective mean what the schema's
do (system/astraccl/.../Ring.cc: all-gather counts a rank's own part, the others a rank's input). What Chakra has no
field for is in attributes of our own (`chakra_attributes.OWN`), which others pass over.
"""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ...schemas import Results
from ...schemas.errors import InputError
from ..chakra_attributes import OWN
from ..chakra_model import COLLECTIVES, TYPES
from ..chakra_nodes import MESSAGES
from ..chakra_parts import GROUPS
from .expansion import Collective
from .job import POINT_TO_POINT, Job, read_job
from .packets import varint
from .registry import Export, Progress, Source
from .report import ExportReport
from .schedule import GROUP_ENDS, Operation, read_schedule
from .tags import Tags

NAME = "trace"
VERSION = "0.0.4"
_US = 1000
_KEPT = (
    "communicator", "sequence", "operation", "dtype", "size_bytes", "in_split_bytes", "out_split_bytes", "peer",
    "algorithm", "protocol", "channels",
)  # fmt: skip
_SIMULATED = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "all_to_allv", "broadcast")
_SHORT = ("comm_src", "comm_dst", "comm_tag")
"""Attributes that Chakra's own feeder reads as int32 whatever they are, so that others are 0 there."""
_MOST_TAGS = 500_000_000
"""ASTRA-sim's tags begin again behind it (`FrontEndSendRecvType`, system/Sys.hh)."""


def write(source: Source, path: Path, report: ExportReport, progress: Progress) -> None:
    """Write the files of `source`, a trace, into the folder `path`."""
    if isinstance(source, Results):
        raise InputError(f"{source.path} is a run; give a trace")
    job = read_job(source, progress)
    tags = Tags(job, _MOST_TAGS)
    path.mkdir()
    for done, rank in enumerate(job.ranks):
        progress("writing ranks", done, len(job.ranks))
        with (path / f"{NAME}.{rank}.et").open("wb") as file:
            _Rank(job, tags, rank, file, report).write()
    groups = {str(g.number): [g.ranks[i] for i in range(g.size)] for g in job.groups.values() if g.whole}
    (path / GROUPS).write_text(json.dumps(groups, indent=1) + "\n")
    report.written["groups"] = len(groups)
    if kept := tags.without(tags.whole):
        report.lost.append(
            f"{kept} operations that lack ranks or sizes are compute nodes of their captured time"
        )
    report.lost += [
        "edges that a start releases: a kernel starts when its call has ended",
        "what tells edges apart (measured or inferred; stream or event), clocks, links and counters",
    ]
    if job.incoming:
        report.lost.append(
            "flags, values and offsets: writes are sends, and waits receives of what ended them"
        )
    report.notes += _notes(job, tags)


EXPORT = Export(write, folder=True)


def _sends(collective: Collective) -> bool:
    """Whether a collective moves anything between ranks."""
    sizes = map(collective.bytes_of, range(collective.size))
    return collective.size > 1 and (collective.operation == "barrier" or any(sizes))


def _notes(job: Job, tags: Tags) -> list[str]:
    """Return what ASTRA-sim will not do with the files."""
    operations = (c.operation for c in tags.whole.values() if _sends(c))
    stops = Counter(operation for operation in operations if operation not in _SIMULATED)
    told = ", ".join(f"{count} {operation}" for operation, count in sorted(stops.items()))
    notes = [f"ASTRA-sim stops at collectives that it does not simulate: {told}"] if told else []
    if absent := sorted(set(range(job.world_size)) - set(job.ranks)):
        shown = ", ".join(map(str, absent[:8])) + (", ..." if len(absent) > 8 else "")
        notes.append(
            f"there is no file of rank {shown}, which the trace does not hold; ASTRA-sim takes {NAME}.0.et to the "
            "last without a hole: convert the files of all ranks to simulate them"
        )
    return notes


class _Rank:
    """One rank's file."""

    def __init__(self, job: Job, tags: Tags, rank: int, file: BinaryIO, report: ExportReport) -> None:
        self.job, self.tags, self.rank, self.file, self.report = job, tags, rank, file, report
        self.schedule = read_schedule(job, rank)
        spans = job.trace.read("spans", ["span", "kind"], [rank])
        self.kinds = dict(zip(spans["span"].to_pylist(), spans["kind"].to_pylist(), strict=True))
        self.ids: dict[int, int] = {}
        self.ended: dict[bool, list[Operation]] = {True: [], False: []}  # the host's, and all
        self.next_id = 1

    def write(self) -> None:
        """Write metadata, then a node an operation behind those that it depends on."""
        metadata = MESSAGES["GlobalMetadata"](version=VERSION)
        backend = self.job.trace.read("ranks", ["backend"], [self.rank])["backend"][0].as_py()
        methods = self.job.trace.read("clocks", ["method"], [self.rank])["method"].to_pylist()
        clock = None if methods in ([], ["none"]) else "aligned"
        told = {
            "origin_ns": self.job.origin_ns, "backend": backend, "world_size": self.job.world_size, "clock": clock,
        }  # fmt: skip
        _add_attributes(metadata, {OWN + name: value for name, value in told.items()})
        self._put(metadata)
        working = {o.lane for o in self.schedule.operations if not self._labels(o)}
        for operation in self.schedule.operations:
            after = [
                self.ids[o.number]
                for o in (*operation.after, *([operation.begun] if operation.begun else ()))
            ]
            lane = self.schedule.lanes[operation.lane] if operation.lane >= 0 else "memory"
            unexplained = operation.host or not operation.explained
            idle_ns = operation.gap_ns * unexplained + operation.own_ns * self._labels(operation)
            if idle_ns >= _US and operation.lane in working:
                after.append(self._gap(operation, idle_ns, after, lane))
            self._node(operation, after, lane)
            if operation.kind == "calc":  # nothing follows communication that it did not wait for
                self.ended[False].append(operation)
                if operation.host:
                    self.ended[True].append(operation)
        if not self.schedule.operations:
            self._put(MESSAGES["Node"](id=self.next_id, name="nothing", type=TYPES.index("COMP_NODE")))

    def _labels(self, operation: Operation) -> bool:
        """Whether an operation is the time that an annotation spans beside what it holds: no work of its own."""
        return operation.kind == "calc" and self.kinds.get(operation.span) == "annotation"

    def _gap(self, operation: Operation, idle_ns: int, after: list[int], lane: str) -> int:
        """Write the time that a lane was idle before an operation, or in an annotation, as a node of the host.

        ASTRA-sim's host does one thing at a time. What other threads did meanwhile is no part of the gap: it
        follows the last operation that ended before, of whichever thread, and counts from there.
        """
        others = self.ended[operation.host]
        begin = operation.start_ns
        if operation.kind == "calc":
            begin = operation.end_ns - operation.own_ns * (not self._labels(operation))
        last = bisect_right(others, begin, key=lambda other: other.end_ns) - 1
        if last >= 0:
            idle_ns = min(idle_ns, begin - others[last].end_ns)
            after = [*after, self.ids[others[last].number]]
        node = MESSAGES["Node"](id=self._new_id(), name="gap", type=TYPES.index("COMP_NODE"))
        node.data_deps.extend(dict.fromkeys(after))
        node.duration_micros = round(idle_ns / _US)
        _add_attributes(node, {"is_cpu_op": True, f"{OWN}gap": True, f"{OWN}lane": lane})
        self._put(node)
        self.report.written["gaps"] += 1
        return int(node.id)

    def _node(self, operation: Operation, after: list[int], lane: str) -> None:
        origin, start, end = self.job.origin_ns, operation.start_ns, operation.end_ns
        node = MESSAGES["Node"](id=self._new_id(), name=operation.name, data_deps=dict.fromkeys(after))
        self.ids[operation.number] = node.id
        node.start_time_micros = max(0, start - origin) // _US
        # Rounded at both ends on one grid, so that what is lost does not add up.
        own_ns = 0 if self._labels(operation) else operation.own_ns
        node.duration_micros = max(0, round((end - origin) / _US) - round((end - own_ns - origin) / _US))
        attributes = {
            "is_cpu_op": operation.host,
            f"{OWN}lane": lane,
            f"{OWN}start_ns": start - origin,
            f"{OWN}duration_ns": end - start,
            f"{OWN}span": operation.span,
            f"{OWN}kind": self._kind(operation),
        }
        kind, described = self._described(operation)
        node.type = TYPES.index(kind)
        if kind.startswith("COMM"):
            attributes["is_cpu_op"] = False
        _add_attributes(node, attributes | described)
        self._put(node)
        self.report.written[_NAMES[kind]] += 1

    def _kind(self, operation: Operation) -> str | None:
        """Return the kind of its span; no kernel is what arrives in memory beside all lanes, nor group ends."""
        if operation.span is not None:
            return self.kinds.get(operation.span)
        return "annotation" if operation.lane < 0 or operation.name in GROUP_ENDS else None

    def _described(self, operation: Operation) -> tuple[str, dict[str, Any]]:
        """Return the node's type, and what its attributes say of communication."""
        if operation.kind in POINT_TO_POINT:
            return f"COMM_{operation.kind.upper()}_NODE", self._point_to_point(operation)
        row = operation.row
        if row is None:
            return "COMP_NODE", {}
        own = self._own(row)
        collective = self.tags.whole.get((row["communicator"], row["sequence"]))
        if collective is None or row["operation"] in POINT_TO_POINT:  # which have numbers of their own
            return "COMP_NODE", own
        name = "all_to_all" if row["operation"] == "all_to_allv" else row["operation"]
        sizes = [collective.bytes_of(place) for place in range(collective.size)]
        # A simulator that pairs messages by size needs the same on all ranks.
        mean = -(-sum(sizes) // len(sizes))
        own["pg_name"] = str(self.job.groups[row["communicator"]].number)
        if not _sends(collective):
            return "COMP_NODE", own  # ASTRA-sim would wait for its end for ever
        return "COMM_COLL_NODE", {"comm_type": COLLECTIVES.index(name), "comm_size": mean, **own}

    def _point_to_point(self, operation: Operation) -> dict[str, Any]:
        sends = operation.kind == "send"
        if operation.write:
            tag, own = self.tags.writes + operation.write[1], {}
        else:
            row = operation.row or {}
            pair = self.job.pair(self.rank, row)
            tag, own = self.tags.pairs[pair] if pair else 0, self._own(row)
        ends = (self.rank, operation.peer) if sends else (operation.peer, self.rank)
        return {
            "comm_src": ends[0],
            "comm_dst": ends[1],
            "comm_tag": tag,
            "comm_size": max(1, operation.size_bytes),  # ASTRA-sim's networks have no empty messages
            **own,
        }

    def _own(self, row: Mapping[str, Any]) -> dict[str, Any]:
        group = self.job.groups.get(row["communicator"])
        told = {OWN + name: row[name] for name in _KEPT}
        return told | ({f"{OWN}group_size": group.size} if group else {})

    def _new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def _put(self, message: Any) -> None:
        data = message.SerializeToString()
        self.file.write(varint(len(data)) + data)


_NAMES = {
    "COMP_NODE": "compute nodes",
    "COMM_COLL_NODE": "collective nodes",
    "COMM_SEND_NODE": "send nodes",
    "COMM_RECV_NODE": "receive nodes",
}


def _add_attributes(message: Any, values: Mapping[str, Any]) -> None:
    """Add attributes; those without a value are left out."""
    for name, value in values.items():
        if value is None:
            continue
        attribute = message.attr.add(name=name)
        if isinstance(value, bool):
            attribute.bool_val = value
        elif isinstance(value, int):
            setattr(attribute, "int32_val" if name in _SHORT else "int64_val", value)
        elif isinstance(value, list):
            attribute.int64_list.values.extend(value)
        else:
            attribute.string_val = str(value)
