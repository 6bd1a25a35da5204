"""The fabric: endpoints, switches, directed links, and where a message goes next.

Nodes are numbered endpoints first. Routing is by interval rules at each node: the first rule of a node with
`low <= destination < high` names a set of links, set `base + (destination - low) // stride`; among several the
destination modulo their number picks one (destination-mod-k, as static fat-tree routing does). Rules grow with
links, never with pairs of endpoints.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas import UsageError

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Fabric:
    """A network of GPUs. Built by `FabricBuilder`; immutable.

    `gpu` is the GPUs' generation (volta, ampere, hopper, blackwell, cdna3, ...), by which libraries choose; ""
    is unknown.
    Endpoints are what agents live on: GPUs 0 to `gpus` - 1, then the `computing` switches that can
    reduce and multicast.
    Per link (L,): source and destination node, rate_mb_per_s (1 MB = 10^6 bytes), latency_ps, header_bytes added
    for every payload_bytes or part of it (0: no headers). Per node: store_and_forward. Per GPU: the box that
    it stands in, which rings and trees follow; routes do not depend on it. A fabric without links is ideal:
    every message lands one picosecond after it was posted.
    """

    name: str
    endpoints: int
    node_names: tuple[str, ...]
    store_and_forward: Ints
    box: Ints  # (gpus,)
    source: Ints
    destination: Ints
    rate_mb_per_s: Ints
    latency_ps: Ints
    header_bytes: Ints
    payload_bytes: Ints
    rule_first: Ints  # (N + 1,)
    rule_low: Ints
    rule_high: Ints
    rule_stride: Ints
    rule_base: Ints
    choice_first: Ints  # (sets + 1,)
    choices: Ints  # link ids
    computing: int = 0
    gpu: str = ""

    def _repr_html_(self) -> str:
        """Show the picture in a notebook."""
        from .drawing import draw

        return draw(self)

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        return self.endpoints - self.computing

    def switches(self, gpu: int, *, direct: bool) -> list[int]:
        """Return the computing switches (endpoints) that `gpu` reaches: over one link, or over NICs."""
        rules = slice(self.rule_first[gpu], self.rule_first[gpu + 1])
        found = [int(low) for low in self.rule_low[rules] if low >= self.gpus]
        return [s for s in found if (len(self.route(gpu, s)) == 1) == direct]

    @property
    def links(self) -> int:
        """Number of directed links."""
        return len(self.source)

    @property
    def ideal(self) -> bool:
        """Whether messages land as soon as they are posted."""
        return self.links == 0

    def leaving(self, node: int) -> Ints:
        """Return the links that leave `node`."""
        order, first = self._by_source
        found: Ints = order[first[node] : first[node + 1]]
        return found

    @cached_property
    def _by_source(self) -> tuple[Ints, Ints]:
        order = np.argsort(self.source, kind="stable")
        first = np.searchsorted(self.source[order], np.arange(len(self.node_names) + 1))
        return order, first

    def next_links(self, node: int, destination: int) -> list[int]:
        """Return the links that may be taken from `node` towards endpoint `destination`; empty without a rule."""
        for rule in range(self.rule_first[node], self.rule_first[node + 1]):
            low = self.rule_low[rule]
            if low <= destination < self.rule_high[rule]:
                chosen = self.rule_base[rule] + (destination - low) // self.rule_stride[rule]
                choices = self.choices[self.choice_first[chosen] : self.choice_first[chosen + 1]]
                return [int(link) for link in choices]
        return []

    def next_link(self, node: int, destination: int) -> int:
        """Return the link that static routing takes, or -1 where no rule matches."""
        links = self.next_links(node, destination)
        return links[destination % len(links)] if links else -1

    def route(self, source: int, destination: int) -> list[int]:
        """Return the links from one endpoint to another; empty for itself and in an ideal fabric.

        Raises UsageError where there is no route, or where rules loop.
        """
        path: list[int] = []
        node = source
        while node != destination and not self.ideal:
            link = self.next_link(node, destination)
            if link < 0 or len(path) > len(self.node_names):
                where = " -> ".join(self.node_names[n] for n in [source, *self.destination[path]])
                raise UsageError(
                    f"fabric {self.name}: no route from GPU {source} to GPU {destination} ({where})"
                )
            path.append(link)
            node = int(self.destination[link])
        return path

    def link_name(self, link: int) -> str:
        """Return `source -> destination` with the nodes' names."""
        return f"{self.node_names[self.source[link]]} -> {self.node_names[self.destination[link]]}"


