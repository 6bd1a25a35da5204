"""Which machine a row means: GPU, box, and how many of them, read from what its author wrote.

Nothing is looked up by a table's name. What a text does not say is not guessed, except the usual fitting of a box
that it names (8 NICs of the generation's rate in an HGX or Instinct box; a cloud's own for the names of its boxes).
"""

import re
from dataclasses import dataclass

from .network import ALONE, TRANSPORTS, Transport, nics_of, transport_of

BOXES = (
    (r"gb300", "gb300-nvl72"), (r"gb200", "gb200-nvl72"), (r"gh200", "hopper-quad"),
    (r"b300", "hgx-b300"), (r"b200|b100", "hgx-b200"),
    (r"h800", "hgx-h800"), (r"a800", "hgx-a800"), (r"h200", "hgx-h200"), (r"h100|hopper|sm90", "hgx-h100"),
    (r"h20", "hgx-h100"), (r"a100", "hgx-a100"), (r"v100", "dgx1-v100"), (r"mi355x?", "mi355x"),
    (r"mi350x?|gfx950", "mi350x"), (r"mi325x?", "mi325x"), (r"mi300a", "mi300a"),
    (r"mi30[08](x|\b)|gfx942", "mi300x"), (r"mi250x?|gfx90a", "mi250x"),
    (r"rtx ?pro ?\d000|rtx ?6000d|rtx ?50\d0|gb10", "pcie5"),
    (r"l40s?|l20|l4|a10g?|a16|a30|a40|rtx ?a?\d000|rtx ?\d0\d0|t4|p100", "pcie"),
)  # fmt: skip
"""Boxes by what names their GPU, the first that fits. An H20 has the links of an H100, an MI308X
those of an MI300X."""
PLATFORMS = (
    (r"p3dn", "dgx1-v100", "1x100g efa"), (r"p3\.16", "dgx1-v100", "1x25g tcp"),
    (r"p4de?\b", "hgx-a100", "4x100g efa"), (r"p5en?\b.*h200|p5(e|en)\b", "hgx-h200", "16x200g efa"),
    (r"p5\b", "hgx-h100", "32x100g efa"), (r"p6e", "gb200-nvl72", "4x400g efa"),
    (r"p6[- ]?b300", "hgx-b300", "16x400g efa"), (r"p6", "hgx-b200", "8x400g efa"),
    (r"a3[- ]?ultra", "hgx-h200", "8x400g roce"), (r"a3[- ]?mega", "hgx-h100", "8x200g tcpxo"),
    (r"a3[- ]?high", "hgx-h100", "4x200g tcpx"), (r"\ba3\b", "hgx-h100", "4x200g tcpx"),
    (r"a4x", "gb200-nvl72", "4x400g roce"), (r"\ba4\b|a4[- ]high", "hgx-b200", "8x400g roce"),
    (r"a2[- ]?(ultra|mega|high)", "hgx-a100", "1x100g tcp"),
    (r"nd ?96\w* ?a100|\bnda?m? a100", "hgx-a100", "8x200g ib hdr"),
    (r"nd ?96\w* ?h100|nd h100", "hgx-h100", "8x400g ib"),
    (r"nd ?96\w* ?h200|nd h200", "hgx-h200", "8x400g ib"), (r"nd ?40\w* ?v2|ndv2", "dgx1-v100", "1x100g ib"),
    (r"bm\.gpu4\.8|bm\.gpu\.a100", "hgx-a100", "16x100g roce"), (r"bm\.gpu\.h100", "hgx-h100", "16x200g roce"),
)  # fmt: skip
"""Clouds' names of boxes, which GPUs stand in them, and their network, where the row does not say."""
QUADS = {"hgx-a100": "a100-quad", "hgx-h100": "hopper-quad", "hgx-h200": "hopper-quad"}
"""Boards of four GPUs that are wired to each other, without switches."""
SITES = r"perlmutter|juwels|leonardo|jupiter|jedi|alps|marenostrum|horeka|snellius|redstone"
"""Machines whose boxes hold such boards."""
USUAL_GB_PER_S = {"dgx1-v100": 12.5, "dgx2-v100": 12.5, "hgx-a100": 25.0, "hgx-a800": 25.0, "a100-quad": 25.0,
                  "hopper-quad": 25.0, "mi250x": 25.0, "mi300a": 25.0, "pcie": 12.5, "hgx-b300": 100.0,
                  "gb300-nvl72": 100.0}  # fmt: skip
