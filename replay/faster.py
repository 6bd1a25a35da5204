"""What a cause of a run's length would be with it twice as fast: another program, fabric or wait policy."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from .fabric import Fabric
from .program import ACTIVITY_KINDS, Ints, Mode, Op, Program
from .waiting import WaitPolicy

Part = Literal["compute", "rate", "latency", "poll", "wake"]
_PARTS: dict[str, Part] = {
    **dict.fromkeys((*ACTIVITY_KINDS, "gap"), "compute"),
    "queueing": "rate",
    "serialisation": "rate",
    "latency": "latency",
    "polling": "poll",
    "wake latency": "wake",
}


@dataclass(frozen=True)
class Speedup:
    """What is made twice as fast: of `compute` a kind and name, of `rate` and `latency` links by their names."""

    part: Part
    what: str = ""
    name: str = ""
    links: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.part == "compute":
            return "half the time"
        if self.part in ("rate", "latency"):
            what = "twice the rate" if self.part == "rate" else "half the latency"
            return what if len(self.links) == 1 else f"{what}, {len(self.links):,} links"
        return "polls twice as often" if self.part == "poll" else "half the wake latency"

    def covers(self, what: str, name: str, link: str | None) -> bool:
        """Whether a stretch of the critical path is of what becomes faster."""
        if _PARTS.get(what) != self.part:
            return False
        if self.part == "compute":
            return (what, name) == (self.what, self.name)
        return link in self.links if self.links else True


def speedup(what: str, name: str, links: Collection[str]) -> Speedup | None:
    """Return what halves a cause, by its `what` and `name` and the links where it acts.

    None where nothing does by itself: delivery in an ideal fabric, acknowledgements, ordering.
    """
    part = _PARTS.get(what)
    if part is None:
        return None
    if part == "compute":
        return Speedup(part, what, name)
    return Speedup(part, links=frozenset(links) if part in ("rate", "latency") else frozenset())


def faster_fabric(fabric: Fabric, change: Speedup) -> Fabric:
    """Return the fabric with twice the rate, or half the latency (at least 1 ps), of the links named."""
    named = np.array([fabric.link_name(link) in change.links for link in range(fabric.links)], bool)
    if change.part == "rate":
        return replace(fabric, rate_mb_per_s=np.where(named, 2 * fabric.rate_mb_per_s, fabric.rate_mb_per_s))
    if change.part == "latency":
        half = np.maximum(fabric.latency_ps // 2, 1)
        return replace(fabric, latency_ps=np.where(named, half, fabric.latency_ps))
    return fabric


def faster_policy(policy: WaitPolicy, change: Speedup) -> WaitPolicy:
    """Return the wait policy with half its gaps between polls (at least 1 ps), or half its wake latency."""
    if change.part == "wake":
        return replace(policy, wake_ps=policy.wake_ps // 2)
    if change.part == "poll":
        gaps = {
            n: max(1, getattr(policy, n) // 2)
            for n in ("period_ps", "cap_ps", "overflow_ps")
            if getattr(policy, n)
        }
        return replace(policy, table=tuple((max(1, gap // 2), n) for gap, n in policy.table), **gaps)
    return policy


def _half(gap_ps: int) -> int:
    return max(1, gap_ps // 2) if gap_ps else 0


def faster_program(program: Program, change: Speedup) -> Program:
    """Return the program with half the compute in the activities, or the gaps, that `change` names.

    The program itself, where that is none: idling until a captured time is no compute.
    """
    if change.part != "compute":
        return program
    calls = _gaps(program, change.name) if change.what == "gap" else _calls(program, change)
    used, place = np.unique(program.calls["block"][calls], return_inverse=True)
    first, size = program.block_first[used], np.diff(program.block_first)[used]
    ops = np.repeat(first - np.cumsum(size) + size, size) + np.arange(size.sum())
    added = {name: column[ops] for name, column in program.ops.items()}
    spent = (added["kind"] == Op.COMPUTE) & (added["mode"] == Mode.FOR)
    if not (added["duration_ps"][spent] > 1).any():
        return program
    added["duration_ps"] = np.where(spent, added["duration_ps"] // 2, added["duration_ps"])
    block = program.calls["block"].copy()
    block[calls] = len(program.block_first) - 1 + place
    end = program.block_first[-1]
    return replace(
        program,
        calls={**program.calls, "block": block},
        ops={name: np.concatenate((program.ops[name], column)) for name, column in added.items()},
        block_first=np.concatenate((program.block_first, end + np.cumsum(size))),
    )


def _calls(program: Program, change: Speedup) -> Ints:
    """Return the calls of all activities of a kind and name."""
    kind = program.activities["kind"] == ACTIVITY_KINDS.index(change.what)
    named = np.isin(program.activities["name"], _names(program, change.name))
    activity = program.calls["activity"]
    return np.flatnonzero((activity >= 0) & _at(kind & named, activity))


def _gaps(program: Program, name: str) -> Ints:
    """Return the calls between activities that the critical path names so: `before X`, `after X`, or the agent."""
    activity, agent = program.calls["activity"], program.calls["agent"]
    calls = np.arange(len(activity))
    held = np.where(activity >= 0, calls, len(calls))
    after = np.minimum.accumulate(held[::-1])[::-1]  # the next call in an activity
    before = np.maximum.accumulate(np.where(activity >= 0, calls, -1))
    padded = np.append(agent, -1)
    follows, precedes = padded[after] == agent, padded[before] == agent
    labels = program.activities["name"]
    found = np.zeros(len(calls), bool)
    for word, there, call in (("before ", follows, after), ("after ", precedes & ~follows, before)):
        if name.startswith(word):
            wanted = np.isin(labels, _names(program, name.removeprefix(word)))
            found |= there & _at(wanted, np.append(activity, -1)[call])
    alone = np.isin(program.agent_name[agent], _names(program, name))
    return np.flatnonzero((activity < 0) & (found | (alone & ~follows & ~precedes)))


def _names(program: Program, name: str) -> list[int]:
    return [at for at, known in enumerate(program.names) if known == name]


def _at(mask: npt.NDArray[np.bool_], index: Ints) -> npt.NDArray[np.bool_]:
    """Return `mask` at `index`; False at -1."""
    padded: npt.NDArray[np.bool_] = np.append(mask, False)[index]
    return padded
