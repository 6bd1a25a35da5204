"""A rank's captured work as lanes of items: what each agent will do, in order, with the gaps between.

A lane runs one item at a time. A span that starts before its lane's previous one has ended (profilers draw such
overlaps by a few nanoseconds, and nested host calls) begins there and keeps its end: what overlapped is trimmed
off, so that the lane's own times stay as captured. Annotations are nobody's work.

A gap counts only from the latest predecessor's end, and a host call that waits works only after what it waited
for: time blocked is never compute.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from ...schemas import SchemaError, Trace
from .plan import Plan
from .steps import END, GROUP, NO_STEPS, START, Read, Steps, read_steps

STEP = re.compile(r"(ProfilerStep#|step )\d+", re.IGNORECASE)
"""Annotations that name a step: PyTorch's profiler's, and those of this project's capture."""


@dataclass(frozen=True, slots=True)
class Part:
    """One rank's part in one collective, as captured; `size_bytes` -1: the trace does not say."""

    rank: int
    communicator: str
    sequence: int
    operation: str
    size_bytes: int
    in_split_bytes: tuple[int, ...] | None
    out_split_bytes: tuple[int, ...] | None
    peer: int | None
    algorithm: str | None
    protocol: str | None
    channels: int | None
    element_bytes: int
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Item:
    """One span (or what has none: `span` -1), in its lane's order.

    `begin_ns` to `end_ns` is what the lane gives it; `gap_ns` passes before it once its predecessors let it go;
    `busy_ns` is its own compute, for items without steps; `factor` multiplies the compute of those with steps.
    """

    span: int
    kind: str
    name: str
    start_ns: int
    end_ns: int
    lane: int = -1
    begin_ns: int = 0
    gap_ns: int = 0
    busy_ns: int = 0
    factor: Fraction = Fraction(1)
    steps: Steps = NO_STEPS
    parts: list[Part] = field(default_factory=list)


@dataclass
class Lane:
    """One agent to be: a stream, a host thread, a workgroup, or a communicator that no lane shows."""

    name: str
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Edge:
    """`after` waits for `before`; `from_start`: for its start; `holds_end`: to end, not to start."""

    before: Item
    after: Item
    from_start: bool
    holds_end: bool


@dataclass
class RankWork:
    """All of one rank: its place in the job, its lanes, and the edges between items of different lanes.

    `step_windows` are (start_ns, end_ns) of its annotated steps.
    """

    rank: int
    place: int
    lanes: list[Lane]
    edges: list[Edge]
    step_windows: list[tuple[int, int]] = field(default_factory=list)

    def items(self) -> Iterable[Item]:
        """Yield the items of all lanes."""
        for lane in self.lanes:
            yield from lane.items


def read_rank(trace: Trace, rank: int, plan: Plan, peers: Collection[int] | None = None) -> RankWork:
    """Read one rank's spans, dependencies, writes, waits and collectives into lanes.

    With `peers` (places in the job), its writes from spans to others are left out.
    Raises SchemaError for a row that names a span which the trace does not have, UsageError for a write to a rank
    that is not in the job.
    """
    lanes: dict[str, list[Item]] = {}
    by_span: dict[int, Item] = {}
    annotations: dict[int, str] = {}
    windows: list[tuple[int, int]] = []
    for row in _rows(trace, rank, "spans", ("span", "lane", "kind", "name", "start_ns", "end_ns")):
        span, lane, kind, name, start, end = row
        item = Item(span, kind, name, start, end)
        if kind == "annotation":
            annotations[span] = lane
            if STEP.fullmatch(name):
                windows.append((start, end))
        else:
            lanes.setdefault(lane, []).append(item)
        by_span[span] = item
    _add_steps(rank, read_steps(trace, rank, plan, peers), lanes, by_span)
    launched = _add_collectives(trace, rank, lanes, by_span, annotations)
    work = RankWork(
        rank, plan.index[rank], [Lane(name, _ordered(items)) for name, items in lanes.items()], [], windows
    )
    for number, lane_ in enumerate(work.lanes):
        for item in lane_.items:
            item.lane = number
    work.edges = _edges(trace, rank, by_span) + _thread_edges(work, launched)
    _measure(work)
    return work


def _rows(trace: Trace, rank: int, table: str, columns: tuple[str, ...]) -> Iterable[tuple[Any, ...]]:
    data = trace.read(table, columns, ranks=[rank])
    return zip(*(data[c].to_pylist() for c in columns), strict=True)


def _add_steps(rank: int, read: Read, lanes: dict[str, list[Item]], by_span: dict[int, Item]) -> None:
    """Put writes and waits into their items, in order of time; at one instant a write comes before a wait.

    Outside of any span each gets an item of its own.
    """
    spans, home = np.unique(read.span, return_inverse=True)
    missing = next((span for span in spans.tolist() if span >= 0 and span not in by_span), None)
    if missing is not None:
        table = "writes" if missing in read.span[: read.writes] else "waits"
        raise SchemaError(
            f"table {table}, rank {rank}: span {missing} is in no row of `spans`; convert the source again"
        )
    items = [by_span.get(span) for span in spans.tolist()]
    for row in np.flatnonzero(read.span < 0):
        home[row] = len(items)
        start, end, group = (int(read.rows[row, column]) for column in (START, END, GROUP))
        item = Item(-1, "other", "writes" if row < read.writes else "waits", start, end)
        items.append(item)
        lanes.setdefault("unnamed" if group < 0 else f"workgroup {group}", []).append(item)
    order = np.lexsort((read.rows[:, END], read.rows[:, START], home))
    rows, bounds = read.rows[order], np.searchsorted(home[order], np.arange(len(items) + 1)).tolist()
    for home_, low, high in zip(items, bounds[:-1], bounds[1:], strict=True):
        if home_ and low < high:
            home_.steps = Steps(rows[low:high], read.regions)


