"""Run a program on a fabric, with either engine, and say why where it cannot go on."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..schemas import StallError, UsageError
from .changes import LinkChange
from .fabric import Fabric
from .outcome import Outcome
from .program import Mode, Op, Program
from .routing import STATIC, RoutingPolicy
from .waiting import IDEAL, Policy, WaitPolicy

if TYPE_CHECKING:
    from .engine.reference import ReferenceEngine

Engine = Literal["compiled", "reference"]
Record = Literal["none", "messages", "hops"]
SEGMENT_BYTES = 65536
_SHOWN = 10


def run(
    program: Program,
    fabric: Fabric,
    *,
    wait: WaitPolicy = IDEAL,
    routing: RoutingPolicy = STATIC,
    engine: Engine = "compiled",
    segment_bytes: int = SEGMENT_BYTES,
    buffer_bytes: int = 0,
    changes: Sequence[LinkChange] = (),
    record: Record = "messages",
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Run `program` to its end.

    `wait` serves the waits of mode POLL; `routing` chooses among links. Messages move in segments of
    `segment_bytes`; 0: whole. With `buffer_bytes`, each link has a buffer of that size where it enters a
    switch, and waits for credit when it is full (lossless back-pressure); 0: unbounded
    queues. `changes` slow links, fail and restore them at a time. `record` keeps
    agents, activities and links (`none`), also messages and waits, or also every hop. `progress` is called
    now and then with (messages landed, simulated picoseconds).

    Raises StallError, naming who waits for what, where the program cannot go on; UsageError where program and
    fabric do not fit.
    """
    _check(program, fabric, wait, segment_bytes, buffer_bytes)
    routing.check(fabric)
    if engine == "compiled":
        from .engine import compiled

        final = compiled.run(
            program, fabric, wait, routing, segment_bytes, buffer_bytes, changes, record, progress
        )
    else:
        final = reference(buffer_bytes, changes)(
            program, fabric, wait, routing, segment_bytes, buffer_bytes, changes, record
        ).run()
    outcome = Outcome(program, fabric, wait, segment_bytes, final)
    if blocked := outcome.blocked():
        raise StallError(_stall(program, outcome, blocked, changes))
    return outcome


def reference(buffer_bytes: int, changes: Sequence[LinkChange] = ()) -> "type[ReferenceEngine]":
    """Return the reference engine for unbounded queues, or for finite buffers or links that change."""
    from .engine.reference import ReferenceEngine
    from .engine.reference_ports import PortEngine

    return PortEngine if buffer_bytes or changes else ReferenceEngine


def _check(program: Program, fabric: Fabric, wait: WaitPolicy, segment_bytes: int, buffer_bytes: int) -> None:
    """Raise UsageError for what the engines would not survive."""
    if program.endpoints > fabric.endpoints:
        raise UsageError(
            f"the program has {program.endpoints} GPUs, fabric {fabric.name} only {fabric.endpoints}; "
            "build the fabric for as many"
        )
    if segment_bytes < 0:
        raise UsageError(f"--segment-bytes {segment_bytes}: give 0 for whole messages, or a size")
    if buffer_bytes and not 0 < segment_bytes <= buffer_bytes:
        raise UsageError(
            f"--buffer-bytes {buffer_bytes}: a segment must fit into a buffer; --segment-bytes is {segment_bytes}"
        )
    if wait.kind is Policy.SPIN and wait.period_ps < 1:
        raise UsageError("a spin needs a period of at least 1 ps; --poll-period sets it")
    _check_reach(program)


