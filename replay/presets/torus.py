"""A torus: a router a port in a grid of two or three dimensions, whose edges are joined.

Every port, a bare GPU by default, has a router of its own next to it: GPUs never forward, and what passes through
does not touch their memory. Routes are dimension-ordered, the slowest-varying dimension first, the shorter way
round; where both ways are as long the destination picks.
"""

from math import prod

from ...schemas import UsageError
from ..fabric import Fabric
from .boxes import Box
from .ports import Ports, ports


def torus(name: str, box: Box, gpus: int, shape: str = "", *, dimensions: int = 3) -> Fabric:
    """Connect ports in order, the last dimension of `shape` ("4x4x8") varying fastest.

    Without a shape, the one of as many routers as ports that is nearest to a cube; a prime number makes a ring.
    A bare GPU's link to its router is as wide as all of the router's links to others together.

    Raises UsageError for a shape that does not hold the ports.
    """
    found = ports(name, box, gpus)
    count = len(found.nodes)
    if not count:
        return found.builder.build()
    sizes = _sizes(name, shape, dimensions, count)
    routers = [found.builder.node(f"router {'.'.join(map(str, _at(i, sizes)))}") for i in range(prod(sizes))]
    end = found.net if box.nics else found.net.times(sum(min(size - 1, 2) for size in sizes) or 1)
    for i, router in enumerate(routers):
        found.hang(router, min(i, count), min(i + 1, count), end)
    for dimension in reversed(range(len(sizes))):
        _rings(found, routers, sizes, dimension)
    return found.builder.build()


def _sizes(name: str, shape: str, dimensions: int, count: int) -> list[int]:
    sizes = (
        [int(size) if size.isdigit() else 0 for size in shape.split("x")]
        if shape
        else _nearest(count, dimensions)
    )
    if len(sizes) != dimensions or min(sizes) < 1:
        example = "x".join("4" * dimensions)
        raise UsageError(f"--fabric {name}: shape {shape!r} is not like {example}; give {dimensions} sizes")
    if prod(sizes) < count:
        raise UsageError(f"--fabric {name}: shape {shape} has {prod(sizes)} routers, {count} are needed")
    return sizes


def _nearest(count: int, dimensions: int) -> list[int]:
    """Return factors of `count`, their sum as small as can be, in rising order."""
    if dimensions == 1:
        return [count]
    options = [
        [d, *_nearest(count // d, dimensions - 1)]
        for d in range(1, count + 1)
        if count % d == 0 and d**dimensions <= count
    ]
    return sorted(min(options, key=lambda sizes: (sum(sizes), sizes)))


def _at(index: int, sizes: list[int]) -> list[int]:
    """Return the coordinates of a router."""
    found = []
    for size in reversed(sizes):
        index, at = divmod(index, size)
        found.append(at)
    return found[::-1]


def _rings(found: Ports, routers: list[int], sizes: list[int], dimension: int) -> None:
    """Connect the rings of one dimension, and route along them to what has the same coordinates before it."""
    size, step = sizes[dimension], prod(sizes[dimension + 1 :])
    if size == 1:
        return
    forward: dict[int, int] = {}
    backward: dict[int, int] = {}
    for i in range(len(routers)):
        at = i // step % size
        if size == 2 and at == 1:
            continue  # two routers are joined once
        after = i + step * (1 if at + 1 < size else 1 - size)
        forward[i], backward[after] = found.builder.duplex(routers[i], routers[after], *found.net.args())
        if size == 2:
            backward[i], forward[after] = forward[i], backward[after]
    stretches = [_stretches(at, size) for at in range(size)]
    for i, router in enumerate(routers):
        first = i - i % (size * step)
        for low, high, onward, back in stretches[i // step % size]:
            span = found.span(first + low * step, first + high * step)
            if span[0] < span[1]:
                ways = [forward[i]] * onward + [backward[i]] * back
                found.builder.rule(router, *span, [ways])


def _stretches(at: int, size: int) -> list[tuple[int, int, bool, bool]]:
    """Return the stretches of coordinates seen from `at`: first, one after the last; forwards, backwards."""
    ways = [
        (2 * ((to - at) % size) <= size, 2 * ((at - to) % size) <= size and size > 2) for to in range(size)
    ]
    cuts = [to for to in range(1, size) if ways[to] != ways[to - 1] or at in (to, to - 1)]
    pairs = zip([0, *cuts], [*cuts, size], strict=True)
    return [(low, high, *ways[low]) for low, high in pairs if low != at]
