"""Whether a fabric routes every pair."""

import random

from ..fabric import Fabric

_ALL = 512  # endpoints up to which every pair is tried
_SAMPLE = 20_000


def check_routes(fabric: Fabric) -> None:
    """Follow the route of every pair of endpoints; with more than 512 endpoints, of 20,000 random pairs.

    Raises UsageError, naming the pair and how far it came, where there is no route or where rules loop.
    """
    n = fabric.gpus
    if n <= _ALL:
        pairs = [(a, b) for a in range(n) for b in range(n)]
    else:
        draw = random.Random(n)
        pairs = [(draw.randrange(n), draw.randrange(n)) for _ in range(_SAMPLE)]
    for a, b in pairs:
        fabric.route(a, b)
