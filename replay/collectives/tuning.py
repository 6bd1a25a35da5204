"""What NCCL would choose (see `model`), and what its kernels cost (see `costs`).

LL's flags double the bytes on the wire, and LL128's are a 15th of them: the links carry those. What channels need
beyond that is time in the kernel. Custom kernels that load from their peers cost no more than a flag's way.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from ..fabric import Fabric
from .algorithms import names
from .choice import choose, group_of, switch_gb_per_s
from .costs import US, Costs, costs
from .model import GENERATIONS, Group, tree_channels, tree_limit_gb_per_s
from .operation import WIRE_BYTES, Operation, Tuning
from .orders import ring_order
from .p2p import BATCH_PEERS, Exchange, busy_ps, protocol_of
from .tree import double_tree

CUSTOM_STEP_US = 0.6
CUSTOM_PEER_US = 1.0
"""What each peer adds to the barriers of a custom kernel. Calibrated on QR_MI300X (2, 4 and 8 GPUs)."""
"""A flag's way in a custom kernel: NCCL's hwLat of LL over NVLink (src/graph/tuning.cc)."""
NVLS_CHUNK_BYTES = 128 * 1024
"""A channel's; halved for small operations (calcCollChunking, src/enqueue.cc)."""
NVLS_TREE_CHUNK_BYTES = 64 * 1024
"""The same over four boxes and more."""
NVLS_CUTS = (64, 64 * 1024), (8, 32 * 1024), (2, 16 * 1024)
NVLS_TREE_CUTS = (32, 256 * 1024), (16, 128 * 1024), (4, 64 * 1024), (1, 32 * 1024)
"""An operation of fewer loops than the first has chunks of the second at most: in one box, and between boxes."""
TREE_SHARE = 0.7
"""Of a channel's threads that reduce up a tree with LL and LL128; the rest broadcasts down meanwhile (runTreeSplit,
src/device/all_reduce.h). The way down, which only copies, is taken to keep up. Simple: see `_tree_share`."""
CUSTOM = ("one_shot_get", "two_shot_get")
ALIASES = {"nvlstree": "nvls_tree", "collnetdirect": "sharp", "collnet_direct": "sharp", "two_shot": "direct"}
"""Names that libraries and captures use."""
CHUNK_BYTES = 32 * 1024, 512 * 1024
"""Smallest and largest chunk of a channel: NCCL's Simple buffer of 4 MiB holds 8 of the largest."""
NVLS_CHANNELS = 16
"""Of NVLS, where no capture says."""
EXCHANGES = ("all_to_all", "all_to_allv")
COPY_TIMES = 2
"""How much faster a channel copies out what came last than it forwards. Calibrated on A4_2gpu1node_ag, XLA_H100."""
LEAST_BYTES = {"ll": 512 * 8, "ll128": 640 * 8, "simple": 512 * 64}
"""With fewer bytes a channel NCCL uses fewer channels: threads times NCCL_*_THREAD_THRESHOLD, for rings of LL also
times the number of ranks (src/enqueue.cc, src/graph/tuning.cc)."""
DEPTH = 8
"""Chunks for every step of the path that NCCL aims at: it halves the chunk until there are (src/enqueue.cc)."""


