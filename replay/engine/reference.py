"""The reference engine: the definition of what a run means, in SimPy.

Agents and segments are processes. Within one picosecond the order of events is explicit: deliveries by link,
acknowledgements by message, agents by id, then segments that reach links, by the link that they come from.
"""

import itertools
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from ...schemas import UsageError
from ..changes import LinkChange
from ..device import NO_LIMITS, Device
from ..fabric import Fabric, serialisation_ps, wire_bytes
from ..program import Mode, Op, Program
from ..routing import Routing, RoutingPolicy, mix
from ..waiting import Policy, WaitPolicy
from . import layout
from .layout import BINS, FIRST_BIN_PS, LOCAL_PS, Final
from .reference_sharing import Gpu, Monitor
from .serving import AWAY, EVENT, MONITORED, OVERFLOW, SPINNING, UNLIMITED, serving, share

DELIVERY, ACKNOWLEDGEMENT, AGENT, TRANSIT = range(4)  # phases of one picosecond
Steps = Generator[simpy.Event, Any, None]


class Clock(simpy.Environment):  # type: ignore[misc]
    """SimPy's environment with integer picoseconds and an explicit order among simultaneous events."""

    def schedule(self, event: simpy.Event, priority: Any = AGENT, delay: Any = 0) -> None:
        """Schedule with a tuple as priority; SimPy's own events (process starts) run before other agents."""
        super().schedule(event, priority if isinstance(priority, tuple) else (AGENT, -1), delay)

    def at(self, time_ps: int, *order: int) -> simpy.Event:
        """Return an event that happens at `time_ps`, in the order (phase, ...) among simultaneous ones."""
        return self.succeed(simpy.Event(self), time_ps, *order)

    def succeed(self, event: simpy.Event, time_ps: int, *order: int) -> simpy.Event:
        """Make `event` happen at `time_ps`."""
        event._ok, event._value = True, None
        self.schedule(event, order, time_ps - self.now)
        return event


@dataclass
class Message:
    """A message in flight."""

    number: int
    source: int
    destination: int
    size_bytes: int
    segments: int
    flag: int
    ack: int
    label: int
    ordered: bool
    flow: int = -1
    landed: int = 0
    has_landed: bool = False
    queued_ps: int = 0
    link: int = -1
    hop: int = 0
    weight_ps: int = -1


@dataclass
class Waiter:
    """An agent that is blocked on a flag."""

    agent: int
    flag: int
    expected: int
    since_ps: int
    mode: int
    released: simpy.Event
    how: int
    monitor: Monitor
    base: int = 0  # the round of polls before its first


