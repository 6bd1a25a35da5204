"""Agents of the compiled engine: they run until they block, post messages, and are released by flags."""

from ..program import Mode, Op
from ..waiting import Policy
from .heap import push
from .jit import jit
from .layout import (
    BLOCKED_NOT,
    DONE,
    FINISHED,
    FREE_MESSAGE,
    GROW_ENTRIES,
    GROW_HEAP,
    GROW_HOPS,
    GROW_MESSAGES,
    GROW_SERVICES,
    HEAP,
    HOPS,
    NO_ROUTE,
    ORDERED,
    SERVICES,
    TIMERS,
    UNORDERED,
    USED_MESSAGES,
)
from .links import append, choose, inject, no_entry, take_entry
from .ports import join

_COMPUTE, _WRITE = int(Op.COMPUTE), int(Op.WRITE)
_UNTIL, _RELATIVE = int(Mode.UNTIL), int(Mode.RELATIVE)
_POLL, _OBSERVE = int(Mode.POLL), int(Mode.OBSERVE)
_IDEAL, _SPIN, _MONITOR = int(Policy.IDEAL), int(Policy.SPIN), int(Policy.MONITOR)


@jit
def set_timer(sim, time, key):
    """Wake agent `key` at `time`; a negative key is an acknowledgement's, and comes before agents."""
    push(sim.timers, sim.register[TIMERS], time, key)
    sim.register[TIMERS] += 1


@jit
def serve(policy, mode, start, arrival):
    """Return (time that the waiter goes on, flag reads); see waiting.WaitPolicy.serve."""
    if mode == _POLL and policy[0] == _SPIN:
        turns = (arrival - start + policy[1] - 1) // policy[1]
        return start + turns * policy[1], turns + 1
    if mode == _POLL and policy[0] == _MONITOR:
        return max(arrival, start + policy[3]) + policy[2], 1
    return arrival, 0


@jit
def raise_flag(sim, rows, policy, index, message, now):
    """Add one to a flag, and release the agents that waited for the count that it has reached."""
    flag = sim.flags[index]
    flag.count += 1
    previous = -1
    at = flag.waiter
    while at >= 0:
        agent = sim.agents[at]
        following = agent.next
        if agent.expected <= flag.count:
            if previous < 0:
                flag.waiter = following
            else:
                sim.agents[previous].next = following
            end, polls = serve(policy, agent.mode, agent.since_ps, now)
            finish_wait(sim, rows, at, agent.since_ps, now, end, polls, message)
            agent.flag = BLOCKED_NOT
            agent.released_by = message
            set_timer(sim, end, at)
        else:
            previous = at
        at = following


@jit
def finish_wait(sim, rows, at, start, arrival, end, polls, message):
    """Count one served wait of agent `at`, and record it."""
    agent = sim.agents[at]
    agent.wait_ps += end - start
    agent.polls += polls
    if len(rows.waits):
        row = rows.waits[agent.wait]
        row.start_ps = start
        row.arrival_ps = arrival
        row.end_ps = end
        row.polls = polls
        row.released_by = message
    agent.wait += 1


@jit
def segments_of(net, size_bytes):
    """Return how many segments a message has."""
    if net.segment_bytes == 0 or size_bytes <= net.segment_bytes:
        return 1
    return (size_bytes + net.segment_bytes - 1) // net.segment_bytes


@jit
def shortage(net, sim, rows, size_bytes):
    """Return what has to grow before a message of this size can be posted, or DONE."""
    if sim.register[FREE_MESSAGE] < 0 and sim.register[USED_MESSAGES] == len(sim.messages):
        return GROW_MESSAGES
    if no_entry(sim):
        return GROW_ENTRIES
    if sim.register[HEAP] == len(sim.heap):
        return GROW_HEAP
    if net.queued and sim.register[SERVICES] == len(sim.services):
        return GROW_SERVICES
    if len(rows.hops) and sim.register[HOPS] + segments_of(net, size_bytes) > len(rows.hops):
        return GROW_HOPS
    return DONE


@jit
def target(code, call, op, turn):
    """Return the endpoint that a write goes to."""
    peer = op.peer + turn * op.peer_step
    if op.mode != _RELATIVE:
        return peer
    first = code.group_first[call.group]
    members = code.group_first[call.group + 1] - first
    index = call.position + peer
    if index >= members or index < 0:
        index %= members
    return code.members[first + index]


