"""The reference engine with finite buffers: lossless back-pressure by credits.

A link that enters a node which passes segments on has a buffer there. The port of a buffer, and that of the
messages injected on a link, offers the segment at its head, and no other (head-of-line blocking), to the link
that it goes on to. An idle link takes the oldest eligible offer (injections first, then by link, on a tie), if
the buffer at its far end has room; otherwise it waits for credit. Room comes back one latency of the link after
the tail has left the buffer.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import simpy

from . import layout
from .reference import DELIVERY, TRANSIT, Message, ReferenceEngine, Steps

CREDIT, ATTEMPT = 4, 5  # phases of one picosecond, after those of the reference engine


@dataclass
class Turn:
    """A segment at a port, and the link that it goes on to."""

    message: Message
    index: int
    output: int
    eligible_ps: int
    granted: simpy.Event


class CreditEngine(ReferenceEngine):
    """One run with buffers of `buffer_bytes`. Ports 0 to links - 1 are buffers, links + l injections on link l."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ports: dict[int, deque[Turn]] = defaultdict(deque)
        self.offers: dict[int, list[int]] = defaultdict(list)
        self.room = [self.buffer_bytes] * self.fabric.links

    def run(self) -> layout.Final:
        """Run until nothing can go on; name the buffers that wait for one another."""
        final = super().run()
        buffers = {link: turns for link, turns in self.ports.items() if turns and link < self.fabric.links}
        return final._replace(loop=layout.loop({link: turns[0].output for link, turns in buffers.items()}))

    def launch(self, message: Message, index: int, link: int) -> None:
        """Queue one segment of a new message at the injection port of its first link."""
        turn = self.join(self.fabric.links + link, message, index, link)
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
            turn = self.join(link, message, index, self.choose(node, message, index))
        yield self.clock.at(tail, DELIVERY, link, message.number, index)
        self.deliver(message)

    def join(self, port: int, message: Message, index: int, output: int) -> Turn:
        """Queue a segment at a port; offer it if it is the first."""
        turn = Turn(message, index, output, int(self.clock.now), self.clock.event())
        self.ports[port].append(turn)
        if len(self.ports[port]) == 1:
            self.offer(port)
        return turn

    def offer(self, port: int) -> None:
        """Offer the head of a port to the link that it goes on to."""
        output = self.ports[port][0].output
        self.offers[output].append(port)
        self.later(self.clock.now, ATTEMPT, output, self.attempt)

    def later(self, time_ps: int, phase: int, link: int, action: Callable[[int], None]) -> None:
        """Let `action(link)` happen."""
        self.clock.at(time_ps, phase, link).callbacks.append(lambda _: action(link))

    def attempt(self, link: int) -> None:
        """Let an idle link take the oldest offer, if the buffer at its far end has room."""
        if self.free_ps[link] > self.clock.now or not self.offers[link]:
            return
        first_own = self.fabric.links
        port = min(self.offers[link], key=lambda p: (self.ports[p][0].eligible_ps, p < first_own, p))
        turn = self.ports[port][0]
        size = self.size(turn.message, turn.index)
        if self.fabric.destination[link] != turn.message.destination:
            if self.room[link] < size:
                return
            self.room[link] -= size
        self.offers[link].remove(port)
        self.depart(link, port, self.ports[port].popleft(), size)

    def depart(self, link: int, port: int, turn: Turn, size: int) -> None:
        """Start a segment on `link`; then its port offers the next one."""
        now, injected = int(self.clock.now), port >= self.fabric.links
        busy = self.serialise(link, size)
        self.free_ps[link] = now + busy
        self.account(turn.message, turn.index, link, turn.eligible_ps, now, injected=injected)
        self.clock.succeed(turn.granted, now, ATTEMPT, -1)
        self.later(now + busy, ATTEMPT, link, self.attempt)
        if not injected:
            back = now + busy + int(self.fabric.latency_ps[port])
            self.later(back, CREDIT, port, lambda buffer: self.give_back(buffer, size))
        if self.ports[port]:
            self.offer(port)

    def give_back(self, link: int, size: int) -> None:
        """Return room of a buffer to the link that fills it."""
        self.room[link] += size
        self.later(self.clock.now, ATTEMPT, link, self.attempt)
