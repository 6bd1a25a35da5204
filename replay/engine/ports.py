"""Links that segments wait for in ports, of the compiled engine: with finite buffers, or when links change.

Without buffers, all segments that go on to a link wait in one port of that link, by eligibility. With them, a
link that enters a node which passes segments on has a buffer there of `net.buffer_bytes`; the port of a buffer,
and that of the messages injected on a link, offers the segment at its head, and no other (head-of-line
blocking), to the link that it goes on to. A link that is idle and up takes the oldest eligible offer, by port
on a tie (injections first), if the buffer at its far end has room; otherwise it waits for credit. Room comes
back one latency of the link after the tail has left the buffer. Buffers are ports 0 to links - 1; links + l is
that of injections on, or of all that waits for, link l.
"""

from .heap import push, replace
from .jit import jit
from .layout import CHANGES, SERVICES
from .links import (
    account,
    append,
    choose,
    flight,
    give_entry,
    hop,
    segment_size,
    serialise,
    take_entry,
)

ATTEMPT = 1 << 40  # added to a link's key: in one picosecond credits come first, then links try to serve


@jit
def call(sim, time, key):
    """Put a credit or an attempt into the heap of services."""
    push(sim.services, sim.register[SERVICES], time, key)
    sim.register[SERVICES] += 1


@jit
def join(net, sim, link, entry, output, since, now):
    """Queue an entry that came over `link` (-1: is new) for `output`, eligible `since`; offer it if it is first."""
    port = link if net.buffer_bytes and link >= 0 else net.first_own + output
    waiting = sim.entries[entry]
    waiting.next = -1
    waiting.start_ps = since
    waiting.then = output
    queue = sim.ports[port]
    if queue.head >= 0:
        sim.entries[queue.tail].next = entry
        queue.tail = entry
        return
    queue.head = entry
    queue.tail = entry
    offer(net, sim, port, now)


@jit
def offer(net, sim, port, now):
    """Offer the head of a port to the link that it goes on to; where that is down, to another that is up."""
    entry = sim.entries[sim.ports[port].head]
    if port < net.first_own and net.links[entry.then].down:
        entry.then = choose(net, sim, net.links[entry.then].source, entry.message, entry.segment)
    output = entry.then
    sim.ports[port].next = sim.ports[output].offers
    sim.ports[output].offers = port
    call(sim, now, ATTEMPT + output)


@jit
def oldest(net, sim, link):
    """Return (port, the one before it in the list) of the offer that `link` takes next; -1 without offers."""
    best = -1
    before_best = -1
    before = -1
    port = sim.ports[link].offers
    while port >= 0:
        since = sim.entries[sim.ports[port].head].start_ps
        if best < 0 or earlier(net, since, port, sim.entries[sim.ports[best].head].start_ps, best):
            best = port
            before_best = before
        before = port
        port = sim.ports[port].next
    return best, before_best


@jit
def earlier(net, since_a, port_a, since_b, port_b):
    """Whether the offer of port a goes before that of port b."""
    if since_a != since_b:
        return since_a < since_b
    if (port_a >= net.first_own) != (port_b >= net.first_own):
        return port_a >= net.first_own
    return port_a < port_b


@jit
def service(net, sim, rows):
    """Serve the first credit or attempt."""
    now = sim.services[0].time
    key = sim.services[0].key
    size = sim.register[SERVICES] - 1
    sim.register[SERVICES] = size
    if size > 0:
        replace(sim.services, size, sim.services[size].time, sim.services[size].key)
    if key < ATTEMPT:
        credit = sim.entries[key]
        sim.ports[credit.then].room += credit.segment
        call(sim, now, ATTEMPT + credit.then)
        give_entry(sim, key)
        return
    attempt(net, sim, rows, key - ATTEMPT, now)


@jit
def attempt(net, sim, rows, link, now):
    """Let an idle link take the oldest offer, if the buffer at its far end has room."""
    if sim.queues[link].free_ps > now or net.links[link].down:
        return
    port, before = oldest(net, sim, link)
    if port < 0:
        return
    entry = sim.ports[port].head
    slot = sim.entries[entry].message
    message = sim.messages[slot]
    size = segment_size(net, message.size_bytes, message.segments, sim.entries[entry].segment)
    kept = net.buffer_bytes > 0 and net.links[link].destination != message.destination
    if kept and sim.ports[link].room < size:
        return
    if kept:
        sim.ports[link].room -= size
    if before < 0:
        sim.ports[link].offers = sim.ports[port].next
    else:
        sim.ports[before].next = sim.ports[port].next
    depart(net, sim, rows, link, port, size, now)


@jit
def depart(net, sim, rows, link, port, size, now):
    """Start the segment at the head of `port` on `link`; then the port offers its next one."""
    entry = sim.ports[port].head
    since = sim.entries[entry].start_ps
    slot = sim.entries[entry].message
    message = sim.messages[slot]
    segment = sim.entries[entry].segment
    busy = serialise(net, sim, link, size)
    injected = net.links[link].source == message.source
    flying = entry
    if sim.entries[entry].left > 1:
        flying = take_entry(sim)
        sim.entries[flying].message = slot
        sim.entries[flying].segment = segment
        sim.entries[flying].left = 1
        sim.entries[flying].hop = sim.entries[entry].hop
        sim.entries[entry].segment += 1
        sim.entries[entry].left -= 1
    else:
        sim.ports[port].head = sim.entries[entry].next
    carried = sim.queues[link].each_bytes
    account(net, sim, link, flying, 1, carried, since, now, busy, not injected or segment == 0)
    if segment == (0 if injected else message.segments - 1):
        message.queued_ps += now - since
    if injected and segment == 0 and len(rows.messages):
        rows.messages[message.id].start_ps = now
    if len(rows.hops):
        hop(sim, rows, message.id, segment, link, since, now, now + busy)
    arrival, _ = flight(net, sim, link, now, slot, segment)
    sim.entries[flying].start_ps = arrival
    sim.entries[flying].then = 0
    append(net, sim, link, flying)
    if port < net.first_own:
        credit = take_entry(sim)
        sim.entries[credit].then = port
        sim.entries[credit].segment = size
        call(sim, now + busy + net.links[port].latency_ps, credit)
    call(sim, now + busy, ATTEMPT + link)
    if sim.ports[port].head >= 0:
        offer(net, sim, port, now)


@jit
def change(net, sim, now):
    """Let the next change of a link happen: it takes its new rate; or it goes down, and what waits for it moves."""
    wanted = net.changes[sim.register[CHANGES]]
    sim.register[CHANGES] += 1
    link = wanted.link
    net.links[link].down = wanted.rate_mb_per_s == 0
    if wanted.rate_mb_per_s > 0:
        net.links[link].rate = wanted.rate_mb_per_s
        sim.queues[link].size_bytes = -1
        call(sim, now, ATTEMPT + link)
        return
    port = sim.ports[link].offers
    sim.ports[link].offers = -1
    while port >= 0:
        following = sim.ports[port].next
        if port < net.first_own:
            offer(net, sim, port, now)
        else:
            move(net, sim, port, link, now)
        port = following


@jit
def move(net, sim, port, link, now):
    """Let all that waits for a link which has gone down choose again, in order."""
    entry = sim.ports[port].head
    sim.ports[port].head = -1
    while entry >= 0:
        waiting = sim.entries[entry]
        following = waiting.next
        output = choose(net, sim, net.links[link].source, waiting.message, waiting.segment)
        join(net, sim, -1, entry, output, waiting.start_ps, now)
        entry = following
