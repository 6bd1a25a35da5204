"""A rank's work as arrays: spans in order of (start, lane), each GPU span with the call that launched it."""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .events import Events
from .scanner import ANNOTATION, CALL, COPY, KERNEL, SYNC

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

KIND_NAMES = {KERNEL: "kernel", COPY: "copy", CALL: "host_call", ANNOTATION: "annotation"}
_LAUNCHES = "(?i)launch|memcpy|memset"


@dataclass
class Work:
    """Spans of one rank; all arrays have one entry a span, and the index is the span's id.

    Integers that the source did not give are -1. `launch` is the span of the call that launched the span, -1
    for host spans and where no call was found. `early` counts GPU spans that began before their call, which
    get none. `syncs` are the events (rows of the events' SCHEMA) that say what a synchronising call waited for.
    """

    kind: npt.NDArray[np.int8]
    names: pa.DictionaryArray
    lane: npt.NDArray[np.int32]
    lane_names: list[str]
    start_ns: Ints
    end_ns: Ints
    tid: Ints
    device: Ints
    stream: Ints
    correlation: Ints
    function: Ints
    grid_x: Ints
    launch: Ints
    early: int
    syncs: pa.Table

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def on_gpu(self) -> Bools:
        """Which spans ran on a GPU stream."""
        return self.kind <= COPY

    def name(self, span: int) -> str:
        """Return the name of one span."""
        return str(self.names[span].as_py() or "")

    def matching(self, pattern: str) -> Bools:
        """Return which spans' names match the regular expression `pattern`."""
        found = pc.match_substring_regex(self.names.dictionary, pattern)
        return np.asarray(pc.fill_null(pc.take(found, self.names.indices), False))


def numbers(table: pa.Table, column: str) -> Ints:
    """Return an integer column as an array, null as -1."""
    return np.asarray(pc.fill_null(table[column], -1).to_numpy(), dtype=np.int64)


def build_work(events: Events) -> Work:
    """Order what was read of a file into spans and find their launches."""
    table = events.table
    kind = np.asarray(table["kind"].to_numpy())
    rows = np.flatnonzero(kind != SYNC)
    kind = kind[rows]
    start = numbers(table, "start_ns")[rows] + events.base_ns
    duration = numbers(table, "duration_ns")[rows]
    lane, lane_names = _lanes(kind, *(numbers(table, n)[rows] for n in ("device", "stream", "tid")))
    # At one instant an annotation comes before what it holds, and an empty span before a longer one.
    order = np.lexsort((np.where(kind == ANNOTATION, -duration, duration), lane, start))
    rows = rows[order]
    columns = {
        n: numbers(table, n)[rows] for n in ("tid", "device", "stream", "correlation", "function", "grid_x")
    }
    work = Work(
        kind=kind[order],
        names=table["name"].combine_chunks().take(pa.array(rows)),
        lane=lane[order],
        lane_names=lane_names,
        start_ns=start[order],
        end_ns=(start + duration)[order],
        launch=np.full(len(kind), -1),
        early=0,
        syncs=table.filter(pc.equal(table["kind"], SYNC)),
        **columns,
    )
    work.launch, work.early = _launches(work)
    return work


def most_common(values: Ints) -> int:
    """Return the value that is there most often, the smallest of several; 0 where there is none."""
    unique, counts = np.unique(values, return_counts=True)
    return int(unique[counts.argmax()]) if len(unique) else 0


