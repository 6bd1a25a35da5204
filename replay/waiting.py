"""How a wait on a flag is served, and what it costs: the equations of docs/waiting.md.

Polls are counted in closed form, never simulated one by one.
"""

from dataclasses import dataclass
from enum import IntEnum


class Policy(IntEnum):
    """The kind of a wait policy."""

    IDEAL = 0
    SPIN = 1
    MONITOR = 2
    BACKOFF = 3
    TABLE = 4


Rows = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class WaitPolicy:
    """A wait policy; its times in picoseconds.

    IDEAL wakes on arrival and reads nothing. The others are a table of polls, rows of (gap, times): after the
    first poll, at the wait's start, comes one `gap` after the other, each `times` over; times 0 is for ever. A
    waiter goes on with the first poll at or after the arrival; when the rows end, it arms a monitor.

    SPIN has one row, (`period_ps`, 0). BACKOFF doubles its gap from `period_ps` up to `cap_ps`. TABLE has
    `table`. MONITOR has no row: the first read arms it, which takes `arm_ps`, and the waiter goes on `wake_ps`
    after the arrival (SyncMon: Dutu et al., "Independent Forward Progress of Work-groups", ISCA 2020). A wait
    that is satisfied when it begins counts one read under all but IDEAL, and takes no time.

    Of monitors: with `line_flags` 0 the monitor itself compares (SyncMon's condition). Otherwise, as with
    mwait, any write to a line of so many flags wakes, and each wake costs a read, and rearming where that was
    in vain. A GPU has `entries` monitors (0: as many as it takes); a wait that finds none free spins every
    `overflow_ps`. With `stagger_ps` one write's wakes follow one another at this distance (wake-one), longest
    waiter first; 0: wake-all. A wait that `yields` gives its workgroup's slot away (`Device.slots`).

    `name` is the entry point that a policy came from. To try another meaning, subclass and override `serve`:
    the reference engine calls it, the compiled one refuses it by name.
    """

    kind: Policy
    period_ps: int = 0
    wake_ps: int = 0
    arm_ps: int = 0
    cap_ps: int = 0
    table: Rows = ()
    line_flags: int = 0
    entries: int = 0
    overflow_ps: int = 0
    stagger_ps: int = 0
    yields: bool = False
    name: str = ""

    @property
    def rows(self) -> Rows:
        """The table of polls."""
        if self.kind is Policy.SPIN:
            return ((self.period_ps, 0),)
        if self.kind is not Policy.BACKOFF:
            return self.table
        gap, rows = self.period_ps, []
        while gap < self.cap_ps:
            rows.append((gap, 1))
            gap *= 2
        return (*rows, (min(gap, self.cap_ps), 0))

    @property
    def monitored(self) -> bool:
        """Whether waits end in a monitor."""
        return self.kind in (Policy.MONITOR, Policy.TABLE) and not (self.rows and self.rows[-1][1] == 0)

    @property
    def lead_ps(self) -> int:
        """Time that a wait polls before it arms a monitor."""
        return sum(gap * times for gap, times in self.rows) if self.monitored else 0

    @property
    def lead_reads(self) -> int:
        """Polls in that time, the first one apart."""
        return sum(times for _, times in self.rows) if self.monitored else 0

    @property
    def shared(self) -> bool:
        """Whether one wait's service depends on other waits."""
        return bool(self.monitored and (self.line_flags or self.entries or self.stagger_ps or self.yields))

    def problem(self) -> str:
        """Return what is wrong with the parameters, and the remedy; empty where nothing is."""
        if self.kind in (Policy.SPIN, Policy.BACKOFF) and self.period_ps < 1:
            return "a spin needs a period of at least 1 ps; --poll-period sets it"
        if self.kind is Policy.BACKOFF and self.cap_ps < self.period_ps:
            return "a back-off's cap is its longest gap: give at least the first one"
        if any(gap < 1 or times < 0 for gap, times in self.rows) or any(not n for _, n in self.rows[:-1]):
            return "rows of a wait policy are (gap of at least 1 ps, times); only the last may have times 0"
        if self.kind is Policy.TABLE and not self.table:
            return "a table has at least one row, such as `table 100ns`"
        negative = min(self.wake_ps, self.arm_ps, self.line_flags, self.entries, self.stagger_ps) < 0
        if negative:
            return "parameters of a monitor are 0 or more"
        if self.monitored and self.entries and self.overflow_ps < 1:
            return (
                "monitors that can run out need a spin to fall back to; give overflow a period, such as 200ns"
            )
        if self.yields and self.lead_ps:
            return "a policy that polls first cannot yield its slot"
        return ""

    def serve(self, start_ps: int, arrival_ps: int) -> tuple[int, int]:
        """Return (time that the waiter goes on, flag reads) of a wait that blocked at `start_ps`, alone."""
        if self.kind is Policy.IDEAL:
            return arrival_ps, 0
        time_ps, reads = start_ps, 1
        for gap, times in self.rows:
            turns = -(-(arrival_ps - time_ps) // gap)
            if times == 0 or turns <= times:
                return time_ps + turns * gap, reads + turns
            time_ps += times * gap
            reads += times
        return max(arrival_ps, time_ps + self.arm_ps) + self.wake_ps, reads


IDEAL = WaitPolicy(Policy.IDEAL)


def spin(period_ns: float) -> WaitPolicy:
    """Return a policy that polls every `period_ns`."""
    return WaitPolicy(Policy.SPIN, period_ps=max(1, round(period_ns * 1000)))


def backoff(period_ns: float, cap_ns: float) -> WaitPolicy:
    """Return a policy whose gap between polls doubles from `period_ns` up to `cap_ns`."""
    return WaitPolicy(Policy.BACKOFF, period_ps=max(1, round(period_ns * 1000)), cap_ps=round(cap_ns * 1000))


def monitor(
    wake_ns: float = 0.0,
    arm_ns: float = 0.0,
    *,
    line_flags: int = 0,
    entries: int = 0,
    overflow_ns: float = 0.0,
    stagger_ns: float = 0.0,
    yields: bool = False,
) -> WaitPolicy:
    """Return a policy that arms a monitor and wakes `wake_ns` after the arrival; see `WaitPolicy` for the rest."""
    return WaitPolicy(
        Policy.MONITOR, wake_ps=round(wake_ns * 1000), arm_ps=round(arm_ns * 1000), line_flags=line_flags,
        entries=entries, overflow_ps=round(overflow_ns * 1000), stagger_ps=round(stagger_ns * 1000), yields=yields,
    )  # fmt: skip


def polls_table(rows: Rows, wake_ns: float = 0.0, arm_ns: float = 0.0) -> WaitPolicy:
    """Return a policy of `rows` (gap in ns, times), the last for ever with times 0; else a monitor follows."""
    table = tuple((round(gap * 1000), times) for gap, times in rows)
    return WaitPolicy(Policy.TABLE, table=table, wake_ps=round(wake_ns * 1000), arm_ps=round(arm_ns * 1000))
