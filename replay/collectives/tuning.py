"""What NCCL would choose and what its kernels cost, from its own model.

Constants: nccl, src/graph/tuning.cc (2.18 to 2.22): baseLat (Ring, Tree) and hwLat of NVLink (Ring), in us, by
protocol LL, LL128, Simple; LL moves a quarter of the rings' bandwidth in reductions and a third elsewhere. Half of
it is LL's flags, which the wire carries here; the rest is time in the kernel (`copy`).
"""

from collections.abc import Sequence

from ..fabric import Fabric
from .orders import ring_order, ring_speeds
from .work import WIRE_BYTES, Operation, Tuning

US = 1_000_000
BASE_PS = {"ll": int(6.6 * US), "ll128": 14 * US, "simple": int(8.4 * US)}
STEP_PS = {"ll": int(0.6 * US), "ll128": int(1.9 * US), "simple": int(3.4 * US)}
NETWORK_STEP_PS = {"ll": US, "ll128": US, "simple": 3 * US}
"""NCCL's floor for every step of a ring that spans boxes: getNetOverhead on Intel hosts, three times for Simple."""
TREE_CHUNK_BYTES = 512 * 1024


def tuning(
    fabric: Fabric,
    operation: Operation,
    members: Sequence[int],
    algorithm: str | None = None,
    protocol: str | None = None,
    channels: int | None = None,
) -> Tuning:
    """Return how an operation runs: as captured where that is given, otherwise as NCCL's model would choose.

    A step costs what NCCL says less the latency of the path that the fabric already takes.
    """
    from .expand import ALGORITHMS

    known = ALGORITHMS.get(operation.operation, {})
    algorithm = algorithm if algorithm in known else next(iter(known), "")
    if fabric.ideal or len(members) < 2:
        return Tuning(algorithm, channels=channels or 0)
    protocol = protocol if protocol in WIRE_BYTES else _protocol(fabric, operation, members)
    reduces = operation.operation in ("all_reduce", "reduce", "barrier")
    path_ps = _path_ps(fabric, members)
    return Tuning(
        algorithm,
        protocol,
        channels=channels or 0,
        chunk_bytes=TREE_CHUNK_BYTES,
        base_ps=BASE_PS[protocol],
        step_ps=max(0, STEP_PS[protocol] - path_ps),
        network_step_ps=NETWORK_STEP_PS[protocol],
        copy=(2 if reduces else 1) if protocol == "ll" else 0,
    )


def _path_ps(fabric: Fabric, members: Sequence[int]) -> int:
    """Return the latency between the first two members."""
    return sum(int(fabric.latency_ps[link]) for link in fabric.route(members[0], members[1]))


def _protocol(fabric: Fabric, operation: Operation, members: Sequence[int]) -> str:
    """Return the protocol that NCCL's ring model says is fastest; point-to-point and all-to-all use Simple."""
    ringed = {
        "all_reduce": 2,
        "barrier": 2,
        "all_gather": 1,
        "reduce_scatter": 1,
        "broadcast": 1,
        "reduce": 1,
    }
    turns = ringed.get(operation.operation)
    if turns is None:
        return "simple"
    steps = turns * (len(members) - 1)
    size = operation.size_bytes * (len(members) if operation.operation == "all_gather" else 1)
    mb_per_s = sum(ring_speeds(fabric, ring_order(fabric, members)))
    slower = {"ll": 4 if turns == 2 else 3, "ll128": 1 / 0.92, "simple": 1}
    moved_ps = size * steps / len(members) * US / mb_per_s

    def total(protocol: str) -> float:
        return BASE_PS[protocol] + steps * STEP_PS[protocol] + moved_ps * slower[protocol]

    return min(slower, key=total)
