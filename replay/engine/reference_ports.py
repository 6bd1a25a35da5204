"""The reference engine with ports: finite buffers (lossless back-pressure by credits), and links that change.

Without buffers, all segments that go on to a link wait in one port of that link, by eligibility. With them, a
link that enters a node which passes segments on has a buffer there; the port of a buffer, and that of the
messages injected on a link, offers the segment at its head, and no other (head-of-line blocking), to the link
that it goes on to. An idle link that is up takes the oldest eligible offer (injections first, then by link, on
a tie), if the buffer at its far end has room; otherwise it waits for credit. Room comes back one latency of the
link after the tail has left the buffer.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import simpy

from ..changes import LinkChange
from ..fabric import serialisation_ps
from . import layout
from .reference import DELIVERY, TRANSIT, Message, ReferenceEngine, Steps

CHANGE, CREDIT, ATTEMPT = -1, 4, 5  # phases of one picosecond, before and after those of the reference engine


@dataclass
class Turn:
    """A segment at a port, and the link that it goes on to."""

    message: Message
    index: int
    output: int
    eligible_ps: int
    granted: simpy.Event
    hop: int = 0


class PortEngine(ReferenceEngine):
    """One run with buffers of `buffer_bytes`, or changes of links.

    Ports 0 to links - 1 are buffers; links + l is that of injections on, or of all that waits for, link l.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ports: dict[int, deque[Turn]] = defaultdict(deque)
        self.offers: dict[int, list[int]] = defaultdict(list)
        self.room = [self.buffer_bytes] * self.fabric.links
        self.rates = [int(rate) for rate in self.fabric.rate_mb_per_s]

    def run(self) -> layout.Final:
        """Run until nothing can go on; name the buffers that wait for one another."""
        for change in self.changes:
            self.clock.at(change.time_ps, CHANGE, change.link).callbacks.append(partial(self.change, change))
        final = super().run()
        buffers = {link: turns for link, turns in self.ports.items() if turns and link < self.fabric.links}
        return final._replace(loop=layout.loop({link: turns[0].output for link, turns in buffers.items()}))

    def launch(self, message: Message, index: int, link: int) -> None:
        """Queue one segment of a new message at the injection port of its first link."""
        turn = Turn(message, index, link, int(self.clock.now), self.clock.event())
        self.join(turn, -1)
        self.clock.process(self.ride(turn))

    def ride(self, turn: Turn) -> Steps:
        """Take one segment from port to port."""
        fabric, message, index = self.fabric, turn.message, turn.index
        size = self.size(message, index)
        while True:
            yield turn.granted
            link = turn.output
            head = self.clock.now + int(fabric.latency_ps[link])
            tail = head + self.serialise(link, size)
            node = int(fabric.destination[link])
            if node == message.destination:
                break
            onward = fabric.next_link(node, message.destination)
            eligible = (
                tail if fabric.store_and_forward[node] else max(head, tail - self.serialise(onward, size))
            )
            yield self.clock.at(eligible, TRANSIT, link, message.number, index)
            now, output = int(self.clock.now), self.choose(node, message, index)
            turn = Turn(message, index, output, now, self.clock.event(), turn.hop + 1)
            self.join(turn, link)
        yield self.clock.at(tail, DELIVERY, link, message.number, index)
        self.deliver(message)

    def join(self, turn: Turn, link: int) -> None:
        """Queue a segment that came over `link` (-1: is new) at its port; offer it if it is the first."""
        port = link if self.buffer_bytes and link >= 0 else self.fabric.links + turn.output
        self.ports[port].append(turn)
        if len(self.ports[port]) == 1:
            self.offer(port)

    def offer(self, port: int) -> None:
        """Offer the head of a port to the link that it goes on to; where that is down, to another that is up."""
        turn = self.ports[port][0]
        if port < self.fabric.links and turn.output in self.down:
            turn.output = self.choose(int(self.fabric.source[turn.output]), turn.message, turn.index)
        self.offers[turn.output].append(port)
        self.later(self.clock.now, ATTEMPT, turn.output, self.attempt)

    def change(self, wanted: LinkChange, _: simpy.Event) -> None:
        """Give a link its new rate; or take it down, and let what waits for it choose again."""
        link = wanted.link
        if wanted.rate_mb_per_s:
            self.down.discard(link)
            self.rates[link] = wanted.rate_mb_per_s
            self.later(self.clock.now, ATTEMPT, link, self.attempt)
            return
        self.down.add(link)
        for port in self.offers.pop(link, []):
            if port < self.fabric.links:
                self.offer(port)
                continue
            for turn in self.ports.pop(port):
                turn.output = self.choose(int(self.fabric.source[link]), turn.message, turn.index)
                self.join(turn, -1)

    def serialise(self, link: int, size: int) -> int:
        """Return the picoseconds that a segment keeps a link busy, at its rate of now."""
        return serialisation_ps(self.wire(link, size), self.rates[link])

    def later(self, time_ps: int, phase: int, link: int, action: Callable[[int], None]) -> None:
        """Let `action(link)` happen."""
        self.clock.at(time_ps, phase, link).callbacks.append(lambda _: action(link))

    def attempt(self, link: int) -> None:
        """Let an idle link take the oldest offer, if the buffer at its far end has room."""
        if self.free_ps[link] > self.clock.now or link in self.down or not self.offers[link]:
            return
        first_own = self.fabric.links
        port = min(self.offers[link], key=lambda p: (self.ports[p][0].eligible_ps, p < first_own, p))
        turn = self.ports[port][0]
        size = self.size(turn.message, turn.index)
        if self.buffer_bytes and self.fabric.destination[link] != turn.message.destination:
            if self.room[link] < size:
                return
            self.room[link] -= size
        self.offers[link].remove(port)
        self.depart(link, port, self.ports[port].popleft(), size)

    def depart(self, link: int, port: int, turn: Turn, size: int) -> None:
        """Start a segment on `link`; then its port offers the next one."""
        now, injected = int(self.clock.now), self.fabric.source[link] == turn.message.source
        busy = self.serialise(link, size)
        self.free_ps[link] = now + busy
        self.account(turn.message, turn.index, link, turn.eligible_ps, now, turn.hop, injected=injected)
        self.clock.succeed(turn.granted, now, ATTEMPT, -1)
        self.later(now + busy, ATTEMPT, link, self.attempt)
        if port < self.fabric.links:
            back = now + busy + int(self.fabric.latency_ps[port])
            self.later(back, CREDIT, port, lambda buffer: self.give_back(buffer, size))
        if self.ports[port]:
            self.offer(port)

    def give_back(self, link: int, size: int) -> None:
        """Return room of a buffer to the link that fills it."""
        self.room[link] += size
        self.later(self.clock.now, ATTEMPT, link, self.attempt)
