"""Writes and waits of an item at any GPU count: who they address, how much, and how much compute lies between.

The law is that of direct traffic, where a rank addresses each of its n - 1 peers in turn (a sweep) and a message
is split among the n ranks: at N GPUs a sweep addresses N - 1 peers, each peer's bytes are n/N of the captured
ones (in captured pieces, as many as are needed, the last one cut), and so is the compute between them, which
leaves a rank's total as it was. What is no part of a sweep goes to a neighbour, and keeps distance and size.
With n GPUs the law gives what was captured.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .captured import Act, Acts, Issues, captured_acts, captured_issues, grown_issues
from .flags import Flags
from .items import Item, Lane, RankWork, finish_ns
from .steps import Step


@dataclass(slots=True)
class _Raw:
    step: Step
    distance: int
    number: int  # of the flag's class; -1: plain data
    count: int
    before_ns: int
    size_bytes: int = 0  # at the GPU count
    scaled: bool = False
    shared: bool = False  # the flag has several writers


@dataclass
class Traffic:
    """An item's acts, the compute after the last one, and whether a sweep carried data."""

    acts: Acts
    rest_ps: int
    direct: bool


@dataclass(frozen=True)
class Grower:
    """Writes and waits captured on `flags.ranks` ranks, on `gpus` GPUs; ranks are indices from 0."""

    flags: Flags
    gpus: int
    _grown: dict[tuple[int, str], list[tuple[Item, Traffic]]] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """Flag slots that every GPU needs: one a class and distance."""
        return self.flags.classes * self.gpus

    def grow_lane(self, work: RankWork, lane: Lane) -> list[tuple[Item, Traffic]]:
        """Return the acts of a lane's items; in a lane of direct traffic, other compute is shared out too."""
        key = (id(work), lane.name)
        if key not in self._grown:
            self._grown[key] = self._grow_lane(work, lane)
        return self._grown[key]

    def _grow_lane(self, work: RankWork, lane: Lane) -> list[tuple[Item, Traffic]]:
        grown = [(item, self._traffic(work.place, item)) for item in lane.items]
        direct = any(traffic.direct for _, traffic in grown)
        for item, traffic in grown:
            traffic.rest_ps = traffic.rest_ps if traffic.acts else item.busy_ns * 1000
            if direct:
                share = self.flags.ranks if item.kind == "phase" else self.gpus
                traffic.rest_ps = traffic.rest_ps * share // self.gpus
        return grown

    def _traffic(self, rank: int, item: Item) -> Traffic:
        if item.steps and self.gpus == self.flags.ranks:
            return Traffic(*captured_acts(self.flags, rank, item), direct=False)  # no law changes anything
        return self.grow(rank, item)

    def grow(self, rank: int, item: Item) -> Traffic:
        """Return the acts of one item of `rank`, a row at a time."""
        raws, rest_ns = self._read(rank, item)
        sweeps = list(_sweeps(_pieces(raws), self.flags.ranks))
        for pieces, swept in sweeps:
            for raw in (r for piece in pieces for r in piece):
                raw.scaled = swept
        self._resize(raws)
        acts: list[Act] = []
        cursor_ps, owed_ps = 0, 0
        for raw, distance in self._ordered(sweeps):
            before_ps = raw.before_ns * 1000
            owed_ps += before_ps * self.flags.ranks // self.gpus if raw.scaled else before_ps
            if raw.step.kind == "data" and raw.size_bytes <= 0:
                continue
            act = self._act(raw, distance, owed_ps, cursor_ps + owed_ps, item.begin_ns)
            acts.append(act)
            cursor_ps, owed_ps = act.end_ps, 0
        direct = any(raw.scaled and raw.step.kind == "data" for raw in raws)
        return Traffic(Acts.of(acts), owed_ps + rest_ns * 1000, direct)

    def issued(self, work: RankWork, distances: frozenset[int], epoch_ns: int) -> Issues:
        """Return a rank's writes to peers at `distances`."""
        if self.gpus == self.flags.ranks:
            return captured_issues(self.flags, work, distances, epoch_ns)
        grown = [
            (lane, item, traffic.acts) for lane in work.lanes for item, traffic in self.grow_lane(work, lane)
        ]
        return grown_issues(grown, distances, epoch_ns)

    def _read(self, rank: int, item: Item) -> tuple[list[_Raw], int]:
        """Resolve peers and flags; return the item's steps, and its compute after the last one."""
        raws, cursor_ns = [], item.begin_ns
        for step in item.steps:
            number, count, shared = -1, 0, False
            if step.kind == "wait":
                distance, number, count = self.flags.awaited(rank, step.flag, step.value)
                count = self.flags.count_on(self.gpus, rank, step.flag, count)
            else:
                distance = (step.peer - rank) % self.flags.ranks
                if step.flag >= 0:
                    _, number = self.flags.raised(step.peer, step.flag)
                    shared = self.flags.shared(step.peer, step.flag)
            before_ns = max(0, step.start_ns - cursor_ns)
            raws.append(_Raw(step, distance, number, count, before_ns, step.size_bytes, shared=shared))
            cursor_ns = max(cursor_ns, step.end_ns)
        return raws, max(0, finish_ns(item) - cursor_ns)

    def _resize(self, raws: list[_Raw]) -> None:
        """Share n/N of each peer's bytes out over its data writes up to its next flag, in order."""
        batches: dict[tuple[int, int], list[_Raw]] = {}
        raised: dict[int, int] = {}
        for raw in raws:
            if raw.step.kind == "data" and raw.scaled:
                batches.setdefault((raw.distance, raised.get(raw.distance, 0)), []).append(raw)
            elif raw.step.kind in ("flag", "atomic"):
                raised[raw.distance] = raised.get(raw.distance, 0) + 1
        for batch in batches.values():
            left = -(-sum(raw.step.size_bytes for raw in batch) * self.flags.ranks // self.gpus)
            for raw in batch:
                raw.size_bytes = min(left, raw.step.size_bytes)
                left -= raw.size_bytes
            batch[-1].size_bytes += left

    def _ordered(self, sweeps: list[tuple[list[list[_Raw]], bool]]) -> Iterator[tuple[_Raw, int]]:
        """Yield what a GPU does, with the distance to its peer: sweeps repeat until all peers are addressed."""
        peers = self.flags.ranks - 1
        for pieces, swept in sweeps:
            for turn in range(-(-(self.gpus - 1) // peers) if swept else 1):
                for piece in pieces:
                    distance = piece[0].distance + turn * peers if swept else self._near(piece[0].distance)
                    if distance < self.gpus:
                        yield from ((raw, distance) for raw in piece)

    def _near(self, distance: int) -> int:
        """Return a neighbour's distance: what is nearer from behind stays so."""
        behind = 2 * distance > self.flags.ranks
        return (distance - self.flags.ranks if behind else distance) % self.gpus

    def _act(self, raw: _Raw, distance: int, before_ps: int, time_ps: int, begin_ns: int) -> Act:
        wait = raw.step.kind == "wait"
        end_ps = max(time_ps, (raw.step.end_ns - begin_ns) * 1000) if wait else time_ps
        slot = raw.number * self.gpus + (0 if raw.shared else distance) if raw.number >= 0 else -1
        to = 0 if wait else distance
        return Act(wait, before_ps, time_ps, end_ps, to, raw.size_bytes, slot, raw.count, raw.step)


def traffic_law(works: Iterable[RankWork], ranks: int, gpus: int) -> list[str]:
    """Say how writes and waits grow from `ranks` ranks, where there are any."""
    if gpus == ranks or not any(item.steps for work in works for item in work.items()):
        return []
    return [
        f"writes and waits: a rank that addresses all its peers addresses {gpus - 1}; bytes a peer, and the "
        f"compute between, are {ranks}/{gpus} of the captured"
    ]


def _pieces(raws: list[_Raw]) -> list[list[_Raw]]:
    """Cut the steps where the peer changes."""
    pieces: list[list[_Raw]] = []
    for raw in raws:
        if pieces and pieces[-1][0].distance == raw.distance:
            pieces[-1].append(raw)
        else:
            pieces.append([raw])
    return pieces


def _sweeps(pieces: list[list[_Raw]], ranks: int) -> Iterator[tuple[list[list[_Raw]], bool]]:
    """Yield runs of pieces: either one that addresses every peer once (True), or a single piece (False)."""
    at, peers = 0, ranks - 1
    while at < len(pieces):
        taken = pieces[at : at + peers]
        swept = peers > 0 and {piece[0].distance for piece in taken} == set(range(1, ranks))
        yield (taken, True) if swept else (pieces[at : at + 1], False)
        at += peers if swept else 1
