"""One rank's collectives: which spans they are, and what kernel, host record or name say of each."""

import json
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .events import Events
from .execution_trace import ExecutionTrace
from .narrow import Column
from .objects import integer
from .operations import COLLECTIVE_NAME, KERNEL_NAME, SYMMETRIC, algorithm_of, kernel_operation, protocol_of
from .operations import operation_of as operation_of
from .scanner import ANNOTATION, KERNEL, NULL, RECORD
from .sorting import Array, Ints, Lookup, every
from .work import Work

_NESTED = 4  # records that may be open at a time on one thread

_HOST_ONLY = r"^(gloo|mpi|ucc):"
_PEER = re.compile(r"(?:send|recv) \d+\s*(?:->|<-)\s*(\d+)")
_POINT_TO_POINT = ("send", "recv")
_WHOLE = (
    *("In msg nelems", "Out msg nelems", "Group size", "Seq", "Rank", "Src Rank", "Dst Rank"),
    *("Global rank start", "Global rank stride"),
)
_UNTOLD = (
    "Seq",
    "Rank",
)  # of symmetric memory these are always 0, and the own rank even where there is a root
_ROOTED = ("broadcast", "reduce", "gather", "scatter")
# NCCL's names of the types that PyTorch writes, and the bytes of an element.
_TYPES = {
    "float": ("float32", 4),
    "double": ("float64", 8),
    "half": ("float16", 2),
    "bfloat16": ("bfloat16", 2),
    "int": ("int32", 4),
    "long": ("int64", 8),
    "longint": ("int64", 8),
    "char": ("int8", 1),
    "signedchar": ("int8", 1),
    "byte": ("uint8", 1),
    "unsignedchar": ("uint8", 1),
    "bool": ("uint8", 1),
    "float8e4m3fn": ("float8e4m3", 1),
    "float8e5m2": ("float8e5m2", 1),
    # Of PyTorch only; NCCL moves them as bytes.
    "float8e4m3fnuz": ("float8e4m3fnuz", 1),
    "float8e5m2fnuz": ("float8e5m2fnuz", 1),
    "float8e8m0fnu": ("float8e8m0fnu", 1),
    "short": ("int16", 2),
}

# From which of its sources a part's operation is known, best first.
SOURCES = ("kernel", "host record", "execution trace", "library call", "annotation", "kernel name", "nothing")


@dataclass(frozen=True, slots=True)
class Group:
    """A process group as one rank sees it; `name` and `ranks` are None where the source does not say.

    `handle` tells unnamed groups of one rank apart (a stream or a pointer) and means nothing elsewhere.
    """

    name: str | None
    ranks: tuple[int, ...] | None
    size: int | None
    description: str | None
    handle: int | str | None = None
    start: int | None = None
    stride: int | None = None


@dataclass(slots=True)
class Part:
    """One rank's part in one collective; times are the rank's own until clocks are aligned.

    `communicator` is its name on all ranks, once they are matched.
    """

    span: int
    record: int
    operation: str
    source: str
    group: Group
    start_ns: int
    end_ns: int
    launch_ns: int | None
    sequence: int | None = None
    dtype: str | None = None
    size_bytes: int | None = None
    in_split_bytes: list[int] | None = None
    out_split_bytes: list[int] | None = None
    peer: int | None = None
    algorithm: str | None = None
    protocol: str | None = None
    channels: int | None = None
    on_gpu: bool = True
    stream: int | None = None
    communicator: str | None = None