def _check_reach(program: Program) -> None:
    """Raise UsageError where an operation names an endpoint or a flag that does not exist."""
    ops, calls = program.ops, program.calls
    length = np.diff(program.block_first)[calls["block"]] * (calls["repeat"] > 0)
    call = np.repeat(np.arange(len(length)), length)
    start = np.concatenate(([0], np.cumsum(length)))[:-1]
    op = program.block_first[calls["block"]][call] + np.arange(len(call)) - start[call]
    turns = calls["repeat"][call] - 1
    endpoint = program.agent_endpoint[calls["agent"][call]]
    smallest = int(program.flags.min(initial=0)) if len(program.flags) else 0
    relative = ops["mode"][op] == Mode.RELATIVE
    writes, waits = ops["kind"][op] == Op.WRITE, ops["kind"][op] == Op.WAIT
    for turn in (np.zeros_like(turns), turns):
        peer = ops["peer"][op] + turn * ops["peer_step"][op]
        bad = writes & ~relative & ((peer < 0) | (peer >= program.endpoints))
        bad |= relative & (calls["group"][call] < 0)
        _refuse(program, bad, calls["agent"][call], "writes to a GPU that does not exist")
        slots = np.where(
            relative, smallest, program.flags[np.where(bad | relative, 0, peer) % program.endpoints]
        )
        slots = np.where(waits, program.flags[endpoint], slots)
        slot = ops["flag"][op] + calls["flag_offset"][call] + turn * ops["flag_step"][op]
        bad = (waits | (writes & (ops["flag"][op] >= 0) & ~relative)) & ((slot < 0) | (slot >= slots))
        _refuse(program, bad, calls["agent"][call], "uses a flag that was never reserved")
    group_slots = _group_slots(program)
    slot = ops["flag"][op] + calls["flag_offset"][call] + np.maximum(0, turns * ops["flag_step"][op])
    bad = (
        writes
        & relative
        & (ops["flag"][op] >= 0)
        & (slot >= group_slots[np.maximum(calls["group"][call], 0)])
    )
    _refuse(program, bad, calls["agent"][call], "raises a flag that was never reserved on its whole group")
    _refuse(program, ops["duration_ps"][op] < 0, calls["agent"][call], "computes for a negative time")
    _refuse(program, ops["size_bytes"][op] < 0, calls["agent"][call], "writes a negative size")


def _group_slots(program: Program) -> np.ndarray:
    """Return (G,) slots that all members of each group have."""
    if not len(program.members):
        return np.zeros(1, np.int64)
    return np.minimum.reduceat(program.flags[program.members], program.group_first[:-1])


def _refuse(program: Program, bad: np.ndarray, agent: np.ndarray, what: str) -> None:
    if bad.any():
        first = int(agent[np.flatnonzero(bad)[0]])
        name = program.names[program.agent_name[first]]
        raise UsageError(f"{name} of GPU {program.agent_endpoint[first]} {what}; the program is wrong")


def _stall(
    program: Program,
    outcome: Outcome,
    blocked: list[tuple[int, int, int, int]],
    changes: Sequence[LinkChange],
) -> str:
    """Say who waits for what."""
    lines = [
        f"GPU {program.agent_endpoint[agent]}, {program.names[program.agent_name[agent]]}: waits for "
        f"{program.flag_name(int(program.agent_endpoint[agent]), slot)} to reach {expected}, saw {seen}"
        for agent, slot, expected, seen in blocked[:_SHOWN]
    ]
    more = f"; and {len(blocked) - _SHOWN} more" if len(blocked) > _SHOWN else ""
    when = outcome.makespan_ps / 1e6
    loop = ""
    if outcome.final.loop:
        links = " -> ".join(f"[{outcome.fabric.link_name(link)}]" for link in outcome.final.loop)
        loop = f"; deadlock: the buffers of these links wait for one another: {links} -> the first"
    rates = {
        change.link: change.rate_mb_per_s for change in sorted(changes, key=lambda change: change.time_ps)
    }
    if down := [f"[{outcome.fabric.link_name(link)}]" for link, rate in rates.items() if rate == 0]:
        loop += f"; links that are down: {', '.join(down[:_SHOWN])}"
    return (
        f"stalled at {when:.3f} us: {len(blocked)} of {program.agents} agents wait for flags that nobody will "
        f"raise: {'; '.join(lines)}{more}{loop}"
    )
