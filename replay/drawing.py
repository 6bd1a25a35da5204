"""A picture of a fabric, as SVG: GPUs at the bottom, what is further from them above."""

from collections import Counter, defaultdict
from html import escape

import numpy as np

from .fabric import Fabric, Ints

_WHOLE = 64  # GPUs up to which each is drawn
_ROW = 16  # nodes of a kind that are drawn, when not all are
_WIDTH, _HEIGHT = 1200, 130  # of the picture, and from one level to the next
_TOP, _SIDE = 130, 120  # room above the highest level, and on the left
_FILLS = {"gpu": "#dfe9f6", "box": "#dfe9f6", "nic": "#e3f1e1", "nvswitch": "#fbeec9", "socket": "#f6dfdf"}
_COLOURS = ("#3b6fb6", "#d1742c", "#3d9a50", "#a8508c", "#6c6c6c", "#b0413e", "#2a9d9d", "#8a7a2f")


def draw(fabric: Fabric) -> str:
    """Return an SVG picture with every node and link up to 64 GPUs; above that, boxes for GPUs and 16 of each kind.

    Links side by side, and those each way, are one line. The legend counts all, drawn or not.
    """
    group, names = _groups(fabric)
    level = _levels(fabric, group, len(names))
    rows: dict[int, list[int]] = defaultdict(list)
    for node, height in enumerate(level):
        rows[int(height)].append(node)
    shown = {height: _thinned(nodes, names) for height, nodes in rows.items()}
    top = max(shown) if shown else 0
    place: dict[int, tuple[float, float]] = {}
    for height in sorted(shown):
        shown[height] = _ordered(fabric, group, shown[height], place)
        room = (_WIDTH - _SIDE - 20) / len(shown[height])
        for i, node in enumerate(shown[height]):
            place[node] = _SIDE + room * (i + 0.5), _TOP + (top - height) * _HEIGHT
    legend, lines = _links(fabric, group, place)
    boxes = [_node(names[node], *at, len(shown[int(level[node])])) for node, at in place.items()]
    labels = [_label(height, rows[height], nodes, names, top) for height, nodes in sorted(shown.items())]
    bottom = _TOP + top * _HEIGHT + 60
    title = _text(_SIDE, 28, f"{fabric.name}: {fabric.gpus:,} GPUs, {fabric.links:,} links", 18)
    end = bottom + 22 * len(legend)
    key = [
        f'<line x1="{_SIDE}" y1="{bottom + 22 * i}" x2="{_SIDE + 40}" y2="{bottom + 22 * i}" '
        f'stroke="{_COLOURS[i % len(_COLOURS)]}" stroke-width="3"/>'
        + _text(_SIDE + 50, bottom + 22 * i + 4, text, 13)
        for i, text in enumerate(legend)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {end}" width="{_WIDTH}" '
            f'height="{end}" font-family="sans-serif">',
            '<rect width="100%" height="100%" fill="white"/>',
            *(title, *labels, *lines, *boxes, *key),
            "</svg>\n",
        ]
    )


def _kind(name: str) -> str:
    return name.rstrip("0123456789./ ")


def _groups(fabric: Fabric) -> tuple[Ints, list[str]]:
    """Return what each node is drawn as, and the names: itself, or with many GPUs its box for what a box holds."""
    if fabric.gpus <= _WHOLE or int(fabric.box.max()) + 1 == fabric.gpus:
        return np.arange(len(fabric.node_names)), list(fabric.node_names)
    boxes = int(fabric.box.max()) + 1
    inside = {"nvswitch", "nic", "socket", "pcie switch", "pcie up", "pcie down"}
    names = [f"box {b}" for b in range(boxes)]
    group = np.empty(len(fabric.node_names), np.int64)
    for node, name in enumerate(fabric.node_names):
        if node < fabric.gpus:
            group[node] = fabric.box[node]
        elif _kind(name) in inside:
            group[node] = int(name[len(_kind(name)) :].split(".")[0])
        else:
            group[node] = len(names)
            names.append(name)
    return group, names


def _levels(fabric: Fabric, group: Ints, count: int) -> Ints:
    """Return how many links each drawn node is from GPUs; what nothing reaches counts as a GPU."""
    level = np.full(count, -1)
    level[group[: fabric.gpus]] = 0
    source, target = group[fabric.source], group[fabric.destination]
    for height in range(1, count):
        found = np.unique(target[(level[source] == height - 1) & (level[target] < 0)])
        if not len(found):
            break
        level[found] = height
    reached: Ints = np.maximum(level, 0)
    return reached


