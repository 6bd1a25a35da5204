"""Scripts: what the agents of one captured rank do, as blocks that all its copies share.

`closed` is for GPUs that run on their own (dependent mode, targets): an item waits for its predecessors, then its
gap passes, then it works. `timed` is for recorded times: every item begins at its captured start, waits only
observe. `eidolon` keeps writes to chosen distances, at their captured times. Where there are eidolons, they have
one slot for each class of flags: nobody waits for them there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..builder import Builder, blank, row, rows_of
from ..program import OP_COLUMNS, Ints, Mode, Op, compute, until, wait, write
from .acts import Grower, Traffic
from .captured import Act, Acts, Issues
from .edges import NONE, Pair, Signals, signals
from .items import Item, RankWork, finish_ns
from .plan import Plan

Ops = list[dict[str, int]]
Distances = frozenset[int]

NO_BLOCK = -1
OPERATION, DURATION, BYTES, TO, SLOT, EXPECTED = (
    list(OP_COLUMNS).index(name) for name in ("kind", "duration_ps", "size_bytes", "peer", "flag", "expected")
)
LOCAL_PS = 1  # the least that a write takes; captured instants are no finer, so it violates no causality


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of an agent: blocks called before it, as it, and where it is a collective, after its expansion.

    `alone` is the block that stands for a collective which cannot be expanded: its captured duration.
    """

    item: Item
    before: int
    body: int
    alone: int = NO_BLOCK
    after: int = NO_BLOCK


@dataclass(frozen=True)
class AgentScript:
    """One agent's name and entries."""

    name: str
    entries: list[Entry]


