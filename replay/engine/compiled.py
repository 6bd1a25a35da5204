"""The compiled engine: events in order, the same meaning as the reference engine, at scale.

In one picosecond deliveries come first, by link; then acknowledgements, by message; then runnable agents, by id;
then segments that reach links, by the link that they come from. Segments that go on are served by node, and a
plain switch runs ahead of the others as far as nothing can come between: see layout.nodes. `advance` runs a budget
of events and returns, so that progress can be shown, memory grown, and an interrupt served, in Python.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ...schemas import UsageError
from ..changes import LinkChange
from ..device import NO_LIMITS, Device
from ..fabric import Fabric
from ..program import Program
from ..routing import RoutingPolicy
from ..waiting import WaitPolicy
from . import layout
from .agents import raise_flag, run_agent
from .heap import remove, replace
from .jit import entry, jit
from .layout import (
    BIN_PS,
    CHANGES,
    DONE,
    GROW_ENTRIES,
    GROW_HEAP,
    GROW_HOPS,
    GROW_MESSAGES,
    GROW_SERVICES,
    GROW_TIMERS,
    HEAP,
    HELD,
    HOPS,
    LANDED,
    LOCAL_PS,
    NEVER,
    NO_ROUTE,
    NOW,
    ORDERED,
    PAUSED,
    SERVICES,
    TIMERS,
)
from .links import (
    TRANSIT,
    arrive_at,
    choose,
    enter,
    front_event,
    give_entry,
    land_at,
    no_entry,
    onward,
    settle,
    static_link,
)
from .ports import change, join, service
from .posting import leave, no_message, release
from .serving import serving as make_serving
from .serving import share
from .sharing import admit, memory_event, memory_write, set_timer

_SLOT_BITS = 31
_FIRST_ACK = np.iinfo(np.int64).min  # an acknowledgement's key: this + message id, then its slot in flight
BUDGET = 2_000_000


@jit
def return_latency(net, source, destination):
    """Return the summed latency of the route from the destination back to the source."""
    if net.first_own == 0 or source == destination:
        return LOCAL_PS
    total = 0
    node = destination
    while node != source:
        link = static_link(net, node, source)
        total += net.links[link].latency_ps
        node = net.links[link].destination
    return total


@jit
def show(net, serving, sim, rows, slot, now):
    """Raise the flag of a message that has landed, and send its acknowledgement; or give its slot back."""
    message = sim.messages[slot]
    if message.flag >= 0:
        raise_flag(serving, sim, rows, message.flag, message.id, now)
    if message.ack >= 0:
        back = return_latency(net, message.source, message.destination)
        set_timer(sim, now + back, _FIRST_ACK + (message.id << _SLOT_BITS) + slot)
    else:
        release(sim, slot)


@jit
def leave_flow(net, serving, sim, rows, slot, now):
    """Show a landed message of a flow, or hold it; then show those that it held back."""
    order = sim.order[slot]
    if order.kind == ORDERED and order.before >= 0:
        order.kind = HELD
        return
    flow = sim.flows[sim.messages[slot].flow]
    while slot >= 0:
        order = sim.order[slot]
        first = order.before < 0
        following = order.after
        if first:
            flow.head = following
        else:
            sim.order[order.before].after = following
        if following >= 0:
            sim.order[following].before = order.before
        else:
            flow.tail = order.before
        show(net, serving, sim, rows, slot, now)
        slot = following if first and following >= 0 and sim.order[following].kind == HELD else -1


@jit
def deliver(code, net, serving, sim, rows, slot, now):
    """Land one segment; with the last one the message arrives and its flag is raised."""
    message = sim.messages[slot]
    message.landed += 1
    if message.landed < message.segments:
        return
    sim.register[LANDED] += 1
    if len(rows.messages):
        row = rows.messages[message.id]
        row.arrival_ps = now
        row.queued_ps = message.queued_ps
        row.link = message.link
    if serving.rate and message.size_bytes > 0:
        memory_write(serving, sim, message.destination, message.size_bytes, now)
    if len(code.flow_of):
        leave_flow(net, serving, sim, rows, slot, now)
    else:
        show(net, serving, sim, rows, slot, now)


@jit
def landing_event(code, net, serving, sim, rows):
    """Serve the first event, which is a landing."""
    now = sim.heap[0].time
    link = sim.heap[0].key
    entry = leave(code, net, sim, link)
    again = False
    if sim.queues[link].head >= 0:
        time, again = front_event(net, sim, link)
        if not again:
            arrive_at(net, sim, time, link)
    if again:
        replace(sim.heap, sim.register[HEAP], time, link)
    else:
        sim.register[HEAP] = remove(sim.heap, sim.register[HEAP])
    give_entry(sim, entry)
    deliver(code, net, serving, sim, rows, sim.entries[entry].message, now)


@jit
def node_event(code, net, sim, rows):
    """Serve the first event, which is a node that is due; return how many segments it passed on."""
    now = sim.heap[0].time
    at = sim.heap[0].key - TRANSIT
    node = sim.nodes[at]
    served = 0
    if now == node.due_ps:  # otherwise it has been served since, and is due later
        served = pass_on(code, net, sim, rows, at, now + node.ahead_ps)
        node.due_ps = sim.arrivals[node.first].time if node.arrivals > 0 else NEVER
        if node.arrivals > 0:
            replace(sim.heap, sim.register[HEAP], node.due_ps, TRANSIT + at)
            return served
    sim.register[HEAP] = remove(sim.heap, sim.register[HEAP])
    return served


@jit
def pass_on(code, net, sim, rows, at, end):
    """Pass on what arrives at node `at` before `end`, while there is room to; return how many segments."""
    node = sim.nodes[at]
    arrivals = sim.arrivals[node.first :]
    served = 0
    while node.arrivals > 0 and arrivals[0].time < end and (served == 0 or lacks(net, sim, rows) == DONE):
        served += 1
        now = arrivals[0].time
        link = arrivals[0].key
        entry = leave(code, net, sim, link)
        slot = sim.entries[entry].message
        if net.reroutes:
            output = choose(net, sim, at, slot, sim.entries[entry].segment)
        else:
            output = onward(net, sim, link, sim.messages[slot].destination)
        time, lands = now, True
        if sim.queues[link].head >= 0:
            time, lands = front_event(net, sim, link)
            if lands:
                land_at(sim, time, link)
        if lands:
            node.arrivals = remove(arrivals, node.arrivals)
        else:
            replace(arrivals, node.arrivals, time, link)
        sim.entries[entry].hop += 1
        if net.queued:
            join(net, sim, link, entry, output, now, now)
        else:
            enter(net, sim, rows, output, entry, now)
    return served


@jit
def lacks(net, sim, rows):
    """Return what has to grow before an event can be served, or DONE."""
    if no_message(sim):
        return GROW_MESSAGES
    if no_entry(sim):
        return GROW_ENTRIES
    if sim.register[HEAP] + 2 > len(sim.heap):
        return GROW_HEAP
    margin = 4 + len(sim.ports) if len(net.changes) else 4  # what one event may add to the services
    if net.queued and sim.register[SERVICES] + margin > len(sim.services):
        return GROW_SERVICES
    if len(rows.hops) and sim.register[HOPS] == len(rows.hops):
        return GROW_HOPS
    return DONE


@jit
def timer_event(code, net, serving, sim, rows):
    """Serve the first timer: an acknowledgement, or an agent that is due. Return its status."""
    now = sim.timers[0].time
    key = sim.timers[0].key
    sim.register[TIMERS] = remove(sim.timers, sim.register[TIMERS])
    if key >= 0:
        if len(sim.waiting) and not admit(serving, sim, key, now):
            return DONE
        return run_agent(code, net, serving, sim, rows, key, now)
    if key >= -len(sim.gpus):
        memory_event(serving, sim, -1 - key, now)
        return DONE
    slot = (key - _FIRST_ACK) & ((1 << _SLOT_BITS) - 1)
    raise_flag(serving, sim, rows, sim.messages[slot].ack, sim.messages[slot].id, now)
    release(sim, slot)
    return DONE


@entry
def advance(code, net, serving, sim, rows, budget):
    """Serve up to `budget` events; return DONE, PAUSED, or what stands in the way.

    In the end the last time that each link was busy is counted.
    """
    register = sim.register
    agents = len(sim.agents)
    while budget > 0:
        budget -= 1
        lack = lacks(net, sim, rows)
        if lack != DONE:
            return lack
        if register[TIMERS] + agents + 4 >= len(sim.timers):
            return GROW_TIMERS
        on_link = sim.heap[0].time if register[HEAP] > 0 else NEVER
        on_timer = sim.timers[0].time if register[TIMERS] > 0 else NEVER
        if register[CHANGES] < len(net.changes):
            when = net.changes[register[CHANGES]].time_ps
            service_at = sim.services[0].time if register[SERVICES] > 0 else NEVER
            if when <= min(on_link, on_timer, service_at):
                register[NOW] = when
                change(net, sim, when)
                continue
        if net.queued and register[SERVICES] > 0 and sim.services[0].time < min(on_link, on_timer):
            register[NOW] = sim.services[0].time
            service(net, sim, rows)
            continue
        if on_link == NEVER and on_timer == NEVER:
            for link in range(net.first_own):
                settle(sim, link)
            return DONE
        register[NOW] = min(on_link, on_timer)
        lands = on_link <= on_timer and sim.heap[0].key < TRANSIT
        if lands:
            landing_event(code, net, serving, sim, rows)
        elif on_link < on_timer:
            budget -= node_event(code, net, sim, rows)
        else:
            status = timer_event(code, net, serving, sim, rows)
            if status != DONE:
                return status
    return PAUSED


def run(
    program: Program,
    fabric: Fabric,
    policy: WaitPolicy,
    routing: RoutingPolicy,
    segment_bytes: int,
    buffer_bytes: int,
    changes: Sequence[LinkChange],
    record: str,
    progress: Callable[[int, int], None] | None = None,
    device: Device = NO_LIMITS,
) -> layout.Final:
    """Run to the end, or until nothing can go on.

    `progress` is called with (messages landed, time in ps) every few million events.
    Raises UsageError where a message has no route, and for a wait policy written in Python.
    """
    if type(policy).serve is not WaitPolicy.serve:
        raise UsageError(
            f"wait policy {policy.name or type(policy).__name__} is written in Python, which only the reference "
            "engine runs; use --engine reference, or write it as a table"
        )
    code, net = (
        layout.code(program, routing),
        layout.net(fabric, segment_bytes, buffer_bytes, routing, changes),
    )
    sim, rows = (
        layout.sim(program, fabric, code.flow_of, buffer_bytes, bool(net.queued)),
        layout.rows(program, record),
    )
    serving = make_serving(program, policy, device)
    sim = share(sim, program, policy, device)
    while True:
        status = advance(code, net, serving, sim, rows, BUDGET)
        if status == DONE:
            rows = rows._replace(hops=rows.hops[: sim.register[HOPS]])
            bin_ps = int(sim.register[BIN_PS])
            waits_on = {}
            for link in np.flatnonzero(sim.ports["head"][: fabric.links] >= 0) if buffer_bytes else ():
                waits_on[int(link)] = int(sim.entries["then"][sim.ports["head"][link]])
            loop = layout.loop(waits_on)
            return layout.Final(
                sim.agents, sim.flags["count"], sim.queues, sim.use, bin_ps, rows, loop, sim.waiting
            )
        if status == NO_ROUTE:
            raise UsageError(f"fabric {fabric.name}: a message has no route from its GPU; check the rules")
        if status != PAUSED:
            sim, rows = layout.grow(sim, rows, status)
        elif progress is not None:
            progress(int(sim.register[LANDED]), int(sim.register[NOW]))
