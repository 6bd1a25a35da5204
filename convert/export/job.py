"""What an export must know of all ranks before it writes one: groups, operations and incoming writes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from ...schemas import Trace
from .registry import Progress
from .wakeups import FlagWrites, read_flag_writes

Ints = npt.NDArray[np.int64]
POINT_TO_POINT = ("send", "recv")
_COLUMNS = ["communicator", "sequence", "operation", "size_bytes", "in_split_bytes", "peer"]


@dataclass(frozen=True)
class Group:
    """One communicator: its number (from 1; ASTRA-sim keeps 0 for all ranks), and its ranks by place."""

    number: int
    name: str
    size: int
    ranks: Mapping[int, int]

    @property
    def whole(self) -> bool:
        """Whether the trace holds all of its ranks."""
        return len(self.ranks) == self.size

    def place(self, rank: int) -> int:
        """Return the place of `rank`; raises KeyError where it has none."""
        return next(place for place, held in self.ranks.items() if held == rank)


@dataclass
class Job:
    """Facts of a whole trace.

    `operations` maps (communicator, sequence) to the parts of a collective by rank, `pairs` (communicator,
    sequence, from, to) to the sides of a point-to-point operation. `incoming` has (writer, row, size) of the
    writes to each rank, in order of issue. Their memory grows with collectives and writes, not with spans.
    """

    trace: Trace
    ranks: list[int]
    origin_ns: int
    groups: dict[str, Group]
    operations: dict[tuple[str, int], dict[int, dict[str, Any]]] = field(default_factory=dict)
    pairs: dict[tuple[str, int, int, int], dict[str, dict[str, Any]]] = field(default_factory=dict)
    incoming: dict[int, Ints] = field(default_factory=dict)
    flags: FlagWrites = field(init=False)

    @property
    def world_size(self) -> int:
        """Ranks from 0 to the highest that the trace names."""
        named = [*self.ranks, *self.incoming, *(r for g in self.groups.values() for r in g.ranks.values())]
        return max(named) + 1

    def pair(self, rank: int, row: Mapping[str, Any]) -> tuple[str, int, int, int] | None:
        """Return the key of a send or receive among `pairs`; None where its other side is not known, or itself."""
        group = self.groups.get(row["communicator"])
        other = group.ranks.get(row["peer"]) if group and row["peer"] is not None else None
        if other is None or other == rank:
            return None
        ends = (rank, other) if row["operation"] == "send" else (other, rank)
        return row["communicator"], row["sequence"], *ends


def read_job(trace: Trace, progress: Progress) -> Job:
    """Read what concerns more than one rank."""
    ranks = trace.ranks()
    first = [
        pc.min(trace.read(name, [column], [rank])[column]).as_py()
        for name, column in (("spans", "start_ns"), ("writes", "issue_ns"), ("waits", "start_ns"))
        for rank in ranks
    ]
    job = Job(trace, ranks, min((t for t in first if t is not None), default=0), _groups(trace))
    for done, rank in enumerate(ranks):
        progress("reading collectives", done, len(ranks))
        for row in trace.read("collectives", _COLUMNS, [rank]).to_pylist():
            if row["operation"] not in POINT_TO_POINT:
                job.operations.setdefault((row["communicator"], row["sequence"]), {})[rank] = row
            elif key := job.pair(rank, row):
                job.pairs.setdefault(key, {})[row["operation"]] = row
    job.incoming = _incoming(trace, ranks)
    job.flags = read_flag_writes(trace)
    return job


def _groups(trace: Trace) -> dict[str, Group]:
    rows = trace.read("communicators").to_pylist()
    ranks: dict[str, dict[int, int]] = {}
    sizes: dict[str, int] = {}
    for row in rows:
        ranks.setdefault(row["communicator"], {})[row["group_rank"]] = row["rank"]
        sizes[row["communicator"]] = row["group_size"]
    return {name: Group(i + 1, name, sizes[name], ranks[name]) for i, name in enumerate(sorted(ranks))}


def _incoming(trace: Trace, ranks: Sequence[int]) -> dict[int, Ints]:
    chunks = list(_writes(trace, ranks))
    if not chunks:
        return {}
    peer, issue, rank, row, size = np.concatenate(chunks, axis=1)
    order = np.lexsort((row, rank, issue, peer))
    found = np.stack([rank, row, size])[:, order]
    peer = peer[order]
    return {int(p): found[:, peer == p] for p in np.unique(peer)}


def _writes(trace: Trace, ranks: Sequence[int]) -> Iterator[Ints]:
    for rank in ranks:
        table = trace.read("writes", ["peer", "issue_ns", "size_bytes"], [rank])
        peer, issue, size = (table[name].to_numpy().astype(np.int64) for name in table.column_names)
        row = np.flatnonzero(peer != rank)
        if len(row):
            yield np.stack([peer[row], issue[row], np.full(len(row), rank), row, size[row]])
