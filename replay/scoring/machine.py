"""Which machine a row means: GPU, box, NICs and network, read from what its author wrote.

Nothing is looked up by a table's name. What a text does not say is not guessed, except the usual fitting of a box
that it names (8 NICs of the generation's rate in an HGX or Instinct box).
"""

import re
from dataclasses import dataclass

BOXES = (
    (r"gb300", "gb300-nvl72"), (r"gb200", "gb200-nvl72"), (r"b300", "hgx-b300"), (r"b200|b100", "hgx-b200"),
    (r"h800", "hgx-h800"), (r"a800", "hgx-a800"), (r"h200", "hgx-h200"), (r"h100|hopper|sm90", "hgx-h100"),
    (r"h20", "hgx-h100"), (r"a100", "hgx-a100"), (r"v100", "dgx1-v100"), (r"mi355x?", "mi355x"),
    (r"mi350x?|gfx950", "mi350x"), (r"mi325x?", "mi325x"), (r"mi300(x|\b)|gfx942", "mi300x"),
    (r"mi250x?", "mi250x"),
)  # fmt: skip
"""Boxes by what names their GPU, the first that fits. An H20 has an H100's links."""
PLATFORMS = (
    (r"p4de?\b", "hgx-a100"), (r"p5(e|en)\b", "hgx-h200"), (r"p5\b", "hgx-h100"), (r"p6e", "gb200-nvl72"),
    (r"p6[- ]?b300", "hgx-b300"), (r"p6", "hgx-b200"), (r"a3[- ]?ultra", "hgx-h200"), (r"a3", "hgx-h100"),
    (r"a4x", "gb200-nvl72"), (r"a4\b|a4[- ]high", "hgx-b200"), (r"a2[- ]?(ultra|mega)", "hgx-a100"),
)  # fmt: skip
"""Clouds' names of boxes, where no GPU is named."""
TRANSPORTS = (
    ("tcpxo", r"tcpxo|fastrak"), ("tcpx", r"tcpx"), ("efa", r"\befa|ofi\b|libfabric|\bsrd\b"),
    ("roce", r"roce|spectrum|ethernet|pollara|ainic|thor|\banp\b|eth\b"),
    ("ib", r"\bib\b|infiniband|ndr|hdr|xdr|cx-?\d"),
)  # fmt: skip
CARRIES = {"ib": 0.93, "roce": 0.93, "efa": 0.93, "tcpxo": 0.94, "tcpx": 0.5}
"""What a NIC carries of its rate, besides headers. Calibrated on TOGETHER_B200_scale and LAMBDAx2 (InfiniBand),
A4x2_ar (RoCE), P5x2 and STAS_P6B200 (EFA), A3MEGAx2 (TCPXO), A3HIGHx2 (TCPX, which copies through host memory)."""
ALONE = 0.75
"""With one GPU a box its NIC carries less both ways at once: NCCL counted on 0.7 (2.10, src/graph/tuning.cc)."""
LATENCY_US = {"ib": 0.0, "roce": 0.0, "efa": 9.0, "efa 1": 30.0, "tcpxo": 25.0, "tcpx": 100.0}
"""Of a link from a NIC to its switch, beyond a fabric's own; two make a hop. Calibrated on P5x2 (EFA), P4DEx2 and
P4Dx2 (EFA 1, of A100 hosts), A3MEGAx2 (TCPXO), A3HIGHx2 (TCPX)."""
USUAL_GB_PER_S = {"dgx1-v100": 12.5, "hgx-a100": 25.0, "hgx-a800": 25.0, "mi250x": 25.0, "hgx-b300": 100.0,
                  "gb300-nvl72": 100.0}  # fmt: skip
"""A NIC's rate where the row does not say; 50 for boxes that are not here."""
GBIT = {"xdr": 800, "ndr": 400, "hdr": 200, "edr": 100}


@dataclass(frozen=True)
class Machine:
    """A fabric preset with its settings, and how many GPUs of how many boxes take part.

    `gpus_a_box` of those that take part; `transport` names the network between boxes, empty in one box.
    """

    preset: str
    gpus_a_box: int
    boxes: int
    nics: int = 0
    nic_gb_per_s: float = 0.0
    transport: str = ""

    @property
    def carries(self) -> float:
        """What a NIC carries of its rate."""
        return CARRIES[self.transport] * (ALONE if self.gpus_a_box == 1 else 1)

    @property
    def extra_latency_us(self) -> float:
        """What a link of the NIC takes beyond the preset's."""
        old = self.transport == "efa" and self.preset == "hgx-a100"
        return LATENCY_US["efa 1" if old else self.transport]

    @property
    def gpus(self) -> int:
        """GPUs that take part."""
        return self.gpus_a_box * self.boxes


