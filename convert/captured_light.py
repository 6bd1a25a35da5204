"""A rank's ring, and the windows that it has, -> spans, collectives and dependencies.

A call is joined with what ran it by its number. The ring does not see what the calling thread does between two
calls, so what waited for an operation is inferred: after a blocking call the thread's next call; after one that is
not, the optimizer, which needs all gradients. Within a window the thread's operators show whether it was idle.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .captured_ring import Call, Run, read_calls
from .captured_window import CALL, WORKER, Rank, Span, top_level
from .operations import operation_of
from .parts import Group, Part

HOST_TRUTH = "order, sizes and counts; host times are this machine's, never a GPU's"
_OPTIMIZER = "Optimizer.step#"  # the name that torch.optim gives its steps


def join_ring(record: dict[str, Any], ring: Path, windows: Sequence[Span]) -> Rank:
    """Return the rank whose calls are in `ring` and whose windows hold the spans `windows`.

    Raises InputError where the ring cannot be read.
    """
    calls, runs = read_calls(ring)
    of_call = {number: _call_span(call) for number, call in calls.items()}
    of_run = [(_run_span(run), run) for run in runs]
    # The ring has these already, in and out of windows.
    others = [s for s in windows if s.kind == "host_call" and not s.name.startswith((WORKER, CALL))]
    spans = top_level([*of_call.values(), *(span for span, _ in of_run), *others])
    rank = Rank(record, spans, list(of_call.values()))
    threads = _Threads(spans)
    groups = {group["name"]: group for group in record["groups"]}
    joined: dict[int, Part] = {}
    for span, run in of_run:
        call = calls.get(run.call)
        if call is None or not run.name.startswith(WORKER):
            continue
        if run.call in joined:  # one of several that ran the call
            joined[run.call].end_ns = max(joined[run.call].end_ns, run.end_ns)
            continue
        span.launch_ns = call.start_ns
        joined[run.call] = _part(span, run, call, groups)
        if span.tid != call.tid:
            rank.edges.append((of_call[run.call].index, span.index, "launch"))
            waiting = threads.waiting(call, span, record["windows"])
            rank.edges += [(span.index, waiting.index, "thread")] if waiting else []
    rank.parts = [joined[number] for number in sorted(joined)]
    rank.pairs = [(calls[number], part) for number, part in joined.items()]
    return rank


def _call_span(call: Call) -> Span:
    return Span(call.name, "host_call", call.tid, call.start_ns, call.end_ns, {})


def _run_span(run: Run) -> Span:
    """Return the span of a run: work of its thread, or, where it only names other work, an annotation."""
    work = run.name.startswith((WORKER, _OPTIMIZER))
    return Span(run.name, "host_call" if work else "annotation", run.tid, run.start_ns, run.end_ns, {})


class _Threads:
    """The host's calls of each thread, in order of start."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._calls: dict[int, list[Span]] = {}
        for span in spans:
            if span.kind == "host_call":
                self._calls.setdefault(span.tid, []).append(span)
        self._starts = {tid: [span.start_ns for span in calls] for tid, calls in self._calls.items()}

    def waiting(self, call: Call, span: Span, windows: Iterable[dict[str, Any]]) -> Span | None:
        """Return what on the calling thread waited for the operation `span`, as far as that can be told."""
        calls = self._calls.get(call.tid, [])
        following = bisect_left(self._starts.get(call.tid, []), span.end_ns)
        if following == len(calls):
            return None
        if following and calls[following - 1].end_ns > span.end_ns:
            return None  # it was at work
        seen = any(w["start_ns"] <= span.end_ns <= w["end_ns"] for w in windows)
        if call.blocking or seen or calls[following].name.startswith(_OPTIMIZER):
            return calls[following]
        return None


def _part(span: Span, run: Run, call: Call, groups: dict[str, dict[str, Any]]) -> Part:
    part = Part(
        span=span.index,
        record=-1,
        operation=operation_of(run.name),
        source="host record",
        group=group_of(call.group, groups),
        start_ns=run.start_ns,
        end_ns=run.end_ns,
        launch_ns=call.start_ns,
        on_gpu=False,
    )
    describe(part, call, groups)
    return part


def describe(part: Part, call: Call, groups: dict[str, dict[str, Any]]) -> None:
    """Give a part the group, number, type, sizes and peer of its call, and the operation where it has none."""
    if part.operation == "unknown":
        part.operation = operation_of(call.name.removeprefix(CALL))
    if part.operation == "all_to_all" and (call.in_splits or call.out_splits):
        part.operation = "all_to_allv"
    part.source = "host record"
    part.group = group_of(call.group, groups)
    part.sequence = call.number
    part.dtype = None if part.operation == "barrier" else call.dtype
    part.size_bytes = _size(part.operation, call)
    part.in_split_bytes = _split_bytes(call.in_splits, call.in_bytes)
    part.out_split_bytes = _split_bytes(call.out_splits, call.out_bytes)
    part.peer = call.peer


def _size(operation: str, call: Call) -> int | None:
    """Return the bytes of the rank's input; a receiver's is what it receives into, a barrier has none."""
    if operation == "barrier":
        return None
    return call.out_bytes if call.in_bytes is None else call.in_bytes


def _split_bytes(splits: list[int], size_bytes: int | None) -> list[int] | None:
    """Return the bytes of each part of a buffer; splits count rows, which are equally long."""
    rows = sum(splits)
    if not rows or not size_bytes or size_bytes % rows:
        return None
    return [split * (size_bytes // rows) for split in splits]


def group_of(name: str, groups: dict[str, dict[str, Any]]) -> Group:
    """Return the process group `name`, with its ranks where the rank's record lists it."""
    known = groups.get(name)
    if known is None:  # made after the rank's record was last written
        return Group(name or "unrecorded", None, None, None)
    ranks = tuple(known["ranks"])
    return Group(name, ranks, len(ranks), known["description"])
