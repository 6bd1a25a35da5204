"""A plot of errors by size: an SVG that needs nothing to be looked at."""

from collections.abc import Sequence
from math import log2
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from .score import Scored

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 860, 320, 60, 34, 250, 44
COLORS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#9498a0",
)
"""Observable 10 (d3-scale-chromatic): categories that differ in lightness too."""
MOST = 100
"""Percent at which the scale ends; what is further off is drawn there."""
SIZES = ((0, "1"), (10, "1 KiB"), (20, "1 MiB"), (30, "1 GiB"))


def draw(title: str, rows: Sequence[Scored], path: Path) -> None:
    """Draw signed errors (percent, -100 to 100) over sizes (bytes, log2), a colour a table."""
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}",
                  width=str(WIDTH), height=str(HEIGHT))  # fmt: skip
    SubElement(svg, "rect", width="100%", height="100%", fill="#ffffff")
    _text(svg, LEFT, 20, title, size=14)
    _axes(svg)
    tables = list(dict.fromkeys(s.row.text("table_id") for s in rows))
    for i, table in enumerate(tables):
        color = COLORS[i % len(COLORS)]
        part = [s for s in rows if s.row.text("table_id") == table]
        group = SubElement(svg, "g", fill=color)
        for s in part:
            if s.case and s.error is not None:
                x, y = _x(log2(s.case.size_bytes)), _y(max(-MOST, min(MOST, 100 * s.error)))
                dot = SubElement(group, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3", opacity="0.75")
                SubElement(dot, "title").text = f"{table}, {s.case.size_bytes:,} B: {s.error:+.1%}"
        if (top := TOP + 8 + 12 * i) < HEIGHT - 8:
            SubElement(svg, "circle", cx=str(WIDTH - RIGHT + 14), cy=str(top - 3), r="3", fill=color)
            _text(svg, WIDTH - RIGHT + 22, top, table, size=10)
    indent(svg)
    ElementTree(svg).write(path, encoding="utf-8", xml_declaration=False)


def _axes(svg: Element) -> None:
    for percent in (-100, -50, -20, 0, 20, 50, 100):
        y = _y(percent)
        SubElement(svg, "line", x1=str(LEFT), x2=str(WIDTH - RIGHT), y1=f"{y:.1f}", y2=f"{y:.1f}",
                   stroke="#333333" if percent == 0 else "#dddddd")  # fmt: skip
        _text(svg, LEFT - 6, y + 4, f"{percent:+d} %" if percent else "0", anchor="end")
    for power, label in SIZES:
        x = _x(power)
        SubElement(
            svg, "line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=str(TOP), y2=str(HEIGHT - BOTTOM), stroke="#eeeeee"
        )
        _text(svg, x, HEIGHT - BOTTOM + 16, label, anchor="middle")
    _text(svg, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "size, bytes", anchor="middle")


def _x(power: float) -> float:
    return LEFT + (WIDTH - RIGHT - LEFT) * power / 36


def _y(percent: float) -> float:
    return TOP + (HEIGHT - BOTTOM - TOP) * (MOST - percent) / (2 * MOST)


def _text(svg: Element, x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> None:
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-size": str(size),
                  "font-family": "sans-serif", "fill": "#222222"}  # fmt: skip
    SubElement(svg, "text", attributes).text = text
