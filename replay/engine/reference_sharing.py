"""What waits and GPUs share, in the reference engine: monitors and their lines, slots, memory's bandwidth.

One `Gpu` an endpoint. docs/waiting.md has the equations.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from . import layout
from .serving import RESIDENT, Serving

MILLION = 1_000_000


@dataclass
class Monitor:
    """A waiter's monitor: armed `lead_ps` and the arm cost after the wait's start."""

    serving: Serving
    armed_ps: int  # when the waiter read the flag for the last time before it sleeps; then it arms
    wakes: int = 0
    woken_ps: int = -1  # the write, or the end of arming, that woke it last

    @property
    def read_ps(self) -> int:
        """When the waiter read the flag last, or will."""
        return self.woken_ps + self.serving.wake_ps if self.wakes else self.armed_ps

    def asleep(self, now: int) -> bool:
        """Whether a write now wakes it, rather than be seen by a read to come."""
        return now > self.armed_ps and (not self.serving.line_flags or now > self.read_ps)

    def wake(self, now: int, turn: int) -> None:
        """Wake it, as the write's `turn`-th."""
        armed = self.read_ps + self.serving.arm_ps
        self.woken_ps = max(now + turn * self.serving.stagger_ps, armed)
        self.wakes += 1


@dataclass
class Compute:
    """A compute that carries bytes: done when its duration is over and memory's clock has reached `work`."""

    agent: int
    work: int
    end_ps: int


@dataclass
class Gpu:
    """One endpoint: its monitors, its slots, its memory.

    `wake(time_ps, agent)` makes an agent due, `remind(time_ps)` calls `served` then.
    """

    serving: Serving
    wake: Callable[[int, int], None]
    remind: Callable[[int], None]
    waiting: layout.Records
    agents: layout.Records
    entries: int = 0
    slots: int = 0
    ready: deque[int] = field(default_factory=deque)
    now_ps: int = 0
    clock: int = 0  # millionths of a byte that memory has served to each elastic user
    rate: int = 0  # MB/s to each of them
    computing: list[Compute] = field(default_factory=list)
    writes_end: int = 0
    writing: bool = False
    spinners: int = 0
    boundary_ps: int = 0  # end of the round of polls in progress
    round_ps: int = 0
    round: int = 0
    due_ps: int = -1

    # Slots

    def enter(self, agent: int, now: int) -> None:
        """Give a workgroup a slot, or put it in line."""
        if self.slots:
            self.slots -= 1
            self._put(agent, now, now)
        else:
            self.waiting["ready_ps"][agent] = now
            self.agents["flag"][agent] = layout.QUEUED
            self.ready.append(agent)

    def leave(self, now: int) -> None:
        """Give a slot to the workgroup that is ready for the longest time."""
        if self.ready:
            agent = self.ready.popleft()
            self._put(agent, int(self.waiting["ready_ps"][agent]), now)
        else:
            self.slots += 1

    def _put(self, agent: int, ready: int, now: int) -> None:
        begin = now + self.serving.switch_ps
        self.waiting["place"][agent] = RESIDENT
        self.agents["flag"][agent] = layout.BLOCKED_NOT
        self.waiting["slot_ps"][agent] += begin - ready
        self.wake(begin, agent)

    # Memory

    def settle(self, now: int) -> None:
        """Bring memory's clock and the round of polls in progress to `now`."""
        self.clock += (now - self.now_ps) * self.rate * bool(self.elastic)
        self.now_ps = now
        while self.spinners and self.boundary_ps < now:
            self.boundary_ps += self.round_ps
            self.round += 1

    @property
    def elastic(self) -> int:
        """Users that take what they get: computes, and incoming writes as one."""
        return len(self.computing) + self.writing

    def divide(self) -> None:
        """Share the rate out anew: max-min fair, where a spin wants no more than a poll a period."""
        wanted = max(1, self.serving.poll_bytes * MILLION // self.serving.period_ps)
        each = max(1, min(wanted, self.serving.rate // max(1, self.elastic + self.spinners)))
        slow = -(-self.serving.poll_bytes * MILLION // each)
        self.round_ps = self.serving.period_ps if each == wanted else slow
        if not self.elastic:
            self.clock = self.writes_end = 0
            self.due_ps = -1
            return
        self.rate = max(1, (self.serving.rate - self.spinners * each) // self.elastic)
        ends = [compute.work for compute in self.computing] + [self.writes_end] * self.writing
        due = self.now_ps + max(0, -(-(min(ends) - self.clock) // self.rate))
        if due != self.due_ps:
            self.due_ps = due
            self.remind(due)

    def served(self, now: int) -> None:
        """Let go what memory has served by now; nothing where the reminder is out of date."""
        if now != self.due_ps:
            return
        self.due_ps = -1
        self.settle(now)
        self.writing = self.writing and self.writes_end > self.clock
        for compute in [c for c in self.computing if c.work <= self.clock]:
            self.computing.remove(compute)
            self.agents["compute_ps"][compute.agent] += max(0, now - compute.end_ps)
            self.wake(max(now, compute.end_ps), compute.agent)
        self.divide()

    def write(self, size_bytes: int, now: int) -> None:
        """Let memory take the bytes of a write that has landed."""
        self.settle(now)
        self.writing = True
        self.writes_end = max(self.clock, self.writes_end) + size_bytes * MILLION
        self.divide()

    def compute(self, agent: int, duration_ps: int, size_bytes: int, now: int) -> None:
        """Begin a compute that carries bytes."""
        self.settle(now)
        self.computing.append(Compute(agent, self.clock + size_bytes * MILLION, now + duration_ps))
        self.divide()

    def spin(self, now: int) -> int:
        """Let one more wait spin; return the round after which its own begin."""
        self.settle(now)
        if not self.spinners:
            self.boundary_ps = now
        self.spinners += 1
        self.divide()
        return self.round - (self.boundary_ps > now)

    def stop(self, now: int) -> None:
        """Let one wait fewer spin."""
        self.settle(now)
        self.spinners -= 1
        self.divide()
