"""Writes and waits inside items, a row each of one array: a trace has millions, and none of them is an object.

A row is kind (a number in KINDS), start_ns, end_ns, peer, size_bytes, flag, value, region (a number in the names)
and workgroup; -1 where there is none.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...schemas import Trace
from ..program import Ints
from .plan import Plan

KINDS = ("data", "flag", "atomic", "wait")
DATA, FLAG, ATOMIC, WAIT = range(4)
KIND, START, END, PEER, SIZE, RAISED, VALUE, REGION, GROUP = range(9)


class Step(NamedTuple):
    """One write (`data`, `flag`, `atomic`) or `wait` inside an item.

    `flag` and `value` are as captured; `peer` is the place in the job of the rank written to, -1 for a wait.
    `end_ns` differs from `start_ns` for waits only.
    """

    kind: str
    start_ns: int
    end_ns: int
    peer: int
    size_bytes: int
    flag: int
    value: int
    region: str | None
    workgroup: int | None


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of an item in order of time: `rows` (n, 9), and the names of regions."""

    rows: Ints
    regions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Step]:
        for kind, start, end, peer, size, flag, value, region, group in self.rows.tolist():
            named = None if region < 0 else self.regions[region]
            yield Step(KINDS[kind], start, end, peer, size, flag, value, named, None if group < 0 else group)

    def later(self, shift_ns: int) -> "Steps":
        """Return the steps `shift_ns` later."""
        if not len(self.rows):
            return self
        rows = self.rows.copy()
        rows[:, START : END + 1] += shift_ns
        return Steps(rows, self.regions)


NO_STEPS = Steps(np.zeros((0, 9), np.int64))


class Read(NamedTuple):
    """A rank's writes, then its waits: `span` (n,) of each, -1 none; `rows` (n, 9), `writes` of them writes."""

    span: Ints
    rows: Ints
    writes: int
    regions: tuple[str, ...]


def read_steps(trace: Trace, rank: int, plan: Plan, peers: Collection[int] | None) -> Read:
    """Read a rank's writes and waits; with `peers` (places in the job), writes from spans to others are left out.

    Raises UsageError for a write to a rank that is not in the job.
    """
    columns = ("workgroup", "span", "issue_ns", "peer", "size_bytes", "kind", "flag", "value", "region")
    table = trace.read("writes", columns, ranks=[rank])
    if peers is not None and len(table):
        kept = pa.array([plan.job[place] for place in peers], pa.int32())
        table = table.filter(pc.or_(pc.is_in(table["peer"], kept), pc.is_null(table["span"])))
    rows = np.empty((len(table), 9), np.int64)
    regions: tuple[str, ...] = ()
    if len(table):
        names, region = _coded(table["region"])
        regions = tuple(names)
        kinds, kind = _coded(table["kind"])
        numbers = np.array([KINDS.index(name) for name in kinds])
        rows[:, KIND], rows[:, REGION], rows[:, SIZE] = numbers[kind], region, _ints(table["size_bytes"])
        rows[:, START] = rows[:, END] = _ints(table["issue_ns"])
        ranks, which = np.unique(_ints(table["peer"]), return_inverse=True)
        rows[:, PEER] = np.array([plan.place(int(peer)) for peer in ranks])[which]
        rows[:, RAISED], rows[:, GROUP] = _ints(table["flag"]), _ints(table["workgroup"])
        rows[:, VALUE] = np.where(rows[:, RAISED] < 0, 0, _ints(table["value"].fill_null(1)))
    awaited = ("workgroup", "span", "flag", "expected", "start_ns", "end_ns")
    waits = trace.read("waits", awaited, ranks=[rank])
    more = np.full((len(waits), 9), -1, np.int64)
    if len(waits):
        more[:, KIND], more[:, SIZE] = WAIT, 0
        more[:, START], end = _ints(waits["start_ns"]), waits["end_ns"]
        more[:, END] = _ints(pc.coalesce(end, waits["start_ns"]))
        more[:, RAISED], more[:, VALUE] = _ints(waits["flag"]), _ints(waits["expected"])
        more[:, GROUP] = _ints(waits["workgroup"])
    span = np.concatenate((_ints(table["span"]), _ints(waits["span"])))
    return Read(span, np.concatenate((rows, more)), len(rows), regions)


def _ints(column: pa.ChunkedArray) -> Ints:
    """Return integers, -1 for a null."""
    found: Ints = (column.fill_null(-1) if column.null_count else column).to_numpy()
    return found


def _coded(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """Return the names in a column, and (n,) the number of each row's, -1 for a null."""
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    return coded.dictionary.to_pylist(), _ints(pa.chunked_array([coded.indices]))
