"""A three-level fat-tree: leaves and aggregation switches in pods, cores between the pods.

A switch has `radix` ports. Half of an aggregation switch's go down, one to each leaf of its pod, half go up;
core c of row a connects aggregation switch a of every pod. A leaf has `radix / (1 + oversubscription)` ports
up, one to each aggregation switch of its pod, and the rest down. So radix^3 / 4 ports fit at most without
oversubscription.

Static routes spread: the aggregation switch is the destination's place in its leaf, the core its leaf's place in
the pod, so that no two ports share a way down, and shifted permutations share none up.
"""

from ...schemas import UsageError
from ..fabric import Fabric
from .boxes import Box
from .ports import Ports, ports


def three_level(name: str, box: Box, gpus: int, radix: int = 64, oversubscription: float = 1) -> Fabric:
    """Connect ports to leaves in order, leaves to pods. Raises UsageError for a radix that does not hold them."""
    found = ports(name, box, gpus)
    up = round(radix / (1 + oversubscription)) if oversubscription >= 0 else 0
    down, half = radix - up, radix // 2
    if radix < 2 or radix % 2 or up < 1 or down < 1:
        raise UsageError(
            f"--fabric {name}: radix {radix} with oversubscription {oversubscription} is no fat-tree; give an even "
            "radix of at least 2, and an oversubscription of at least 1 (1: none) that leaves ports both ways"
        )
    pods = -(-len(found.nodes) // (down * half))
    if pods > radix:
        raise UsageError(
            f"--fabric {name}: three levels of radix {radix} hold {down * half * radix} ports, {len(found.nodes)} "
            "are needed; give a larger radix"
        )
    rising = [_pod(found, pod, down, up, half, alone=pods == 1) for pod in range(pods)]
    if pods > 1:
        _cores(found, rising, down, half)
    return found.builder.build()


def _pod(found: Ports, pod: int, down: int, up: int, half: int, *, alone: bool) -> list[int]:
    """Build a pod; return its aggregation switches."""
    builder, first = found.builder, pod * down * half
    leaves = range(first, min(first + down * half, len(found.nodes)), down)
    if alone and len(leaves) <= 1:
        for low in leaves:
            found.hang(builder.node(f"leaf {pod}.0"), low, low + down)
        return []
    switches = [builder.node(f"aggregation {pod}.{a}") for a in range(up)]
    falling: list[list[list[int]]] = [[] for _ in switches]  # [switch][leaf]
    for number, low in enumerate(leaves):
        leaf = builder.node(f"leaf {pod}.{number}")
        found.hang(leaf, low, low + down)
        pairs = [builder.duplex(leaf, switch, *found.net.args()) for switch in switches]
        builder.rule(leaf, 0, found.gpus, [[link for link, _ in pairs]])
        for ways, (_, link) in zip(falling, pairs, strict=True):
            ways.append([link])
    for switch, ways in zip(switches, falling, strict=True):
        builder.rule(switch, *found.span(first, first + down * half), ways, stride=down * found.per)
    return switches


def _cores(found: Ports, pods: list[list[int]], down: int, half: int) -> None:
    """Connect the pods: row a of cores to aggregation switch a of each.

    A switch's links up are each repeated for the GPUs of a leaf, so that destination-mod-k picks by the leaf.
    """
    builder, leaf_gpus = found.builder, down * found.per
    for a in range(len(pods[0])):
        cores = [builder.node(f"core {a}.{c}") for c in range(half)]
        falling: list[list[list[int]]] = [[] for _ in cores]  # [core][pod]
        for switches in pods:
            pairs = [builder.duplex(switches[a], core, *found.net.args()) for core in cores]
            builder.rule(switches[a], 0, found.gpus, [[up for up, _ in pairs for _ in range(leaf_gpus)]])
            for ways, (_, link) in zip(falling, pairs, strict=True):
                ways.append([link])
        for core, ways in zip(cores, falling, strict=True):
            builder.rule(core, 0, found.gpus, ways, stride=half * leaf_gpus)
