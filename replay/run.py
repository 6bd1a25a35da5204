"""Run a program on a fabric, with either engine, and say why where it cannot go on."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..schemas import StallError, UsageError
from .changes import LinkChange
from .device import NO_LIMITS, Device
from .engine.serving import RESIDENT
from .fabric import Fabric
from .outcome import Outcome
from .program import Ints, Program
from .reach import check_reach
from .routing import STATIC, RoutingPolicy
from .waiting import IDEAL, WaitPolicy

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
    device: Device = NO_LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Run `program` to its end.

    `wait` serves the waits of mode POLL; `device` limits what a GPU's agents share; `routing` chooses among
    links. Messages move in segments of `segment_bytes`; 0: whole. With `buffer_bytes`, each link has a buffer
    of that size where it enters a switch, and waits for credit when it is full (lossless back-pressure); 0:
    unbounded queues. `changes` slow links, fail and restore them at a time. `record` keeps agents, activities
    and links (`none`), also messages and waits, or also every hop. `progress` is called now and then with
    (messages landed, simulated picoseconds).

    Raises StallError, naming who waits for what, where the program cannot go on; UsageError where program and
    fabric do not fit.
    """
    _check(program, fabric, wait, segment_bytes, buffer_bytes)
    device.check(program, wait)
    routing.check(fabric)
    if engine == "compiled":
        from .engine import compiled

        final = compiled.run(
            program, fabric, wait, routing, segment_bytes, buffer_bytes, changes, record, progress, device
        )
    else:
        final = reference(buffer_bytes, changes)(
            program, fabric, wait, routing, segment_bytes, buffer_bytes, changes, record, device
        ).run()
    outcome = Outcome(program, fabric, wait, segment_bytes, final, device)
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
    if problem := wait.problem():
        raise UsageError(problem)
    check_reach(program)


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
    loop += _starved(program, outcome)
    return (
        f"stalled at {when:.3f} us: {len(blocked)} of {program.agents} agents wait for flags that nobody will "
        f"raise: {'; '.join(lines)}{more}{loop}"
    )


def _starved(program: Program, outcome: Outcome) -> str:
    """Say which workgroups have no slot, and who holds the slots of the first one's GPU."""
    queued = outcome.queued()
    if not len(queued):
        return ""
    gpu = program.agent_endpoint[queued[0]]
    holds = (outcome.final.waiting["place"] == RESIDENT) & (program.agent_endpoint == gpu)
    holders = np.flatnonzero(holds & (outcome.final.agents["flag"] >= 0))

    def named(agents: Ints) -> str:
        more = f" and {len(agents) - _SHOWN} more" if len(agents) > _SHOWN else ""
        return ", ".join(program.names[program.agent_name[agent]] for agent in agents[:_SHOWN]) + more

    here = queued[program.agent_endpoint[queued] == gpu]
    return (
        f"; deadlock by oversubscription: {len(queued)} workgroups are ready and have no slot; on GPU {gpu} "
        f"{named(here)}, while {named(holders)} wait in its {outcome.device.slots} slots; give more slots, or a "
        "policy that yields them"
    )
