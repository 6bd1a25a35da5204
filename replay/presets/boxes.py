"""Boxes: GPUs that share NVLink or xGMI, and their NICs.

To add one: a line in BOXES with its GPUs, its wiring (`switched` or `meshed`), its NICs and their wires.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

from ..fabric import FabricBuilder
from .wires import (
    NET100,
    NET200,
    NET400,
    NVLINK2,
    NVLINK3,
    NVLINK4,
    PATH_PS,
    PCIE3,
    PCIE4,
    PCIE5,
    XGMI_MI300X,
    Wire,
)

Wiring = Callable[[FabricBuilder, int, int], None]
"""Adds the links and rules inside of one box: (builder, its first GPU, how many GPUs it has)."""


@dataclass(frozen=True)
class Box:
    """One kind of box; `gpus // nics` consecutive GPUs share a NIC, over `host` each."""

    gpus: int
    wiring: Wiring
    nics: int
    host: Wire
    net: Wire

    def nic_of(self, local: int) -> int:
        """Return the NIC, and with it the rail, of a GPU of the box."""
        return local // (self.gpus // self.nics)


def switched(wire: Wire, *, computes: bool = False) -> Wiring:
    """Connect the GPUs through NVSwitch.

    The planes (6 on A100 boards, 4 on H100 boards) are one switch and a GPU's links one link of their sum: GPUs
    stripe their packets over the planes evenly, and the planes do not block. From the third generation on (H100) it
    `computes`: it can reduce and multicast (NVLink SHARP).
    """
    half = wire.after(PATH_PS // 2)

    def connect(builder: FabricBuilder, first: int, gpus: int) -> None:
        switch = builder.node(f"nvswitch {first // builder.box_gpus}", computes=computes)
        down = []
        for gpu in range(first, first + gpus):
            up, back = builder.duplex(gpu, switch, *half.args())
            builder.rule(gpu, first, first + gpus, [[up]])
            down.append([back])
        builder.rule(switch, first, first + gpus, down, stride=1)

    return connect


def meshed(wire: Wire, links: Mapping[tuple[int, int], int]) -> Wiring:
    """Connect pairs of GPUs by `links` (how many lie side by side); a pair without any goes over one other GPU.

    That is the one with the widest slower half, then the one that forwards least so far, then the first. Data lands
    in its memory before it goes on. Pairs that no GPU connects (in a partial box) get no rule.
    """

    def connect(builder: FabricBuilder, first: int, gpus: int) -> None:
        inside = {pair: count for pair, count in links.items() if max(pair) < gpus}
        wires: dict[tuple[int, int], int] = {}
        width: dict[tuple[int, int], int] = {}
        for (a, b), count in inside.items():
            wires[a, b], wires[b, a] = builder.duplex(first + a, first + b, *wire.times(count).args())
            width[a, b] = width[b, a] = count
        forwarded = [0] * gpus
        for a in range(gpus):
            for b in range(gpus):
                via = b if (a, b) in wires else _between(a, b, gpus, width, forwarded)
                if a != b and via is not None:
                    builder.rule(first + a, first + b, first + b + 1, [[wires[a, via]]])
        for gpu in range(gpus):
            if forwarded[gpu]:
                builder.land(first + gpu)

    return connect


def _between(
    a: int, b: int, gpus: int, width: Mapping[tuple[int, int], int], forwarded: list[int]
) -> int | None:
    """Return the GPU that forwards from `a` to `b`, and count it."""
    both = [m for m in range(gpus) if (a, m) in width and (m, b) in width] if a != b else []
    if not both:
        return None
    via = max(both, key=lambda m: (min(width[a, m], width[m, b]), -forwarded[m], -m))
    forwarded[via] += 1
    return via


# The hybrid cube mesh of DGX-1 with V100, as `nvidia-smi topo -m` shows it (in NVIDIA's Cluster guides and in
# test_topologies of microsoft/msccl): NV2 and NV1 pairs, six links a GPU.
_CUBE = dict.fromkeys(((0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)), 2)
_CUBE |= dict.fromkeys(((0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)), 1)
# Unlinked pairs go over a GPU that has links to both: what NCCL does since 2.8 ("one hop communication through
# NVLink, for faster send/recv communication on cubemesh topologies like DGX-1", NCCL 2.8 preview).

_FULL8 = dict.fromkeys(combinations(range(8), 2), 1)

BOXES: dict[str, Box] = {
    "dgx1-v100": Box(8, meshed(NVLINK2, _CUBE), 4, PCIE3, NET100),  # DGX-1: four 100 Gb/s NICs, two GPUs each
    "hgx-a100": Box(8, switched(NVLINK3.times(12)), 8, PCIE4, NET200),
    "hgx-h100": Box(8, switched(NVLINK4.times(18), computes=True), 8, PCIE5, NET400),
    "mi300x": Box(8, meshed(XGMI_MI300X, _FULL8), 8, PCIE5, NET400),
}
