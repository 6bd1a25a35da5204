"""A profiler window of a captured rank on CPUs -> its host work; without a ring, also its collectives.

Gloo runs an operation on a worker thread, where the profiler sees it as an annotation (`gloo:all_reduce`); the
call (`c10d::allreduce_`) is on the thread that made it. Where only a window tells of them, calls and workers
are joined by the order in which they were made, which the profiler numbers. Windows are a few steps long, so
that one is read whole.
"""

import gzip
import json
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..schemas import InputError
from .captured_ring import Call
from .operations import operation_of
from .parts import Group, Part
from .torch_types import element_type

WORKER = "gloo:"
CALL = "c10d::"
_PEER_INPUT = {
    "c10d::broadcast_": 2,
    "c10d::send": 2,
    "c10d::recv_": 2,
    "c10d::reduce_": 3,
    "c10d::gather_": 3,
    "c10d::scatter_": 3,
}
"""Which concrete input of a call is the root or the other side; seen in traces of torch 2.13."""


@dataclass
class Span:
    """One span of a rank; `index` is its place in the trace, `args` what the profiler said of it."""

    name: str
    kind: str
    tid: int
    start_ns: int
    end_ns: int
    args: dict[str, Any] = field(repr=False)
    index: int = -1
    launch_ns: int | None = None


