"""What NCCL would choose and what its kernels cost, from its own model (see `model`).

Costs are those of rings (baseLat and hwLat of NVLink), and taken for trees and all else but NVLS too. LL moves a
quarter of the rings' bandwidth in reductions and a third elsewhere (nccl 2.20.3, src/graph/tuning.cc). Half of it
is LL's flags, which the wire carries here; the rest is time in the kernel (`copy`). Custom kernels that load from
their peers cost no more than a flag's way.
"""

from collections.abc import Sequence

from ..fabric import Fabric
from .algorithms import names
from .model import BASE_US, NVLINK_US, OVERHEAD_US, PROTOCOLS, Group, time_us
from .orders import ring_order, ring_speeds, usable_mb_per_s
from .work import WIRE_BYTES, Operation, Tuning

US = 1_000_000
BASE_PS, STEP_PS, NETWORK_STEP_PS = (
    {protocol: round(us * US) for protocol, us in zip(PROTOCOLS, row, strict=True)}
    for row in (BASE_US["ring"], NVLINK_US["ring"], OVERHEAD_US)
)
NVLS_PS = round(NVLINK_US["nvls"][2] * US)
NVLS_CHUNK_BYTES = 128 * 1024
"""A channel's; halved for small operations (calcCollChunking, src/enqueue.cc)."""
CUSTOM = ("one_shot_get", "two_shot_get")
MODELLED = ("ring", "tree", "nvls", "nvls_tree")
ALIASES = {"nvlstree": "nvls_tree", "collnetdirect": "sharp", "collnet_direct": "sharp", "two_shot": "direct"}
"""Names that libraries and captures use."""
REDUCTIONS = ("all_reduce", "reduce", "barrier")
CHUNK_BYTES = 32 * 1024, 512 * 1024
"""Smallest and largest chunk of a channel: NCCL's Simple buffer of 4 MiB holds 8 of the largest."""
CHANNELS = 16
"""Channels that a merged one stands for, where no capture says: logs show 12 in a DGX-1, 24 in an HGX A100."""
LEAST_BYTES = {"ll": 512 * 8, "ll128": 640 * 8, "simple": 512 * 64}
"""With fewer bytes a channel NCCL uses fewer channels: threads times NCCL_*_THREAD_THRESHOLD, for LL also times the
number of ranks (src/enqueue.cc, src/graph/tuning.cc)."""
DEPTH = 8
"""Chunks for every step of the path that NCCL aims at: it halves the chunk until there are (src/enqueue.cc)."""


