"""What a run gave: states, times, and what was waited for. `result_tables` makes the tables of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .device import NO_LIMITS, Device
from .engine.layout import QUEUED, Final
from .fabric import Fabric
from .program import Ints, Mode, Program
from .waiting import WaitPolicy

if TYPE_CHECKING:
    from ..schemas import ResultsWriter
    from .engine.columns import Columns


@dataclass(frozen=True)
class Outcome:
    """A run's outcome. Times are integer picoseconds; rows are in canonical order (agent, then program)."""

    program: Program
    fabric: Fabric
    wait: WaitPolicy
    segment_bytes: int
    final: Final
    device: Device = NO_LIMITS

    @property
    def makespan_ps(self) -> int:
        """When the last agent ended; of a stalled run, when the last call ended."""
        ends = (self.final.agents["end_ps"], self.final.rows.calls["end_ps"])
        return int(max(end.max(initial=0) for end in ends))

    @property
    def recorded(self) -> bool:
        """Whether messages and waits were recorded."""
        return len(self.final.rows.messages) == self.program.messages

    def blocked(self) -> list[tuple[int, int, int, int]]:
        """Return (agent, flag slot, expected, seen) of every agent that waits for a flag."""
        agents = self.final.agents
        found = np.flatnonzero(agents["flag"] >= 0)
        flag = agents["flag"][found]
        slot = flag - self.program.flag_first[self.program.agent_endpoint[found]]
        seen = self.final.flags[flag]
        columns = (found, slot, agents["expected"][found], seen)
        return [(int(a), int(s), int(e), int(n)) for a, s, e, n in zip(*columns, strict=True)]

    def queued(self) -> Ints:
        """Return the workgroups that are ready and have no slot."""
        return np.flatnonzero(self.final.agents["flag"] == QUEUED)

    @cached_property
    def activity_times(self) -> tuple[Ints, Ints]:
        """(activities,) start and end of each activity: first call's start, last call's end."""
        activity = self.program.calls["activity"]
        inside = activity >= 0
        size = len(self.program.activities["agent"])
        start = np.full(size, np.iinfo(np.int64).max)
        end = np.full(size, -1)
        np.minimum.at(start, activity[inside], self.final.rows.calls["start_ps"][inside])
        np.maximum.at(end, activity[inside], self.final.rows.calls["end_ps"][inside])
        return np.where(end < 0, 0, start), np.maximum(end, 0)

    @cached_property
    def columns(self) -> "Columns":
        """What the program says of messages and waits, row by row."""
        from .engine.columns import Columns

        return Columns(self.program)

    @property
    def _observes(self) -> bool:
        return bool((self.program.ops["mode"] == Mode.OBSERVE).any())

    @cached_property
    def observed_ps(self) -> Ints:
        """(waits,) when each OBSERVE wait's flag reached its count; -1: never, or another kind of wait."""
        arrival: Ints = np.full(len(self.final.rows.waits), -1, np.int64)
        if not self._observes:
            return arrival
        waits, rows, first = self.program.wait_rows(), self.program.message_rows(), self.program.flag_first
        wanted = np.flatnonzero(waits["mode"] == Mode.OBSERVE)
        raising = np.flatnonzero(rows["flag"] >= 0)
        flag = first[rows["destination"][raising]] + rows["flag"][raising]
        landed = self.final.rows.messages["arrival_ps"][raising]
        order = np.lexsort((landed, flag))
        flag, landed = flag[order], landed[order]
        own = first[self.program.agent_endpoint[waits["agent"][wanted]]] + waits["flag"][wanted]
        expected = waits["expected"][wanted]
        at = np.searchsorted(flag, own) + expected - 1
        reached = (expected > 0) & (at < np.searchsorted(flag, own, side="right"))
        arrival[wanted[reached]] = landed[at[reached]]
        arrival[wanted[expected <= 0]] = 0
        return arrival

    def causality_violations(self) -> int:
        """Return how many OBSERVE waits the capture ended before their simulated arrival (recorded runs only)."""
        if not self.recorded or not self._observes:
            return 0
        waits = self.program.wait_rows()
        observed = waits["mode"] == Mode.OBSERVE
        arrival, deadline = self.observed_ps[observed], waits["deadline_ps"][observed]
        return int(((arrival < 0) | (arrival > deadline)).sum())

    def write(self, writer: "ResultsWriter") -> None:
        """Write all result tables, the large ones a chunk of rows at a time."""
        from .result_tables import write

        write(self, writer)

    def tables(self) -> Mapping[str, Any]:
        """Return the result tables by name, each a mapping of columns or an Arrow table.

        Each is made anew when it is taken, so that large runs hold one at a time.
        """
        from .result_tables import tables

        return tables(self)
