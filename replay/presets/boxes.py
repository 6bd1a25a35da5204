"""Boxes: GPUs that share NVLink, xGMI or PCIe, and their NICs.

To add one: a line in BOXES with its GPUs, its wiring (`switched`, `meshed` or `pcie`), its NICs and their wires.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from ...schemas import UsageError
from ..fabric import FabricBuilder
from .pcie import pcie
from .wires import (
    NET100,
    NET200,
    NET400,
    NET800,
    NVLINK2,
    NVLINK3,
    NVLINK4,
    NVLINK5,
    PATH_PS,
    PCIE3,
    PCIE4,
    PCIE4_HOP,
    PCIE5,
    PCIE6,
    XGMI_MI250X,
    XGMI_MI300X,
    XGMI_MI355X,
    Wire,
)

Wiring = Callable[[FabricBuilder, int, int], list[tuple[int, int]]]
"""Adds the links and rules inside of one box: (builder, its first GPU, how many GPUs it has).

Returns, for each of its GPUs, the node that sends to its NIC and the node that its NIC delivers to.
"""


@dataclass(frozen=True)
class Box:
    """One kind of box; `gpus // nics` consecutive GPUs share a NIC, over `host` each.

    Without NICs (`gpu`) the GPU itself is on the network.
    """

    gpus: int
    wiring: Wiring
    nics: int
    host: Wire
    net: Wire
    gpu: str = ""  # generation, by which collective libraries choose

    def refitted(self, name: str, gpus: int, nics: int, gb_per_s: float, latency_us: float) -> "Box":
        """Return the box with fewer GPUs, or with other NICs; 0 leaves what it has.

        `gb_per_s` and `latency_us` are of the link from a NIC to its leaf; PCIe stays as it is.
        Raises UsageError for numbers that no such box has.
        """
        gpus = gpus or self.gpus
        nics = nics or min(self.nics, gpus)
        if not 1 <= gpus <= self.gpus or nics < 0 or (nics and gpus % nics):
            raise UsageError(
                f"--fabric {name}: box_gpus {gpus} with nics {nics}; a box holds 1 to {self.gpus} GPUs, and "
                "as many share each NIC"
            )
        if gb_per_s < 0 or latency_us < 0:
            raise UsageError(f"--fabric {name}: nic_gb_per_s and nic_latency_us cannot be negative")
        net = self.net.at(round(gb_per_s * 1000) or self.net.rate_mb_per_s)
        net = net.after(round(latency_us * 1e6) or net.latency_ps)
        return replace(self, gpus=gpus, nics=nics, net=net)

    def nic_of(self, local: int) -> int:
        """Return the NIC, and with it the rail, of a GPU of the box."""
        return local // (self.gpus // self.nics)


def switched(wire: Wire, *, computes: bool = False) -> Wiring:
    """Connect the GPUs through NVSwitch.

    The planes (6 on A100 boards, 4 on H100 boards) are one switch and a GPU's links one link of their sum: GPUs
    stripe their packets over the planes evenly, and the planes do not block. From the third generation on
    (H100) it `computes`: it can reduce and multicast (NVLink SHARP).
    """
    half = wire.after(PATH_PS // 2)

    def connect(builder: FabricBuilder, first: int, gpus: int) -> list[tuple[int, int]]:
        switch = builder.node(f"nvswitch {first // builder.box_gpus}", computes=computes)
        down = []
        for gpu in range(first, first + gpus):
            up, back = builder.duplex(gpu, switch, *half.args())
            builder.rule(gpu, first, first + gpus, [[up]])
            down.append([back])
        builder.rule(switch, first, first + gpus, down, stride=1)
        return _themselves(first, gpus)

    return connect


def _themselves(first: int, gpus: int) -> list[tuple[int, int]]:
    """Return what a wiring does where NICs hang on the GPUs."""
    return [(gpu, gpu) for gpu in range(first, first + gpus)]


def alone(builder: FabricBuilder, first: int, gpus: int) -> list[tuple[int, int]]:
    """Connect nothing: a GPU by itself."""
    return _themselves(first, gpus)


def meshed(wire: Wire, links: Mapping[tuple[int, int], int], *, lands: bool = False) -> Wiring:
    """Connect pairs of GPUs by `links` (how many lie side by side); other pairs go over the GPUs between.

    The way is a shortest one; of several the one whose narrowest part is widest, then over the GPU that forwards
    least so far, then the first. Where data `lands` it is in that GPU's memory before it goes on; otherwise
    the GPU's links pass it on. Pairs that no GPU connects (in a partial box) get no rule.
    """

    def connect(builder: FabricBuilder, first: int, gpus: int) -> list[tuple[int, int]]:
        inside = {pair: count for pair, count in links.items() if max(pair) < gpus}
        wires: dict[tuple[int, int], int] = {}
        width: dict[tuple[int, int], int] = {}
        for (a, b), count in inside.items():
            wires[a, b], wires[b, a] = builder.duplex(first + a, first + b, *wire.times(count).args())
            width[a, b] = width[b, a] = count
        onward = _onward(gpus, width)
        for a, b in sorted(onward):
            builder.rule(first + a, first + b, first + b + 1, [[wires[a, onward[a, b]]]])
        for gpu in {via for (_, b), via in onward.items() if via != b and lands}:
            builder.land(first + gpu)
        return _themselves(first, gpus)

    return connect


def _onward(gpus: int, width: Mapping[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    """Return the next GPU for each pair that is connected, by paths of one link, then two, and so on."""
    onward = {(a, b): b for a, b in width}
    narrowest = dict(width)  # of the path of each pair that has one
    forwarded = [0] * gpus
    found = True
    while found:
        found = False
        shorter = dict(narrowest)
        for a in range(gpus):
            for b in range(gpus):
                both = [m for m in range(gpus) if (a, m) in width and (m, b) in shorter]
                if a == b or (a, b) in shorter or not both:
                    continue
                through = {m: min(width[a, m], shorter[m, b]) for m in both}
                via = max(both, key=lambda m: (through[m], -forwarded[m], -m))
                forwarded[via] += 1
                onward[a, b], narrowest[a, b], found = via, through[via], True
    return onward


# The hybrid cube mesh of DGX-1 with V100, as `nvidia-smi topo -m` shows it (in NVIDIA's Cluster guides and in
# test_topologies of microsoft/msccl): NV2 and NV1 pairs, six links a GPU.
_CUBE = dict.fromkeys(((0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)), 2)
_CUBE |= dict.fromkeys(((0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)), 1)
# Unlinked pairs go over a GPU that has links to both: what NCCL does since 2.8 ("one hop communication through
# NVLink, for faster send/recv communication on cubemesh topologies like DGX-1", NCCL 2.8 preview).

# The MI250X: four pairs of dies (GCDs) with four links inside, double and single links around; as RCCL's model
# of it has it (rome_model_71 to 76, src/graph/rome_models.cc) and as the rates show that TransferBench
# measures between any two. Nodes of Frontier and LUMI have a 200 Gb/s NIC a pair. What is for dies further
# away passes through the links of those between, without landing in their memory.
_PAIRS = dict.fromkeys(((0, 1), (2, 3), (4, 5), (6, 7)), 4) | dict.fromkeys(((0, 6), (2, 4)), 2)
_PAIRS |= dict.fromkeys(((0, 2), (1, 3), (1, 5), (3, 7), (4, 6), (5, 7)), 1)

_FULL8 = dict.fromkeys(combinations(range(8), 2), 1)
_FULL4 = dict.fromkeys(combinations(range(4), 2), 1)

BOXES: dict[str, Box] = {
    "dgx1-v100": Box(
        8, meshed(NVLINK2, _CUBE, lands=True), 4, PCIE3, NET100, "volta"
    ),  # four 100 Gb/s NICs, two GPUs each
    # 16 V100 behind NVSwitch, six links a GPU; eight 100 Gb/s NICs (NVIDIA's DGX-2 data sheet).
    "dgx2-v100": Box(16, switched(NVLINK2.times(6)), 8, PCIE3, NET100, "volta"),
    "hgx-a100": Box(8, switched(NVLINK3.times(12)), 8, PCIE4, NET200, "ampere"),
    "hgx-h100": Box(8, switched(NVLINK4.times(18), computes=True), 8, PCIE5, NET400, "hopper"),
    "hgx-h200": Box(
        8, switched(NVLINK4.times(18), computes=True), 8, PCIE5, NET400, "hopper"
    ),  # more memory, the same links
    "hgx-b200": Box(8, switched(NVLINK5.times(18), computes=True), 8, PCIE5, NET400, "blackwell"),
    "hgx-b300": Box(8, switched(NVLINK5.times(18), computes=True), 8, PCIE6, NET800, "blackwell"),
    # Export variants: 8 links a GPU instead of 12 (A800, 400 GB/s both ways) or 18 (H800, 400 GB/s both ways).
    "hgx-a800": Box(8, switched(NVLINK3.times(8)), 8, PCIE4, NET200, "ampere"),
    "hgx-h800": Box(8, switched(NVLINK4.times(8), computes=True), 8, PCIE5, NET400, "hopper"),
    # 18 trays of 4 GPUs in one NVLink domain; a 400 Gb/s NIC a GPU, as in DGX GB200 (800 Gb/s in GB300).
    "gb200-nvl72": Box(72, switched(NVLINK5.times(18), computes=True), 72, PCIE5, NET400, "blackwell"),
    "gb300-nvl72": Box(72, switched(NVLINK5.times(18), computes=True), 72, PCIE6, NET800, "blackwell"),
    # Boards of four without switches: four NVLink3 links a pair (NERSC's page on Perlmutter's nodes),
    # six NVLink4 links a pair (four GH200 or H100 of JUPITER and Alps: 150 GB/s a direction). 200 Gb/s NICs.
    "a100-quad": Box(4, meshed(NVLINK3.times(4), _FULL4), 4, PCIE4, NET200, "ampere"),
    "hopper-quad": Box(4, meshed(NVLINK4.times(6), _FULL4), 4, PCIE5, NET200, "hopper"),
    # Four APUs, two xGMI links of 64 GB/s a pair (AMD's MI300A data sheet: 128 GB/s a direction).
    "mi300a": Box(4, meshed(XGMI_MI300X.times(2), _FULL4), 4, PCIE5, NET200, "cdna3"),
    "mi250x": Box(8, meshed(XGMI_MI250X, _PAIRS), 4, PCIE4, NET200, "cdna2"),
    "mi300x": Box(8, meshed(XGMI_MI300X, _FULL8), 8, PCIE5, NET400, "cdna3"),
    "mi325x": Box(8, meshed(XGMI_MI300X, _FULL8), 8, PCIE5, NET400, "cdna3"),  # more memory, the same links
    "mi350x": Box(8, meshed(XGMI_MI355X, _FULL8), 8, PCIE5, NET400, "cdna4"),  # less power, the same links
    "mi355x": Box(8, meshed(XGMI_MI355X, _FULL8), 8, PCIE5, NET400, "cdna4"),
    "pcie": Box(8, pcie(PCIE4_HOP, staged=False), 4, PCIE4_HOP, NET200),
    "pcie-staged": Box(8, pcie(PCIE4_HOP, staged=True), 4, PCIE4_HOP, NET200),
    "pcie5": Box(8, pcie(PCIE4_HOP.times(2), staged=False), 4, PCIE4_HOP.times(2), NET400),
    "gpu": Box(1, alone, 0, PCIE5, NET400),
}
