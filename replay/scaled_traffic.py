"""Writes and waits of a scaled trace: what the program of that size does, as rows, and the times that follow.

Where the number of ranks stays, and every rank was captured and keeps its times, the captured rows are copied.
Otherwise flags are numbered anew, alike at every rank, and count: the k-th raise stores k (an atomic one adds 1),
and a wait expects a count. Waits end as long after their item's begin as in the capture, or when they begin, if
that is later. Times are rounded down to nanoseconds.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..schemas import Trace
from .lowering.acts import Grower, Traffic
from .lowering.captured import Act
from .lowering.flags import read_flags
from .lowering.items import Item, RankWork
from .lowering.plan import Plan
from .lowering.retiming import stretched_work
from .lowering.works import Works

_WRITE = pa.schema([
    ("workgroup", pa.int32()), ("span", pa.int64()), ("issue_ns", pa.int64()), ("size_bytes", pa.int64()),
    ("region", pa.string()), ("kind", pa.string()), ("flag", pa.int64()), ("value", pa.int64()),
    ("distance", pa.int64()),
])  # fmt: skip
_WAIT = pa.schema([
    ("workgroup", pa.int32()), ("span", pa.int64()), ("flag", pa.int64()), ("expected", pa.int64()),
    ("start_ns", pa.int64()), ("end_ns", pa.int64()),
])  # fmt: skip


@dataclass(frozen=True)
class _Grown:
    """A rank's work at the times of its grown traffic, and that traffic; peers of writes are still distances."""

    work: RankWork
    writes: pa.Table
    waits: pa.Table


@dataclass
class ScaledTraffic:
    """Peer traffic of each GPU; ranks that repeat one source share what they do but for whom they address."""

    trace: Trace
    plan: Plan
    works: Works
    _grower: Grower = field(init=False)
    _copied: bool = field(init=False)
    _grown: dict[int, _Grown] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan, ranks = self.plan, len(self.plan.job)
        size = ranks if plan.replicas else plan.gpus
        self._grower = Grower(read_flags(self.works.base.values(), ranks), size)
        own = size == ranks == len(plan.index)
        self._copied = own and all(work is self.works.captured[work.rank] for work in self.works.all())

    def work(self, gpu: int) -> RankWork:
        """Return the work of a GPU, its times moved by what its grown traffic takes."""
        work = self.works.of(gpu)
        if self._copied or not any(item.steps for item in work.items()):
            return work
        return self._of(work).work

    def tables(self, gpu: int) -> dict[str, pa.Table]:
        """Return `writes` and `waits` of a GPU."""
        work, size = self.works.of(gpu), self._grower.gpus
        block = gpu // size * size
        if self._copied:
            writes = self.trace.read("writes", ranks=[work.rank])
            places = [self.plan.place(peer) + block for peer in writes["peer"].to_pylist()]
            at = writes.column_names.index("peer")
            writes = writes.set_column(at, writes.schema.field("peer"), pa.array(places, pa.int32()))
            return {"writes": writes, "waits": self.trace.read("waits", ranks=[work.rank])}
        grown = self._of(work)
        peers = block + (gpu - block + grown.writes["distance"].to_numpy()) % size
        writes = grown.writes.drop_columns(["distance"]).append_column("peer", pa.array(peers, pa.int32()))
        inferred = pa.array(np.full(len(writes), "inferred"), pa.string())
        return {"writes": writes.append_column("origin", inferred), "waits": grown.waits}

    def _of(self, work: RankWork) -> _Grown:
        if id(work) not in self._grown:
            lanes = [self._grower.grow_lane(work, lane) for lane in work.lanes]
            moved = _stretched(work, [pair for lane in lanes for pair in lane])
            twins = iter(moved.items())
            rows = [(next(twins), item, traffic) for lane in lanes for item, traffic in lane]
            self._grown[id(work)] = _Grown(moved, *_rows(rows))
        return self._grown[id(work)]


def _stretched(work: RankWork, grown: list[tuple[Item, Traffic]]) -> RankWork:
    busy = {id(item): traffic.rest_ps // 1000 for item, traffic in grown if not (traffic.acts or item.parts)}
    lengths = {id(item): _timeline(item, traffic)[-1] // 1000 for item, traffic in grown if traffic.acts}
    return stretched_work(work, busy, lengths)


def _timeline(item: Item, traffic: Traffic) -> list[int]:
    """Return, in ps after the item's begin, the begin and end of each act in turn, and the item's end."""
    times, now_ps = [], 0
    for act in traffic.acts:
        now_ps += _edited(item, act.before_ps)
        times.append(now_ps)
        if act.wait:
            now_ps = max(now_ps, act.end_ps)
        times.append(now_ps)
    return [*times, now_ps + _edited(item, traffic.rest_ps)]


def _edited(item: Item, duration_ps: int) -> int:
    return duration_ps * item.factor.numerator // item.factor.denominator


def _rows(grown: list[tuple[Item, Item, Traffic]]) -> tuple[pa.Table, pa.Table]:
    """Return the tables of all acts, by time, of each item at its new time, as it was, and its traffic."""
    writes: list[tuple[Any, ...]] = []
    waits: list[tuple[Any, ...]] = []
    for twin, item, traffic in grown:
        times = _timeline(item, traffic)
        span = None if item.span < 0 else item.span
        for number, act in enumerate(traffic.acts):
            start, end = (twin.begin_ns + time // 1000 for time in times[2 * number : 2 * number + 2])
            step = act.step
            if act.wait:
                waits.append((step.workgroup, span, act.slot, act.expected, start, end))
            else:
                writes.append(
                    (step.workgroup, span, start, act.size_bytes, step.region, step.kind, *_flag(act))
                )
    writes.sort(key=lambda row: row[2])
    waits.sort(key=lambda row: row[4])
    return _table(_counted(writes), _WRITE), _table(waits, _WAIT)


def _flag(act: Act) -> tuple[int | None, int | None, int]:
    """Return flag, value and distance of a write."""
    raised = act.slot >= 0
    return act.slot if raised else None, 1 if raised else None, act.distance


def _counted(writes: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Let the k-th raise of each flag that is stored, not added to, store k; rows are in order of time."""
    kind, flag, value = (_WRITE.get_field_index(name) for name in ("kind", "flag", "value"))
    raises: Counter[tuple[int, int]] = Counter()
    counted = []
    for row in writes:
        if row[flag] is not None:
            raises[row[flag], row[-1]] += 1
            if row[kind] != "atomic":
                row = (*row[:value], raises[row[flag], row[-1]], *row[value + 1 :])
        counted.append(row)
    return counted


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [[] for _ in schema]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
