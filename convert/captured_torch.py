"""A captured PyTorch job on CPUs (Gloo) -> host work, collectives and how they are joined.

Host threads are lanes. Gloo runs an operation on a worker thread, where the profiler sees it as an annotation
(`gloo:all_reduce`); the call (`c10d::allreduce_`) is on the thread that made it. Calls, not the workers, have
the order that all ranks share. Captures are windows of a few steps, so that a rank's file is read whole.
"""

import gzip
import json
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..schemas import InputError, TraceWriter
from .collectives import _TYPES as TORCH_TYPES
from .collectives import Group, Part, operation_of
from .matching import Matching, match

_WORKER = "gloo:"
_CALL = "c10d::"
_PEER_INPUT = {
    "c10d::broadcast_": 2,
    "c10d::send": 2,
    "c10d::recv_": 2,
    "c10d::reduce_": 3,
    "c10d::gather_": 3,
    "c10d::scatter_": 3,
}
"""Which concrete input of a call is the root or the other side; seen in traces of torch 2.13."""
_PART_COLUMNS = (
    *("span", "sequence", "operation", "dtype", "size_bytes", "peer"),
    *("launch_ns", "start_ns", "end_ns"),
)
HOST_TRUTH = "order, sizes and counts; host times are this machine's, never a GPU's"


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

    `calls` are the calls of collectives, each with the index of the top-level span that is or holds it.
    """

    record: dict[str, Any]
    spans: list[Span]
    calls: list[Span]
    parts: list[Part] = field(default_factory=list)
    edges: list[tuple[int, int, str]] = field(default_factory=list)


def convert(folder: Path, manifest: dict[str, Any], writer: TraceWriter) -> None:
    """Write every rank of the PyTorch capture in `folder` that has a profiler window.

    Raises InputError where none has, or a file cannot be read.
    """
    ranks = [_read_rank(folder, entry) for entry in manifest["ranks"] if entry["trace"]]
    if not ranks:
        raise InputError(f"{folder}: no rank has a profiler window ({_gaps(manifest)}); capture again")
    world_size = ranks[0].record["world_size"]
    matching = match({rank.record["rank"]: rank.parts for rank in ranks}, world_size)
    for rank in ranks:
        _write(writer, manifest, rank, matching)
    unmatched = [f"{name} {n}" for (name, n), by in matching.operations.items() if len(by) == 1]
    copied = ("backend", "command", "date", "exit_code", "oversubscribed", "failures")
    writer.notes.update({
        "source": "eidola capture of PyTorch",
        **{key: manifest[key] for key in copied},
        "truth": HOST_TRUTH,
        "world_size": world_size,
        "missing_ranks": sorted(set(range(world_size)) - {rank.record["rank"] for rank in ranks}),
        "gaps": _gaps(manifest),
        "seen_on_one_rank_only": unmatched,
        "groups": "one" if all(len(r.record["groups"]) <= 1 for r in ranks) else
                  "several; the profiler does not say which one a Gloo operation used",
    })  # fmt: skip


def _gaps(manifest: dict[str, Any]) -> str:
    return "; ".join(f"rank {e['rank']}: {e['gap']}" for e in manifest["ranks"] if e["gap"]) or "none"


def _read_rank(folder: Path, entry: dict[str, Any]) -> Rank:
    record = _load(folder / entry["file"], lambda: (folder / entry["file"]).read_bytes())
    trace = folder / entry["trace"]
    document = _load(trace, lambda: gzip.decompress(trace.read_bytes()))
    base_ns = int(document.get("baseTimeNanoseconds") or 0)
    found = [span for event in document["traceEvents"] if (span := _span(event, base_ns))]
    spans = _top_level(found)
    calls = sorted((s for s in found if s.name.startswith(_CALL)), key=lambda s: s.start_ns)
    rank = Rank(record, spans, calls)
    _find_parts(rank)
    return rank


def _load(file: Path, read: Any) -> dict[str, Any]:
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
    plain = event["cat"] == "user_annotation" and not event["name"].startswith(_WORKER)
    start_ns = base_ns + int(Decimal(event["ts"]) * 1000)
    return Span(
        event["name"],
        "annotation" if plain else "host_call",
        event["tid"],
        start_ns,
        start_ns + int(Decimal(event["dur"]) * 1000),
        event.get("args", {}),
    )


def _top_level(spans: list[Span]) -> list[Span]:
    """Keep annotations, and the calls that no other call of their thread contains; number them by start.

    A call that is left out gets the number of the one that contains it.
    """
    kept: list[Span] = []
    open_call: dict[int, Span] = {}
    for span in sorted(spans, key=lambda s: (s.start_ns, -s.end_ns)):
        around = open_call.get(span.tid)
        nestable = span.kind == "host_call" and not span.name.startswith(_WORKER)
        if nestable and around is not None and span.end_ns <= around.end_ns:
            span.index = around.index
            continue
        span.index = len(kept)
        kept.append(span)
        if span.kind == "host_call":
            open_call[span.tid] = span
    return kept


def _find_parts(rank: Rank) -> None:
    """Pair each call with the worker's span of the same operation, in order; calls give sequence and peer."""
    workers: dict[str, deque[Span]] = defaultdict(deque)
    for span in rank.spans:
        if span.name.startswith(_WORKER):
            workers[operation_of(span.name)].append(span)
    for call in rank.calls:
        operation = operation_of(call.name.removeprefix(_CALL))
        if operation == "reduce_scatter" and not workers[operation]:
            operation = "all_reduce"  # how Gloo does it (torch 2.13); the worker's span says so
        if workers[operation]:
            _join(rank, call, workers[operation].popleft(), operation)
    for left in sorted((s for queue in workers.values() for s in queue), key=lambda s: s.start_ns):
        rank.parts.append(_part(rank, left, operation_of(left.name), None))
    if len(rank.record["groups"]) == 1:
        _number(rank.parts)


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
    known = TORCH_TYPES.get(str(types[0]).replace(" ", "")) if types else None
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