class HostRecords:
    """The host records of collectives on each thread: which one was open when a call was made."""

    def __init__(self, work: Work, events: Events) -> None:
        self.work = work
        self._details, self._base_ns = events.details, events.base_ns
        self._details.index()
        self._ids: Lookup | None = None
        self._open: dict[tuple[int, bool], tuple[array[int], array[int]]] = defaultdict(
            lambda: (array("q"), array("q"))
        )
        for span in spans_of(work, ANNOTATION, named=f"^{RECORD}$|{COLLECTIVE_NAME}"):
            starts, spans = self._open[int(work.tid[span]), work.text(span) == RECORD]
            starts.append(int(work.start_ns[span]))
            spans.append(span)

    def of(self, record: int) -> dict[str, Any]:
        """Return the arguments of a record or annotation; empty where there are none, or for -1."""
        work = self.work
        if record < 0:
            return {}
        started_ns = int(work.start_ns[record]) - self._base_ns
        return self._details.of_host(work.text(record), started_ns, int(work.tid[record]))

    def of_kernel(self, kernel: int) -> dict[str, Any]:
        """Return the arguments of a kernel that describe its collective; empty where there are none."""
        started_ns = int(self.work.start_ns[kernel]) - self._base_ns
        return self._details.of_kernel(self.work.text(kernel), started_ns)

    def labelled(self) -> Ints:
        """Return the sorted times at which something starts that names its collective."""
        return self._details.labelled() + self._base_ns

    @cached_property
    def records(self) -> list[int]:
        """All `record_param_comms` spans, in order of start."""
        return sorted(s for (_, plain), (_, spans) in self._open.items() if plain for s in spans)

    def around(self, tid: int, time_ns: int, *, plain: bool) -> int:
        """Return the innermost record open on thread `tid` at `time_ns`, or -1.

        `plain` asks for `record_param_comms`, otherwise for annotations such as `nccl:all_reduce`.
        """
        starts, spans = self._open[tid, plain]
        last = bisect_right(starts, time_ns) - 1
        for index in range(last, max(last - _NESTED, -1), -1):
            if self.work.end_ns[spans[index]] >= time_ns:
                return spans[index]
        return -1

    def around_each(self, tids: Array, times: Ints) -> Ints:
        """Return the innermost `record_param_comms` open on each thread at each time, -1 for none."""
        found = np.full(len(tids), -1)
        for tid in np.unique(tids).tolist():
            starts, spans = (np.frombuffer(held, np.int64) for held in self._open[tid, True])
            rows = np.flatnonzero(tids == tid)
            last = np.searchsorted(starts, times[rows], side="right") - 1
            for back in range(_NESTED):
                at = np.flatnonzero((last >= back) & (found[rows] < 0))
                held = spans[last[at] - back]
                is_open = self.work.end_ns[held] >= times[rows[at]]
                found[rows[at[is_open]]] = held[is_open]
        return found

    def last(self, tid: int, time_ns: int) -> int:
        """Return the record or annotation that began last on thread `tid` by `time_ns`, or -1."""
        both = (self._open[tid, plain] for plain in (False, True))
        last = ((bisect_right(starts, time_ns) - 1, starts, spans) for starts, spans in both)
        return max(((starts[i], spans[i]) for i, starts, spans in last if i >= 0), default=(0, -1))[1]

    def before(self, annotation: int) -> Iterator[int]:
        """Yield the `record_param_comms` of a thread that begin before `annotation`, back to the one before it."""
        tid, until = int(self.work.tid[annotation]), int(self.work.start_ns[annotation])
        starts, spans = self._open[tid, True]
        others, annotations = self._open[tid, False]
        alike = (
            n
            for n in range(bisect_left(others, until) - 1, -1, -1)
            if self.work.text(annotations[n]) == self.work.text(annotation)
        )
        since = next((others[n] for n in alike), None)
        for index in range(bisect_left(starts, until) - 1, -1, -1):
            if since is not None and starts[index] < since:
                return
            yield spans[index]

    def linked(self, args: dict[str, Any]) -> int:
        """Return the `record_param_comms` that a kernel's arguments name by its External id, or -1."""
        number = args.get("External id")
        if not isinstance(number, int) or abs(number) >= -NULL:
            return -1
        if self._ids is None:
            ids = Column(self.work.scratch)
            for record in self.records:
                told = self.of(record).get("External id")
                ids.append(told if isinstance(told, int) and abs(told) < -NULL else NULL)
            self._ids = Lookup(self.work.scratch, ids.values(), every(self.work.scratch, len(ids)))
        row = int(self._ids.find(np.array([number]))[0])
        return self.records[row] if row >= 0 else -1

    def annotation_in(self, record: int) -> int:
        """Return the first annotation that begins within `record` on its thread, or -1."""
        starts, spans = self._open[int(self.work.tid[record]), False]
        index = bisect_right(starts, int(self.work.start_ns[record]) - 1)
        inside = index < len(spans) and starts[index] <= self.work.end_ns[record]
        return spans[index] if inside else -1


def spans_of(work: Work, *kinds: int, named: str) -> Iterator[int]:
    """Yield the spans of some kinds with such a name one by one: of what is rare."""
    for spans in work.find(*kinds, named=named):
        yield from spans.tolist()


def find_parts(work: Work, records: HostRecords, trace: ExecutionTrace | None) -> list[Part]:
    """Find the rank's collectives, in order of start, each described by the best source that there is."""
    joined = _join(records, trace) if trace else {}
    kernels = _kernels(work, records)
    parts: list[Part] = []
    for some in work.scratch.few(len(kernels)):
        parts += [_kernel_part(work, records, joined, span) for span in kernels[some]]
    for span in spans_of(work, ANNOTATION, named=_HOST_ONLY):
        by_id = trace.annotations.get(int(work.function[span]), {}) if trace else {}
        parts.append(_host_part(work, records, joined.get(span, by_id), span))
    return sorted(parts, key=lambda part: (part.start_ns, part.span))


