"""What the readers of profilers' databases share: their rows as columns, their processes and GPUs as ranks.

A process on a GPU is a rank. What a profiler recorded of it is brought into the columns that PyTorch's traces are
read into, so that launches, collectives and dependencies are found by the same code.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..schemas.errors import InputError
from .collectives import find_parts
from .columns import Blocks, Columns, row_count
from .dependencies import find_edges
from .details import Details
from .events import SCHEMA, Events
from .hardware import rank_columns
from .host_records import HostRecords
from .narrow import Table, filled
from .nccl_calls import Call, describe
from .parts import Group
from .rank import RankRecord
from .scanner import COPY, NULL
from .sorting import collected
from .sources import rank_in_name
from .work import Work, build_work, span_columns

Ints = npt.NDArray[np.int64]
_SCHEMA = pa.schema([*SCHEMA, ("peer", pa.int64()), ("size_bytes", pa.int64())])
"""Beside what PyTorch's traces have: of a copy into another rank's GPU that rank, and the bytes."""
_LATEST_NS = 2**62
_DEVICES = 1 << 16  # more than any host has: a larger number is no GPU's


@dataclass(frozen=True)
class Place:
    """A process on a GPU.

    `source` says where in the file it is, `process` who it is there, `device` how it calls its GPU, `gpu` how its
    host does, `ordinal` its place among that host's GPUs, `init_ns` when the process began; what the file does not
    tell is None.
    """

    path: Path
    source: str
    process: int
    device: int
    pid: int
    host: str | None = None
    gpu: int | None = None
    rank: int | None = None
    world_size: int | None = None
    init_ns: int | None = None
    ordinal: int | None = None

    @property
    def number(self) -> int:
        """The GPU's number among its host's GPUs, as far as it is known."""
        return self.device if self.ordinal is None else self.ordinal


@dataclass(frozen=True)
class Task:
    """One rank to read: where it is, (GPU, rank) of those that it may copy to, and the job's groups.

    `base_ns` is what all of its host's times are to be added to.
    """

    place: Place
    rank: int
    peers: tuple[tuple[int, int], ...] = ()
    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()
    base_ns: int = 0


def number(places: Sequence[Place]) -> list[Task]:
    """Give every place its rank: as the source tells, else as its file's name does, else by order, with a note."""
    own = Counter(place.path for place in places)
    named = [
        place
        if place.rank is not None or own[place.path] > 1
        else replace(place, rank=rank_in_name(place.path))
        for place in places
    ]
    ranks = [place.rank for place in named]
    if None not in ranks and len(set(ranks)) == len(ranks):
        return [Task(place, place.rank or 0, _peers(place, named)) for place in named]
    named = [replace(place, rank=rank) for rank, place in enumerate(places)]
    note = "the ranks are not told; numbered by file, GPU and process: " + ", ".join(
        f"{p.rank} is process {p.pid}{f' on GPU {p.device}' if p.device >= 0 else ''} of {p.path.name}"
        for p in named[:8]
    )
    if len(named) > 8:
        note += ", ..."
    notes = [(note,), *(() for _ in named[1:])]
    return [Task(place, rank, _peers(place, named), notes=notes[rank]) for rank, place in enumerate(named)]


def _peers(place: Place, places: Sequence[Place]) -> tuple[tuple[int, int], ...]:
    """Return (GPU as `place` calls it, rank) of the ranks on its host that can be told apart by that."""
    if any(p.gpu is None for p in places):
        near = [
            p for p in places if (p.path, p.source, p.process) == (place.path, place.source, place.process)
        ]
        return tuple((p.device, p.rank or 0) for p in near)
    near = [p for p in places if p.host == place.host]
    count = Counter(p.gpu for p in near)
    return tuple((p.gpu, p.rank or 0) for p in near if p.gpu is not None and count[p.gpu] == 1)