"""A NIC's rate where the row does not say; 50 for boxes that are not here."""
WHOLE = {"gb200-nvl72": 72, "gb300-nvl72": 72, "dgx2-v100": 16, "a100-quad": 4, "hopper-quad": 4, "mi300a": 4}
"""GPUs of a box; 8 for those that are not here."""
GENERATIONS = {"dgx1-v100": "volta", "dgx2-v100": "volta", "hgx-a100": "ampere", "a100-quad": "ampere"}


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
    def network(self) -> Transport:
        """What is known of the network between boxes."""
        return TRANSPORTS[self.transport or "ib"]

    @property
    def carries(self) -> float:
        """What a NIC carries of its rate."""
        return self.network.carries * (ALONE if self.gpus_a_box == 1 else 1)

    @property
    def gpus(self) -> int:
        """GPUs that take part."""
        return self.gpus_a_box * self.boxes

    @property
    def whole(self) -> int:
        """GPUs of a full box."""
        return WHOLE.get(self.preset, 8)


def machine_of(system: str, interconnect: str, gpus: int, env: str = "") -> Machine | str:
    """Return the machine on which `gpus` GPUs ran, or the reason why no preset is like it."""
    text, wires = _plain(system), _plain(interconnect)
    platform = _platform(text, wires)
    name = _box(text) or _box(wires) or platform[0] or ("pcie" if "pcie" in wires else "")
    if not name:
        return f"no preset: no GPU that there is a fabric for is named in {system!r}"
    made = _preset(name, text, wires, _plain(env))
    if made.startswith("no preset"):
        return made
    whole = WHOLE.get(made, 8)
    a_box, boxes = _split(text, f"{wires} {_plain(env)}", gpus, whole)
    if whole == 4 and not a_box <= whole:  # a board of four, which a box may hold twice
        a_box, boxes = (gpus, 1) if gpus <= 4 or gpus % 4 else (4, gpus // 4)
    if a_box > whole:
        return f"no preset: {a_box} GPUs of one {made} box, which has {whole}"
    if a_box * boxes != gpus:
        return f"{gpus} ranks do not fill {boxes} boxes of {a_box} GPUs"
    if made == "mi250x" and boxes == 1 and a_box not in (1, 2, 4, 8):
        return f"no preset: {a_box} dies of an MI250X box have no route between all of them"
    return Machine(made, a_box, 1) if boxes == 1 else _joined(made, a_box, boxes, wires, text, platform[1])


def _joined(preset: str, a_box: int, boxes: int, wires: str, text: str, usual: str) -> Machine:
    """Return a machine of several boxes, on the network that its row names, or that its cloud has."""
    nics, gb_per_s = nics_of(wires, a_box)
    if usual and not nics:
        nics, gb_per_s = nics_of(usual, a_box)
    if "nvl72" in preset:  # what is said of NICs is of a tray; every GPU of a rack has one
        nics = 0
    gb_per_s = gb_per_s or USUAL_GB_PER_S.get(preset, 50.0)
    kind = transport_of(f"{wires} {text} {usual}", GENERATIONS.get(preset, ""))
    return Machine(preset, a_box, boxes, nics, gb_per_s, kind)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().replace("_", " ").replace("\u00d7", "x"))


def _platform(text: str, wires: str) -> tuple[str, str]:
    """Return the box and the network of the cloud's box that a text names."""
    return next(
        ((box, net) for found, box, net in PLATFORMS if re.search(found, f"{text} {wires}")), ("", "")
    )