def wire_bytes(size_bytes: int, header_bytes: int, payload_bytes: int) -> int:
    """Return payload plus headers: one header for every payload_bytes or part of it, at least one."""
    if payload_bytes == 0:
        return size_bytes
    return size_bytes + header_bytes * max(1, -(-size_bytes // payload_bytes))


def serialisation_ps(wire: int, rate_mb_per_s: int) -> int:
    """Return ceil(bytes * 10^6 / rate) picoseconds, at least one: 1 MB/s is 1 byte a 10^6 ps."""
    return max(1, -(-wire * 1_000_000 // rate_mb_per_s))


@dataclass
class FabricBuilder:
    """Build a Fabric: nodes, then links, then rules. Endpoints are nodes 0 to `endpoints` - 1.

    `box_gpus` consecutive endpoints share a box; by default each stands alone.
    """

    name: str
    endpoints: int
    box_gpus: int = 1
    gpu: str = ""
    _names: list[str] = field(default_factory=list)
    _store: list[bool] = field(default_factory=list)
    _links: "array[int]" = field(default_factory=lambda: array("q"))  # six numbers a link
    _rules: dict[int, list[tuple[int, int, int, int]]] = field(default_factory=dict)
    _choices: "array[int]" = field(default_factory=lambda: array("q"))
    _sizes: "array[int]" = field(default_factory=lambda: array("q"))  # of each set of choices
    _computing: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._names = [f"gpu {i}" for i in range(self.endpoints)]
        self._store = [False] * self.endpoints

    def node(self, name: str, *, store_and_forward: bool = False, computes: bool = False) -> int:
        """Add a switch or NIC. One that `computes` becomes an endpoint: whoever reaches it can write to it."""
        if computes:
            self._computing.append(len(self._names))
        self._names.append(name)
        self._store.append(store_and_forward)
        return len(self._names) - 1

    def land(self, node: int) -> None:
        """Let `node` pass on a segment only once it has landed there whole (store-and-forward)."""
        self._store[node] = True

    def link(
        self,
        source: int,
        destination: int,
        rate_mb_per_s: int,
        latency_ps: int,
        header_bytes: int = 0,
        payload_bytes: int = 0,
    ) -> int:
        """Add a directed link. Raises UsageError for a rate or latency below 1."""
        if rate_mb_per_s < 1 or latency_ps < 1:
            where = f"{self._names[source]} -> {self._names[destination]}"
            raise UsageError(
                f"fabric {self.name}, link {where}: rate and latency must be at least 1 MB/s and 1 ps"
            )
        self._links.extend((source, destination, rate_mb_per_s, latency_ps, header_bytes, payload_bytes))
        return len(self._links) // 6 - 1

    def duplex(self, a: int, b: int, *args: int, **kwargs: int) -> tuple[int, int]:
        """Add a link each way; return (a to b, b to a)."""
        return self.link(a, b, *args, **kwargs), self.link(b, a, *args, **kwargs)

    def rule(
        self, node: int, low: int, high: int, choices: Sequence[Sequence[int]], stride: int | None = None
    ) -> None:
        """At `node`, send destinations in [low, high) over `choices[(destination - low) // stride]`.

        Without `stride` all of them share `choices[0]`. Earlier rules of a node win.
        """
        self._rules.setdefault(node, []).append((low, high, stride or max(1, high - low), len(self._sizes)))
        for links in choices:
            self._sizes.append(len(links))
            self._choices.extend(links)

    def rule_each(self, node: int, low: int, high: int, links: Ints, stride: int = 1) -> None:
        """At `node`, send destinations in [low, high) over the one link `links[(destination - low) // stride]`."""
        self._rules.setdefault(node, []).append((low, high, stride, len(self._sizes)))
        self._sizes.frombytes(np.ones(len(links), np.int64).tobytes())
        self._choices.frombytes(np.asarray(links, np.int64).tobytes())

    def build(self) -> Fabric:
        """Return the finished fabric. Switches that compute are numbered after the GPUs, before all other nodes."""
        first = [*range(self.endpoints), *self._computing]
        order = [*first, *sorted(set(range(len(self._names))) - set(first))]
        place = np.argsort(order)
        self._lead()
        links = np.array(self._links, np.int64).reshape(-1, 6)
        sizes = np.array(self._sizes, np.int64)
        per_node = [self._rules.get(n, []) for n in order]
        rules = np.array([r for rules in per_node for r in rules], np.int64).reshape(-1, 4)
        return Fabric(
            name=self.name,
            endpoints=self.endpoints + len(self._computing),
            computing=len(self._computing),
            gpu=self.gpu,
            node_names=tuple(self._names[n] for n in order),
            store_and_forward=np.array(self._store, np.uint8)[order],
            box=np.arange(self.endpoints, dtype=np.int32) // self.box_gpus,
            source=place[links[:, 0]],
            destination=place[links[:, 1]],
            rate_mb_per_s=links[:, 2].copy(),
            latency_ps=links[:, 3].copy(),
            header_bytes=links[:, 4].copy(),
            payload_bytes=links[:, 5].copy(),
            rule_first=_first([len(r) for r in per_node]),
            rule_low=rules[:, 0].copy(),
            rule_high=rules[:, 1].copy(),
            rule_stride=rules[:, 2].copy(),
            rule_base=rules[:, 3].copy(),
            choice_first=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            choices=np.array(self._choices, np.int64),
        )

    def _lead(self) -> None:
        """Add rules to each computing switch for all that reach it directly or over NICs and plain switches."""
        into: dict[int, list[int]] = {}
        for link, end in enumerate(self._links[1::6]):
            into.setdefault(end, []).append(link)
        stops = {*range(self.endpoints), *self._computing}
        for number, switch in enumerate(self._computing, self.endpoints):
            seen, edge = {switch}, [switch]
            while edge:
                for link in into.get(edge.pop(0), []):
                    before = self._links[6 * link]
                    if before in seen:
                        continue
                    seen.add(before)
                    self.rule(before, number, number + 1, [[link]])
                    edge += [before] if before not in stops else []


def _first(sizes: list[int]) -> Ints:
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
