"""A rank's work as arrays: spans in order of (start, lane), each GPU span with the call that launched it."""

from array import array
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .events import Events
from .narrow import SORTED_ROWS, Table, filled, order_of, release
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
    """Order what was read of a file into spans and find their launches; `events.rows` are used up."""
    table = events.rows
    kind = table.values("kind").astype(np.int8)
    rows: npt.NDArray[np.integer] | slice = slice(None)
    syncs = table.schema.empty_table()
    if (kind == SYNC).any():
        syncs, rows = table.table(np.flatnonzero(kind == SYNC)), np.flatnonzero(kind != SYNC)
    lane, lane_names = _lanes(table)
    kind = kind[rows]
    start, duration = (table.take(n)[rows] for n in ("start_ns", "duration_ns"))
    start = start.astype(np.int64) + events.base_ns
    # At one instant an annotation comes before what it holds, and an empty span before a longer one.
    order = order_of(start, lane, np.where(kind == ANNOTATION, -duration, duration))
    start, lane, kind = start[order], lane[order], kind[order]
    end = start + duration[order]
    rows = order if isinstance(rows, slice) else rows[order].astype(order.dtype)
    del duration, order
    release()
    names = pa.DictionaryArray.from_arrays(pa.array(table.take("name")[rows], pa.int32()), table.words())
    columns = {
        n: table.take(n)[rows] for n in ("tid", "device", "stream", "correlation", "function", "grid_x")
    }
    work = Work(
        kind=kind,
        names=names,
        lane=lane,
        lane_names=lane_names,
        start_ns=start,
        end_ns=end,
        launch=np.full(len(kind), -1, rows.dtype),
        early=0,
        syncs=syncs,
        **columns,
    )
    work.early = _pair_launches(work)
    release()
    return work


def most_common(values: Ints) -> int:
    """Return the value that is there most often, the smallest of several; 0 where there is none."""
    unique, counts = np.unique(values, return_counts=True)
    return int(unique[counts.argmax()]) if len(unique) else 0


def _lanes(table: Table) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the lane of each row but SYNCs, and the lanes' names, which name devices other than the main one."""
    found: list[npt.NDArray[np.int32]] = [np.empty(0, np.int32)]
    lanes: dict[tuple[int, int, int], int] = {}
    devices: Counter[int] = Counter()
    for chunk in table.chunks("kind", "device", "stream", "tid"):
        kind, device, stream, tid = (filled(column, -1)[chunk[0] != SYNC] for column in chunk)
        gpu = kind <= COPY
        devices.update(device[gpu].tolist())
        keys = (~gpu, np.where(gpu, device, -1), np.where(gpu, stream, tid))
        values, places = zip(*(np.unique(key, return_inverse=True) for key in keys), strict=True)
        shape = [len(v) for v in values]
        codes, at = np.unique(np.ravel_multi_index(places, shape), return_inverse=True)
        own = (v[i].tolist() for v, i in zip(values, np.unravel_index(codes, shape), strict=True))
        found.append(
            np.array([lanes.setdefault(k, len(lanes)) for k in zip(*own, strict=True)], np.int32)[at]
        )
    main = min((d for d, count in devices.items() if count == max(devices.values())), default=0)
    ordered = sorted(lanes)
    place = np.empty(len(lanes), np.int32)
    place[[lanes[key] for key in ordered]] = np.arange(len(lanes))
    return place[np.concatenate(found)], [_lane_name(*key, main) for key in ordered]


def _lane_name(host: int, where: int, number: int, main: int) -> str:
    prefix = "" if host or where == main else f"device {where} "
    return f"{prefix}{'thread' if host else 'stream'} {number if number >= 0 else 'unknown'}"


def _pair_launches(work: Work) -> int:
    """Pair GPU spans with the latest call of their correlation id that began before them; count the early ones.

    Correlation ids are not unique (a graph launch has many kernels; ids are reused), so time decides. Ids are taken
    a part at a time, as sorting takes several times the memory of what is sorted.
    """
    identified = work.correlation > 0
    calls, spans = (
        np.flatnonzero(mask & identified).astype(work.launch.dtype)
        for mask in ((work.kind == CALL) & work.matching(_LAUNCHES), work.on_gpu)
    )
    if not len(calls) or not len(spans):
        return 0
    parts = -(-(len(calls) + len(spans)) // SORTED_ROWS)
    kind = np.promote_types(work.correlation.dtype, np.int32)
    return sum(
        _pair(work, *(rows[work.correlation[rows].astype(kind) % parts == part] for rows in (calls, spans)))
        for part in range(parts)
    )


def _pair(work: Work, calls: npt.NDArray[np.integer], spans: npt.NDArray[np.integer]) -> int:
    both = np.concatenate([calls, spans])
    is_span = np.arange(len(both)) >= len(calls)
    order = np.lexsort((is_span, work.start_ns[both], work.correlation[both]))
    both, is_span = both[order], is_span[order]
    latest = np.maximum.accumulate(np.where(is_span, -1, np.arange(len(both))))
    call = both[np.maximum(latest, 0)]
    found = is_span & (latest >= 0) & (work.correlation[call] == work.correlation[both])
    work.launch[both[found]] = call[found]
    early = np.isin(work.correlation[both[is_span & ~found]], work.correlation[calls])
    return int(early.sum())


def span_columns(work: Work) -> dict[str, Any]:
    """Return the columns of `spans`."""
    launched = work.launch >= 0
    launch_ns = pa.array(np.where(launched, work.start_ns[work.launch], 0), mask=~launched)
    lanes = pa.DictionaryArray.from_arrays(
        pa.array(work.lane, pa.int32()), pa.array(work.lane_names, pa.string())
    )
    return {
        "span": pa.array(np.arange(len(work), dtype=work.launch.dtype)),
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

    def __init__(self, work: Work, spans: npt.NDArray[np.integer]) -> None:
        # Arrays of Python's: as small as NumPy's, and much quicker to look one value up in.
        self.spans = array(spans.dtype.char.lower(), spans.tobytes())
        self.times = array("q", work.start_ns[work.launch[spans]].tobytes())

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


def launched(work: Work) -> npt.NDArray[np.integer]:
    """Return all launched spans, in the order of their launches."""
    spans = np.flatnonzero(work.launch >= 0).astype(work.launch.dtype)
    order = order_of(work.start_ns[work.launch[spans]], work.start_ns[spans])
    return np.asarray(spans[order])


def queues(work: Work, spans: npt.NDArray[np.integer]) -> tuple[dict[int, Queue], dict[int, Queue]]:
    """Return the queues of every GPU lane, and those of every launching thread, of `launched` spans."""
    return _by(work, spans, work.lane[spans]), _by(work, spans, work.tid[work.launch[spans]])


def _by(work: Work, spans: npt.NDArray[np.integer], key: npt.NDArray[np.integer]) -> dict[int, Queue]:
    """Return a queue a key, in the order in which each is first met."""
    values, first = np.unique(key, return_index=True)
    order = values[np.argsort(first)].tolist()
    return {value: Queue(work, spans[key == value]) for value in order}
