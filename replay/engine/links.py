"""Links of the compiled engine: FIFOs by eligibility, busy for exactly the serialisation time.

A link's start times are known when a segment queues, since nothing overtakes; so a link's state is the time when
it is free, its queue of entries, and one event for the entry at the front. An entry is one segment in transit,
or all segments of one message at the link that it is injected on.
"""

from .. import routing
from ..routing import Routing
from .heap import push, replace
from .jit import jit
from .layout import BIN_PS, BINS, FREE_ENTRY, HEAP, HOPS, USED_ENTRIES

_STATIC, _ECMP, _LEAST_LOADED = int(Routing.STATIC), int(Routing.ECMP), int(Routing.LEAST_LOADED)
mix = jit(routing.mix)
TRANSIT = 1 << 40  # added to a link's key: in one picosecond deliveries come first, both by link


@jit
def candidates(net, node, destination):
    """Return (first, count) of the links from `node` towards `destination` among the choices; count 0: no rule."""
    for at in range(net.rule_first[node], net.rule_first[node + 1]):
        rule = net.rules[at]
        if rule.low <= destination < rule.high:
            chosen = rule.base + (destination - rule.low) // rule.stride
            first = net.choice_first[chosen]
            return first, net.choice_first[chosen + 1] - first
    return 0, 0


@jit
def static_link(net, node, destination):
    """Return the link that static routing takes, -1 without a rule."""
    first, count = candidates(net, node, destination)
    if count <= 1:
        return net.choices[first] if count == 1 else -1
    return net.choices[first + destination % count]


@jit
def choose(net, sim, node, slot, segment):
    """Return the link that a segment takes from `node`, -1 without a rule."""
    message = sim.messages[slot]
    first, count = candidates(net, node, message.destination)
    if count <= 1:
        return net.choices[first] if count == 1 else -1
    up = count
    if len(net.changes):
        for at in range(first, first + count):
            up -= net.links[net.choices[at]].down
    if up == 0:
        up = count  # all are down: wait for the one that would have been taken
    if net.routing == _STATIC:
        return working(net, first, count, up, message.destination % up)
    hashed = mix(net.seed, node)
    if net.routing == _ECMP:
        hashed = mix(mix(mix(hashed, message.source), message.destination), message.flow)
    else:
        hashed = mix(mix(hashed, message.id), segment)
    best = working(net, first, count, up, hashed % up)
    if net.routing == _LEAST_LOADED:
        for place in range(hashed % up + 1, hashed % up + up):
            link = working(net, first, count, up, place % up)
            if sim.queues[link].free_ps < sim.queues[best].free_ps:
                best = link
    return best


@jit
def working(net, first, count, up, place):
    """Return the link in this place among the choices that are up; among all where all are, or none is."""
    if up == count:
        return net.choices[first + place]
    for at in range(first, first + count):
        if not net.links[net.choices[at]].down:
            if place == 0:
                return net.choices[at]
            place -= 1
    return -1