def _write(writer: TraceWriter, manifest: dict[str, Any], rank: Rank, matching: Matching) -> None:
    number, machine = rank.record["rank"], manifest["machine"]
    writer.write("ranks", number, {
        "backend": [manifest["backend"]],
        "host": [machine.get("host")],
        "vendor": [machine.get("cpu_vendor")],
        "model": [machine.get("cpu_model")],
        "software": [json.dumps(manifest["versions"], sort_keys=True)],
    })  # fmt: skip
    writer.write("clocks", number, {
        "method": ["reference"], "offset_ns": [0], "drift_ppb": [0], "residual_ns": [0], "anchors": [0],
    })  # fmt: skip
    own = [m for m in matching.members if m.rank == number]
    writer.write("communicators", number, {
        name: [getattr(m, name) for m in own] for name in ("communicator", "group_rank", "group_size", "name")
    })  # fmt: skip
    writer.write("spans", number, _span_columns(rank))
    writer.write("dependencies", number, {
        "before": [before for before, _, _ in rank.edges],
        "after": [after for _, after, _ in rank.edges],
        "kind": [kind for _, _, kind in rank.edges],
        "origin": ["inferred"] * len(rank.edges),
    })  # fmt: skip
    writer.write("collectives", number, _collective_columns(rank.parts, matching))


def _span_columns(rank: Rank) -> dict[str, list[Any]]:
    spans, record = rank.spans, rank.record
    marks = [("steps", f"step {s['step']}", s) for s in record["steps"]]
    marks += [("phases", p["name"], p) for p in record["phases"]]
    return {
        "span": list(range(len(spans) + len(marks))),
        "lane": [f"thread {s.tid}" for s in spans] + [lane for lane, _, _ in marks],
        "kind": [s.kind for s in spans] + ["annotation"] * len(marks),
        "name": [s.name for s in spans] + [name for _, name, _ in marks],
        "launch_ns": [s.launch_ns for s in spans] + [None] * len(marks),
        "start_ns": [s.start_ns for s in spans] + [mark["start_ns"] for _, _, mark in marks],
        "end_ns": [s.end_ns for s in spans] + [mark["end_ns"] for _, _, mark in marks],
    }


def _collective_columns(parts: Sequence[Part], matching: Matching) -> dict[str, list[Any]]:
    columns = {name: [getattr(part, name) for part in parts] for name in _PART_COLUMNS}
    return {**columns, "communicator": [matching.name_of(part) for part in parts]}
