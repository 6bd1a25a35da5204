"""How a wait on a flag is served, and what it costs: spin, monitor, or ideal.

Polls are counted in closed form, never simulated one by one.
"""

from dataclasses import dataclass
from enum import IntEnum


class Policy(IntEnum):
    """The kind of a wait policy."""

    IDEAL = 0
    SPIN = 1
    MONITOR = 2


@dataclass(frozen=True)
class WaitPolicy:
    """A wait policy; its parameters in picoseconds.

    IDEAL wakes on arrival and reads nothing. SPIN polls at start + k * period_ps and wakes at the first poll at
    or after the arrival. MONITOR reads once to arm, which takes arm_ps, and wakes wake_ps after the arrival
    (SyncMon: Dutu et al., "Independent Forward Progress of Work-groups", ISCA 2020).
    A wait that is satisfied when it begins counts one read under SPIN and MONITOR, and takes no time.
    """

    kind: Policy
    period_ps: int = 0
    wake_ps: int = 0
    arm_ps: int = 0

    def serve(self, start_ps: int, arrival_ps: int) -> tuple[int, int]:
        """Return (time that the waiter goes on, flag reads) of a wait that blocked at `start_ps`."""
        if self.kind is Policy.SPIN:
            turns = -(-(arrival_ps - start_ps) // self.period_ps)
            return start_ps + turns * self.period_ps, turns + 1
        if self.kind is Policy.MONITOR:
            return max(arrival_ps, start_ps + self.arm_ps) + self.wake_ps, 1
        return arrival_ps, 0


IDEAL = WaitPolicy(Policy.IDEAL)


def spin(period_ns: float) -> WaitPolicy:
    """Return a policy that polls every `period_ns`."""
    return WaitPolicy(Policy.SPIN, period_ps=max(1, round(period_ns * 1000)))


def monitor(wake_ns: float = 0.0, arm_ns: float = 0.0) -> WaitPolicy:
    """Return a policy that arms a monitor once and wakes `wake_ns` after the arrival."""
    return WaitPolicy(Policy.MONITOR, wake_ps=round(wake_ns * 1000), arm_ps=round(arm_ns * 1000))