def machine_of(system: str, interconnect: str, gpus: int) -> Machine | str:
    """Return the machine on which `gpus` GPUs ran, or the reason why no preset is like it."""
    text, wires = _plain(system), _plain(interconnect)
    name = _box(text) or _box(wires) or _first(PLATFORMS, text)
    if not name:
        return f"no preset: no GPU that there is a fabric for is named in {system!r}"
    if reason := _unlike(name, text, wires):
        return reason
    whole = 72 if "nvl72" in name else 8
    a_box, boxes = _split(text, wires, gpus, whole)
    if a_box > whole:
        return f"no preset: {a_box} GPUs of one {name} box, which has {whole}"
    if a_box * boxes != gpus:
        return f"{gpus} ranks do not fill {boxes} boxes of {a_box} GPUs"
    if name == "mi250x" and boxes == 1 and a_box not in (1, 2, 4, 8):
        return f"no preset: {a_box} dies of an MI250X box have no route between all of them"
    if boxes == 1:
        return Machine(name, a_box, 1)
    nics, gb_per_s = _nics(wires, a_box)
    if whole == 72:  # what is said of NICs is of a tray; every GPU of a rack has one
        nics = 0
    gb_per_s = gb_per_s or USUAL_GB_PER_S.get(name, 50.0)
    return Machine(name, a_box, boxes, nics, gb_per_s, _transport(wires + " " + text))


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().replace("_", " ").replace("\u00d7", "x"))


def _first(names: tuple[tuple[str, str], ...], text: str) -> str:
    return next((name for pattern, name in names if re.search(pattern, text)), "")


def _box(text: str) -> str:
    """Return the box of the GPU that a text names; a number that goes on (H1000) or a PCIe card is none."""
    return next(
        (
            name
            for pattern, name in BOXES
            if re.search(rf"(?:(?<![a-z0-9])|(?<=\dx))({pattern})(?![0-9])", text)
        ),
        "",
    )


def _unlike(name: str, text: str, wires: str) -> str:
    """Return why a machine is not the box that its GPU usually stands in; empty where it may be."""
    if re.search(r"no p2p|p2p (is )?(off|disabled)|host memory|\bsys\b boundary|\bnode\b boundary", wires):
        return "no preset: peers do not reach each other, and data goes through host memory"
    if re.search(r"bridge|islands?\b|\bnv\d\b pairs?", wires + text):
        return "no preset: GPUs joined in pairs or islands by bridges"
    if re.search(r"\bpcie\b", text) and not re.search(r"sxm|hgx|nvswitch", text + wires):
        return "no preset: PCIe cards, whose root complexes the row does not describe"
    if re.search(r"^pcie|pcie (switch|only|gen)", wires) and "nv" not in wires and "xgmi" not in wires:
        return "no preset: GPUs joined over PCIe, whose root complexes the row does not describe"
    if name == "dgx1-v100" and "nvswitch" in wires:
        return "no preset: V100 behind NVSwitch (DGX-2)"
    return ""


def _split(text: str, wires: str, gpus: int, whole: int) -> tuple[int, int]:
    """Return GPUs a box and boxes, from `n per node`, `n nodes`, `n x m` or the size of a box."""
    a_box = _number(
        r"(\d+) ?(?:x )?(?:gpus?|gcds?|ranks?)?(?: ?\+ ?\d+ nics?)? ?(?:per|a|/) ?(?:node|box|host|server|machine)",
        text,
    )
    a_box = a_box or (
        1 if re.search(r"\b(one|1) gpus? (per|a|/) (node|box|host|server)", text + " " + wires) else 0
    )
    nodes = (
        0 if whole == 72 else _number(r"(\d+) ?(?:x )?(?:node|box|host|server|machine)(?:\(?e?s\)?)?", text)
    )
    if re.search(r"1 gpu to 1 gpu", text) and nodes == 2:
        return 1, 2
    if whole == 72:
        return (gpus, 1) if gpus <= 72 or gpus % 72 else (72, gpus // 72)
    if re.search(
        r"\bn (gpus )?of|of one node|of 1 node|of \d+ gpus|1 or|1 to|one node\b|single[- ]node", text
    ):
        nodes = 1 if gpus <= whole else -(-gpus // whole)
    if a_box and gpus > a_box and gpus % a_box == 0:
        return a_box, gpus // a_box
    if nodes > 1 and gpus % nodes == 0 and gpus >= nodes:
        return gpus // nodes, nodes
    return (gpus, 1) if nodes == 1 or gpus <= whole or gpus % whole else (whole, gpus // whole)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def _nics(text: str, a_box: int) -> tuple[int, float]:
    """Return NICs a box and GB/s of each; 0 for what is not said. More NICs than GPUs are bundled."""
    if found := re.search(r"(\d+) ?x ?(\d+) ?g", text):
        count, gbit = int(found.group(1)), int(found.group(2))
        nics = min(count, a_box)
        while a_box % nics:
            nics -= 1
        return nics, count * gbit / 8 / nics
    if found := re.search(r"(?<![\d.])(\d{2,3}) ?g(?:b|bps|bit|b/s|be)?\b", text):
        return 0, int(found.group(1)) / 8
    return 0, next((gbit / 8 for name, gbit in GBIT.items() if name in text), 0.0)


def _transport(text: str) -> str:
    return next((name for name, pattern in TRANSPORTS if re.search(pattern, text)), "ib")