@dataclass
class Rank:
    """One rank: its record, top-level spans and annotations, collectives and dependencies.

    `calls` are the calls of collectives, each with the index of the top-level span that is or holds it; `pairs` the
    collectives with the calls that a ring noted of them. `shown` are annotations from other sources, `notes` is for
    the reader.
    """

    record: dict[str, Any]
    spans: list[Span]
    calls: list[Span]
    parts: list[Part] = field(default_factory=list)
    edges: list[tuple[int, int, str]] = field(default_factory=list)
    pairs: list[tuple[Call, Part]] = field(default_factory=list)
    shown: list[tuple[str, str, str, int | None, int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_window(trace: Path) -> list[Span]:
    """Return the host's spans in the window `trace`. Raises InputError where it cannot be read."""
    document = load(trace, lambda: _bytes(trace))
    base_ns = int(document.get("baseTimeNanoseconds") or 0)
    return [span for event in document["traceEvents"] if (span := _span(event, base_ns))]


def _bytes(trace: Path) -> bytes:
    return gzip.decompress(trace.read_bytes()) if trace.suffix == ".gz" else trace.read_bytes()


def load(file: Path, read: Callable[[], bytes]) -> dict[str, Any]:
    """Return the JSON object in `file`; numbers with decimals stay decimal, so that no nanosecond is lost."""
    try:
        document = json.loads(read(), parse_float=Decimal)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); copy the whole capture folder again") from error
    if not isinstance(document, dict):
        raise InputError(f"{file} holds no JSON object; copy the whole capture folder again")
    return document


def _span(event: dict[str, Any], base_ns: int) -> Span | None:
    if event.get("ph") != "X" or event.get("cat") not in ("cpu_op", "user_annotation"):
        return None
    plain = event["cat"] == "user_annotation" and not event["name"].startswith(WORKER)
    start_ns = base_ns + int(Decimal(event["ts"]) * 1000)
    return Span(
        event["name"],
        "annotation" if plain else "host_call",
        event["tid"],
        start_ns,
        start_ns + int(Decimal(event["dur"]) * 1000),
        event.get("args", {}),
    )


def top_level(spans: list[Span]) -> list[Span]:
    """Keep annotations, and the calls that no other call of their thread contains; number them by start.

    A call that is left out gets the number of the one that contains it.
    """
    kept: list[Span] = []
    open_call: dict[int, Span] = {}
    for span in sorted(spans, key=lambda s: (s.start_ns, -s.end_ns)):
        around = open_call.get(span.tid)
        nestable = span.kind == "host_call" and not span.name.startswith(WORKER)
        if nestable and around is not None and span.end_ns <= around.end_ns:
            span.index = around.index
            continue
        span.index = len(kept)
        kept.append(span)
        if span.kind == "host_call":
            open_call[span.tid] = span
    return kept


def join_by_order(rank: Rank) -> None:
    """Pair each call with the worker's span of the same operation, in order; calls give sequence and peer.

    A worker's event is made, and numbered, within the call, whichever thread runs it then, and when
    (ProcessGroupGloo.cpp: AsyncWork::recordAsyncWorkProfilingInfo).
    """
    workers: dict[str, deque[Span]] = defaultdict(deque)
    for span in sorted(rank.spans, key=_made):
        if span.name.startswith(WORKER):
            workers[operation_of(span.name)].append(span)
    for call in sorted(rank.calls, key=_made):
        operation = operation_of(call.name.removeprefix(CALL))
        if operation == "reduce_scatter" and not workers[operation]:
            operation = "all_reduce"  # how Gloo does it (torch 2.13); the worker's span says so
        if workers[operation]:
            _join(rank, call, workers[operation].popleft(), operation)
    for left in sorted((s for queue in workers.values() for s in queue), key=lambda s: s.start_ns):
        rank.parts.append(_part(rank, left, operation_of(left.name), None))
    if len(rank.record["groups"]) == 1:
        _number(rank.parts)


def _made(span: Span) -> tuple[int, int]:
    """Return when a span's event was made: by the profiler's number, else by its start."""
    return int(span.args.get("Record function id", 0)), span.start_ns


def number_by_flights(rank: Rank, path: Path) -> None:
    """Give the parts the groups of the flight recorder's entries, which were made during their calls.

    An entry is made between a call's start and its operation's end; not every operation has one. Where the ring
    no longer reaches back to the first part, all keep what they have: a group's numbers must begin together.
    """
    entries = load(path, path.read_bytes).get("entries", [])
    entries.sort(key=lambda entry: entry["time_created_ns"])
    times = [entry["time_created_ns"] for entry in entries]
    if not times or not rank.parts or times[0] > min(part.end_ns for part in rank.parts):
        return
    groups = {group["name"]: group for group in rank.record["groups"]}
    for part in rank.parts:
        at = bisect_left(times, part.launch_ns or part.start_ns)
        if at < len(times) and times[at] <= part.end_ns:
            name, description = entries[at]["process_group"]
            ranks = tuple(groups[name]["ranks"]) if name in groups else None
            part.group = Group(name, ranks, len(ranks) if ranks else None, description)
    for name in {part.group.name for part in rank.parts}:
        _number([part for part in rank.parts if part.group.name == name])


def _number(parts: Sequence[Part]) -> None:
    """Give one group's parts their numbers by call, sends and receives apart by peer: the same on all ranks."""
    counts: Counter[tuple[str, int | None] | None] = Counter()
    for part in parts:
        stream = (part.operation, part.peer) if part.operation in ("send", "recv") else None
        part.sequence = counts[stream]
        counts[stream] += 1


def _join(rank: Rank, call: Span, worker: Span, operation: str) -> None:
    worker.launch_ns = call.start_ns
    place = _PEER_INPUT.get(call.name)
    inputs = call.args.get("Concrete Inputs", [])
    peer = int(inputs[place]) if place is not None and place < len(inputs) and inputs[place] != "" else None
    rank.parts.append(_part(rank, worker, operation, peer))
    if worker.tid != call.tid:
        rank.edges.append((call.index, worker.index, "launch"))
        _resume(rank, call.tid, worker)


def _resume(rank: Rank, tid: int, worker: Span) -> None:
    """Where the calling thread did nothing when the operation ended, its next call waited for that end."""
    calls = [s for s in rank.spans if s.tid == tid and s.kind == "host_call"]
    following = bisect_left(calls, worker.end_ns, key=lambda s: s.start_ns)
    idle = following > 0 and calls[following - 1].end_ns <= worker.end_ns
    if idle and following < len(calls):
        rank.edges.append((worker.index, calls[following].index, "thread"))


def _part(rank: Rank, span: Span, operation: str, peer: int | None) -> Part:
    dtype, size_bytes = _size(span.args)
    return Part(
        span=span.index,
        record=-1,
        operation=operation,
        source="annotation",
        group=_group(rank.record),
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        launch_ns=span.launch_ns,
        dtype=dtype,
        size_bytes=size_bytes,
        peer=peer,
        on_gpu=False,
    )


def _size(args: dict[str, Any]) -> tuple[str | None, int | None]:
    """Return element type and bytes of an operation's inputs, from the shapes that the profiler recorded."""
    types, shapes = args.get("Input type") or [], args.get("Input Dims") or []
    known = element_type(str(types[0])) if types else None
    if known is None:
        return None, None
    dtype, element_bytes = known
    elements = 0
    for shape in shapes:
        count = 1
        for extent in shape:
            count *= int(extent)
        elements += count
    return dtype, elements * element_bytes


def _group(record: dict[str, Any]) -> Group:
    """Return the job's group, where it has one only; the profiler does not say which one Gloo used."""
    groups = record["groups"]
    if len(groups) != 1:
        return Group("unrecorded", None, record["world_size"], "the profiler does not say which group")
    first = groups[0]
    return Group(first["name"], tuple(first["ranks"]), len(first["ranks"]), first["description"])
