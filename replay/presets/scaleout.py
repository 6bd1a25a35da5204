"""Boxes on a scale-out network: rail-optimised, or a plain two-level fat-tree.

Every GPU reaches its NIC over PCIe, every NIC one leaf; leaves and spines are a full bipartite graph without
oversubscription. A leaf has `leaf_ports` ports, half of them down. Spines have as many ports as there are leaves:
beyond `leaf_ports` leaves a real network needs a third level, whose extra hops are not modelled. The path up is
static: which spine depends on the destination alone, spread over boxes and GPUs.
"""

from dataclasses import dataclass

import numpy as np

from ...schemas import UsageError
from ..fabric import Fabric, FabricBuilder
from .boxes import Box


@dataclass
class Hosts:
    """The boxes of a fabric, wired inside, with `nics[b][n]` the node of NIC n of box b."""

    builder: FabricBuilder
    box: Box
    nics: list[list[int]]

    @property
    def gpus(self) -> int:
        """GPUs a full box."""
        return self.box.gpus

    def locals(self, box: int) -> range:
        """Return the local numbers of the GPUs that box `box` has: the last one may be partial."""
        return range(min(self.gpus, self.builder.endpoints - box * self.gpus))


def rack(name: str, box: Box, gpus: int) -> Hosts:
    """Wire the boxes inside; with more than one, add NICs and send what leaves a box to them."""
    builder = FabricBuilder(name, gpus, box.gpus, box.gpu)
    hosts = Hosts(builder, box, [])
    boxes = -(-gpus // box.gpus)
    for b in range(boxes):
        first, local = b * box.gpus, hosts.locals(b)
        to_nic = box.wiring(builder, first, len(local))
        if boxes > 1 and box.nics:
            hosts.nics.append([builder.node(f"nic {b}.{n}") for n in range(box.nic_of(local[-1]) + 1)])
            _hang_nics(hosts, b, to_nic)
    return hosts


def _hang_nics(hosts: Hosts, box: int, to_nic: list[tuple[int, int]]) -> None:
    """Connect a box's NICs to what sends to them and what they deliver to, and route what leaves the box there."""
    builder, host, low = hosts.builder, hosts.box.host.args(), box * hosts.gpus
    up: dict[tuple[int, int], int] = {}
    down: dict[tuple[int, int], int] = {}
    for i, (above, below) in enumerate(to_nic):
        nic = hosts.nics[box][hosts.box.nic_of(i)]
        if (above, nic) not in up:
            up[above, nic] = builder.link(above, nic, *host)
            builder.rule(above, 0, builder.endpoints, [[up[above, nic]]])
        if (nic, below) not in down:
            down[nic, below] = builder.link(nic, below, *host)
        builder.rule(nic, low + i, low + i + 1, [[down[nic, below]]])


def rail_optimised(name: str, box: Box, gpus: int, leaf_ports: int = 64, sharp: bool = False) -> Fabric:
    """Connect NIC n of every box to leaves of rail n; spines join the rails, and the leaves of a large rail.

    With `sharp` leaves and spines can reduce and multicast.
    """
    hosts = rack(name, box, gpus)
    builder, below = hosts.builder, leaf_ports // 2
    if not hosts.nics:
        return builder.build()
    spines = [builder.node(f"spine {s}", computes=sharp) for s in range(min(below, len(hosts.nics)))]
    groups = [range(b, min(b + below, len(hosts.nics))) for b in range(0, len(hosts.nics), below)]
    back: list[list[list[int]]] = []  # [group][rail][spine]: link from the spine down to that leaf
    for g, group in enumerate(groups):
        back.append([])
        for rail in range(box.nics):
            leaf = builder.node(f"leaf {rail}.{g}", computes=sharp)
            pairs = [builder.duplex(leaf, spine, *box.net.args()) for spine in spines]
            back[-1].append([down for _, down in pairs])
            up = [u for u, _ in pairs]
            for b in group:
                _at_leaf(hosts, leaf, rail, b)
            builder.rule(leaf, 0, gpus, [_spread(up, box.gpus)])
    nics = np.arange(sum(len(nics) for nics in hosts.nics))  # in the order of their GPUs
    leaf_of = np.array(back)[nics // box.nics // below, nics % box.nics]  # [nic][spine]
    for s, spine in enumerate(spines):
        builder.rule_each(spine, 0, gpus, leaf_of[:, s], stride=box.gpus // box.nics)
    return builder.build()


def _at_leaf(hosts: Hosts, leaf: int, rail: int, box: int) -> None:
    """Connect a box's NIC of this rail, if it has one, and send down what is for its GPUs.

    A rule a box: a single one would have to offer the ways down and up as if they were choices.
    """
    if rail >= len(hosts.nics[box]):
        return
    nic = hosts.nics[box][rail]
    out, down = hosts.builder.duplex(nic, leaf, *hosts.box.net.args())
    hosts.builder.rule(nic, 0, hosts.builder.endpoints, [[out]])
    own = [box * hosts.gpus + i for i in hosts.locals(box) if hosts.box.nic_of(i) == rail]
    hosts.builder.rule(leaf, own[0], own[-1] + 1, [[down]])


def _spread(up: list[int], gpus: int) -> list[int]:
    """Return the spine links so that destination-mod-k spreads a rail's destinations, which lie `gpus` apart."""
    return [up[(i // gpus + i % gpus) % len(up)] for i in range(gpus * len(up))]


def fat_tree(name: str, box: Box, gpus: int, leaf_ports: int = 64, sharp: bool = False) -> Fabric:
    """Connect all NICs of as many boxes as fit to one leaf; spines join the leaves. `sharp`: they can reduce."""
    hosts = rack(name, box, gpus)
    builder = hosts.builder
    if not hosts.nics:
        return builder.build()
    if leaf_ports < 2 * box.nics:
        raise UsageError(
            f"--fabric {name}: leaf_ports {leaf_ports} cannot hold one box, which needs {2 * box.nics}; raise "
            "it, or set scale_out=fat-tree-3, where leaves may share a box"
        )
    per_leaf = leaf_ports // 2 // box.nics
    spines = [
        builder.node(f"spine {s}", computes=sharp) for s in range(min(per_leaf, len(hosts.nics)) * box.nics)
    ]
    back: list[list[int]] = []
    for first in range(0, len(hosts.nics), per_leaf):
        leaf = builder.node(f"leaf {len(back)}", computes=sharp)
        down = [
            link
            for b in range(first, min(first + per_leaf, len(hosts.nics)))
            for link in _under(hosts, leaf, b)
        ]
        low = first * box.gpus
        builder.rule(leaf, low, low + len(down), [[link] for link in down], stride=1)
        pairs = [builder.duplex(leaf, spine, *box.net.args()) for spine in spines]
        builder.rule(leaf, 0, gpus, [[u for u, _ in pairs]])
        back.append([d for _, d in pairs])
    for s, spine in enumerate(spines):
        builder.rule(spine, 0, gpus, [[links[s]] for links in back], stride=per_leaf * box.gpus)
    return builder.build()


def _under(hosts: Hosts, leaf: int, box: int) -> list[int]:
    """Connect a box's NICs to its leaf; return the link down to each of its GPUs' NICs."""
    down = []
    for nic in hosts.nics[box]:
        out, back = hosts.builder.duplex(nic, leaf, *hosts.box.net.args())
        hosts.builder.rule(nic, 0, hosts.builder.endpoints, [[out]])
        down.append(back)
    return [down[hosts.box.nic_of(i)] for i in hosts.locals(box)]