def _kernels(work: Work, records: HostRecords) -> list[int]:
    spans = set(spans_of(work, KERNEL, named=KERNEL_NAME))
    starts = records.labelled()
    for kernels in work.find(KERNEL) if len(starts) else ():
        at_start = kernels[np.isin(work.start_ns[kernels], starts)].tolist()
        spans |= {span for span in at_start if "Collective name" in records.of_kernel(span)}
    return sorted(spans)


def _kernel_part(work: Work, records: HostRecords, joined: dict[int, dict[str, Any]], span: int) -> Part:
    launch = int(work.launch[span])
    record = annotation = -1
    if launch >= 0:
        tid, time_ns = int(work.tid[launch]), int(work.start_ns[launch])
        record = records.around(tid, time_ns, plain=True)
        annotation = records.around(tid, time_ns, plain=False)
    name = work.text(span)
    kernel_args = records.of_kernel(span)
    record = records.linked(kernel_args) if record < 0 else record
    part = described(work, span, record, [
        ("kernel", kernel_args),
        ("host record", records.of(record)),
        ("execution trace", joined.get(record, {})),
        ("annotation", _annotation_args(work, records, annotation)),
        ("kernel name", {"Collective name": kernel_operation(name)}),
    ])  # fmt: skip
    part.launch_ns = int(work.start_ns[launch]) if launch >= 0 else None
    part.algorithm, part.protocol = algorithm_of(name), protocol_of(name)
    part.channels = int(work.grid_x[span]) if work.grid_x[span] > 0 else None
    return part


def _host_part(work: Work, records: HostRecords, traced: dict[str, Any], span: int) -> Part:
    """Describe a collective that the host itself runs (Gloo): its annotation is its span."""
    record = records.around(int(work.tid[span]), int(work.start_ns[span]), plain=True)
    part = described(work, span, record, [
        ("host record", records.of(record)),
        ("execution trace", traced),
        ("annotation", _annotation_args(work, records, span)),
    ])  # fmt: skip
    part.on_gpu = False
    part.group = replace(part.group, handle=None)  # threads take any group's work
    part.launch_ns = int(work.start_ns[record]) if record >= 0 else None
    return part


def _annotation_args(work: Work, records: HostRecords, annotation: int) -> dict[str, Any]:
    if annotation < 0:
        return {}
    name = work.text(annotation)
    args: dict[str, Any] = {"Collective name": name}
    told = records.of(annotation)
    dims, types = told.get("Input Dims"), told.get("Input type")
    if isinstance(dims, list) and dims and all(isinstance(n, int) for n in (dims[0] or ["?"])):
        args["In msg nelems"] = int(np.prod(dims[0], dtype=np.int64))
    if isinstance(types, list) and types:
        args["dtype"] = types[0]
    if peer := _PEER.search(name):
        args["peer"] = int(peer[1])
    return args


def described(work: Work, span: int, record: int, sources: Sequence[tuple[str, dict[str, Any]]]) -> Part:
    """Build a part from the first source that names a known operation, completed from the later ones."""
    args: dict[str, Any] = {}
    best, operation = "nothing", "unknown"
    for source, given in sources:
        name = str(given.get("Collective name") or "")
        named = operation_of(name)
        if operation == "unknown" and named not in ("unknown", "wait"):
            best, operation = source, named
        untold = _UNTOLD if name.startswith(SYMMETRIC) else ()
        args = {**{k: v for k, v in given.items() if v is not None and k not in untold}, **args}
    args |= {key: integer(args[key]) for key in _WHOLE if key in args}
    if operation == "all_to_all" and _list(args.get("In split size")):
        operation = "all_to_allv"
    part = Part(
        span, record, operation, best, _group(args, int(work.stream[span])),
        int(work.start_ns[span]), int(work.end_ns[span]), None,
    )  # fmt: skip
    part.stream = int(work.stream[span])
    sequence = args.get("Seq")
    # Of sends and receives it is no number that both sides share: each counts all of its own, or collectives.
    part.sequence = sequence if isinstance(sequence, int) and operation not in _POINT_TO_POINT else None
    _measure(part, args)
    return part


