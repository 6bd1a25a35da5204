"""A rank's work as arrays: spans in order of (start, lane), each GPU span with the call that launched it.

Nothing here holds more than some rows of a large rank: arrays are in a scratch, and are gone through by blocks.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..schemas.store import integers
from .columns import Blocks
from .events import Events
from .narrow import Table, filled
from .scanner import ANNOTATION, CALL, COPY, KERNEL, SYNC
from .scratch import Scratch
from .sorting import Array, Ints, counted, gathered, order_of, parts, row_type

KIND_NAMES = {KERNEL: "kernel", COPY: "copy", CALL: "host_call", ANNOTATION: "annotation"}
ON_GPU = (KERNEL, COPY)
_KINDS = pa.array([KIND_NAMES[kind] for kind in sorted(KIND_NAMES)], pa.string())
_LAUNCHES = "(?i)launch|memcpy|memset"
_OF_SYNCS = ("name", "correlation", "device", "stream", "wait_stream", "wait_record")


@dataclass
class Work:
    """Spans of one rank; all arrays have one entry a span, and the index is the span's id.

    Integers that the source did not give are -1. `name` are places in `words`; `main_device` is the GPU that ran
    most, None where none did. `launch` is the span of the call that launched the span, -1 for host spans and where
    no call was found; `early` counts GPU spans that began before their call, which get none. `syncs` are columns
    of the events that say what a synchronising call waited for, one entry an event.
    """

    scratch: Scratch
    kind: Array
    name: Array
    words: pa.StringArray
    lane: npt.NDArray[np.int32]
    lane_names: list[str]
    main_device: int | None
    start_ns: Ints
    end_ns: Ints
    tid: Array
    device: Array
    stream: Array
    correlation: Array
    function: Array
    grid_x: Array
    peer: Array
    size_bytes: Array
    launch: Array
    early: int
    syncs: dict[str, Array]

    def __len__(self) -> int:
        return len(self.kind)

    def text(self, span: int) -> str:
        """Return the name of one span."""
        return str(self.words[int(self.name[span])].as_py() or "")

    def matching(self, pattern: str) -> npt.NDArray[np.bool_]:
        """Return which of `words` match the regular expression `pattern`, and False for none, -1."""
        return np.append(np.asarray(pc.match_substring_regex(self.words, pattern)), False)

    def find(self, *kinds: int, named: str | None = None) -> Iterator[Array]:
        """Yield the spans of some kinds whose names match the regular expression `named`, a block at a time."""
        wanted = np.isin(np.arange(max(KIND_NAMES) + 1), kinds)
        matches = None if named is None else self.matching(named)
        if matches is not None and not matches.any():
            return
        for block in self.scratch.blocks(len(self)):
            found = wanted[self.kind[block]]
            if matches is not None:
                found &= matches[self.name[block]]
            if found.any():
                yield (np.flatnonzero(found) + block.start).astype(self.launch.dtype)

    def each(self, *kinds: int, named: str) -> Iterator[int]:
        """Yield the spans of some kinds with such a name one by one: of what is rare."""
        for spans in self.find(*kinds, named=named):
            yield from spans.tolist()

    def window_ns(self) -> tuple[int, int]:
        """Return when the first span starts and the last one ends."""
        return int(self.start_ns[0]), max(int(self.end_ns[b].max()) for b in self.scratch.blocks(len(self)))


def build_work(events: Events) -> Work:
    """Order what was read of a file into spans and find their launches; `events.rows` are used up."""
    table = events.rows
    scratch = table.scratch
    kind = table.take("kind")
    syncs = _syncs(table, kind)
    lane, lane_names, main = _lanes(table, kind)
    start = _moved(scratch, table.take("start_ns"), events.base_ns)
    duration = table.take("duration_ns")

    def ties(rows: Array) -> tuple[Array, ...]:
        # At one instant an annotation comes before what it holds, and an empty span before a longer one.
        return lane[rows], np.where(kind[rows] == ANNOTATION, -duration[rows], duration[rows])

    order = order_of(scratch, start, _where(scratch, kind, syncs=False), ties)
    start = gathered(scratch, start, order)
    end = scratch.empty(len(order), np.int64)
    launch = scratch.empty(len(order), order.dtype)
    for block in scratch.blocks(len(order)):
        end[block] = start[block] + duration[order[block]]
        launch[block] = -1
    taken = ("name", "tid", "device", "stream", "correlation", "function", "grid_x", "peer", "size_bytes")
    work = Work(
        scratch=scratch,
        kind=gathered(scratch, kind, order),
        lane=gathered(scratch, lane, order),
        lane_names=lane_names,
        main_device=main,
        start_ns=start,
        end_ns=end,
        words=table.words(),
        launch=launch,
        early=0,
        syncs=syncs,
        **{name: gathered(scratch, table.take(name), order) for name in taken},
    )
    work.early = _pair_launches(work)
    return work


def _where(scratch: Scratch, kind: Array, *, syncs: bool) -> Iterator[Array]:
    """Yield the rows of a table that are SYNCs, or those that are not."""
    for block in scratch.blocks(len(kind)):
        rows = np.flatnonzero((kind[block] == SYNC) == syncs)
        if len(rows):
            yield (rows + block.start).astype(row_type(len(kind)))


def _syncs(table: Table, kind: Array) -> dict[str, Array]:
    """Return the columns of the events that say what was waited for; none where there are no such events."""
    rows = list(_where(table.scratch, kind, syncs=True))
    columns = {name: table.values(name) for name in _OF_SYNCS} if rows else {}
    count = sum(map(len, rows))
    out = {name: table.scratch.empty(count, values.dtype) for name, values in columns.items()}
    done = 0
    for some in rows:
        for name, values in columns.items():
            out[name][done : done + len(some)] = values[some]
        done += len(some)
        table.scratch.release()
    return out


def _moved(scratch: Scratch, times: Array, base_ns: int) -> Ints:
    moved = scratch.empty(len(times), np.int64)
    for block in scratch.blocks(len(times)):
        moved[block] = times[block]
        moved[block] += base_ns
    return moved


def _lanes(table: Table, kinds: Array) -> tuple[npt.NDArray[np.int32], list[str], int | None]:
    """Return each row's lane, the lanes' names, which name devices other than the main one, and that device.

    SYNCs have none.
    """
    lane = table.scratch.empty(len(table), np.int32)
    lanes: dict[tuple[int, int, int], int] = {}
    devices: Counter[int] = Counter()
    done = 0
    for chunk in table.chunks("device", "stream", "tid"):
        rows = slice(done, done + len(chunk[0]))
        known = kinds[rows] != SYNC
        device, stream, tid = (filled(column, -1)[known] for column in chunk)
        gpu = kinds[rows][known] <= COPY
        devices.update(counted(device[gpu]))
        keys = (~gpu, np.where(gpu, device, -1), np.where(gpu, stream, tid))
        values, places = zip(*(np.unique(key, return_inverse=True) for key in keys), strict=True)
        codes, at = np.unique(np.ravel_multi_index(places, [len(v) for v in values]), return_inverse=True)
        own = (
            v[i].tolist()
            for v, i in zip(values, np.unravel_index(codes, [len(v) for v in values]), strict=True)
        )
        numbers = [lanes.setdefault(key, len(lanes)) for key in zip(*own, strict=True)]
        lane[rows][known] = np.array(numbers, np.int32)[at]
        done = rows.stop
        table.scratch.release()
    main = min((d for d, count in devices.items() if count == max(devices.values())), default=None)
    ordered = sorted(lanes)
    place = np.zeros(len(lanes) + 1, np.int32)
    place[[lanes[key] for key in ordered]] = np.arange(len(lanes))
    for block in table.scratch.blocks(len(lane)):
        lane[block] = place[np.where(kinds[block] == SYNC, 0, lane[block])]
    return lane, [_lane_name(*key, main) for key in ordered], main


def _lane_name(host: int, where: int, number: int, main: int | None) -> str:
    prefix = "" if host or where == (main or 0) else f"device {where} "
    return f"{prefix}{'thread' if host else 'stream'} {number if number >= 0 else 'unknown'}"


def _pair_launches(work: Work) -> int:
    """Pair GPU spans with the latest call of their correlation id that began before them; count the early ones.

    Correlation ids are not unique (a graph launch has many kernels; ids are reused), so time decides.
    """
    launches = work.matching(_LAUNCHES)

    def identified() -> Iterator[Array]:
        for rows in work.find(*ON_GPU, CALL):
            known = (work.kind[rows] != CALL) | launches[work.name[rows]]
            yield rows[known & (work.correlation[rows] > 0)]

    return sum(_pair(work, rows) for rows in parts(work.scratch, work.correlation, identified()))


def _pair(work: Work, both: Array) -> int:
    """Pair the spans and calls of some ids."""
    is_span = work.kind[both] != CALL
    calls = np.unique(work.correlation[both[~is_span]])
    order = np.lexsort((is_span, work.start_ns[both], work.correlation[both]))
    both, is_span = both[order], is_span[order]
    latest = np.maximum.accumulate(np.where(is_span, -1, np.arange(len(both))))
    call = both[np.maximum(latest, 0)]
    found = is_span & (latest >= 0) & (work.correlation[call] == work.correlation[both])
    work.launch[both[found]] = call[found]
    return int(np.isin(work.correlation[both[is_span & ~found]], calls).sum())


def span_columns(work: Work) -> Blocks:
    """Return the columns of `spans`."""
    lane_names = pa.array(work.lane_names, pa.string())

    def block(rows: slice) -> Mapping[str, Any]:
        launch, correlation = work.launch[rows], work.correlation[rows]
        launched = launch >= 0
        return {
            "span": integers(np.arange(rows.start, rows.stop, dtype=work.launch.dtype)),
            "lane": pa.DictionaryArray.from_arrays(integers(work.lane[rows]), lane_names),
            "kind": pa.DictionaryArray.from_arrays(integers(work.kind[rows].astype(np.int32)), _KINDS),
            "name": pa.DictionaryArray.from_arrays(integers(work.name[rows].astype(np.int32)), work.words),
            "launch_ns": integers(np.where(launched, work.start_ns[launch], 0), launched),
            "start_ns": integers(work.start_ns[rows]),
            "end_ns": integers(work.end_ns[rows]),
            "correlation": integers(correlation, correlation >= 0),
        }

    return Blocks(len(work), lambda: map(block, work.scratch.blocks(len(work))))
