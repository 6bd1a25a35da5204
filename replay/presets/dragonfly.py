"""A dragonfly: groups of routers, all connected inside a group, and every group to every other.

Routes are minimal: to the router of the group that has a link to the destination's group, over that link, and to
the destination's router; at most local, global, local and the two ends. Where two groups have several links the
destination picks one, and a router that has one itself takes its own.
"""

from dataclasses import dataclass
from itertools import count

from ...schemas import UsageError
from ..fabric import Fabric, FabricBuilder
from .boxes import Box
from .ports import Ports, ports


@dataclass
class _Shape:
    """`groups` of `routers`, each with `ends` ports and at most `globals_` links to other groups."""

    groups: int
    routers: int
    ends: int
    globals_: int

    @property
    def parallel(self) -> int:
        """Links between any two groups."""
        return self.routers * self.globals_ // max(1, self.groups - 1)

    def owners(self, group: int, other: int) -> list[int]:
        """Return the router, a link, of `group` that has links to `other`: blocks of links in order of distance."""
        block = ((other - group - 1) % self.groups) * self.parallel
        return [(block + j) // self.globals_ for j in range(self.parallel)]


def dragonfly(
    name: str, box: Box, gpus: int, routers: int = 0, ports_a_router: int = 0, global_links: int = 0
) -> Fabric:
    """Connect ports to routers in order, routers to groups.

    What is 0 is chosen: the smallest balanced dragonfly that holds all, which has twice as many routers a
    group as ports a router, and as many global links a router as ports (Kim et al., ISCA 2008).

    Raises UsageError for a shape that cannot connect every two groups.
    """
    found = ports(name, box, gpus)
    if not found.nodes:
        return found.builder.build()
    shape = _shape(name, len(found.nodes), routers, ports_a_router, global_links)
    nodes = [
        [found.builder.node(f"router {g}.{r}") for r in range(shape.routers)] for g in range(shape.groups)
    ]
    between = _global_links(found, shape, nodes)
    for group, members in enumerate(nodes):
        _group(found, shape, group, members, between)
    return found.builder.build()


def _shape(name: str, needed: int, routers: int, ends: int, globals_: int) -> _Shape:
    balanced = next(p for p in count(1) if 2 * p * p * (2 * p * p + 1) >= needed)
    ends = ends or balanced
    routers, globals_ = routers or 2 * ends, globals_ or ends
    shape = _Shape(-(-needed // (max(1, routers) * max(1, ends))), routers, ends, globals_)
    if min(routers, ends, globals_) < 1 or shape.groups > routers * globals_ + 1:
        raise UsageError(
            f"--fabric {name}: {shape.groups} groups of {routers} routers need {shape.groups - 1} links to others, "
            f"but have {routers} x {globals_}; give more routers, ports_a_router or global_links"
        )
    return shape


def _global_links(found: Ports, shape: _Shape, nodes: list[list[int]]) -> dict[tuple[int, int], list[int]]:
    """Connect every two groups; return the links from the first to the second, in the order of `owners`."""
    between: dict[tuple[int, int], list[int]] = {}
    for g in range(shape.groups):
        for h in range(g + 1, shape.groups):
            ends = zip(shape.owners(g, h), shape.owners(h, g), strict=True)
            pairs = [found.builder.duplex(nodes[g][a], nodes[h][b], *found.net.args()) for a, b in ends]
            between[g, h], between[h, g] = [p[0] for p in pairs], [p[1] for p in pairs]
    return between


def _group(
    found: Ports, shape: _Shape, group: int, members: list[int], between: dict[tuple[int, int], list[int]]
) -> None:
    """Connect a group inside, and route from its routers: down, over a local link, or to another group."""
    builder, ends, size = found.builder, shape.ends, shape.routers * shape.ends
    local = _all_to_all(builder, found, members)
    low, high = found.span(group * size, (group + 1) * size)
    owners = [shape.owners(group, other) if other != group else [] for other in range(shape.groups)]
    links = [between.get((group, other), []) for other in range(shape.groups)]
    for r, router in enumerate(members):
        first = group * size + r * ends
        found.hang(router, min(first, len(found.nodes)), min(first + ends, len(found.nodes)))
        if low < high:
            inside = [[local[r, s]] if s != r else [] for s in range(shape.routers)]
            builder.rule(router, low, high, inside, stride=ends * found.per)
        if shape.groups > 1:
            ways = [
                [link for owner, link in zip(*pair, strict=True) if owner == r]
                if r in pair[0]
                else [local[r, owner] for owner in pair[0]]
                for pair in zip(owners, links, strict=True)
            ]  # its own links to the other group, or those to the routers that have one
            builder.rule(router, 0, found.gpus, ways, stride=size * found.per)


def _all_to_all(builder: FabricBuilder, found: Ports, members: list[int]) -> dict[tuple[int, int], int]:
    """Connect all routers of a group; return the link from each to each."""
    local: dict[tuple[int, int], int] = {}
    for a in range(len(members)):
        for b in range(a):
            local[a, b], local[b, a] = builder.duplex(members[a], members[b], *found.net.args())
    return local