def tuning(
    fabric: Fabric,
    operation: Operation,
    members: Sequence[int],
    algorithm: str | None = None,
    protocol: str | None = None,
    channels: int | None = None,
) -> Tuning:
    """Return how an operation runs: as captured where that is given, otherwise as NCCL's model would choose.

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
    if algorithm in ("nvls", "nvls_tree") and not _switch_gb_per_s(fabric, members):
        algorithm = None  # as captured, on a fabric that cannot
    if algorithm is None or protocol is None:
        algorithm, protocol = _fastest(fabric, operation, members, orders, algorithm, protocol, channels)
    if algorithm in ("nvls", "nvls_tree"):
        return _nvls(fabric, operation, members, algorithm, channels or CHANNELS)
    path, width = _path_ps(fabric, members), channels or CHANNELS
    return Tuning(
        algorithm,
        protocol,
        channels=_channels(operation, len(members), protocol, channels),
        chunk_bytes=_chunk_bytes(operation.size_bytes, len(members), width, len(orders)),
        base_ps=0 if algorithm in CUSTOM else BASE_PS[protocol],
        step_ps=max(0, STEP_PS["ll" if algorithm in CUSTOM else protocol] - path),
        network_step_ps=NETWORK_STEP_PS[protocol],
        copy=(2 if operation.operation in REDUCTIONS else 1) if protocol == "ll" else 0,
    )


def _switch_gb_per_s(fabric: Fabric, members: Sequence[int]) -> float:
    """Return GB/s from a member to the switches of its box that reduce; 0 where none joins them all."""
    mates = [m for m in members if fabric.box[m] == fabric.box[members[0]]]
    common = set.intersection(*(set(fabric.switches(m, direct=True)) for m in mates))
    return sum(usable_mb_per_s(fabric, fabric.route(members[0], s)[0]) for s in common) / 1000


def _nvls(
    fabric: Fabric, operation: Operation, members: Sequence[int], algorithm: str, channels: int
) -> Tuning:
    """Return how NVLS runs.

    Channels work side by side, each on a chunk of every owner: a loop. Kernels copy a loop into the buffer that the
    switch reads and, later, out of it, while other loops are under way; the first copy in and the last copy out, at
    the pace of the links, are time of their own. The messages of an owner stand for `channels / owners` chunks.
    """
    heads = len(members) // len(set(fabric.box[list(members)].tolist()))
    chunk, together = NVLS_CHUNK_BYTES, channels * heads
    for times, smaller in ((64, 65536), (8, 32768), (2, 16384)):
        if operation.size_bytes < times * together * chunk:
            chunk = min(chunk, smaller)
    copied = min(operation.size_bytes, together * chunk)
    copy_ps = round(copied * 1000 / _switch_gb_per_s(fabric, members))
    return Tuning(
        algorithm,
        "simple",
        channels=channels,
        chunk_bytes=chunk * max(1, channels // heads),
        base_ps=max(0, NVLS_PS - 4 * _path_ps(fabric, members)) + 2 * copy_ps,
        network_step_ps=NETWORK_STEP_PS["simple"],
    )


def _path_ps(fabric: Fabric, members: Sequence[int]) -> int:
    """Return the latency between the first two members."""
    return sum(int(fabric.latency_ps[link]) for link in fabric.route(members[0], members[1]))


def _whole(operation: Operation, members: int) -> int:
    """Return the bytes that NCCL counts: of all_gather the output."""
    return operation.size_bytes * (members if operation.operation == "all_gather" else 1)


def _channels(operation: Operation, members: int, protocol: str, channels: int | None) -> int:
    """Return how many channels an operation of this size uses at most."""
    least = LEAST_BYTES[protocol] * (members if protocol == "ll" else 1)
    fit = max(1, _whole(operation, members) // least)
    return min(channels, fit) if channels else fit


def _chunk_bytes(size_bytes: int, members: int, channels: int, rings: int) -> int:
    """Return the chunk of a merged channel: those of the channels that it stands for, side by side."""
    smallest, largest = CHUNK_BYTES
    each = size_bytes // (channels * DEPTH * members.bit_length())
    return max(smallest, min(largest, each)) * max(1, channels // rings)


def _fastest(
    fabric: Fabric,
    operation: Operation,
    members: Sequence[int],
    orders: Sequence[Sequence[int]],
    algorithm: str | None,
    protocol: str | None,
    channels: int | None,
) -> tuple[str, str]:
    """Return algorithm and protocol that take least by NCCL's model, of those that are left open.

    The model knows rings, trees and NVLS; anything else takes the operation's first algorithm, and Simple.
    """
    known = names(operation.operation) or [""]
    modelled = [a for a in known if a in MODELLED] if algorithm is None else [algorithm]
    if not modelled or modelled[0] not in MODELLED:
        return algorithm or known[0], protocol or "simple"
    boxes = len(set(fabric.box[list(members)].tolist()))
    if boxes == 1 and algorithm is None:
        modelled = [a for a in modelled if a != "tree"]
    speed = sum(ring_speeds(fabric, orders)) / 1000
    switch = _switch_gb_per_s(fabric, members) if {"nvls", "nvls_tree"} & set(modelled) else 0
    group = Group(len(members), boxes, fabric.gpu, channels or CHANNELS, speed, switch)
    name = "all_reduce" if operation.operation == "barrier" else operation.operation
    whole = _whole(operation, len(members))
    pairs = [(a, p) for a in modelled for p in ([protocol] if protocol else PROTOCOLS)]
    takes = {pair: time_us(group, name, *pair, whole) for pair in pairs}
    if name == "all_reduce" and takes.get(("nvls", "simple"), float("inf")) < float("inf"):
        takes.pop(("ring", "simple"), None)  # as seen, see NVLS_FROM
    best = min(takes, key=takes.__getitem__)
    return best if takes[best] < float("inf") else (best[0], protocol or "simple")