def _lanes(
    kind: npt.NDArray[np.int8], device: Ints, stream: Ints, tid: Ints
) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return each span's lane and the lanes' names, which name devices other than the main one."""
    gpu = kind <= COPY
    main = most_common(device[gpu])
    keys = (~gpu, np.where(gpu, device, -1), np.where(gpu, stream, tid))
    order = np.lexsort(keys[::-1])
    first = np.full(len(order), False)
    first[:1] = True
    for key in keys:
        first[1:] |= key[order[1:]] != key[order[:-1]]
    lane = np.empty(len(order), np.int32)
    lane[order] = np.cumsum(first, dtype=np.int32) - 1
    unique = np.stack([key[order[first]] for key in keys], axis=1).astype(np.int64)
    lanes = []
    for host, where, number in unique.tolist():
        prefix = "" if host or where == main else f"device {where} "
        lanes.append(f"{prefix}{'thread' if host else 'stream'} {number if number >= 0 else 'unknown'}")
    return lane, lanes


def _launches(work: Work) -> tuple[Ints, int]:
    """Pair GPU spans with the latest call of their correlation id that began before them.

    Correlation ids are not unique (a graph launch has many kernels; ids are reused), so time decides.
    """
    launch = np.full(len(work), -1, dtype=np.int64)
    calls = np.flatnonzero((work.kind == CALL) & (work.correlation > 0) & work.matching(_LAUNCHES))
    spans = np.flatnonzero(work.on_gpu & (work.correlation > 0))
    if not len(calls) or not len(spans):
        return launch, 0
    both = np.concatenate([calls, spans])
    is_span = np.arange(len(both)) >= len(calls)
    order = np.lexsort((is_span, work.start_ns[both], work.correlation[both]))
    both, is_span = both[order], is_span[order]
    latest = np.maximum.accumulate(np.where(is_span, -1, np.arange(len(both))))
    call = both[np.maximum(latest, 0)]
    found = is_span & (latest >= 0) & (work.correlation[call] == work.correlation[both])
    launch[both[found]] = call[found]
    early = np.isin(work.correlation[both[is_span & ~found]], work.correlation[calls])
    return launch, int(early.sum())


def span_columns(work: Work) -> dict[str, Any]:
    """Return the columns of `spans`."""
    launched = work.launch >= 0
    launch_ns = pa.array(np.where(launched, work.start_ns[work.launch], 0), mask=~launched)
    lanes = pa.DictionaryArray.from_arrays(
        pa.array(work.lane, pa.int32()), pa.array(work.lane_names, pa.string())
    )
    return {
        "span": pa.array(np.arange(len(work))),
        "lane": lanes,
        "kind": pa.DictionaryArray.from_arrays(
            pa.array(work.kind, pa.int32()), pa.array([KIND_NAMES[k] for k in sorted(KIND_NAMES)])
        ),
        "name": work.names,
        "launch_ns": launch_ns,
        "start_ns": pa.array(work.start_ns),
        "end_ns": pa.array(work.end_ns),
        "correlation": pa.array(work.correlation, mask=work.correlation < 0),
    }


class Queue:
    """GPU spans of one stream, or of one launching thread, in the order in which they were launched."""

    def __init__(self, work: Work, spans: list[int]) -> None:
        self.spans = spans
        self.times = work.start_ns[work.launch[spans]].tolist() if spans else []

    def count_before(self, time_ns: int) -> int:
        """Return how many spans were launched before `time_ns`."""
        return bisect_left(self.times, time_ns)

    def before(self, time_ns: int) -> int:
        """Return the last span launched before `time_ns`, or -1."""
        index = self.count_before(time_ns) - 1
        return self.spans[index] if index >= 0 else -1

    def after(self, time_ns: int) -> int:
        """Return the first span launched at or after `time_ns`, or -1."""
        index = self.count_before(time_ns)
        return self.spans[index] if index < len(self.spans) else -1


def queues(work: Work) -> tuple[dict[int, Queue], dict[int, Queue]]:
    """Return the queues of every GPU lane, and those of every launching thread."""
    spans = np.flatnonzero(work.launch >= 0)
    spans = spans[np.lexsort((work.start_ns[spans], work.start_ns[work.launch[spans]]))]
    lanes: dict[int, list[int]] = defaultdict(list)
    threads: dict[int, list[int]] = defaultdict(list)
    for span in spans.tolist():
        lanes[int(work.lane[span])].append(span)
        threads[int(work.tid[work.launch[span]])].append(span)
    return ({k: Queue(work, v) for k, v in lanes.items()}, {k: Queue(work, v) for k, v in threads.items()})
