"""Writes and waits at the captured GPU count, by columns: what was captured, as it was.

`Grower.grow` gives the same there, a row at a time; a test holds both together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..program import Ints
from .flags import Flags
from .items import Item, Lane, RankWork, finish_ns
from .steps import DATA, END, KIND, PEER, RAISED, SIZE, START, VALUE, WAIT, Step, Steps


class Act(NamedTuple):
    """One write or wait of a GPU: `distance` is to the peer written to (waits: 0), `slot` the flag's, -1 none.

    Times are captured ones after the item's begin, carried along to the GPU count: `time_ps` of the issue or first
    poll, `end_ps` of the wait's end. `before_ps` is the compute before it. `step` is what was captured.
    """

    wait: bool
    before_ps: int
    time_ps: int
    end_ps: int
    distance: int
    size_bytes: int
    slot: int
    expected: int
    step: Step


@dataclass
class Acts:
    """An item's acts in order: `rows` (n, 8), the fields of an Act but for its step, and `steps`."""

    rows: Ints
    steps: Steps | list[Step]

    @classmethod
    def of(cls, acts: list[Act]) -> "Acts":
        """Return these acts."""
        return cls(np.array([act[:-1] for act in acts], np.int64).reshape(-1, 8), [act.step for act in acts])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Act]:
        for row, step in zip(self.rows.tolist(), self.steps, strict=True):
            wait, before_ps, time_ps, end_ps, distance, size_bytes, slot, expected = row
            yield Act(bool(wait), before_ps, time_ps, end_ps, distance, size_bytes, slot, expected, step)


def captured_acts(flags: Flags, rank: int, item: Item) -> tuple[Acts, int]:
    """Return an item's acts, and its compute after the last one in ps."""
    rows = item.steps.rows
    seen_ns = np.maximum.accumulate(np.concatenate(([item.begin_ns], rows[:, END])))
    before_ns = np.cumsum(np.maximum(0, rows[:, START] - seen_ns[:-1]))
    kept = (rows[:, KIND] != DATA) | (rows[:, SIZE] > 0)
    taken, wait = rows[kept], rows[kept, KIND] == WAIT
    owed_ns = np.concatenate(([0], before_ns[kept]))
    acts = np.empty((len(taken), 8), np.int64)
    acts[:, 0], acts[:, 1] = wait, np.diff(owed_ns) * 1000
    acts[:, 2] = (np.maximum(taken[:, START], seen_ns[:-1][kept]) - item.begin_ns) * 1000
    acts[:, 3] = np.where(wait, np.maximum(acts[:, 2], (taken[:, END] - item.begin_ns) * 1000), acts[:, 2])
    acts[:, 4] = np.where(wait, 0, (taken[:, PEER] - rank) % flags.ranks)
    acts[:, 5], acts[:, 6], acts[:, 7] = taken[:, SIZE], _slots(flags, taken, acts[:, 4]), 0
    for at in np.flatnonzero(wait).tolist():
        distance, number, count = flags.awaited(rank, int(taken[at, RAISED]), int(taken[at, VALUE]))
        acts[at, 6:] = number * flags.ranks + distance, count
    rest_ns = before_ns[-1] - owed_ns[-1] + max(0, finish_ns(item) - seen_ns[-1])
    return Acts(acts, Steps(taken, item.steps.regions)), int(rest_ns) * 1000


def _slots(flags: Flags, rows: Ints, distance: Ints) -> Ints:
    """Return the slot that each write raises, -1 where it raises none, or is a wait."""
    slots = np.full(len(rows), -1, np.int64)
    for at in np.flatnonzero((rows[:, KIND] != WAIT) & (rows[:, RAISED] >= 0)).tolist():
        peer, flag = int(rows[at, PEER]), int(rows[at, RAISED])
        slots[at] = flags.raised(peer, flag)[1] * flags.ranks
        slots[at] += 0 if flags.shared(peer, flag) else distance[at]
    return slots


class Issues(NamedTuple):
    """Writes of a rank, after the run's start, a column each; `first` (items + 1,) is the first row of `items`."""

    items: list[tuple[Lane, Item]]
    first: list[int]
    time_ps: Ints
    distance: Ints
    size_bytes: Ints
    slot: Ints


def captured_issues(flags: Flags, work: RankWork, distances: frozenset[int], epoch_ns: int) -> Issues:
    """Return the writes of a rank to peers at `distances`; nothing else of its items is looked at."""
    items = [(lane, item) for lane in work.lanes for item in lane.items if item.steps]
    if not items:
        nothing = np.zeros(0, np.int64)
        return Issues([], [0], nothing, nothing, nothing, nothing)
    rows = np.concatenate([item.steps.rows for _, item in items])
    first = np.concatenate(([0], np.cumsum([len(item.steps) for _, item in items])))
    seen_ns = np.concatenate(([0], rows[:-1, END]))
    seen_ns[first[:-1]] = [item.begin_ns for _, item in items]
    if np.any(rows[:, END] < seen_ns):  # something ends later than what comes after it
        for (_, item), low, high in zip(items, first, first[1:], strict=False):
            seen_ns[low:high] = np.maximum.accumulate(np.append(item.begin_ns, rows[low : high - 1, END]))
    distance = (rows[:, PEER] - work.place) % flags.ranks
    wanted = np.isin(distance, list(distances)) & (rows[:, KIND] != WAIT)
    kept = np.flatnonzero(wanted & ((rows[:, KIND] != DATA) | (rows[:, SIZE] > 0)))
    rows, distance, time_ns = rows[kept], distance[kept], np.maximum(rows[:, START], seen_ns)[kept]
    return Issues(
        items, np.searchsorted(kept, first).tolist(), (time_ns - epoch_ns) * 1000, distance, rows[:, SIZE],
        _slots(flags, rows, distance),
    )  # fmt: skip


def grown_issues(grown: list[tuple[Lane, Item, Acts]], distances: frozenset[int], epoch_ns: int) -> Issues:
    """Return the same of acts that were carried along to another GPU count."""
    rows = np.concatenate([np.zeros((0, 8), np.int64), *(acts.rows for _, _, acts in grown)])
    first = np.concatenate(([0], np.cumsum([len(acts) for _, _, acts in grown])))
    begin_ns = np.repeat([item.begin_ns - epoch_ns for _, item, _ in grown], np.diff(first))
    kept = np.flatnonzero((rows[:, 0] == 0) & np.isin(rows[:, 4], list(distances)))
    time_ps = (rows[:, 2] + begin_ns * 1000)[kept]
    return Issues([(lane, item) for lane, item, _ in grown], np.searchsorted(kept, first).tolist(), time_ps,
                  rows[kept, 4], rows[kept, 5], rows[kept, 6])  # fmt: skip
