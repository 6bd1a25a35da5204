"""How waits are served, as the engines read it: a policy's table, and what waits and GPUs share.

Fields of `layout.WAITING` (of an agent): how its wait is served, when its monitor was last triggered and how often,
which of its GPU's rounds its spin began in, what its compute still asks of memory (`work`, on the memory's clock)
and when its duration is over, whether it has a slot. Of `layout.GPU`: memory's clock and the users of it, the
round of polls in progress, free monitors and slots, and the list of workgroups that are ready for a slot.
"""

from typing import NamedTuple

import numpy as np

from ..device import Device
from ..program import Ints, Program
from ..waiting import Policy, WaitPolicy
from . import layout
from .layout import QUEUED, TIMERS, Sim

NOT_WAITING, EVENT, SPINNING, MONITORED, OVERFLOW = range(5)  # how a wait is served
UNLIMITED, RESIDENT, AWAY = range(3)  # places: needs no slot, has one, has none


class Serving(NamedTuple):
    """A wait policy and the GPUs' limits. `rows` (n, 2): gaps and times; `lines` (flags,): each flag's line."""

    polled: int
    monitored: int
    lead_ps: int
    lead_reads: int
    arm_ps: int
    wake_ps: int
    line_flags: int
    entries: int
    stagger_ps: int
    yields: int
    period_ps: int  # of a spin, or of the overflow's
    overflow_ps: int
    switch_ps: int
    rate: int  # of memory
    poll_bytes: int
    rows: Ints
    lines: Ints


def serving(program: Program, policy: WaitPolicy, device: Device) -> Serving:
    """Return what the engines read of a policy and the GPUs' limits."""
    rows = np.array(policy.rows, np.int64).reshape(-1, 2)
    spin_ps = policy.period_ps if policy.kind is Policy.SPIN else policy.overflow_ps
    return Serving(
        int(policy.kind is not Policy.IDEAL), int(policy.monitored), policy.lead_ps, policy.lead_reads,
        policy.arm_ps, policy.wake_ps, policy.line_flags, policy.entries, policy.stagger_ps, int(policy.yields),
        max(1, spin_ps), policy.overflow_ps, device.switch_ps, device.memory_mb_per_s, device.poll_bytes, rows,
        lines(program, policy),
    )  # fmt: skip


def lines(program: Program, policy: WaitPolicy) -> Ints:
    """Return (flags,) the first flag of each flag's line; empty where waits share nothing."""
    if not policy.shared:
        return np.zeros(0, np.int64)
    first = np.repeat(program.flag_first[:-1], program.flags)
    slot = np.arange(len(first)) - first
    width = max(1, policy.line_flags)
    line: Ints = first + slot // width * width
    return line


def share(sim: Sim, program: Program, policy: WaitPolicy, device: Device) -> Sim:
    """Return the state with what waits and GPUs share; workgroups beyond the slots are queued, not due."""
    if not policy.shared and not device:
        return sim
    waiting = np.zeros(program.agents, layout.record_type(layout.WAITING))
    gpus = np.zeros(program.endpoints, layout.record_type(layout.GPU))
    waiting["gpu"] = program.agent_endpoint
    waiting["place"] = np.where(device.limited(program), AWAY, UNLIMITED)
    gpus["entries"], gpus["slots"] = policy.entries, device.slots
    gpus["due_ps"] = gpus["computing"] = gpus["head"] = gpus["tail"] = -1
    if device.slots:
        for gpu, agents in zip(gpus, device.queues(program), strict=True):
            _queue(sim, waiting, gpu, agents, device.slots)
        due = np.flatnonzero(sim.agents["flag"] != QUEUED)
        sim.timers["key"][: len(due)] = due
        sim.register[TIMERS] = len(due)
    return sim._replace(waiting=waiting, gpus=gpus)


def _queue(sim: Sim, waiting: layout.Records, gpu: np.void, agents: list[int], slots: int) -> None:
    """Put the first workgroups onto a GPU, and the others in line."""
    waiting["place"][agents[:slots]] = RESIDENT
    gpu["slots"] = max(0, slots - len(agents))
    line = agents[slots:]
    sim.agents["flag"][line] = QUEUED
    sim.agents["next"][line] = [*line[1:], -1][: len(line)]
    if line:
        gpu["head"], gpu["tail"] = line[0], line[-1]
