"""The tables of a trace and of a run's results, defined once.

Everything else is derived from here: Arrow schemas, validation, docs/schema.md. To change a table, change
it here, raise the version, and register a migration in `migrate.py`.

A trace counts integer nanoseconds on one aligned clock; a result counts integer picoseconds from the run's
start. A null means that the source did not say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import pyarrow as pa

TRACE_VERSION = 1
RESULT_VERSION = 1

ORIGINS = ("measured", "inferred")
BACKENDS = ("gpu", "virtual", "timesliced", "host")


@dataclass(frozen=True)
class Column:
    """One column: Arrow type, unit, meaning; `required` forbids nulls, `values` lists what is allowed."""

    name: str
    type: pa.DataType
    doc: str
    unit: str = ""
    required: bool = False
    values: tuple[str, ...] = ()
    minimum: int | None = None

    def field(self) -> pa.Field:
        """Return the Arrow field, its unit in the metadata."""
        metadata = {"unit": self.unit} if self.unit else None
        return pa.field(self.name, self.type, nullable=not self.required, metadata=metadata)


@dataclass(frozen=True)
class Table:
    """One table: a row's meaning, its columns, and the columns that identify a row."""

    name: str
    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    kind: Literal["trace", "result"] = "trace"
    by_name: Mapping[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", MappingProxyType({c.name: c for c in self.columns}))

    def schema(self) -> pa.Schema:
        """Return the Arrow schema, without file metadata."""
        return pa.schema([column.field() for column in self.columns])

    @property
    def version(self) -> int:
        """Version of the family (trace or result) that the table belongs to."""
        return TRACE_VERSION if self.kind == "trace" else RESULT_VERSION


_I32, _I64, _F64, _STR = pa.int32(), pa.int64(), pa.float64(), pa.string()
_LIST = pa.list_(pa.int64())


def _rank(doc: str = "the rank that the row belongs to") -> Column:
    return Column("rank", _I32, doc, required=True, minimum=0)


def _time(name: str, doc: str, *, required: bool = False) -> Column:
    return Column(name, _I64, doc, unit="ns", required=required)


def _ps(name: str, doc: str, *, required: bool = True) -> Column:
    return Column(name, _I64, doc, unit="ps", required=required)


def _size(name: str, doc: str, *, required: bool = False) -> Column:
    return Column(name, _I64, doc, unit="bytes", required=required, minimum=0)


def _id(name: str, doc: str, *, required: bool = True) -> Column:
    return Column(name, _I64, doc, required=required)


def _count(name: str, doc: str, *, required: bool = False) -> Column:
    return Column(name, _I64, doc, unit="count", required=required, minimum=0)


def _enum(name: str, doc: str, values: tuple[str, ...], *, required: bool = True) -> Column:
    return Column(name, _STR, doc, required=required, values=values)


def _text(name: str, doc: str, *, required: bool = False) -> Column:
    return Column(name, _STR, doc, required=required)


_ORIGIN = _enum("origin", "measured in the source, or inferred by the converter", ORIGINS)

_TRACE = (
    Table(
        "ranks",
        "one GPU, or what stands for one",
        (
            _rank("the rank; unique in the trace"),
            _enum("backend", "what ran the rank; only `gpu` is truth for rates and delays", BACKENDS),
            _text("host", "host name"),
            Column("device", _I32, "device ordinal on its host"),
            _text("vendor", "nvidia, amd, or the CPU's vendor"),
            _text("model", "device name as its driver gives it"),
            _text("uuid", "device UUID"),
            Column("compute_units", _I32, "streaming multiprocessors or compute units", minimum=0),
            _size("memory_bytes", "device memory"),
            _text("software", "JSON object of software versions (driver, library, framework)"),
        ),
        ("rank",),
    ),
    Table(
        "links",
        "one directed link seen at capture",
        (
            _rank("source rank"),
            Column("peer", _I32, "destination rank; null for the host's network", minimum=0),
            _enum(
                "kind",
                "technology",
                ("nvlink", "xgmi", "pcie", "network", "local_memory", "host_memory"),
            ),
            Column("count", _I32, "parallel links bundled in the row", minimum=1),
            Column("rate_bytes_per_s", _I64, "rate of one link in this direction", "bytes/s", minimum=1),
            _time("latency_ns", "latency of one link"),
        ),
    ),
    Table(
        "clocks",
        "how one rank's clock was aligned: aligned time = own time + offset_ns, and where drift_ppb is not 0 also "
        "drift_ppb / 10^9 of the time since the median of the anchors; all times of a trace are aligned",
        (
            _rank(),
            _enum(
                "method", "how the offset was found", ("reference", "collective_ends", "ping_pong", "none")
            ),
            _time(
                "offset_ns",
                "added to the rank's own timestamps; at the median of the anchors, where there is a drift",
            ),
            Column(
                "drift_ppb",
                _I64,
                "rate by which the rank's own clock was corrected, 0 where no drift showed",
                "ppb",
            ),
            _time("residual_ns", "largest disagreement left at the anchors; no result compares closer"),
            _count("anchors", "anchors used"),
        ),
        ("rank",),
    ),
    Table(
        "communicators",
        "one rank in one process group",
        (
            _rank(),
            _text("communicator", "name, unique in the trace", required=True),
            Column("group_rank", _I32, "this rank's index in the group", required=True, minimum=0),
            Column("group_size", _I32, "ranks in the group", required=True, minimum=1),
            _text("name", "description that the framework gives"),
        ),
        ("rank", "communicator"),
    ),
    Table(
        "spans",
        "work on a lane: a GPU stream, a host thread, or a workgroup",
        (
            _rank(),
            _id("span", "identifies the span within its rank"),
            _text("lane", "`stream 7`, `thread 1234`, `workgroup 3`", required=True),
            Column("workgroup", _I32, "logical workgroup, where the lane is one", minimum=0),
            _enum("kind", "what the span is", ("kernel", "phase", "copy", "host_call", "annotation")),
            _text("name", "kernel, call or phase name", required=True),
            _time("launch_ns", "when the host launched it"),
            _time("start_ns", "start", required=True),
            _time("end_ns", "end, not before the start", required=True),
            _id("correlation", "the source's correlation id; not unique", required=False),
        ),
        ("rank", "span"),
    ),
    Table(
        "dependencies",
        "one ordering edge between two spans of a rank; order within a lane is implied, not stored",
        (
            _rank(),
            _id("before", "span that comes first"),
            _id("after", "span that comes second"),
            _enum(
                "kind",
                "stream, event, thread: after starts when before has ended; launch: after starts once "
                "before has started; sync: after cannot end until before has ended",
                ("stream", "event", "launch", "sync", "thread"),
            ),
            _ORIGIN,
        ),
    ),
    Table(
        "writes",
        "one write into a peer's memory",
        (
            _rank("writing rank"),
            Column("peer", _I32, "rank that is written to", required=True, minimum=0),
            Column("workgroup", _I32, "writing workgroup", minimum=0),
            _id("span", "span that issued it", required=False),
            _time("issue_ns", "issue, not arrival", required=True),
            _size("size_bytes", "payload", required=True),
            _text("region", "named buffer at the peer"),
            Column("offset_bytes", _I64, "offset in the region", "bytes", minimum=0),
            _enum("kind", "data, or a flag", ("data", "flag", "atomic")),
            Column("flag", _I32, "flag raised at the peer; null for plain data", minimum=0),
            Column("value", _I64, "value stored to, or added to, the flag"),
            _ORIGIN,
        ),
    ),
    Table(
        "waits",
        "one wait on a flag in the rank's own memory",
        (
            _rank("waiting rank"),
            Column("workgroup", _I32, "waiting workgroup", minimum=0),
            _id("span", "span that waited", required=False),
            Column("flag", _I32, "flag waited on", required=True, minimum=0),
            Column("expected", _I64, "value waited for (at least)", required=True),
            _time("start_ns", "first poll", required=True),
            _time("end_ns", "the poll that saw the value; null: the wait never ended"),
            _count("polls", "reads of the flag, the last included"),
        ),
    ),
    Table(
        "collectives",
        "one rank's part in one collective or point-to-point operation",
        (
            _rank(),
            _id("span", "the kernel span; null where no kernel was seen", required=False),
            _text("communicator", "process group", required=True),
            _id("sequence", "order in the communicator: equal on all ranks of one operation"),
            _enum(
                "operation",
                "what the group does",
                (
                    "all_reduce",
                    "all_gather",
                    "reduce_scatter",
                    "broadcast",
                    "reduce",
                    "all_to_all",
                    "all_to_allv",
                    "gather",
                    "scatter",
                    "send",
                    "recv",
                    "barrier",
                    "unknown",
                ),
            ),
            _text("dtype", "element type, as NCCL names it"),
            _size("size_bytes", "this rank's input buffer; for all_gather its own contribution"),
            Column("in_split_bytes", _LIST, "bytes to each group rank (all_to_allv)", "bytes"),
            Column("out_split_bytes", _LIST, "bytes from each group rank (all_to_allv)", "bytes"),
            Column("peer", _I32, "root (broadcast, reduce) or the other side (send, recv), as a group rank"),
            _text("algorithm", "ring, tree, nvls, direct"),
            _text("protocol", "ll, ll128, simple"),
            Column("channels", _I32, "channels (blocks) used", minimum=1),
            _time("launch_ns", "when the host launched it"),
            _time("start_ns", "start on this rank", required=True),
            _time("end_ns", "end on this rank", required=True),
        ),
        ("rank", "communicator", "sequence", "operation", "peer"),
    ),
    Table(
        "counters",
        "one sample of a counter",
        (
            _rank(),
            _text("source", "who counted: nvml, amdsmi, profiler", required=True),
            _text("name", "counter, unit in the name", required=True),
            _time("time_ns", "time of the sample", required=True),
            Column("value", _F64, "value", required=True),
        ),
    ),
)

_ROW = "canonical index of the row"
_RELEASED = "message that released it; -1: none (it was free to go)"

_RESULT = (
    Table(
        "agents",
        "one sequence of operations on an endpoint",
        (
            _id("agent", _ROW),
            _rank("endpoint that it runs on"),
            _text("name", "`stream 7`, `thread 12`, `workgroup 3`, `channel 0`", required=True),
            _ps("start_ps", "first operation"),
            _ps("end_ps", "last operation done"),
            _ps("compute_ps", "time in compute"),
            _ps("wait_ps", "time in waits"),
            _count("writes", "writes posted", required=True),
            _count("waits", "waits executed", required=True),
            _count("polls", "flag reads by its waits", required=True),
        ),
        ("agent",),
        "result",
    ),
    Table(
        "activities",
        "one named stretch of an agent: a kernel, a host call, a collective's part",
        (
            _id("activity", _ROW),
            _id("agent", "agent that ran it"),
            _rank("endpoint"),
            _enum("kind", "what it is", ("kernel", "copy", "host_call", "phase", "collective", "other")),
            _text("name", "kernel, call or operation", required=True),
            _id("source", "span (or collective row) that it was lowered from; -1: none"),
            _ps("start_ps", "simulated start, its own waits for predecessors excluded"),
            _ps("end_ps", "simulated end"),
            _time("captured_start_ns", "captured start; null for what nobody captured"),
            _time("captured_end_ns", "captured end"),
            _id("released_by", _RELEASED),
        ),
        ("activity",),
        "result",
    ),
    Table(
        "messages",
        "one write",
        (
            _id("message", _ROW),
            _id("agent", "agent that posted it"),
            _id("activity", "activity that posted it"),
            Column("source_rank", _I32, "endpoint that it left", required=True),
            Column("destination_rank", _I32, "endpoint that it reached", required=True),
            _size("size_bytes", "payload", required=True),
            Column("flag", _I32, "flag slot added to at the destination; -1: none", required=True),
            _ps("post_ps", "posted"),
            _ps("start_ps", "first byte on the first link"),
            _ps("arrival_ps", "last byte landed"),
            _ps("queued_ps", "time spent queueing, summed over its links, of its last segment"),
            Column(
                "bottleneck_link",
                _I32,
                "link where a segment of it queued and was served longest, on a tie nearest the source; -1: local",
                required=True,
            ),
            _id("released_by", _RELEASED),
        ),
        ("message",),
        "result",
    ),
    Table(
        "hops",
        "one segment of one message on one link (written on request)",
        (
            _id("message", "message"),
            Column("segment", _I32, "segment of the message", required=True),
            Column("link", _I32, "link", required=True),
            _ps("eligible_ps", "could have started"),
            _ps("start_ps", "started"),
            _ps("end_ps", "last byte left the link's source"),
        ),
        ("message", "segment", "link"),
        "result",
    ),
    Table(
        "waits",
        "one wait on a flag",
        (
            _id("wait", _ROW),
            _id("agent", "agent that waited"),
            _id("activity", "activity that waited"),
            _rank("endpoint"),
            Column("flag", _I32, "flag slot of the endpoint", required=True),
            _text("flag_name", "the flag's name, where it has one"),
            _id("expected", "count waited for"),
            _enum(
                "policy",
                "how it was served",
                ("event", "observe", "spin", "backoff", "table", "monitor", "ideal"),
            ),
            _ps("start_ps", "began"),
            _ps("arrival_ps", "flag reached the count; -1: never"),
            _ps("end_ps", "agent went on"),
            _count("polls", "flag reads", required=True),
            _id("released_by", _RELEASED),
        ),
        ("wait",),
        "result",
    ),
    Table(
        "links",
        "one directed link of the fabric",
        (
            Column("link", _I32, "link", required=True),
            _text("name", "`gpu 3 -> switch 0`", required=True),
            _text("source", "node that it leaves", required=True),
            _text("destination", "node that it enters", required=True),
            Column("rate_mb_per_s", _I64, "rate", "MB/s", required=True),
            _ps("latency_ps", "latency"),
            _size("wire_bytes", "bytes carried, headers included", required=True),
            _count("segments", "segments carried", required=True),
            _ps("busy_ps", "time spent serialising"),
            _ps("queued_ps", "time that segments waited for it, summed"),
        ),
        ("link",),
        "result",
    ),
    Table(
        "link_use",
        "one link in one bin of time; bins without use are left out",
        (
            Column("link", _I32, "link", required=True),
            _ps("start_ps", "bin's start"),
            _ps("width_ps", "bin's width"),
            _ps("busy_ps", "time spent serialising in the bin"),
        ),
        ("link", "start_ps"),
        "result",
    ),
    Table(
        "collectives",
        "one rank's part in one operation",
        (
            _id("collective", "operation"),
            _rank(),
            _text("operation", "what the group does", required=True),
            _text("communicator", "process group", required=True),
            _id("sequence", "order in the communicator"),
            _size("size_bytes", "this rank's buffer", required=True),
            _text("algorithm", "what replay ran", required=True),
            _ps("start_ps", "simulated start on this rank"),
            _ps("end_ps", "simulated end on this rank"),
            _time("captured_start_ns", "captured start; null for what nobody captured"),
            _time("captured_end_ns", "captured end"),
        ),
        ("collective", "rank"),
        "result",
    ),
    Table(
        "gpus",
        "one endpoint",
        (
            _rank(),
            _ps("end_ps", "last of its agents done"),
            _ps("compute_ps", "time when any of its agents computed"),
            _ps("exposed_ps", "time when some agent waited and none computed"),
            _size("sent_bytes", "payload sent to other endpoints", required=True),
            _size("received_bytes", "payload received from other endpoints", required=True),
            _count("writes", "writes posted to other endpoints", required=True),
            _count("flag_reads", "flag reads by its waits", required=True),
        ),
        ("rank",),
        "result",
    ),
    Table(
        "memory",
        "one kind of traffic to one GPU's memory",
        (
            _id("row", _ROW),
            _rank(),
            _enum(
                "traffic",
                "flag reads by wait policy, of waits that found no monitor free, or other traffic",
                ("spin", "backoff", "table", "monitor", "overflow", "received", "compute"),
            ),
            _count("operations", "flag reads, writes from other endpoints, or computes", required=True),
            _size("size_bytes", "bytes read and written", required=True),
        ),
        ("row",),
        "result",
    ),
    Table(
        "sharing",
        "what one GPU's waits and workgroups shared (runs with lines, finite monitors, slots or a memory rate)",
        (
            _rank(),
            _count("false_wakes", "wakes of monitors for writes that did not end the wait", required=True),
            _count("overflows", "waits that found no monitor free", required=True),
            _ps("slot_ps", "time that workgroups which could run spent without a slot, summed"),
        ),
        ("rank",),
        "result",
    ),
)

TRACE_TABLES: Mapping[str, Table] = MappingProxyType({t.name: t for t in _TRACE})
RESULT_TABLES: Mapping[str, Table] = MappingProxyType({t.name: t for t in _RESULT})