@jit
def wire(net, link, size_bytes):
    """Return payload plus headers on `link`."""
    payload = net.links[link].payload_bytes
    if payload == 0:
        return size_bytes
    return size_bytes + net.links[link].header_bytes * max(1, (size_bytes + payload - 1) // payload)


@jit
def serialise(net, link, size_bytes):
    """Return the picoseconds that a segment keeps `link` busy."""
    rate = net.links[link].rate
    return max(1, (wire(net, link, size_bytes) * 1_000_000 + rate - 1) // rate)


@jit
def segment_size(net, size_bytes, segments, segment):
    """Return the payload of one segment of a message."""
    if segment < segments - 1:
        return net.segment_bytes
    return size_bytes - (segments - 1) * net.segment_bytes


@jit
def front_event(net, sim, link):
    """Return (time, key) of the event of the entry at the front: a delivery, or eligibility at the next link."""
    entry = sim.entries[sim.queues[link].head]
    head = entry.start_ps + net.links[link].latency_ps
    if link >= net.first_own:
        return head, link
    message = sim.messages[entry.message]
    node = net.links[link].destination
    if net.queued:  # the event's time was found when the segment started, at the rates of then
        return entry.start_ps, link if node == message.destination else TRANSIT + link
    return flight(net, sim, link, entry.start_ps, entry.message, entry.segment)


@jit
def flight(net, sim, link, start, slot, segment):
    """Return (time, key) of the event of a segment that starts on `link`: its delivery, or eligibility onwards."""
    message = sim.messages[slot]
    head = start + net.links[link].latency_ps
    size = segment_size(net, message.size_bytes, message.segments, segment)
    tail = head + serialise(net, link, size)
    node = net.links[link].destination
    if node == message.destination:
        return tail, link
    if net.store_and_forward[node]:
        return tail, TRANSIT + link
    onward = static_link(net, node, message.destination)  # any choice: they are alike, or static
    return max(head, tail - serialise(net, onward, size)), TRANSIT + link


@jit
def widen(sim):
    """Double the width of the bins of links' use over time."""
    for row in range(sim.use.shape[0]):
        for left in range(BINS // 2):
            sim.use[row, left] = sim.use[row, 2 * left] + sim.use[row, 2 * left + 1]
        sim.use[row, BINS // 2 :] = 0
    sim.register[BIN_PS] *= 2


@jit
def occupy(sim, link, start, end):
    """Add a busy interval to the link's use over time; bins widen when the run outgrows them."""
    while end > sim.register[BIN_PS] * BINS:
        widen(sim)
    width = sim.register[BIN_PS]
    where = start // width
    while start < end:
        stop = min(end, (where + 1) * width)
        sim.use[link, where] += stop - start
        start = stop
        where += 1


@jit
def append(net, sim, link, entry):
    """Put an entry, its start set, at the end of the link's queue."""
    sim.entries[entry].next = -1
    queue = sim.queues[link]
    if queue.head >= 0:
        sim.entries[queue.tail].next = entry
        queue.tail = entry
        return
    queue.head = entry
    queue.tail = entry
    time, key = front_event(net, sim, link)
    push(sim.heap, sim.register[HEAP], time, key)
    sim.register[HEAP] += 1


@jit
def account(sim, link, slot, segments, carried, since, start, busy, waited):
    """Count segments that `link` serves from `start`, eligible `since`; remember where the message took longest."""
    queue = sim.queues[link]
    queue.wire_bytes += carried
    queue.segments += segments
    queue.busy_ps += busy
    if waited:
        queue.queued_ps += start - since
    message = sim.messages[slot]
    if start + busy - since > message.weight_ps:
        message.weight_ps = start + busy - since
        message.link = link
    occupy(sim, link, start, start + busy)


@jit
def schedule(sim, link, slot, segments, carried, now, busy):
    """Book `busy` picoseconds of `link` for segments of a message that are eligible `now`; return their start."""
    queue = sim.queues[link]
    start = max(now, queue.free_ps)
    queue.free_ps = start + busy
    account(sim, link, slot, segments, carried, now, start, busy, True)
    return start


@jit
def enter(net, sim, rows, link, entry, now):
    """Queue a transit entry that is eligible `now` at `link`."""
    slot = sim.entries[entry].message
    segment = sim.entries[entry].segment
    message = sim.messages[slot]
    size = segment_size(net, message.size_bytes, message.segments, segment)
    busy = serialise(net, link, size)
    start = schedule(sim, link, slot, 1, wire(net, link, size), now, busy)
    sim.entries[entry].start_ps = start
    if segment == message.segments - 1:
        message.queued_ps += start - now
    if len(rows.hops):
        hop(sim, rows, message.id, segment, link, now, start, start + busy)
    append(net, sim, link, entry)


@jit
def inject(net, sim, rows, link, entry, now):
    """Queue a new message, all its segments, at the first `link` of its route; return when it starts."""
    slot = sim.entries[entry].message
    message = sim.messages[slot]
    segments = message.segments
    rest = segment_size(net, message.size_bytes, segments, segments - 1)
    last = serialise(net, link, rest)
    carried = wire(net, link, rest)
    full = 0
    if segments > 1:
        full = serialise(net, link, net.segment_bytes)
        carried += (segments - 1) * wire(net, link, net.segment_bytes)
    start = schedule(sim, link, slot, segments, carried, now, (segments - 1) * full + last)
    sim.entries[entry].start_ps = start
    message.queued_ps = start - now
    if len(rows.hops):
        for segment in range(segments):
            begin = start + segment * full
            end = begin + (full if segment < segments - 1 else last)
            hop(sim, rows, message.id, segment, link, now, begin, end)
    append(net, sim, link, entry)
    return start


@jit
def hop(sim, rows, message, segment, link, eligible, start, end):
    """Record one segment on one link."""
    row = rows.hops[sim.register[HOPS]]
    sim.register[HOPS] += 1
    row.message = message
    row.segment = segment
    row.link = link
    row.eligible_ps = eligible
    row.start_ps = start
    row.end_ps = end


@jit
def take_entry(sim):
    """Return an entry that nothing uses; `no_entry` says whether there is one."""
    taken = sim.register[FREE_ENTRY]
    if taken >= 0:
        sim.register[FREE_ENTRY] = sim.entries[taken].next
        return taken
    sim.register[USED_ENTRIES] += 1
    return sim.register[USED_ENTRIES] - 1


@jit
def no_entry(sim):
    """Whether the entries have to grow before two can be taken, which is what one event may need."""
    unused = len(sim.entries) - sim.register[USED_ENTRIES]
    free = sim.register[FREE_ENTRY]
    if unused >= 2:
        return False
    return free < 0 or (unused == 0 and sim.entries[free].next < 0)


@jit
def leave(net, sim, link):
    """Take the current segment off the front of `link`, whose event is the heap's first; return an entry for it.

    The entry is the front one itself, or a fresh copy while later segments of an injected message stay.
    """
    taken = sim.queues[link].head
    entry = sim.entries[taken]
    if entry.left > 1:
        taken = take_entry(sim)
        copy = sim.entries[taken]
        copy.message = entry.message
        copy.segment = entry.segment
        copy.left = 1
        entry.segment += 1
        entry.left -= 1
        entry.start_ps += serialise(net, link, net.segment_bytes)
    else:
        sim.queues[link].head = entry.next
    size = sim.register[HEAP]
    if sim.queues[link].head >= 0:
        time, key = front_event(net, sim, link)
        replace(sim.heap, size, time, key)
    else:
        size -= 1
        sim.register[HEAP] = size
        if size > 0:
            replace(sim.heap, size, sim.heap[size].time, sim.heap[size].key)
    return taken