def _thinned(nodes: list[int], names: list[str]) -> list[int]:
    """Return the nodes of a level that are drawn: all up to 64, otherwise the first 16 of each kind."""
    if len(nodes) <= _WHOLE:
        return nodes
    seen: Counter[str] = Counter()
    kept = []
    for node in nodes:
        seen[_kind(names[node])] += 1
        if seen[_kind(names[node])] <= _ROW:
            kept.append(node)
    return kept


def _ordered(
    fabric: Fabric, group: Ints, nodes: list[int], place: dict[int, tuple[float, float]]
) -> list[int]:
    """Return the nodes of a level in the order of the middle of what they are linked to below."""
    source, target = group[fabric.source], group[fabric.destination]
    across = np.full(len(fabric.node_names), np.nan)
    for node, (x, _) in place.items():
        across[node] = x
    linked = np.isin(source, nodes) & ~np.isnan(across[target])
    total = np.bincount(source[linked], across[target[linked]])
    count = np.bincount(source[linked])
    return sorted(nodes, key=lambda n: (total[n] / count[n] if n < len(count) and count[n] else np.inf, n))


def _links(fabric: Fabric, group: Ints, place: dict[int, tuple[float, float]]) -> tuple[list[str], list[str]]:
    """Return the legend, a line for each class of links, and the lines between nodes that are drawn."""
    kinds = [_kind(name) for name in fabric.node_names]
    classes: dict[tuple[str, ...], int] = {}
    counts: Counter[int] = Counter()
    drawn: dict[tuple[int, int, int], None] = {}
    columns = (fabric.source, fabric.destination, fabric.rate_mb_per_s, fabric.latency_ps)
    for source, target, rate, latency in zip(*(column.tolist() for column in columns), strict=True):
        ends = sorted((kinds[source], kinds[target]))
        key = (*ends, f"{rate / 1000:g} GB/s, {latency / 1000:g} ns")
        number = classes.setdefault(key, len(classes))
        counts[number] += 1
        a, b = sorted((int(group[source]), int(group[target])))
        if a != b and a in place and b in place:
            drawn[a, b, number] = None
    legend = [f"{a} - {b}: {what}; {counts[n]:,} links" for (a, b, what), n in classes.items()]
    faint = 1.0 if len(drawn) < 150 else 0.35
    return legend, [_line(place[a], place[b], n, faint) for a, b, n in drawn]


def _line(a: tuple[float, float], b: tuple[float, float], number: int, opacity: float) -> str:
    """Draw a link: straight between levels, bent within one."""
    colour = _COLOURS[number % len(_COLOURS)]
    bend = 0 if a[1] != b[1] else 40 + abs(a[0] - b[0]) / 8
    middle = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2 - bend
    return (
        f'<path d="M{a[0]:.1f} {a[1]:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {b[0]:.1f} {b[1]:.1f}" fill="none" '
        f'stroke="{colour}" stroke-width="1.4" opacity="{opacity}"/>'
    )


def _node(name: str, x: float, y: float, row: int) -> str:
    """Draw a node with what tells it from others of its kind; its whole name shows when pointed at."""
    width = min(70.0, (_WIDTH - _SIDE - 20) / row - 3)
    number = name[len(_kind(name)) :].strip() or name
    size = max(5.0, min(12.0, 1.6 * width / max(2, len(number))))
    fill = _FILLS.get(_kind(name), "#f1ece2")
    return (
        f'<g><title>{escape(name)}</title><rect x="{x - width / 2:.1f}" y="{y - 12:.1f}" width="{width:.1f}" '
        f'height="24" rx="3" fill="{fill}" stroke="#555"/>'
        f'<text x="{x:.1f}" y="{y + size / 3:.1f}" font-size="{size:.1f}" text-anchor="middle">{escape(number)}'
        "</text></g>"
    )


def _label(height: int, nodes: list[int], shown: list[int], names: list[str], top: int) -> str:
    """Say on the left what a level holds, and how much of it is left out."""
    y = _TOP + (top - height) * _HEIGHT
    kinds = Counter(_kind(names[node]) for node in nodes)
    texts = [f"{count:,} {kind}" for kind, count in kinds.items()]
    if len(shown) < len(nodes):
        texts.append(f"({len(shown)} drawn)")
    return "".join(_text(8, y + 4 + 16 * i, text, 12) for i, text in enumerate(texts))


def _text(x: float, y: float, text: str, size: int) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}">{escape(text)}</text>'