def _box(text: str) -> str:
    """Return the box of the GPU that a text names; a number that goes on (H1000) is none."""
    return next(
        (
            name
            for pattern, name in BOXES
            if re.search(rf"(?:(?<![a-z0-9])|(?<=\dx))({pattern})(?![0-9])", text)
        ),
        "",
    )


def _preset(name: str, text: str, wires: str, env: str) -> str:
    """Return the preset that stands for the box which a GPU's name suggests, or why there is none."""
    both = f"{text} {wires}"
    if re.search(r"bridge|islands?\b|\bnv\d+\b pairs?|\bnvl ?[24]?\b(?!72)", re.sub(r"nvl\d{2}", "", both)):
        return "no preset: GPUs joined in pairs or islands by bridges"
    if re.search(r"no p2p|p2p (is )?(off|disabled)|host memory", wires) or "p2p disable=1" in env:
        return "no preset: peers do not reach each other, and data goes through host memory"
    carded = re.search(r"\bpcie\b|\bnvl\b", text) or re.search(r"^pcie|pcie ?(switch|only|gen|\d)", wires)
    if name.startswith("pcie"):
        return name
    if carded and not re.search(r"sxm|hgx|dgx|nvswitch|nvlink|xgmi|oam", both):
        return "pcie5" if name != "hgx-a100" else "pcie"
    if name == "dgx1-v100" and re.search(r"nvswitch|dgx-?2\b", both):
        return "dgx2-v100"
    quad = re.search(SITES, text) or re.search(
        r"nv4\b|no nvswitch|all[- ]to[- ]all nvlink|4-gpu (hgx|board)", both
    )
    return QUADS.get(name, name) if quad else name


def _split(text: str, wires: str, gpus: int, whole: int) -> tuple[int, int]:
    """Return GPUs a box and boxes, from `n per node`, `n nodes`, `n x m` or the size of a box."""
    if whole == 72 and re.search(r"mnnvl(?: enable)?(?: is)? ?(?:off|disabled|= ?0)", f"{text} {wires}"):
        whole = 4  # each tray by itself
    if whole == 72:
        return (gpus, 1) if gpus <= 72 else _racks(gpus)
    each, nodes = _per_box(text, wires), _boxes(text)
    if re.search(r"1 gpu to 1 gpu", text) and nodes == 2:
        return 1, 2
    if re.search(
        r"\bn (gpus )?of|of one node|of 1 node|of \d+ gpus|1 or|1 to|one node\b|single[- ]node", text
    ):
        nodes = 1 if gpus <= whole else -(-gpus // whole)
    if each and gpus > each and gpus % each == 0:
        return each, gpus // each
    if nodes > 1 and gpus % nodes == 0 and gpus >= nodes:
        return gpus // nodes, nodes
    return (gpus, 1) if nodes == 1 or gpus <= whole or gpus % whole else (whole, gpus // whole)


def _racks(gpus: int) -> tuple[int, int]:
    """Return GPUs a rack and racks: as few racks as hold all, alike, in whole trays of four."""
    racks = next((r for r in range(-(-gpus // 72), gpus + 1) if gpus % r == 0 and gpus // r % 4 == 0), 1)
    return gpus // racks, racks


def _per_box(text: str, wires: str) -> int:
    one, box = r"\b(one|1) gpus? (per|a|/) (node|box|host|server)", r"(?:node|box|host|server|machine)"
    what = r"(?:gpus?|gcds?|ranks?|apus?)?(?: ?\+ ?\d+ nics?)?"
    found = _number(rf"(\d+) ?(?:x )?{what} ?(?:per|a|/) ?{box}", text)
    return found or (1 if re.search(one, f"{text} {wires}") else 0)


def _boxes(text: str) -> int:
    return _number(r"(\d+) ?(?:x )?(?:node|box|host|server|machine)(?:\(?e?s\)?)?", text)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0