@dataclass
class Scripter:
    """Writes scripts into `builder`; `event_first` and `flag_first` are the first slots of both kinds of flags.

    `pairs`: by rank, which of the event slots joins a pair of lanes.
    """

    builder: Builder
    plan: Plan
    grower: Grower
    event_first: int
    flag_first: int
    pairs: dict[int, dict[Pair, int]]

    def closed(self, work: RankWork, targets: Distances | None = None) -> list[AgentScript]:
        """Write the script of a rank that runs on its own; `targets`: distances to others that do, None: all."""
        found = signals(work, self.pairs[work.rank])
        return [
            AgentScript(
                lane.name, [self._closed(item, found.get(id(item), NONE), t, targets) for item, t in traffic]
            )
            for lane, traffic in ((lane, self.grower.grow_lane(work, lane)) for lane in work.lanes)
        ]

    def timed(self, work: RankWork) -> list[AgentScript]:
        """Write the script of a rank that does everything at its captured times.

        Spans that overlap on a lane run on agents of their own, and so does every collective, so that a predicted
        end after the captured one delays nothing recorded; what follows a collective observes its end.
        """
        observed = Observers(work)
        scripts = []
        for lane in work.lanes:
            agents: list[tuple[int, list[Entry]]] = []
            for item, traffic in self.grower.grow_lane(work, lane):
                if item.parts:
                    entry = self.joined(item, observed.slots.get(id(item)))
                    scripts.append(AgentScript(f"{lane.name}: {item.parts[0].operation}", [entry]))
                    continue
                at = next(
                    (i for i, (free_ns, _) in enumerate(agents) if free_ns <= item.start_ns), len(agents)
                )
                entries = agents[at][1] if at < len(agents) else []
                agents[at : at + 1] = [(max(item.end_ns, item.start_ns), entries)]
                entries.append(self._timed(item, traffic, observed))
            scripts += [AgentScript(lane.name, entries) for _, entries in agents]
        return scripts

    def joined(self, item: Item, slot: int | None = None) -> Entry:
        """Write a collective that its rank joins at its captured start; its end raises local `slot`."""
        start = self._block([until(self._ps(item.start_ns))])
        alone = self._body([compute((item.end_ns - item.start_ns) * 1000)])
        return Entry(item, start, NO_BLOCK, alone, self._block(self._raise([] if slot is None else [slot])))

    def eidolon(self, work: RankWork, targets: Mapping[int, int]) -> list[AgentScript]:
        """Write the script of a rank of which only its writes to `targets`, GPUs by distance, remain."""
        issues = self.grower.issued(work, frozenset(targets), self.builder.epoch_ns)
        ops = self._issued(issues, targets)
        entries: dict[str, list[Entry]] = {}
        for (lane, item), low, high in zip(issues.items, issues.first, issues.first[1:], strict=False):
            if low < high:
                block = self.builder.rows(ops[2 * low : 2 * high])
                entries.setdefault(lane.name, []).append(Entry(item, NO_BLOCK, block))
        return [AgentScript(name, found) for name, found in entries.items()]

    def _issued(self, issues: Issues, targets: Mapping[int, int]) -> Ints:
        """Return two operations for each write: idle until its time, and post it."""
        ops = blank(2 * len(issues.slot))
        idle, post = ops[::2], ops[1::2]
        idle[:] = row(until(0))
        idle[:, DURATION] = issues.time_ps
        post[:] = row(write(0, 0))
        post[:, BYTES], post[:, SLOT] = (
            issues.size_bytes,
            np.where(issues.slot < 0, -1, self.flag_first + issues.slot),
        )
        for distance, gpu in targets.items():
            post[issues.distance == distance, TO] = gpu
        return ops

    def _ps(self, time_ns: int) -> int:
        return (time_ns - self.builder.epoch_ns) * 1000

    def _block(self, ops: Ops) -> int:
        return self.builder.block(ops) if ops else NO_BLOCK

    @cached_property
    def _nothing(self) -> int:
        return self.builder.block([])

    def _body(self, ops: Ops) -> int:
        """Return a block, be it empty: calls of it say when the item was."""
        return self.builder.block(ops) if ops else self._nothing

    def _closed(self, item: Item, signal: Signals, traffic: Traffic, targets: Distances | None) -> Entry:
        before: Ops = [wait(self.event_first + slot, count) for slot, count in signal.wait_at_start]
        if item.gap_ns < 0:
            before.append(until(self._ps(item.begin_ns)))
        elif item.gap_ns:
            before.append(compute(item.gap_ns * 1000))
        start = self._raise(signal.raise_at_start)
        held = [wait(self.event_first + slot, count) for slot, count in signal.wait_at_end]
        end = self._raise(signal.raise_at_end)
        rest = self._compute(item, traffic.rest_ps)
        if item.parts:
            return Entry(
                item, self._block(before), self._block(start), self._body(rest), self._block(held + end)
            )
        if not traffic.acts:
            return Entry(item, self._block(before), self._body(start + held + rest + end))
        work = (rows_of(start), self._acts(item, traffic.acts, targets), rows_of(held + rest + end))
        return Entry(item, self._block(before), self.builder.rows(np.concatenate(work)))

    def _acts(self, item: Item, acts: Acts, targets: Distances | None) -> Ints:
        """Return the operations of an item's acts, and the compute before each."""
        wait_, before_ps, _, _, distance, size_bytes, slot, expected = acts.rows.T
        up, down = item.factor.numerator, item.factor.denominator
        if (up, down) != (1, 1):
            before_ps = np.array([duration * up // down for duration in before_ps.tolist()], np.int64)
        if targets is not None:
            told = (wait_ == 0) & (slot >= 0) & ~np.isin(distance, list(targets))
            slot = np.where(told, slot // self.grower.gpus, slot)
        ops = blank(2 * len(acts))
        passing, acting = ops[::2], ops[1::2]
        passing[:] = row(compute(0))
        passing[:, DURATION] = before_ps
        acting[:] = np.where(
            wait_[:, None] == 1, row(wait(0, 0, mode=Mode.POLL)), row(write(0, 0, relative=True))
        )
        acting[:, SLOT] = np.where(slot < 0, -1, self.flag_first + slot)
        acting[:, TO], acting[:, BYTES], acting[:, EXPECTED] = distance, size_bytes, expected
        kept: Ints = ops[(ops[:, OPERATION] != Op.COMPUTE) | (ops[:, DURATION] > 0)]
        return kept

    def _timed(self, item: Item, traffic: Traffic, observed: "Observers") -> Entry:
        """Every time is the captured one: compute fills the time between, and waits take what they took."""
        ops: Ops = []
        for act in traffic.acts:
            ops += self._compute_exactly(act.before_ps)
            if act.wait:
                slot, end_ps = self.flag_first + act.slot, self._ps(item.begin_ns) + act.end_ps
                ops.append(wait(slot, act.expected, mode=Mode.OBSERVE, deadline_ps=end_ps + LOCAL_PS))
                ops.append(until(end_ps))
            else:
                ops.append(self._write(act))
        rest_ps = traffic.rest_ps if traffic.acts else (item.end_ns - item.start_ns) * 1000
        at_start, at_end = observed.of(item)
        observing = [self._observe(slot, item.start_ns) for slot in at_start]
        closing = [self._observe(slot, item.end_ns) for slot in at_end]
        body = self._body(observing + ops + self._compute_exactly(rest_ps) + closing)
        return Entry(item, self._block([until(self._ps(item.start_ns))]), body)

    def _observe(self, slot: int, captured_ns: int) -> dict[str, int]:
        deadline_ps = self._ps(captured_ns) + LOCAL_PS
        return wait(self.event_first + slot, 1, mode=Mode.OBSERVE, deadline_ps=deadline_ps)

    def _write(self, act: Act) -> dict[str, int]:
        flag = self.flag_first + act.slot if act.slot >= 0 else -1
        return write(act.distance, act.size_bytes, flag, relative=True)

    def _raise(self, slots: list[int]) -> Ops:
        return [write(0, 0, self.event_first + slot, relative=True) for slot in slots]

    def _compute(self, item: Item, duration_ps: int) -> Ops:
        """Return compute times the item's factor."""
        return self._compute_exactly(duration_ps * item.factor.numerator // item.factor.denominator)

    def _compute_exactly(self, duration_ps: int) -> Ops:
        return [compute(duration_ps)] if duration_ps > 0 else []


class Observers:
    """In timed mode, which items observe the end of which collectives: a slot a collective, raised once."""

    def __init__(self, work: RankWork) -> None:
        self.slots: dict[int, int] = {}
        self._start: dict[int, list[int]] = {}
        self._end: dict[int, list[int]] = {}
        for lane in work.lanes:
            for before, after in zip(lane.items, lane.items[1:], strict=False):
                if before.parts and not after.parts and finish_ns(before) <= after.start_ns:
                    self._start.setdefault(id(after), []).append(self._slot(before))
        for edge in work.edges:
            if edge.before.parts and not edge.after.parts and not edge.from_start:
                side = self._end if edge.holds_end else self._start
                side.setdefault(id(edge.after), []).append(self._slot(edge.before))

    def of(self, item: Item) -> tuple[list[int], list[int]]:
        """Return the slots that `item` observes at its start and at its end."""
        return self._start.get(id(item), []), self._end.get(id(item), [])

    def _slot(self, item: Item) -> int:
        return self.slots.setdefault(id(item), len(self.slots))
