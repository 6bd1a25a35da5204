"""Which algorithm and protocol a library takes, where nobody said: NCCL's model, or RCCL's rules."""

from collections.abc import Collection, Sequence

from ..fabric import Fabric
from . import rccl
from .algorithms import names
from .model import PROTOCOLS, Group, searched_gb_per_s, time_us
from .orders import ring_order, ring_speeds, usable_mb_per_s

MODELLED = ("ring", "tree", "nvls", "nvls_tree")
RCCL_CHOOSES = ("all_reduce", "all_gather", "reduce_scatter")


def group_of(fabric: Fabric, members: Sequence[int], orders: Sequence[Sequence[int]], channels: int) -> Group:
    """Return what NCCL's model knows of a group whose rings run in these orders.

    Of NICs it counts the nominal rate, not what they carry: the next speed of its table.
    """
    boxes: dict[int, list[int]] = {}
    for member in members:
        boxes.setdefault(int(fabric.box[member]), []).append(member)
    first = next(iter(boxes.values()))
    speed, switch = sum(ring_speeds(fabric, orders)) / 1000, switch_gb_per_s(fabric, members)
    if len(boxes) == 1:
        return Group(len(members), 1, fabric.gpu, channels, speed, switch)
    outside = next(m for m in members if m not in first)
    rails = len({tuple(fabric.route(m, outside)[1:2]) for m in first})  # a NIC's link to its leaf
    speed = rails * searched_gb_per_s(fabric.gpu, speed / rails)
    inside = sum(ring_speeds(fabric, ring_order(fabric, first))) / 1000 if len(first) > 1 else 0.0
    return Group(len(members), len(boxes), fabric.gpu, channels, speed, switch, rails, inside)


def switch_gb_per_s(fabric: Fabric, members: Sequence[int]) -> float:
    """Return GB/s from a member to the switches of its box that reduce; 0 where none joins them all."""
    mates = [m for m in members if fabric.box[m] == fabric.box[members[0]]]
    common = set.intersection(*(set(fabric.switches(m, direct=True)) for m in mates))
    return sum(usable_mb_per_s(fabric, fabric.route(members[0], s)[0]) for s in common) / 1000


def choose(
    group: Group,
    operation: str,
    size_bytes: int,
    algorithm: str | None = None,
    protocol: str | None = None,
    without: Collection[str] = (),
) -> tuple[str, str]:
    """Return algorithm and protocol that take least by the library's model, of those that are left open.

    `size_bytes` as NCCL counts them; `without`: algorithms and protocols that are switched off. The model knows
    rings, trees and NVLS; anything else takes the operation's first algorithm, and Simple, as does what is left
    with nothing that works here.
    """
    known = names(operation) or [""]
    modelled = [a for a in known if a in MODELLED] if algorithm is None else [algorithm]
    if not modelled or modelled[0] not in MODELLED:
        return algorithm or known[0], protocol or "simple"
    modelled = [a for a in modelled if algorithm or a not in without] or [known[0]]
    if group.generation in rccl.GENERATIONS and operation in RCCL_CHOOSES:
        chosen, by = rccl.choose(group.generation, operation, group.ranks, group.boxes, size_bytes)
        if chosen in without:
            chosen = next((a for a in modelled if a in ("ring", "tree")), known[0])
        return algorithm or chosen, protocol or ("simple" if by in without else by)
    if group.boxes == 1 and algorithm is None:
        modelled = [a for a in modelled if a != "tree"] or [known[0]]
    name = "all_reduce" if operation == "barrier" else operation
    protocols = [protocol] if protocol else [p for p in PROTOCOLS if p not in without] or ["simple"]
    takes = {(a, p): time_us(group, name, a, p, size_bytes) for a in modelled for p in protocols}
    if name == "all_reduce" and takes.get(("nvls", "simple"), float("inf")) < float("inf"):
        takes.pop(("ring", "simple"), None)  # as seen, see NVLS_FROM
    best = min(takes, key=takes.__getitem__)
    return best if takes[best] < float("inf") else (algorithm or known[0], protocol or "simple")