def _measure(part: Part, args: dict[str, Any]) -> None:
    """Fill in type, sizes and peer."""
    key = re.sub(r"c10::|[ _]", "", str(args.get("dtype") or "")).lower()
    name, element_bytes = _TYPES.get(key, (str(args["dtype"]) if args.get("dtype") else None, None))
    element_bytes = element_bytes or args.get("element_bytes")
    part.dtype = name
    count_in, count_out = args.get("In msg nelems"), args.get("Out msg nelems")
    if isinstance(count_in, int) and isinstance(element_bytes, int):
        part.size_bytes = count_in * element_bytes
    if part.operation == "all_to_allv" and isinstance(element_bytes, int):
        split_in, split_out = _list(args.get("In split size")), _list(args.get("Out split size"))
        row = _row_elements(split_in, count_in) or _row_elements(split_out, count_out) or 1
        part.in_split_bytes = [rows * row * element_bytes for rows in split_in] or None
        part.out_split_bytes = [rows * row * element_bytes for rows in split_out] or None
    if part.operation in (*_POINT_TO_POINT, *_ROOTED):
        part.peer = _other_side(part, args)


def _other_side(part: Part, args: dict[str, Any]) -> int | None:
    """Return the root or the other side, as a group rank.

    PyTorch's `Rank` is that for these operations, its `Src Rank` and `Dst Rank` count in the job
    (RECORD_PARAM_COMMS_DATA in ProcessGroupNCCL.cpp, saveNcclMeta in profiler/util.cpp).
    """
    peer = args.get("peer", args.get("Rank"))
    if isinstance(peer, int):
        return peer if peer >= 0 else None
    rank, group = args.get("Dst Rank" if part.operation == "send" else "Src Rank"), part.group
    if not isinstance(rank, int):
        return None
    if group.ranks:
        return group.ranks.index(rank) if rank in group.ranks else None
    if group.start is None or not group.stride or (rank - group.start) % group.stride:
        return None
    return (rank - group.start) // group.stride


def _row_elements(split: list[int], elements: Any) -> int | None:
    """Return how many elements a row has: PyTorch counts splits along the first dimension, in rows."""
    total = sum(split)
    if not isinstance(elements, int) or not elements or not total or elements % total:
        return None
    return elements // total


def _list(value: Any) -> list[int]:
    """Return a list of integers given as such or as JSON in a string; empty where it is neither or is cut."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return value if isinstance(value, list) and all(isinstance(n, int) for n in value) else []


def _group(args: dict[str, Any], stream: int) -> Group:
    name = args.get("Process Group Name")
    size = args.get("Group size")
    ranks = _list(args.get("Process Group Ranks"))
    description = args.get("Process Group Description")
    start, stride = args.get("Global rank start"), args.get("Global rank stride")
    group = Group(
        str(name) if name not in (None, "") else None,
        tuple(ranks) or None,
        size if isinstance(size, int) and size > 0 else None,
        str(description) if description else None,
        None if name not in (None, "") else stream,
        start if isinstance(start, int) else None,
        stride if isinstance(stride, int) and stride > 0 else None,
    )
    return shared(group)


@lru_cache(maxsize=1 << 10)
def shared(group: Group) -> Group:
    """Return a group as one object: thousands of collectives are in the same."""
    return group


def _join(records: HostRecords, trace: ExecutionTrace) -> dict[int, dict[str, Any]]:
    """Give host records what the ExecutionTrace says of them: by record function id, else by order.

    Ids are the same in both files only in newer profilers; the order of execution is the same in all, and the
    operation and its element count keep a missing record from shifting what follows.
    """
    spans = records.records
    by_function = {node.function: node for node in trace.nodes if node.function > 0}
    ids = [int(records.work.function[s]) for s in spans]
    if any(i > 0 for i in ids) and all(i in by_function for i in ids if i > 0):
        return {s: by_function[i].args for s, i in zip(spans, ids, strict=True) if i > 0}
    host = [_host_key(records, span) for span in spans]
    nodes = [_key(node.args) for node in trace.nodes]
    joined: dict[int, dict[str, Any]] = {}
    for i, j, length in SequenceMatcher(None, host, nodes, autojunk=False).get_matching_blocks():
        joined |= {spans[i + k]: trace.nodes[j + k].args for k in range(length)}
    return joined


def _key(args: dict[str, Any]) -> tuple[str, int | None]:
    operation = operation_of(str(args.get("Collective name", "wait")))
    count = args.get("In msg nelems")
    coarse = "all_to_all" if operation == "all_to_allv" else operation
    return coarse, None if coarse == "wait" else count


def _host_key(records: HostRecords, record: int) -> tuple[str, int | None]:
    if "Collective name" in (told := records.of(record)):
        return _key(told)
    return _key(_annotation_args(records.work, records, records.annotation_in(record)))
