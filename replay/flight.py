"""Where a message's time went, from post to arrival: queueing, serialisation, latency, and on which link."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa


class Part(NamedTuple):
    """A share of a flight. `link` is -1 for a write to the own endpoint and in an ideal fabric."""

    what: str  # queueing, serialisation, latency, delivery
    link: int
    duration_ps: int


class Flight(NamedTuple):
    """What the results say of one message; `link` is its bottleneck."""

    source: int
    destination: int
    size_bytes: int
    post_ps: int
    start_ps: int
    arrival_ps: int
    queued_ps: int
    link: int


class Links:
    """The links of a run, and the ways that messages took over them.

    Results keep a message's bottleneck, not its route: the route is taken to be the one of fewest links that
    holds the bottleneck.
    """

    def __init__(self, links: pa.Table) -> None:
        columns = links.select(["name", "source", "destination", "rate_mb_per_s", "latency_ps"]).to_pydict()
        self.name: list[str] = columns["name"]
        self._source: list[str] = columns["source"]
        self._destination: list[str] = columns["destination"]
        self._rate: list[int] = columns["rate_mb_per_s"]
        self._latency: list[int] = columns["latency_ps"]
        self._leaving: dict[str, dict[str, int]] = {}
        for link, (a, b) in enumerate(zip(self._source, self._destination, strict=True)):
            self._leaving.setdefault(a, {}).setdefault(b, link)
        self._ways: dict[tuple[str, str], list[int]] = {}

    def route(self, source: int, destination: int, link: int) -> list[int]:
        """Return the links from GPU to GPU, fewest first, over `link`."""
        before = self._way(f"gpu {source}", self._source[link])
        after = self._way(self._destination[link], f"gpu {destination}")
        return [*before, link, *after]

    def _way(self, start: str, end: str) -> list[int]:
        """Return a shortest way between two nodes; nothing where there is none."""
        if (start, end) not in self._ways:
            self._ways[start, end] = self._search(start, end)
        return self._ways[start, end]

    def _search(self, start: str, end: str) -> list[int]:
        if start == end:
            return []
        came: dict[str, int] = {start: -1}
        queue = deque([start])
        while queue:
            node = queue.popleft()
            leaving = self._leaving.get(node, {})
            if end in leaving:
                way = [leaving[end]]
                while (link := came[self._source[way[0]]]) >= 0:
                    way.insert(0, link)
                return way
            for neighbour, link in leaving.items():
                if neighbour not in came:
                    came[neighbour] = link
                    queue.append(neighbour)
        return []

    def parts(self, flight: Flight) -> Iterator[Part]:
        """Yield the shares of a flight; they add up to it exactly, those of no length are left out.

        What is neither waiting before injection nor the latencies of the route is serialisation, but for the
        time that the last segment queued on the way. A segment that queues behind earlier ones of its own
        message is serialisation too: of the bottleneck, which takes at least size / rate.
        """
        left = flight.arrival_ps - flight.post_ps
        if flight.link < 0:
            yield Part("delivery", -1, left)
            return
        route = self.route(flight.source, flight.destination, flight.link)
        parts = [Part("queueing", route[0], min(left, flight.start_ps - flight.post_ps))]
        left -= parts[0].duration_ps
        latencies = []
        for link in route:
            latencies.append(Part("latency", link, min(left, self._latency[link])))
            left -= latencies[-1].duration_ps
        on_the_way = max(0, flight.queued_ps - parts[0].duration_ps)
        alone = -(-flight.size_bytes * 1_000_000 // self._rate[flight.link])
        busy = min(left, max(left - on_the_way, alone))
        parts += [Part("serialisation", flight.link, busy), Part("queueing", flight.link, left - busy)]
        yield from (part for part in [*parts, *latencies] if part.duration_ps)
