"""Captured flags as counts: which slot a flag is at any GPU count, and which count a captured value means.

A flag is known by who raises it: the distance from writer to waiter (waiter - writer, modulo the ranks) and its
number among the flags between those two ranks. Both are the same for every rank of a symmetric kernel, so one
numbering of slots serves any number of GPUs. Each raise adds one; a value that the k-th raise is the first to
reach is the count k.

A flag that several ranks add the same to (a barrier's counter) is its waiter's own: at distance 0. Where all others
raise it, or all, a count of so many rounds of theirs is, at any GPU count, that of as many rounds.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...schemas import UsageError
from .items import RankWork
from .steps import KIND, KINDS, RAISED, REGION, WAIT, Steps


class _Named(NamedTuple):
    """A flag's first raise: row `at` of `steps[number]`, of those of a lane's items."""

    lane: str
    steps: list[Steps]
    number: int
    at: int

    def name(self) -> str:
        """Return its lane's name, and the region that the lane wrote last by then."""
        regions = [(s.rows[:, REGION], s.regions) for s in self.steps[: self.number + 1]]
        regions[-1] = regions[-1][0][: self.at + 1], regions[-1][1]
        written = next((names[found[-1]] for of, names in reversed(regions) if len(found := of[of >= 0])), "")
        return f"{self.lane}{written and ' '}{written} flag, distance of its writer"


@dataclass
class Flags:
    """The captured flags of a job of `ranks` ranks; at most `classes` flags lead from one rank to another.

    Ranks are places in the job.
    """

    ranks: int
    classes: int = 0
    names: list[str] = field(default_factory=list)
    _writer: dict[tuple[int, int], int] = field(default_factory=dict)
    _class: dict[tuple[int, int], int] = field(default_factory=dict)
    _values: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    _shared: dict[tuple[int, int], set[int]] = field(default_factory=dict)

    def shared(self, rank: int, flag: int) -> bool:
        """Whether several ranks raise `flag` at `rank`."""
        return (rank, flag) in self._shared

    def count_on(self, gpus: int, rank: int, flag: int, count: int) -> int:
        """Return what `count` raises of `flag` at `rank` are on `gpus` GPUs.

        Raises UsageError for a flag of all ranks where that is no whole number of rounds.
        """
        writers = len(self._shared.get((rank, flag), ()))
        if gpus == self.ranks or writers < self.ranks - 1 or not writers:
            return count
        rounds, rest = divmod(count, writers)
        if rest:
            raise UsageError(
                f"rank {rank} waits for {count} raises of flag {flag}, to which {writers} ranks add: a wait for "
                f"some of them has no meaning on {gpus} GPUs; replay it on {self.ranks}"
            )
        return rounds * (writers + gpus - self.ranks)

    def raised(self, rank: int, flag: int) -> tuple[int, int]:
        """Return (distance, class) of `flag` at `rank`, which some captured write raises."""
        return (rank - self._writer[rank, flag]) % self.ranks, self._class[rank, flag]

    def awaited(self, rank: int, flag: int, expected: int) -> tuple[int, int, int]:
        """Return (distance, class, count) of a wait. Raises UsageError where no captured write satisfies it."""
        values = self._values.get((rank, flag))
        if values is None:
            raise UsageError(
                f"rank {rank} waits for flag {flag} to reach {expected}, and no captured write raises it; "
                "capture every rank that writes to it"
            )
        count = bisect_left(values, expected) + 1 if expected > 0 else 0
        if count > len(values):
            raise UsageError(
                f"rank {rank} waits for flag {flag} to reach {expected}, and the last captured write to it "
                f"stores {values[-1]}; the capture is cut short, or the flag counts something else"
            )
        return *self.raised(rank, flag), count


def read_flags(work: Iterable[RankWork], ranks: int) -> Flags:
    """Find the flags that captured writes raise, and number them.

    Raises UsageError for a flag that several ranks store to, or add different values to, and for values that no
    count explains (a reset).
    """
    flags = Flags(ranks)
    raises: dict[tuple[int, int], list[tuple[int, str, int]]] = {}
    names: dict[tuple[int, int], _Named] = {}
    writers: dict[tuple[int, int], set[int]] = {}
    for rank_work in work:
        for lane in rank_work.lanes:
            shown = [item.steps for item in lane.items if item.steps]
            for number, steps in enumerate(shown):
                raising = np.flatnonzero((steps.rows[:, KIND] != WAIT) & (steps.rows[:, RAISED] >= 0))
                rows = zip(raising.tolist(), steps.rows[raising].tolist(), strict=True)
                for at, (kind, start_ns, _, peer, _, flag, value, _, _) in rows:
                    key = (peer, flag)
                    if key not in raises:
                        writers[key], raises[key], names[key] = (
                            set(),
                            [],
                            _Named(lane.name, shown, number, at),
                        )
                    writers[key].add(rank_work.place)
                    raises[key].append((start_ns, KINDS[kind], value))
    for key, places in writers.items():
        flags._writer[key] = key[0] if len(places) > 1 else next(iter(places))
        if len(places) > 1:
            flags._shared[key] = places
            _check_shared(key, sorted(places), raises[key])
    _number(flags, names)
    for key, raised in raises.items():
        flags._values[key] = _counted(key, sorted(raised))
    return flags


def _check_shared(key: tuple[int, int], places: list[int], rows: list[tuple[int, str, int]]) -> None:
    """Refuse a flag of several ranks whose value depends on whose raise came first."""
    if len({(kind, value) for _, kind, value in rows}) > 1 or rows[0][1] != "atomic":
        rank, flag = key
        raise UsageError(
            f"flag {flag} of rank {rank} is raised by ranks {places[0]} and {places[1]}, which do not add the same "
            "each time; give each writing rank a flag of its own, or add one by atomics"
        )


def _number(flags: Flags, names: dict[tuple[int, int], _Named]) -> None:
    """Give each writer's flags at each waiter numbers, in order of their own; name each class."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for (rank, flag), writer in flags._writer.items():
        pairs.setdefault((writer, rank), []).append(flag)
    for (_, rank), numbers in sorted(pairs.items()):
        for index, flag in enumerate(sorted(numbers)):
            flags._class[rank, flag] = index
            if index == len(flags.names):
                flags.names.append(names[rank, flag].name())
    flags.classes = len(flags.names)


def _counted(key: tuple[int, int], rows: list[tuple[int, str, int]]) -> list[int]:
    """Return the flag's value after each raise, which must grow each time."""
    value, values = 0, []
    for _, kind, given in rows:
        following = value + given if kind == "atomic" else given
        if following <= value:
            rank, flag = key
            raise UsageError(
                f"flag {flag} of rank {rank} goes from {value} to {following}: a flag that is reset or "
                "lowered is no count; use epochs that only grow"
            )
        value = following
        values.append(value)
    return values
