"""Links of the compiled engine: FIFOs by eligibility, busy for exactly the serialisation time.

A link's start times are known when a segment queues, since nothing overtakes; so a link's state is the time when
it is free, its queue of entries, and one event for the entry at the front. An entry is segments of one message that
follow each other without a gap. Where a message's segments keep to one path, only the last one's landing is an
event, since nothing happens when the others land.
"""

from .. import routing
from ..routing import Routing
from .heap import push
from .jit import jit
from .layout import BIN_PS, BINS, FREE_ENTRY, HEAP, HOPS, USED_ENTRIES

_STATIC, _ECMP, _LEAST_LOADED = int(Routing.STATIC), int(Routing.ECMP), int(Routing.LEAST_LOADED)
mix = jit(routing.mix)
TRANSIT = 1 << 40  # added to a node's key: in one picosecond deliveries come first, by link


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
def onward(net, sim, link, destination):
    """Return the link of static routing behind `link`; a link remembers what it answered last."""
    queue = sim.queues[link]
    if queue.towards != destination:
        queue.towards = destination
        queue.onward = static_link(net, net.links[link].destination, destination)
    return queue.onward


@jit
def serialise(net, sim, link, size_bytes):
    """Return the picoseconds that a segment keeps `link` busy; a link remembers the size that it carried last."""
    queue = sim.queues[link]
    if queue.size_bytes != size_bytes:
        wire = net.links[link]
        each = size_bytes
        if wire.payload_bytes > 0:
            each += wire.header_bytes * max(1, (size_bytes + wire.payload_bytes - 1) // wire.payload_bytes)
        queue.size_bytes = size_bytes
        queue.each_bytes = each
        queue.serialise_ps = max(1, (each * 1_000_000 + wire.rate - 1) // wire.rate)
    return queue.serialise_ps


@jit
def segment_size(net, size_bytes, segments, segment):
    """Return the payload of one segment of a message."""
    if segment < segments - 1:
        return net.segment_bytes
    return size_bytes - (segments - 1) * net.segment_bytes


@jit
def front_event(net, sim, link):
    """Return (time, whether it lands) of the event of the segment at the front."""
    entry = sim.entries[sim.queues[link].head]
    if link >= net.first_own:
        return entry.start_ps + net.links[link].latency_ps, True
    if net.queued:  # the event's time was found when the segment started, at the rates of then
        return entry.start_ps, net.links[link].destination == sim.messages[entry.message].destination
    return flight(net, sim, link, entry.start_ps, entry.message, entry.segment)


@jit
def flight(net, sim, link, start, slot, segment):
    """Return (time, whether it lands) of a segment that starts on `link`: landed, or eligible onwards."""
    message = sim.messages[slot]
    head = start + net.links[link].latency_ps
    size = segment_size(net, message.size_bytes, message.segments, segment)
    tail = head + serialise(net, sim, link, size)
    if net.links[link].destination == message.destination:
        return tail, True
    if net.links[link].stores:
        return tail, False
    following = onward(net, sim, link, message.destination)  # any choice: they are alike, or static
    return max(head, tail - serialise(net, sim, following, size)), False


@jit
def widen(sim):
    """Double the width of the bins of links' use over time."""
    for row in range(sim.use.shape[0]):
        for left in range(BINS // 2):
            sim.use[row, left] = sim.use[row, 2 * left] + sim.use[row, 2 * left + 1]
        sim.use[row, BINS // 2 :] = 0
    sim.register[BIN_PS] *= 2


@jit
def settle(sim, link):
    """Count the time that a link has been busy without a gap; bins widen when the run outgrows them."""
    queue = sim.queues[link]
    start = queue.since_ps
    end = queue.free_ps
    queue.busy_ps += end - start
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
    time, lands = front_event(net, sim, link)
    if lands:
        land_at(sim, time, link)
    else:
        arrive_at(net, sim, time, link)


@jit
def land_at(sim, time, key):
    """Put a landing, or a node that is due, among the events."""
    push(sim.heap, sim.register[HEAP], time, key)
    sim.register[HEAP] += 1


@jit
def arrive_at(net, sim, time, link):
    """Put the arrival of the segment at the front of `link` among those of its node."""
    at = net.links[link].destination
    node = sim.nodes[at]
    push(sim.arrivals[node.first :], node.arrivals, time, link)
    node.arrivals += 1
    if time < node.due_ps:
        node.due_ps = time
        land_at(sim, time, TRANSIT + at)


@jit
def account(net, sim, link, entry, segments, carried, since, start, busy, waited):
    """Count segments that `link` serves from `start`, eligible `since`; remember where the message took longest.

    Where that was as long on several links, the one nearest the source counts, then the one numbered lowest.
    """
    queue = sim.queues[link]
    queue.wire_bytes += carried
    queue.segments += segments
    if start > since and waited:
        queue.queued_ps += start - since
    if start != queue.free_ps:
        settle(sim, link)
        queue.since_ps = start
    queue.free_ps = start + busy
    message = sim.messages[sim.entries[entry].message]
    weight = start + busy - since
    if weight >= message.weight_ps:
        hop = sim.entries[entry].hop
        nearer = hop < message.hop or (hop == message.hop and link < message.link)
        if weight > message.weight_ps or nearer:
            message.weight_ps = weight
            message.link = link
            message.hop = hop


@jit
def enter(net, sim, rows, link, entry, now):
    """Queue the one segment of `entry`, eligible `now`, at `link`."""
    segment = sim.entries[entry].segment
    slot = sim.entries[entry].message
    message = sim.messages[slot]
    size = segment_size(net, message.size_bytes, message.segments, segment)
    busy = serialise(net, sim, link, size)
    queue = sim.queues[link]
    start = max(now, queue.free_ps)
    account(net, sim, link, entry, 1, queue.each_bytes, now, start, busy, True)
    if segment == message.segments - 1:
        message.queued_ps += start - now
    if len(rows.hops):
        hop(sim, rows, message.id, segment, link, now, start, start + busy)
    if net.in_order and segment < message.segments - 1:
        if net.links[link].destination == message.destination:
            message.landed += 1
            give_entry(sim, entry)
            return
        last = sim.entries[queue.tail]
        follows = last.message == slot and last.segment + last.left == segment and last.then == 0
        if queue.head >= 0 and follows and last.start_ps + last.left * busy == start:
            last.left += 1
            give_entry(sim, entry)
            return
    sim.entries[entry].start_ps = start
    sim.entries[entry].then = 0
    append(net, sim, link, entry)


@jit
def inject(net, sim, rows, link, entry, now):
    """Book `link` for a new message, all its segments, which is the first of its route; return when it starts."""
    message = sim.messages[sim.entries[entry].message]
    segments = message.segments
    carried = 0
    full = 0
    if segments > 1:
        full = serialise(net, sim, link, net.segment_bytes)
        carried = (segments - 1) * sim.queues[link].each_bytes
    last = serialise(net, sim, link, segment_size(net, message.size_bytes, segments, segments - 1))
    carried += sim.queues[link].each_bytes
    start = max(now, sim.queues[link].free_ps)
    account(net, sim, link, entry, segments, carried, now, start, (segments - 1) * full + last, True)
    message.queued_ps = start - now
    if len(rows.hops):
        for segment in range(segments):
            first = start + segment * full
            end = first + (full if segment < segments - 1 else last)
            hop(sim, rows, message.id, segment, link, now, first, end)
    begin(net, sim, link, entry, start, full)
    return start


@jit
def begin(net, sim, link, entry, start, full):
    """Let `entry` hold all segments of its message, served from `start`, of `full` ps each but for the last."""
    queued = sim.entries[entry]
    message = sim.messages[queued.message]
    queued.segment = 0
    queued.left = message.segments
    queued.hop = 0
    queued.start_ps = start
    if net.in_order and net.links[link].destination == message.destination:
        message.landed = message.segments - 1
        queued.segment = message.segments - 1
        queued.left = 1
        queued.start_ps += (message.segments - 1) * full


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
def give_entry(sim, entry):
    """Give an entry back."""
    sim.entries[entry].next = sim.register[FREE_ENTRY]
    sim.register[FREE_ENTRY] = entry


@jit
def no_entry(sim):
    """Whether the entries have to grow before two can be taken, which is what one event may need."""
    unused = len(sim.entries) - sim.register[USED_ENTRIES]
    free = sim.register[FREE_ENTRY]
    if unused >= 2:
        return False
    return free < 0 or (unused == 0 and sim.entries[free].next < 0)