class Rows:
    """Events as columns, added a batch at a time; `dropped` counts those that cannot be placed, by reason."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.table = Table(_SCHEMA)

    def add(self, kind: int, names: pa.DictionaryArray, start: Ints, end: Ints, **columns: Ints) -> None:
        """Add events from `start` to `end`, nanoseconds; NULL in a column of _SCHEMA is null."""
        good = np.full(len(start), True)
        for reason, bad in (
            ("no timestamp", start == NULL),
            ("no end", end == NULL),
            (
                "impossible time",
                (np.abs(np.maximum(start, -_LATEST_NS - 1)) > _LATEST_NS) | (end > _LATEST_NS),
            ),
            ("negative duration", end < start),
            ("impossible GPU", _odd_device(columns.get("device", np.zeros_like(start)))),
        ):
            self.dropped[reason] += int((good & bad).sum())
            good &= ~bad
        rows = np.flatnonzero(good)
        given = {
            "kind": pa.array(np.full(len(rows), kind, np.int8)),
            "name": names.take(pa.array(rows)),
            "start_ns": pa.array(start[rows]),
            "duration_ns": pa.array(end[rows] - start[rows]),
            **{n: pa.array(c[rows], mask=c[rows] == NULL) for n, c in columns.items()},
        }
        empty = pa.nulls(len(rows), pa.int64())
        self.table.add(pa.table([given.get(n, empty) for n in _SCHEMA.names], _SCHEMA))

    def first_ns(self) -> int | None:
        """Return when the first event starts; None where there is none."""
        starts = (int(filled(chunk, _LATEST_NS).min()) for (chunk,) in self.table.chunks("start_ns"))
        return min(starts, default=None)


def _odd_device(device: Ints) -> npt.NDArray[np.bool_]:
    return np.asarray((device != NULL) & ((device < 0) | (device >= _DEVICES)), bool)


def dictionary(words: Sequence[str], places: Ints) -> pa.DictionaryArray:
    """Return the words at `places` as a dictionary array."""
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(words, pa.string()))


@dataclass
class Profile:
    """One rank as its profiler recorded it.

    `metadata` is as Kineto has it (deviceProperties, host_name, versions), and the GPU's uuid; `calls` are those
    of NCCL or RCCL; `clock` is as in RankRecord.
    """

    task: Task
    rows: Rows
    metadata: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    base_ns: int = 0
    truncated: bool = False
    notes: list[str] = field(default_factory=list)
    clock: str | None = None


def build_record(profile: Profile) -> RankRecord:
    """Find launches, collectives and dependencies of one rank. Raises InputError where it ran nothing on a GPU."""
    task, place = profile.task, profile.task.place
    events = Events(
        place.path, profile.rows.table, Details(profile.rows.table.scratch), profile.metadata,
        profile.rows.dropped, profile.truncated, profile.base_ns,
    )  # fmt: skip
    work = build_work(events)
    if work.main_device is None:
        raise InputError(
            f"{place.path}: process {place.pid} has no kernel or copy with whole times; record it again with GPU "
            "activities"
        )
    records = HostRecords(work, events)
    parts = find_parts(work, records, None)
    groups = {group.name: group for group in task.groups if group.name is not None}
    for call in profile.calls:
        call.start_ns += profile.base_ns
        call.end_ns += profile.base_ns
    parts, unfit = describe(parts, work, profile.calls, groups)
    edges = find_edges(work, records, parts)
    writes = _writes(work)
    notes = [*task.notes, *profile.notes, *_size_notes(place, parts, unfit, row_count(writes))]
    hardware = rank_columns(events, work)
    uuid = profile.metadata.get("uuid")
    hardware["uuid"] = uuid if isinstance(uuid, str) else None
    return RankRecord(
        rank=task.rank,
        path=place.path,
        world_size=place.world_size,
        hardware=hardware,
        spans=span_columns(work),
        edges=edges.columns(),
        parts=parts,
        window_ns=work.window_ns(),
        dropped={reason: count for reason, count in events.dropped.items() if count},
        truncated=profile.truncated,
        contradicted=edges.contradicted + Counter({"launch": work.early}),
        base_ns=profile.base_ns,
        notes=notes,
        more={"writes": writes} if row_count(writes) else {},
        clock=profile.clock,
    )


def peer_copies(away: npt.NDArray[np.bool_], gpu: Ints, size: Ints, ranks: dict[int, int]) -> dict[str, Ints]:
    """Return the columns of Rows for copies, (n,) of them, of which some go `away` to the GPUs of other `ranks`."""
    away = away & (size >= 0)
    gpus, places = np.unique(gpu, return_inverse=True)
    peer = np.array([ranks.get(g, NULL) for g in gpus.tolist()], np.int64)[places]
    return {"peer": np.where(away, peer, NULL), "size_bytes": np.where(away, size, NULL)}


def _writes(work: Work) -> Columns:
    """Return the columns of `writes`: copies into another rank's GPU, each in its own span."""
    away = (spans[work.peer[spans] >= 0] for spans in work.find(COPY))
    spans = collected(work.scratch, away, len(work))
    data, measured = (pa.array([word]).dictionary_encode() for word in ("data", "measured"))

    def block(rows: slice) -> dict[str, Any]:
        own = spans[rows]
        return {
            "peer": work.peer[own],
            "span": own,
            "issue_ns": work.start_ns[own],
            "size_bytes": work.size_bytes[own],
            "kind": data.take(pa.array(np.zeros(len(own), np.int8))),
            "origin": measured.take(pa.array(np.zeros(len(own), np.int8))),
        }

    return Blocks(len(spans), lambda: map(block, work.scratch.blocks(len(spans))))


def _size_notes(place: Place, parts: Sequence[Any], unfit: int, writes: int) -> list[str]:
    notes = []
    unsized = sum(p.size_bytes is None for p in parts)
    if unsized:
        notes.append(
            f"{place.path.name}, process {place.pid}: {unsized} of {len(parts)} collectives have no size"
        )
    if unfit:
        notes.append(
            f"{place.path.name}, process {place.pid}: {unfit} kernels were launched by a group of calls that do "
            "not tell which is whose"
        )
    if writes:
        notes.append(
            f"{place.path.name}, process {place.pid}: {writes} copies into other ranks' GPUs are writes; what "
            "kernels store there is not recorded"
        )
    return notes