@jit
def post(code, net, sim, rows, at, call, op, turn, now):
    """Post one write of agent `at`; return DONE, or why it cannot be posted now."""
    lack = shortage(net, sim, rows, op.size_bytes)
    if lack != DONE:
        return lack
    source = code.agent_endpoint[at]
    destination = target(code, call, op, turn)
    local = destination == source or net.first_own == 0
    shift = call.flag_offset + turn * op.flag_step
    slot = take_message(sim)
    message = sim.messages[slot]
    message.id = sim.agents[at].message
    sim.agents[at].message += 1
    message.source = source
    message.destination = destination
    message.flow = op.flow
    link = net.first_own + source if local else choose(net, sim, source, slot, 0)
    if link < 0:
        return NO_ROUTE
    message.size_bytes = op.size_bytes
    message.segments = 1 if local else segments_of(net, op.size_bytes)
    message.landed = 0
    message.flag = code.flag_first[destination] + op.flag + shift if op.flag >= 0 else -1
    message.ack = code.flag_first[source] + op.ack + shift if op.ack >= 0 else -1
    message.queued_ps = 0
    message.link = -1
    message.weight_ps = -1
    message.hop = 0
    if len(code.flow_of):
        join_flow(code, sim, slot, op.ordered)
    index = take_entry(sim)
    entry = sim.entries[index]
    entry.message = slot
    entry.segment = 0
    entry.left = message.segments
    entry.hop = 0
    entry.start_ps = now
    start = now
    if local:
        append(net, sim, link, index)
    elif net.queued:
        join(net, sim, -1, index, link, now, now)
        start = -1  # `depart` records it
    else:
        start = inject(net, sim, rows, link, index, now)
    if len(rows.messages):
        row = rows.messages[message.id]
        row.post_ps = now
        row.start_ps = start
        row.released_by = sim.agents[at].released_by
    return DONE


@jit
def take_message(sim):
    """Return a slot for a message that nothing uses; `shortage` says whether there is one."""
    slot = sim.register[FREE_MESSAGE]
    if slot >= 0:
        sim.register[FREE_MESSAGE] = sim.messages[slot].id
        return slot
    sim.register[USED_MESSAGES] += 1
    return sim.register[USED_MESSAGES] - 1


@jit
def join_flow(code, sim, slot, ordered):
    """Put a message at the end of its flow's list of messages in flight."""
    message = sim.messages[slot]
    message.flow = code.flow_of[message.id]
    flow = sim.flows[message.flow]
    order = sim.order[slot]
    order.kind = ORDERED if ordered else UNORDERED
    order.before = flow.tail
    order.after = -1
    if flow.tail >= 0:
        sim.order[flow.tail].after = slot
    else:
        flow.head = slot
    flow.tail = slot


@jit
def begin_wait(code, sim, rows, policy, at, call, op, turn, now):
    """Begin one wait of agent `at`; return whether the agent goes on at once."""
    slot = op.flag + call.flag_offset + turn * op.flag_step
    expected = op.expected + turn * op.expected_step
    if op.mode == _OBSERVE:
        finish_wait(sim, rows, at, now, -1, now, 0, -1)
        return True
    index = code.flag_first[code.agent_endpoint[at]] + slot
    flag = sim.flags[index]
    if flag.count >= expected:
        reads = 1 if op.mode == _POLL and policy[0] != _IDEAL else 0
        finish_wait(sim, rows, at, now, now, now, reads, -1)
        return True
    agent = sim.agents[at]
    agent.flag = index
    agent.expected = expected
    agent.since_ps = now
    agent.mode = op.mode
    agent.next = flag.waiter
    flag.waiter = at
    return False


@jit
def step(code, net, sim, rows, policy, at, call, op, turn, now):
    """Execute one operation of agent `at`; return (status, whether it blocks)."""
    if op.kind == _WRITE:
        return post(code, net, sim, rows, at, call, op, turn, now), False
    if op.kind != _COMPUTE:
        return DONE, not begin_wait(code, sim, rows, policy, at, call, op, turn, now)
    end = op.duration_ps
    if op.mode != _UNTIL:
        end += now
        sim.agents[at].compute_ps += op.duration_ps
    if end <= now:
        return DONE, False
    set_timer(sim, end, at)
    return DONE, True


@jit
def run_agent(code, net, sim, rows, policy, at, now):
    """Run agent `at` until it blocks or ends; return DONE, or why a write of it cannot be posted now."""
    agent = sim.agents[at]
    last = code.call_first[at + 1]
    while agent.call < last:
        call = code.calls[agent.call]
        begin = code.block_first[call.block]
        length = code.block_first[call.block + 1] - begin
        if agent.turn == 0 and agent.op == 0:
            rows.calls[agent.call].start_ps = now
            rows.calls[agent.call].released_by = agent.released_by
        turns = call.repeat if length else 0
        while agent.turn < turns:
            while agent.op < length:
                status, blocked = step(code, net, sim, rows, policy, at, call, code.ops[begin + agent.op],
                                       agent.turn, now)  # fmt: skip
                if status != DONE:
                    set_timer(sim, now, at)  # tried again, first of this picosecond, when there is room
                    return status
                agent.op += 1
                if blocked:
                    return DONE
            agent.op = 0
            agent.turn += 1
        rows.calls[agent.call].end_ps = now
        agent.turn = 0
        agent.call += 1
    agent.flag = FINISHED
    agent.end_ps = now
    return DONE
