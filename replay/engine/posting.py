"""How the compiled engine posts messages, and how those that wait for their first link stay in the program.

What an agent posts in one go, over one link, is a burst: the first of its messages is in flight, and the rest is a
cursor in the program, from which the next message is made when the one before it has left. So messages that wait to
be injected take no memory, however many there are.
"""

from ..program import Mode, Op
from .jit import cold, jit
from .layout import (
    DONE,
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
    UNORDERED,
    USED_MESSAGES,
)
from .links import append, begin, choose, give_entry, inject, no_entry, segment_size, serialise, take_entry
from .ports import join

_WRITE, _RELATIVE = int(Op.WRITE), int(Mode.RELATIVE)


@jit
def segments_of(net, size_bytes):
    """Return how many segments a message has."""
    if net.segment_bytes == 0 or size_bytes <= net.segment_bytes:
        return 1
    return (size_bytes + net.segment_bytes - 1) // net.segment_bytes


@jit
def no_message(sim):
    """Whether the messages have to grow before one can be taken."""
    return sim.register[FREE_MESSAGE] < 0 and sim.register[USED_MESSAGES] == len(sim.messages)


@jit
def shortage(net, sim, rows, size_bytes):
    """Return what has to grow before a message of this size can be posted, or DONE."""
    if no_message(sim):
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
def make(code, net, sim, slot, number, at, call, op, turn):
    """Fill `slot` with message `number`, a write of agent `at`; return whether it stays on its endpoint."""
    source = code.agent_endpoint[at]
    destination = target(code, call, op, turn)
    local = destination == source or net.first_own == 0
    shift = call.flag_offset + turn * op.flag_step
    message = sim.messages[slot]
    message.id = number
    message.source = source
    message.destination = destination
    message.flow = op.flow
    message.size_bytes = op.size_bytes
    message.segments = 1 if local else segments_of(net, op.size_bytes)
    message.landed = 0
    message.flag = code.flag_first[destination] + op.flag + shift if op.flag >= 0 else -1
    message.ack = code.flag_first[source] + op.ack + shift if op.ack >= 0 else -1
    message.queued_ps = 0
    message.link = -1
    message.weight_ps = -1
    message.hop = 0
    return local


@jit
def post(code, net, sim, rows, at, call, op, turn, now):
    """Post one write of agent `at`; return DONE, or why it cannot be posted now."""
    lack = shortage(net, sim, rows, op.size_bytes)
    if lack != DONE:
        return lack
    slot = take_message(sim)
    message = sim.messages[slot]
    number = sim.agents[at].message
    sim.agents[at].message += 1
    local = make(code, net, sim, slot, number, at, call, op, turn)
    link = net.first_own + message.source if local else choose(net, sim, message.source, slot, 0)
    if link < 0:
        return NO_ROUTE
    if len(code.flow_of):
        join_flow(code, sim, slot, op.ordered)
    index = take_entry(sim)
    entry = sim.entries[index]
    entry.message = slot
    entry.segment = 0
    entry.left = message.segments
    entry.hop = 0
    entry.then = 0
    entry.start_ps = now
    start = now
    alone = True
    if net.queued and not local:
        join(net, sim, -1, index, link, now, now)
        start = -1  # `depart` records it
        alone = False
    elif not local:
        queue = sim.queues[link]
        behind = queue.free_ps >= now and queue.free_ps == queue.injected_ps  # an injection was booked last
        start = inject(net, sim, rows, link, index, now)
        queue.injected_ps = queue.free_ps
        alone = not behind or len(code.flow_of) > 0 or not follow(sim, link, index, at, now)
    if alone:
        append(net, sim, link, index)
    if len(rows.messages):
        row = rows.messages[number]
        row.post_ps = now
        row.start_ps = start
        row.released_by = sim.agents[at].released_by
    return DONE