def tuning(
    fabric: Fabric,
    operation: Operation,
    members: Sequence[int],
    algorithm: str | None = None,
    protocol: str | None = None,
    channels: int | None = None,
    without: Collection[str] = (),
    nvls_tree_chunk_bytes: int = 0,
) -> Tuning:
    """Return how an operation runs: as captured where that is given, otherwise as NCCL's model would choose.

    `without`: algorithms and protocols that are switched off, and never chosen. `nvls_tree_chunk_bytes`: the
    largest chunk of an NVLS tree's channel (NCCL_NVLSTREE_MAX_CHUNKSIZE); 0: NCCL's own.

    A step costs what NCCL says less the latency of the path that the fabric already takes. Nothing but the network
    costs anything on an ideal fabric. A captured NVLS becomes NCCL's choice where no switch of the fabric reduces.
    """
    known = names(operation.operation) or [""]  # what has none, expand refuses by name
    algorithm = ALIASES.get((algorithm or "").lower(), algorithm)
    algorithm = algorithm if algorithm in known else None
    protocol = protocol if protocol in WIRE_BYTES else None
    if fabric.ideal or len(members) < 2:
        known = [name for name in known if not fabric.ideal or name not in ("nvls", "nvls_tree", "sharp")]
        return Tuning(
            algorithm if algorithm in known else known[0], protocol or "simple", channels=channels or 0
        )
    orders = ring_order(fabric, members)
    if algorithm in ("nvls", "nvls_tree") and not switch_gb_per_s(fabric, members):
        algorithm = None  # as captured, on a fabric that cannot
    cost = costs(fabric.gpu)
    if operation.operation in EXCHANGES and algorithm in (None, "direct"):
        protocol = protocol or ("simple" if "ll" in without else None)
        return _exchange(fabric, operation, members, protocol, channels, cost)
    group = group_of(fabric, members, orders, channels or cost.channels)
    if algorithm is None or protocol is None:
        whole = _whole(operation, len(members))
        algorithm, protocol = choose(group, operation.operation, whole, algorithm, protocol, without)
    if algorithm in ("nvls", "nvls_tree"):
        return _nvls(fabric, operation, members, algorithm, channels or NVLS_CHANNELS, cost,
                     nvls_tree_chunk_bytes)  # fmt: skip
    path, width, of = _path_ps(fabric, members), channels or cost.channels, cost.protocols[protocol]
    custom = algorithm in CUSTOM
    rate = of.channel_gb_per_s
    limit = tree_limit_gb_per_s(group, protocol) if algorithm == "tree" else 0
    if limit:
        width = channels or min(width, 2 * tree_channels(group))
    fit = _channels(operation, len(members), algorithm, protocol, width)
    if algorithm == "tree" and not limit:
        rate *= _tree_share(protocol, cost)
    copies = protocol == "simple" and group.generation in GENERATIONS
    alone = group.boxes == group.ranks > 1  # every step is over the network
    return Tuning(
        algorithm,
        protocol,
        channels=_channels(operation, len(members), algorithm, protocol, channels),
        chunk_bytes=_chunk_bytes(operation.size_bytes, group, algorithm, width, len(orders)),
        base_ps=round((CUSTOM_PEER_US * (len(members) - 1) if custom else cost.kernel_us) * US),
        step_ps=(
            round(of.network_us * US)
            if alone
            else max(0, round((CUSTOM_STEP_US if custom else of.step_us) * US) - path)
        ),
        network_step_ps=round(of.network_us * US),
        lanes=fit,
        lane_mb_per_s=round(rate * 1000),
        network_lane_mb_per_s=round(limit / fit * 1000),
        pass_bytes=of.pass_bytes,
        copy_lane_mb_per_s=round(of.channel_gb_per_s * COPY_TIMES * 1000) if copies else 0,
    )


def _exchange(
    fabric: Fabric,
    operation: Operation,
    members: Sequence[int],
    protocol: str | None,
    channels: int | None,
    cost: Costs,
) -> Tuning:
    """Return how sends and receives to all run, posted at once: what their channels need, and each peer.

    `channels` of a peer over the network, where that is set by hand.
    """
    exchange = _exchanged(fabric, operation, members)
    protocol = protocol or protocol_of(cost, exchange)
    of, spans = cost.protocols[protocol], exchange.network_peers > 0
    peers_us = exchange.peers * cost.peer_us + exchange.network_peers * cost.network_peer_us
    return Tuning(
        "direct",
        protocol,
        base_ps=round((cost.kernel_us + peers_us) * US),
        step_ps=max(0, round(of.step_us * US) - _path_ps(fabric, members)),
        network_step_ps=round(of.network_us * US) if spans else 0,
        kernel_ps=busy_ps(cost, len(members), exchange, protocol, channels),
    )


