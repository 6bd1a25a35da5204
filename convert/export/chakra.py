"""A trace -> Chakra execution traces: NAME.RANK.et a rank and the ranks of each group, as ASTRA-sim takes them.

ASTRA-sim (astra-sim/workload/Workload.cc, commit 0383c203) reads NAME.<rank>.et, takes `duration_micros` of compute
nodes, `comm_type`, `comm_size` and `pg_name` of collectives, `comm_src`, `comm_dst` and `comm_tag` of the rest,
waits for `data_deps`, refuses communication with `is_cpu_op`, and takes group 0 for all ranks. Sizes of a
collective mean what the schema's do (system/astraccl/.../Ring.cc: all-gather counts a rank's own part, the
others a rank's input). What Chakra has no field for is in attributes of our own (`chakra.OWN`), which others
pass over.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ...schemas import Results
from ...schemas.errors import InputError
from ..chakra import GROUPS, OWN
from ..chakra_nodes import COLLECTIVES, MESSAGES, TYPES
from .job import POINT_TO_POINT, Job, read_job
from .packets import varint
from .registry import Export, Progress, Source
from .report import ExportReport
from .schedule import Operation, read_schedule
from .tags import Tags

NAME = "trace"
VERSION = "0.0.4"
_US = 1000
_KEPT = (
    "communicator", "sequence", "operation", "dtype", "size_bytes", "in_split_bytes", "out_split_bytes", "peer",
    "algorithm", "protocol", "channels",
)  # fmt: skip


def write(source: Source, path: Path, report: ExportReport, progress: Progress) -> None:
    """Write the files of `source`, a trace, into the folder `path`."""
    if isinstance(source, Results):
        raise InputError(f"{source.path} is a run; give a trace")
    job = read_job(source, progress)
    tags = Tags(job)
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


EXPORT = Export(write, folder=True)


class _Rank:
    """One rank's file."""

    def __init__(self, job: Job, tags: Tags, rank: int, file: BinaryIO, report: ExportReport) -> None:
        self.job, self.tags, self.rank, self.file, self.report = job, tags, rank, file, report
        self.schedule = read_schedule(job, rank)
        spans = job.trace.read("spans", ["span", "kind"], [rank])
        self.kinds = dict(zip(spans["span"].to_pylist(), spans["kind"].to_pylist(), strict=True))
        self.ids: dict[int, int] = {}
        self.next_id = 1

    def write(self) -> None:
        """Write metadata, then a node an operation behind those that it depends on."""
        metadata = MESSAGES["GlobalMetadata"](version=VERSION)
        backend = self.job.trace.read("ranks", ["backend"], [self.rank])["backend"][0].as_py()
        told = {"origin_ns": self.job.origin_ns, "backend": backend, "world_size": self.job.world_size}
        _add_attributes(metadata, {OWN + name: value for name, value in told.items()})
        self._put(metadata)
        for operation in self.schedule.operations:
            after = [
                self.ids[o.number]
                for o in (*operation.after, *([operation.begun] if operation.begun else ()))
            ]
            lane = self.schedule.lanes[operation.lane] if operation.lane >= 0 else "memory"
            if operation.gap_ns >= _US and (operation.host or not operation.explained):
                after.append(self._gap(operation, after, lane))
            self._node(operation, after, lane)
        if not self.schedule.operations:
            self._put(MESSAGES["Node"](id=self.next_id, name="nothing", type=TYPES.index("COMP_NODE")))

    def _gap(self, operation: Operation, after: list[int], lane: str) -> int:
        """Write the time that a lane was idle before an operation as a node of the host."""
        node = MESSAGES["Node"](id=self._new_id(), name="gap", type=TYPES.index("COMP_NODE"), data_deps=after)
        node.duration_micros = round(operation.gap_ns / _US)
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
        node.duration_micros = max(
            0, round((end - origin) / _US) - round((end - operation.own_ns - origin) / _US)
        )
        attributes = {
            "is_cpu_op": operation.host,
            f"{OWN}lane": lane,
            f"{OWN}start_ns": start - origin,
            f"{OWN}duration_ns": end - start,
            f"{OWN}span": operation.span,
            f"{OWN}kind": self.kinds.get(operation.span) if operation.span is not None else None,
        }
        kind, described = self._described(operation)
        node.type = TYPES.index(kind)
        if kind.startswith("COMM"):
            attributes["is_cpu_op"] = False
        _add_attributes(node, attributes | described)
        self._put(node)
        self.report.written[_NAMES[kind]] += 1

    def _described(self, operation: Operation) -> tuple[str, dict[str, Any]]:
        """Return the node's type, and what its attributes say of communication."""
        if operation.kind in POINT_TO_POINT:
            return f"COMM_{operation.kind.upper()}_NODE", self._point_to_point(operation)
        row = operation.row
        if row is None:
            return "COMP_NODE", {}
        own = self._own(row)
        key = (row["communicator"], row["sequence"])
        collective = self.tags.whole.get(key)
        if collective is None:
            return "COMP_NODE", own
        name = "all_to_all" if row["operation"] == "all_to_allv" else row["operation"]
        sizes = [collective.bytes_of(place) for place in range(collective.size)]
        mean = -(
            -sum(sizes) // len(sizes)
        )  # a simulator that pairs messages by size needs the same on all ranks
        return "COMM_COLL_NODE", {
            "comm_type": COLLECTIVES.index(name),
            "comm_size": mean,
            "pg_name": str(self.job.groups[row["communicator"]].number),
            **own,
        }

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
            "comm_size": operation.size_bytes,
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
            attribute.int64_val = value
        elif isinstance(value, list):
            attribute.int64_list.values.extend(value)
        else:
            attribute.string_val = str(value)