@jit
def follow(sim, link, index, at, now):
    """Let the message of entry `index` follow the last one of the link's queue in a burst; return whether it can.

    It can where it is the next message of the same agent, and is served without a gap behind it.
    """
    queue = sim.queues[link]
    if queue.head < 0:
        return False
    last = sim.entries[queue.tail]
    cursor = sim.cursors[queue.tail]
    slot = sim.entries[index].message
    if last.hop > 0 or sim.messages[last.message].id + last.then + 1 != sim.messages[slot].id:
        return False
    if last.then == 0:
        agent = sim.agents[at]
        cursor.agent = at
        cursor.call = agent.call
        cursor.op = agent.op
        cursor.turn = agent.turn
        cursor.since_ps = now
    elif cursor.agent != at or cursor.since_ps != now:
        return False
    last.then += 1
    release(sim, slot)
    give_entry(sim, index)
    return True


@jit
def leave(code, net, sim, link):
    """Take the segment at the front of `link` off it; return an entry for it.

    The entry is the front one itself, or a fresh copy while later segments of the message, or messages, stay.
    """
    front = sim.queues[link].head
    entry = sim.entries[front]
    if entry.left == 1 and entry.then == 0:
        sim.queues[link].head = entry.next
        return front
    taken = take_entry(sim)
    copy = sim.entries[taken]
    copy.message = entry.message
    copy.segment = entry.segment
    copy.left = 1
    copy.hop = entry.hop
    if entry.left == 1:
        unroll(code, net, sim, link, front)
    else:
        entry.segment += 1
        entry.left -= 1
        entry.start_ps += serialise(net, sim, link, net.segment_bytes)
    return taken


@cold
def unroll(code, net, sim, link, front):
    """Make the next message of the burst at the front of `link`, whose last one leaves."""
    entry = sim.entries[front]
    cursor = sim.cursors[front]
    before = sim.messages[entry.message]
    rest = segment_size(net, before.size_bytes, before.segments, before.segments - 1)
    start = entry.start_ps + serialise(net, sim, link, rest)
    entry.message = take_message(sim)
    call = code.calls[cursor.call]
    op = code.ops[code.block_first[call.block] + cursor.op]
    make(code, net, sim, entry.message, before.id + 1, cursor.agent, call, op, cursor.turn)
    message = sim.messages[entry.message]
    full = serialise(net, sim, link, net.segment_bytes) if message.segments > 1 else 0
    rest = segment_size(net, message.size_bytes, message.segments, message.segments - 1)
    end = start + (message.segments - 1) * full + serialise(net, sim, link, rest)
    message.queued_ps = start - cursor.since_ps
    message.weight_ps = end - cursor.since_ps
    message.link = link
    begin(net, sim, link, front, start, full)
    entry.then -= 1
    if entry.then > 0:
        turn_over(code, cursor)


@jit
def turn_over(code, cursor):
    """Move a cursor to the next write of its agent."""
    cursor.op += 1
    while True:
        call = code.calls[cursor.call]
        first = code.block_first[call.block]
        length = code.block_first[call.block + 1] - first
        while cursor.turn < call.repeat and length > 0:
            while cursor.op < length:
                if code.ops[first + cursor.op].kind == _WRITE:
                    return
                cursor.op += 1
            cursor.op = 0
            cursor.turn += 1
        cursor.turn = 0
        cursor.call += 1


@jit
def take_message(sim):
    """Return a slot for a message that nothing uses; `no_message` says whether there is one."""
    slot = sim.register[FREE_MESSAGE]
    if slot >= 0:
        sim.register[FREE_MESSAGE] = sim.messages[slot].id
        return slot
    sim.register[USED_MESSAGES] += 1
    return sim.register[USED_MESSAGES] - 1


@jit
def release(sim, slot):
    """Give a message's slot back."""
    sim.messages[slot].id = sim.register[FREE_MESSAGE]
    sim.register[FREE_MESSAGE] = slot


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