def _exchanged(fabric: Fabric, operation: Operation, members: Sequence[int]) -> Exchange:
    """Return what the busiest member sends."""
    n = len(members)
    box = fabric.box[list(members)]
    if len(set(box.tolist())) == n:
        box = np.arange(n)
    inside = (box[:, None] == box[None, :]) & ~np.eye(n, dtype=bool)
    across = box[:, None] != box[None, :]
    split = operation.split_bytes
    if split is None:
        split = np.full((n, n), -(-operation.size_bytes // n), np.int64)
    sent = np.where(inside, split, 0)
    far = np.where(across, split, 0)
    peers = [np.bincount(box[row > 0]) for row in far]
    return Exchange(
        int(sent.max()),
        int(sent.sum(axis=1).max()),
        int((sent > 0).sum(axis=1).max()),
        int(far.max()),
        int((far > 0).sum(axis=1).max()),
        int(far.sum(axis=1).max()),
        max(int((-(-found // BATCH_PEERS)).sum()) for found in peers),
    )


def _nvls(
    fabric: Fabric,
    operation: Operation,
    members: Sequence[int],
    algorithm: str,
    channels: int,
    cost: Costs,
    most_bytes: int = 0,
) -> Tuning:
    """Return how NVLS runs; between boxes with chunks of at most `most_bytes`, where that is set.

    Channels work side by side, each on a chunk of every owner: a loop. Kernels copy a loop into the buffer that the
    switch reads and, later, out of it, while other loops are under way; the first copy in and the last copy out, at
    the pace of the links, are time of their own. The messages of an owner stand for `channels / owners` chunks.
    """
    heads = len(members) // len(set(fabric.box[list(members)].tolist()))
    boxes, together = len(members) // heads, channels * heads
    chunk = NVLS_TREE_CHUNK_BYTES if boxes >= 4 else NVLS_CHUNK_BYTES
    chunk = most_bytes if most_bytes and boxes > 1 else chunk
    for times, smaller in NVLS_TREE_CUTS if boxes > 1 else NVLS_CUTS:
        if operation.size_bytes < times * together * chunk:
            chunk = min(chunk, smaller)
    copied = min(operation.size_bytes, together * chunk)
    copy_ps = round(copied * 1000 / switch_gb_per_s(fabric, members))
    return Tuning(
        algorithm,
        "simple",
        channels=channels,
        chunk_bytes=chunk * max(1, channels // heads),
        base_ps=max(0, round(cost.nvls_us * US) - 4 * _path_ps(fabric, members)) + 2 * copy_ps,
        network_step_ps=round(cost.nvls_tree_network_us * US),
        network_lane_mb_per_s=_proxy_mb_per_s(chunk, boxes, cost) if boxes > 1 else 0,
        reduce_mb_per_s=round(cost.nvls_gb_per_s * 1000) * heads,
    )


def _proxy_mb_per_s(chunk_bytes: int, boxes: int, cost: Costs) -> int:
    """Return how fast the proxy of the busiest GPU lets chunks pass along either way of either tree.

    It receives and sends one over each edge of both trees: 4 of two boxes, 8 of four and more.
    """
    ends = [end for tree in double_tree(boxes) for edge in enumerate(tree) if edge[1] >= 0 for end in edge]
    return round(chunk_bytes / (2 * max(Counter(ends).values()) * cost.proxy_us))


def _path_ps(fabric: Fabric, members: Sequence[int]) -> int:
    """Return the latency between the first two members."""
    return sum(int(fabric.latency_ps[link]) for link in fabric.route(members[0], members[1]))


def _whole(operation: Operation, members: int) -> int:
    """Return the bytes that NCCL counts: of all_gather the output."""
    return operation.size_bytes * (members if operation.operation == "all_gather" else 1)


def _channels(operation: Operation, members: int, algorithm: str, protocol: str, channels: int | None) -> int:
    """Return how many channels an operation of this size uses at most."""
    least = LEAST_BYTES[protocol] * (members if (algorithm, protocol) == ("ring", "ll") else 1)
    fit = max(1, _whole(operation, members) // least)
    return min(channels, fit) if channels else fit


def _tree_share(protocol: str, cost: Costs) -> float:
    """Return the share of a channel's rate that its way up a tree has.

    Simple: half of the threads, and two warps more where that is 256 or more (runTreeSplit).
    """
    half = cost.simple_threads // 2
    simple = (half + 64 if half >= 256 else half) / cost.simple_threads
    return simple if protocol == "simple" else TREE_SHARE


def _chunk_bytes(size_bytes: int, group: Group, algorithm: str, channels: int, rings: int) -> int:
    """Return the chunk of a merged channel: those of the channels that it stands for, side by side.

    A tree's are halved until there are enough for the steps of its path (calcCollChunking, src/enqueue.cc).
    """
    smallest, largest = CHUNK_BYTES
    if algorithm == "tree" and group.boxes > 1:
        depth, chunk = group.ranks // group.boxes - 1 + group.boxes.bit_length() - 1, largest
        for times, least in ((8, 128 * 1024), (4, 64 * 1024), (1, smallest)):
            while chunk > least and size_bytes // (channels * chunk) < times * depth:
                chunk //= 2
        return max(1, chunk * channels // (2 * rings))
    each = size_bytes // (channels * DEPTH * group.ranks.bit_length())
    return max(smallest, min(largest, each)) * max(1, channels // rings)
