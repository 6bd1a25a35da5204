"""Whether every GPU of a fabric reaches every other, and over how many links."""

from dataclasses import dataclass

import numpy as np

from ..schemas import UsageError
from .fabric import Fabric, Ints

_PAIRS_AT_ONCE = 1 << 20
_ALL = 2048  # GPUs up to which every pair is followed
_SAMPLE = 1 << 17  # pairs drawn of larger fabrics


@dataclass(frozen=True)
class Routes:
    """Pairs of different GPUs, how many of them have a route of each number of links, and the most used link.

    `lengths[n]` pairs have n links; `busiest` is the link on the most routes (-1: none), `busiest_pairs` how many.
    With `sampled` the pairs were drawn, otherwise they are all.
    """

    pairs: int
    lengths: dict[int, int]
    busiest: int
    busiest_pairs: int
    sampled: bool = False


def check_routes(fabric: Fabric) -> Routes:
    """Follow the static route of every ordered pair of GPUs; above 2,048 GPUs, of 131,072 drawn ones.

    Raises UsageError, naming the pair and the way so far, where a route ends before its destination or loops.
    """
    if fabric.ideal:
        return Routes(fabric.gpus * (fabric.gpus - 1), {}, -1, 0)
    lengths: dict[int, int] = {}
    uses = np.zeros(fabric.links, np.int64)
    sampled = fabric.gpus > _ALL
    if sampled:
        draw = np.random.default_rng(fabric.gpus)
        sources, destinations = draw.integers(0, fabric.gpus, (2, _SAMPLE))
        _follow(fabric, sources, destinations, lengths, uses)
    else:
        step = max(1, _PAIRS_AT_ONCE // fabric.gpus)
        for low in range(0, fabric.gpus, step):
            sources = np.arange(low, min(low + step, fabric.gpus))
            everyone = np.tile(np.arange(fabric.gpus), len(sources))
            _follow(fabric, np.repeat(sources, fabric.gpus), everyone, lengths, uses)
    busiest = int(uses.argmax())
    return Routes(sum(lengths.values()), dict(sorted(lengths.items())), busiest, int(uses[busiest]), sampled)


def _follow(fabric: Fabric, source: Ints, destination: Ints, lengths: dict[int, int], uses: Ints) -> None:
    """Follow the routes of these pairs, all of them a link at a time; count lengths and uses."""
    going = source != destination
    source, destination = source[going], destination[going]
    node = source
    for length in range(1, len(fabric.node_names) + 1):
        if not len(source):
            return
        link = next_links(fabric, node, destination)
        if (link < 0).any():
            break
        uses += np.bincount(link, minlength=fabric.links)
        node = fabric.destination[link]
        there = node == destination
        if there.any():
            lengths[length] = lengths.get(length, 0) + int(there.sum())
        source, destination, node, link = (x[~there] for x in (source, destination, node, link))
    broken = int(np.flatnonzero(link < 0)[0]) if (link < 0).any() else 0
    fabric.route(int(source[broken]), int(destination[broken]))  # raises, and names the way
    raise UsageError(f"fabric {fabric.name}: routes loop; check the rules")


def next_links(fabric: Fabric, node: Ints, destination: Ints) -> Ints:
    """Return (n,) the link from each node towards each destination, -1 without a rule; see Fabric.next_link."""
    link = np.full(len(node), -1, np.int64)
    rule, end = fabric.rule_first[node], fabric.rule_first[node + 1]
    searching = np.flatnonzero(rule < end)
    while len(searching):
        at, to = rule[searching], destination[searching]
        match = (fabric.rule_low[at] <= to) & (to < fabric.rule_high[at])
        at, to = at[match], to[match]
        chosen = fabric.rule_base[at] + (to - fabric.rule_low[at]) // fabric.rule_stride[at]
        first = fabric.choice_first[chosen]
        count = fabric.choice_first[chosen + 1] - first
        some = count > 0
        link[searching[match][some]] = fabric.choices[first[some] + to[some] % count[some]]
        searching = searching[~match]
        rule[searching] += 1
        searching = searching[rule[searching] < end[searching]]
    return link
