"""What NCCL would choose and what its kernels cost, from its own model.

Constants: nccl 2.20.3, src/graph/tuning.cc: baseLat and hwLat of NVLink (both of Ring, and taken for trees too), by
protocol LL, LL128, Simple; LL moves a quarter of the rings' bandwidth in reductions and a third elsewhere. Half of
it is LL's flags, which the wire carries here; the rest is time in the kernel (`copy`).
"""

from collections.abc import Sequence

from ..fabric import Fabric
from .algorithms import names
from .orders import ring_order, ring_speeds
from .work import WIRE_BYTES, Operation, Tuning

US = 1_000_000
BASE_PS = {"ll": int(6.6 * US), "ll128": 14 * US, "simple": int(8.4 * US)}
STEP_PS = {"ll": int(0.6 * US), "ll128": int(1.9 * US), "simple": int(3.4 * US)}
NETWORK_STEP_PS = {"ll": US, "ll128": US, "simple": 3 * US}
"""NCCL's floor for every step of a ring that spans boxes: getNetOverhead on Intel hosts, three times for Simple."""
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
    costs anything on an ideal fabric.
    """
    known = names(operation.operation) or [""]  # what has none, expand refuses by name
    algorithm = algorithm if algorithm in known else None
    protocol = protocol if protocol in WIRE_BYTES else None
    if fabric.ideal or len(members) < 2:
        return Tuning(algorithm or known[0], protocol or "simple", channels=channels or 0)
    orders = ring_order(fabric, members)
    if algorithm is None or protocol is None:
        algorithm, protocol = _fastest(fabric, operation, members, orders, algorithm, protocol)
    return Tuning(
        algorithm,
        protocol,
        channels=_channels(operation, len(members), protocol, channels),
        chunk_bytes=_chunk_bytes(operation.size_bytes, len(members), channels or CHANNELS, len(orders)),
        base_ps=BASE_PS[protocol],
        step_ps=max(0, STEP_PS[protocol] - _path_ps(fabric, members)),
        network_step_ps=NETWORK_STEP_PS[protocol],
        copy=(2 if operation.operation in REDUCTIONS else 1) if protocol == "ll" else 0,
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
) -> tuple[str, str]:
    """Return algorithm and protocol that take least by NCCL's model, of those that are left open.

    The model knows rings and trees; anything else takes the operation's first algorithm, and Simple.
    """
    known = names(operation.operation) or [""]
    modelled = [a for a in known if a in ("ring", "tree")] if algorithm is None else [algorithm]
    if not modelled or modelled[0] not in ("ring", "tree"):
        return algorithm or known[0], protocol or "simple"
    n, boxes = len(members), len(set(fabric.box[list(members)].tolist()))
    if boxes == 1 and algorithm is None:
        modelled = ["ring"]
    mb_per_s = sum(ring_speeds(fabric, orders))
    turns = 2 if operation.operation in ("all_reduce", "barrier") else 1
    whole = _whole(operation, n)

    def total_ps(choice: tuple[str, str]) -> float:
        how, by = choice
        steps = turns * (n - 1) if how == "ring" else 2 * (n // boxes - 1 + boxes.bit_length())
        share = turns * (n - 1) / n if how == "ring" else 2 / 0.92
        slower = {"ll": 4 if operation.operation in REDUCTIONS else 3, "ll128": 1 / 0.92, "simple": 1}[by]
        return BASE_PS[by] + steps * STEP_PS[by] + whole * share * slower * US / mb_per_s

    return min(((a, p) for a in modelled for p in ([protocol] if protocol else WIRE_BYTES)), key=total_ps)