_PART = ("span", "communicator", "sequence", "operation", "size_bytes", "in_split_bytes", "out_split_bytes", "peer",
         "algorithm", "protocol", "channels", "dtype", "start_ns", "end_ns")  # fmt: skip


def _add_collectives(
    trace: Trace,
    rank: int,
    lanes: dict[str, list[Item]],
    by_span: dict[int, Item],
    annotations: dict[int, str],
) -> list[tuple[Item, str]]:
    """Attach each part to its kernel; without one (a host's collective) it gets a lane of its communicator.

    Returns those, with the host lane that launched each.
    """
    launched: list[tuple[Item, str]] = []
    for row in _rows(trace, rank, "collectives", _PART):
        span, part = row[0], _part(rank, row)
        item = by_span.get(span)
        if span is not None and item is None:
            raise SchemaError(
                f"table collectives, rank {rank}: span {span} is in no row of `spans`; convert the source again"
            )
        if item is None or (span in annotations and not item.parts):
            item = Item(-1 if span is None else span, "other", part.operation, part.start_ns, part.end_ns)
            lanes.setdefault(f"communicator {part.communicator}", []).append(item)
            if span is not None:
                by_span[span] = item
                launched.append((item, annotations[span]))
        item.parts.append(part)
    return launched


def _part(rank: int, row: tuple[Any, ...]) -> Part:
    _, communicator, sequence, operation, size, sent, received, peer, *how, dtype, start, end = row
    algorithm, protocol, channels = how
    return Part(
        rank, communicator, sequence, operation, -1 if size is None else size,
        None if sent is None else tuple(sent), None if received is None else tuple(received),
        peer, algorithm, protocol, channels, _element_bytes(dtype), start, end,
    )  # fmt: skip


def _element_bytes(dtype: str | None) -> int:
    """Return the bytes of an element: the first number in a type's name is its bits (`bfloat16`, `float8e4m3`)."""
    bits = re.search(r"\d+", dtype or "")
    return max(1, int(bits[0]) // 8) if bits else 1


def _ordered(items: list[Item]) -> list[Item]:
    """Sort a lane by start (an empty span before what starts with it), and trim overlaps."""
    items.sort(key=lambda item: (item.start_ns, item.end_ns, item.span))
    free_ns = items[0].start_ns
    for item in items:
        item.begin_ns = max(item.start_ns, free_ns)
        free_ns = max(item.end_ns, item.begin_ns)
    return items


def finish_ns(item: Item) -> int:
    """Return when the lane is free again."""
    return max(item.end_ns, item.begin_ns)


def _edges(trace: Trace, rank: int, by_span: dict[int, Item]) -> list[Edge]:
    """Read the edges between lanes; within a lane order is implied, and annotations wait for nobody."""
    edges = []
    for before, after, kind in _rows(trace, rank, "dependencies", ("before", "after", "kind")):
        a, b = by_span.get(before), by_span.get(after)
        if a is None or b is None:
            missing = before if a is None else after
            raise SchemaError(
                f"table dependencies, rank {rank}: span {missing} is in no row of `spans`; convert the source again"
            )
        if a.lane >= 0 and b.lane >= 0 and a.lane != b.lane:
            edges.append(Edge(a, b, kind == "launch", kind == "sync"))
    return edges


def _thread_edges(work: RankWork, launched: list[tuple[Item, str]]) -> list[Edge]:
    """Let a host's collective start after what its thread had done by then."""
    by_name = {lane.name: lane.items for lane in work.lanes}
    edges = []
    for item, lane in launched:
        done = [other for other in by_name.get(lane, []) if other.end_ns <= item.start_ns]
        if done:
            edges.append(Edge(done[-1], item, False, False))
    return edges


def _measure(work: RankWork) -> None:
    """Set every item's gap and compute from what it waited for in the capture."""
    ready: dict[int, int] = {}
    released: dict[int, int] = {}
    for edge in work.edges:
        time = edge.before.begin_ns if edge.from_start else finish_ns(edge.before)
        side = released if edge.holds_end else ready
        side[id(edge.after)] = max(time, side.get(id(edge.after), time))
    for lane in work.lanes:
        previous: Item | None = None
        for item in lane.items:
            times = [finish_ns(previous)] if previous else []
            times += [ready[id(item)]] if id(item) in ready else []
            item.gap_ns = max(0, item.begin_ns - max(times)) if times else -1
            held_ns = min(released.get(id(item), item.begin_ns), finish_ns(item))
            item.busy_ns = finish_ns(item) - max(item.begin_ns, held_ns)
            previous = item