class ReferenceEngine:
    """One run of a program on a fabric. Subclass and override a method to study another meaning."""

    def __init__(
        self,
        program: Program,
        fabric: Fabric,
        policy: WaitPolicy,
        routing: RoutingPolicy,
        segment_bytes: int,
        buffer_bytes: int,
        changes: Sequence[LinkChange],
        record: str,
        device: Device = NO_LIMITS,
    ) -> None:
        self.program, self.fabric, self.policy, self.routing = program, fabric, policy, routing
        self.segment_bytes, self.buffer_bytes, self.record = segment_bytes, buffer_bytes, record
        self.changes, self.down = changes, set[int]()
        self.clock = Clock()
        self.flow_of = layout.flows(program, routing)
        self.flows: dict[int, list[Message]] = defaultdict(list)
        state = share(layout.sim(program, fabric, self.flow_of, 0, queued=False), program, policy, device)
        self.agents, self.queues = state.agents, state.queues
        self.serving, self.waiting = serving(program, policy, device), state.waiting
        self.turns: dict[int, simpy.Event] = {}
        self.gpus: list[Gpu] = [self.gpu(at, row) for at, row in enumerate(state.gpus)]
        self.rows = layout.rows(program, record)
        self.counts: dict[int, int] = defaultdict(int)
        self.waiters: dict[int, list[Waiter]] = defaultdict(list)
        self.hops: list[tuple[int, ...]] = []
        self.busy: list[tuple[int, int, int]] = []
        self.free_ps = [0] * fabric.links

    def gpu(self, number: int, start: Any) -> Gpu:
        """Return an endpoint that limits its agents, with those that are in line for a slot."""

        def remind(time_ps: int) -> None:
            self.clock.at(time_ps, AGENT, -1 - number).callbacks.append(lambda _: gpu.served(time_ps))

        gpu = Gpu(self.serving, self.wake, remind, self.waiting, self.agents, int(start["entries"]),
                  int(start["slots"]))  # fmt: skip
        at = int(start["head"])
        while at >= 0:
            gpu.ready.append(at)
            self.turn(at)
            at = int(self.agents["next"][at])
        return gpu

    def wake(self, time_ps: int, agent: int) -> None:
        """Make an agent that waits for a slot, or for memory, due."""
        self.clock.succeed(self.turns.pop(agent), time_ps, AGENT, agent)

    def turn(self, agent: int) -> simpy.Event:
        """Return the event of an agent that waits for a slot, or for memory."""
        self.turns[agent] = self.clock.event()
        return self.turns[agent]

    def run(self) -> Final:
        """Run until nothing can go on."""
        for agent in range(self.program.agents):
            self.clock.process(self.live(agent))
        self.clock.run()
        for waiting in self.waiters.values():
            for waiter in waiting:
                self.agents["flag"][waiter.agent] = waiter.flag
                self.agents["expected"][waiter.agent] = waiter.expected
                self.agents["since_ps"][waiter.agent] = waiter.since_ps
        flags = state_flags(self.counts, int(self.program.flag_first[-1]))
        use, bin_ps = binned(self.busy, self.fabric.links)
        if self.record == "hops":
            self.rows = self.rows._replace(hops=layout.hop_records(self.hops))
        return Final(self.agents, flags, self.queues, use, bin_ps, self.rows, waiting=self.waiting)

    def live(self, agent: int) -> Steps:
        """Let one agent call its blocks."""
        program, ops = self.program, self.program.ops
        yield self.turns[agent] if agent in self.turns else self.clock.at(0, AGENT, agent)
        for call in range(program.call_first[agent], program.call_first[agent + 1]):
            self.agents["call"][agent] = call
            self.rows.calls["start_ps"][call] = self.clock.now
            self.rows.calls["released_by"][call] = self.agents["released_by"][agent]
            block = program.calls["block"][call]
            for turn in range(program.calls["repeat"][call]):
                for op in range(program.block_first[block], program.block_first[block + 1]):
                    if ops["kind"][op] == Op.COMPUTE:
                        yield from self.compute(agent, op)
                    elif ops["kind"][op] == Op.WRITE:
                        self.post(agent, call, op, turn)
                    else:
                        yield from self.wait(agent, call, op, turn)
            self.rows.calls["end_ps"][call] = self.clock.now
        self.agents["call"][agent] = program.call_first[agent + 1]
        self.agents["flag"][agent] = layout.FINISHED
        self.agents["end_ps"][agent] = self.clock.now
        if self.gpus and self.waiting["place"][agent] != UNLIMITED:
            self.own(agent).leave(int(self.clock.now))

    def own(self, agent: int) -> Gpu:
        """Return the GPU that an agent is on."""
        return self.gpus[int(self.program.agent_endpoint[agent])]

    def compute(self, agent: int, op: int) -> Steps:
        """Let a duration pass, or idle until an absolute time."""
        end = int(self.program.ops["duration_ps"][op])
        if self.program.ops["mode"][op] == Mode.FOR:
            self.agents["compute_ps"][agent] += end
            size = int(self.program.ops["size_bytes"][op])
            if self.serving.rate and size:
                turn = self.turn(agent)
                self.own(agent).compute(agent, end, size, int(self.clock.now))
                yield turn
                return
            end += self.clock.now
        if end > self.clock.now:
            yield self.clock.at(end, AGENT, agent)

    def post(self, agent: int, call: int, op: int, turn: int) -> None:
        """Post one write: a process for each of its segments."""
        program, ops, calls = self.program, self.program.ops, self.program.calls
        source = int(program.agent_endpoint[agent])
        peer = int(ops["peer"][op] + turn * ops["peer_step"][op])
        if ops["mode"][op] == Mode.RELATIVE:
            first, end = (
                program.group_first[calls["group"][call]],
                program.group_first[calls["group"][call] + 1],
            )
            peer = int(program.members[first + (calls["position"][call] + peer) % (end - first)])
        size = int(ops["size_bytes"][op])
        local = peer == source or self.fabric.ideal
        whole = local or self.segment_bytes == 0 or size <= self.segment_bytes
        segments = 1 if whole else -(-size // self.segment_bytes)
        shift = calls["flag_offset"][call] + turn * ops["flag_step"][op]
        flag = int(program.flag_first[peer] + ops["flag"][op] + shift) if ops["flag"][op] >= 0 else -1
        ack = int(program.flag_first[source] + ops["ack"][op] + shift) if ops["ack"][op] >= 0 else -1
        number, flow = int(self.agents["message"][agent]), int(ops["flow"][op])
        message = Message(number, source, peer, size, segments, flag, ack, flow, bool(ops["ordered"][op]))
        self.agents["message"][agent] += 1
        if len(self.flow_of):
            message.flow = int(self.flow_of[number])
            self.flows[message.flow].append(message)
        if self.record != "none":
            row = self.rows.messages[message.number]
            row["post_ps"], row["released_by"] = self.clock.now, self.agents["released_by"][agent]
            row["start_ps"] = -1
        if local:
            self.clock.process(self.land_locally(message))
            return
        link = self.choose(source, message, 0)  # all segments leave over the link that the first one takes
        for index in range(segments):
            self.launch(message, index, link)

    def launch(self, message: Message, index: int, link: int) -> None:
        """Put one segment of a new message on its first link."""
        self.clock.process(self.travel(message, index, link, self.book(message, index, link, 0)))

    def land_locally(self, message: Message) -> Steps:
        """Write to the own endpoint, or through an ideal fabric."""
        self.started(message)
        yield self.clock.at(
            self.clock.now + LOCAL_PS, DELIVERY, self.fabric.links + message.source, message.number
        )
        self.deliver(message)

    def started(self, message: Message) -> None:
        """Record when the first byte leaves."""
        if self.record != "none" and self.rows.messages["start_ps"][message.number] < 0:
            self.rows.messages["start_ps"][message.number] = self.clock.now

    def choose(self, node: int, message: Message, index: int) -> int:
        """Return the link that a segment takes from `node`."""
        every = self.fabric.next_links(node, message.destination)
        links = [link for link in every if link not in self.down] or every
        kind = self.routing.kind
        if not links:
            end = self.fabric.node_names[node]
            raise UsageError(f"fabric {self.fabric.name}: no route from {end} to GPU {message.destination}")
        if kind is Routing.STATIC:
            return links[message.destination % len(links)]
        hashed = mix(self.routing.seed & 0x7FFFFFFF, node)
        if kind is Routing.ECMP:
            hashed = mix(mix(mix(hashed, message.source), message.destination), message.label)
        else:
            hashed = mix(mix(hashed, message.number), index)
        drawn = hashed % len(links)
        if kind is Routing.LEAST_LOADED:
            return min(links[drawn:] + links[:drawn], key=lambda link: self.free_ps[link])
        return links[drawn]

    def travel(self, message: Message, index: int, link: int, start: int) -> Steps:
        """Take one segment, from its `start` on its first link, from link to link.

        It is eligible at the next link at max(head arrival, tail arrival - its serialisation there) with
        cut-through, at its tail's arrival with store-and-forward.
        """
        fabric, clock, size = self.fabric, self.clock, self.size(message, index)
        for hop in itertools.count(1):
            head = start + int(fabric.latency_ps[link])
            tail = head + self.serialise(link, size)
            node = int(fabric.destination[link])
            if node == message.destination:
                break
            onward = fabric.next_link(node, message.destination)  # any choice: they are alike, or static
            eligible = (
                tail if fabric.store_and_forward[node] else max(head, tail - self.serialise(onward, size))
            )
            yield clock.at(eligible, TRANSIT, link, message.number, index)
            link = self.choose(node, message, index)
            start = self.book(message, index, link, hop)
        yield clock.at(tail, DELIVERY, link, message.number, index)
        self.deliver(message)

    def size(self, message: Message, index: int) -> int:
        """Return the payload of one segment."""
        if index < message.segments - 1:
            return self.segment_bytes
        return message.size_bytes - index * self.segment_bytes

    def wire(self, link: int, size: int) -> int:
        """Return payload plus headers of a segment on a link."""
        return wire_bytes(size, int(self.fabric.header_bytes[link]), int(self.fabric.payload_bytes[link]))

    def serialise(self, link: int, size: int) -> int:
        """Return the picoseconds that a segment keeps a link busy."""
        return serialisation_ps(self.wire(link, size), int(self.fabric.rate_mb_per_s[link]))

    def book(self, message: Message, index: int, link: int, hop: int) -> int:
        """Put a segment, eligible now after `hop` links, at the end of a link's FIFO; return when it starts."""
        now = int(self.clock.now)
        start = max(now, self.free_ps[link])
        self.free_ps[link] = start + self.serialise(link, self.size(message, index))
        self.account(message, index, link, now, start, hop, injected=hop == 0)
        return start

    def account(
        self, message: Message, index: int, link: int, eligible: int, start: int, hop: int, *, injected: bool
    ) -> None:
        """Count a segment that a link serves from `start`, after `hop` links.

        Remember where the message took longest.
        Where that was as long on several links, the one nearest the source counts, then the one numbered lowest.
        """
        size = self.size(message, index)
        busy = self.serialise(link, size)
        queue = self.queues[link]
        queue["wire_bytes"] += self.wire(link, size)
        queue["segments"] += 1
        queue["busy_ps"] += busy
        if not injected or index == 0:  # later segments of an injected message wait for their own first ones
            queue["queued_ps"] += start - eligible
            if index == (0 if injected else message.segments - 1):
                message.queued_ps += start - eligible
        weight = start + busy - eligible
        if (weight, -hop, -link) > (message.weight_ps, -message.hop, -message.link):
            message.weight_ps, message.hop, message.link = weight, hop, link
        if injected and index == 0 and self.record != "none":
            self.rows.messages["start_ps"][message.number] = start
        self.busy.append((link, start, start + busy))
        self.hops.append((message.number, index, link, eligible, start, start + busy))

    def deliver(self, message: Message) -> None:
        """Land one segment; with the last one the message arrives and its flag is raised."""
        message.landed += 1
        if message.landed < message.segments:
            return
        if self.record != "none":
            row = self.rows.messages[message.number]
            row["arrival_ps"], row["queued_ps"], row["link"] = self.clock.now, message.queued_ps, message.link
        if self.serving.rate and message.size_bytes:
            self.gpus[message.destination].write(message.size_bytes, int(self.clock.now))
        message.has_landed = True
        flow = self.flows[message.flow] if len(self.flow_of) else [message]
        if message.ordered and flow[0] is not message:
            return  # its flag shows when all before it have landed
        first = flow[0] is message
        flow.remove(message)
        self.show(message)
        while first and flow and flow[0].has_landed:
            self.show(flow.pop(0))

    def show(self, message: Message) -> None:
        """Raise the flag of a message that has landed, and acknowledge it to its source."""
        if message.flag >= 0:
            self.raise_flag(message.flag, message)
        if message.ack >= 0:
            self.clock.process(self.acknowledge(message))

    def acknowledge(self, message: Message) -> Steps:
        """Raise the flag at the source, one return-path latency after delivery."""
        back = self.fabric.route(message.destination, message.source)
        latency = sum(int(self.fabric.latency_ps[link]) for link in back) or LOCAL_PS
        yield self.clock.at(self.clock.now + latency, ACKNOWLEDGEMENT, message.number)
        self.raise_flag(message.ack, message)

    def line(self, flag: int) -> int:
        """Return the first flag of a flag's line."""
        return int(self.serving.lines[flag]) if len(self.serving.lines) else flag

    def raise_flag(self, flag: int, message: Message) -> None:
        """Add one to a flag; release the agents that waited for the count that it has reached, wake its line's."""
        self.counts[flag] += 1
        staying, turn = [], 0
        for waiter in self.waiters[self.line(flag)]:
            reached = waiter.flag == flag and waiter.expected <= self.counts[flag]
            before = waiter.monitor.wakes
            served = self.serve(waiter, reached, turn)
            turn += waiter.monitor.wakes - before
            if not served:
                staying.append(waiter)
                continue
            end, polls = served
            self.waited(waiter.agent, waiter.since_ps, self.clock.now, end, polls, message.number)
            self.agents["released_by"][waiter.agent] = message.number
            self.clock.succeed(waiter.released, end, AGENT, waiter.agent)
        self.waiters[self.line(flag)] = staying

    def serve(self, waiter: Waiter, reached: bool, turn: int) -> tuple[int, int] | None:
        """Return (time that the waiter goes on, flag reads) where a write to its line lets it; see `Monitor`."""
        since, now = waiter.since_ps, int(self.clock.now)
        if waiter.how == MONITORED and self.gpus:
            return self.watch(waiter, reached, turn)
        if not reached:
            return None
        if waiter.how == EVENT:
            return now, 0
        if self.serving.rate and waiter.how in (SPINNING, OVERFLOW):
            gpu = self.own(waiter.agent)
            gpu.settle(now)
            end, reads = gpu.boundary_ps, 1 + gpu.round - waiter.base
        elif waiter.how == OVERFLOW:
            turns = -(-(now - since) // self.serving.overflow_ps)
            end, reads = since + turns * self.serving.overflow_ps, 1 + turns
        else:
            end, reads = self.policy.serve(since, now)
        if waiter.how == OVERFLOW:
            self.waiting["overflow_reads"][waiter.agent] += reads
        return end, reads

    def watch(self, waiter: Waiter, reached: bool, turn: int) -> tuple[int, int] | None:
        """Return (time that a monitored waiter goes on, flag reads) where a write to its line lets it."""
        now, monitor, false = int(self.clock.now), waiter.monitor, self.waiting["false_wakes"]
        if now <= monitor.armed_ps:
            return self.policy.serve(waiter.since_ps, now) if reached else None
        if monitor.asleep(now) and (reached or self.serving.line_flags):
            monitor.wake(now, turn)
            false[waiter.agent] += not reached
        elif reached:
            false[waiter.agent] -= 1  # the wake on its way will find the flag raised
        reads = 1 + self.serving.lead_reads + monitor.wakes * bool(self.serving.line_flags)
        return (monitor.read_ps, reads) if reached else None

    def wait(self, agent: int, call: int, op: int, turn: int) -> Steps:
        """Go on when a flag of the own endpoint has reached a count."""
        ops, calls, now = self.program.ops, self.program.calls, self.clock.now
        mode = int(ops["mode"][op])
        slot = ops["flag"][op] + calls["flag_offset"][call] + turn * ops["flag_step"][op]
        expected = int(ops["expected"][op] + turn * ops["expected_step"][op])
        if mode == Mode.OBSERVE:
            self.waited(agent, now, -1, now, 0, -1)
            return
        flag = self.program.flag_first[self.program.agent_endpoint[agent]] + slot
        if self.counts[int(flag)] >= expected:
            reads = int(mode == Mode.POLL and self.policy.kind is not Policy.IDEAL)
            self.waited(agent, now, now, now, reads, -1)
            return
        waiter = Waiter(agent, int(flag), expected, int(now), mode, self.clock.event(), EVENT,
                        Monitor(self.serving, int(now) + self.serving.lead_ps))  # fmt: skip
        self.waiters[self.line(int(flag))].append(waiter)
        if mode == Mode.POLL and self.serving.polled:
            self.block(waiter)
        yield waiter.released
        if self.gpus:
            yield from self.unblock(waiter)

    def block(self, waiter: Waiter) -> None:
        """Choose how a wait that blocks is served; it may take a monitor, or give its slot away."""
        waiter.how = MONITORED if self.serving.monitored else SPINNING
        if not self.gpus:
            return
        gpu, agent, now = self.own(waiter.agent), waiter.agent, int(self.clock.now)
        if waiter.how == MONITORED and self.serving.entries:
            if gpu.entries:
                gpu.entries -= 1
            else:
                waiter.how = OVERFLOW
                self.waiting["overflows"][agent] += 1
        if waiter.how == MONITORED and self.serving.yields and self.waiting["place"][agent] != UNLIMITED:
            self.waiting["place"][agent] = AWAY
            gpu.leave(now)
        elif waiter.how != MONITORED and self.serving.rate:
            waiter.base = gpu.spin(now)

    def unblock(self, waiter: Waiter) -> Steps:
        """Give back what a wait has held; get a slot where it gave that away."""
        gpu, now = self.own(waiter.agent), int(self.clock.now)
        if waiter.how == MONITORED and self.serving.entries:
            gpu.entries += 1
        if waiter.how in (SPINNING, OVERFLOW) and self.serving.rate:
            gpu.stop(now)
        if self.waiting["place"][waiter.agent] == AWAY:
            turn = self.turn(waiter.agent)
            gpu.enter(waiter.agent, now)
            yield turn

    def waited(self, agent: int, start: int, arrival: int, end: int, polls: int, message: int) -> None:
        """Count one served wait, and record it."""
        self.agents["wait_ps"][agent] += end - start
        self.agents["polls"][agent] += polls
        if self.record != "none":
            row = self.rows.waits[self.agents["wait"][agent]]
            row["start_ps"], row["arrival_ps"], row["end_ps"] = start, arrival, end
            row["polls"], row["released_by"] = polls, message
        self.agents["wait"][agent] += 1


def state_flags(counts: dict[int, int], size: int) -> layout.Ints:
    """Return (F,) final counts."""
    flags: layout.Ints = np.zeros(size, np.int64)
    for flag, count in counts.items():
        flags[flag] = count
    return flags


def binned(busy: list[tuple[int, int, int]], links: int) -> tuple[layout.Ints, int]:
    """Return (links, BINS) busy picoseconds, and the width of a bin: the smallest doubling that holds the run."""
    width = FIRST_BIN_PS
    while busy and max(end for _, _, end in busy) > width * BINS:
        width *= 2
    use: layout.Ints = np.zeros((links, BINS), np.int64)
    for link, start, end in busy:
        while start < end:
            stop = min(end, (start // width + 1) * width)
            use[link, start // width] += stop - start
            start = stop
    return use, width
