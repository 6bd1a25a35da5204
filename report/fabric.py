"""The fabric's picture: which of its links were busy."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any

import numpy as np
import pyarrow as pa

from .fabric_layout import Ints, Place, lay_out
from .text import count_text, hover, label, share_text, short, size_text, time_text, time_unit
from .view import ROWS, Chart, Column, Table, View, left_out, micro

_WIDTHS = (0.7, 1.2, 2.0, 2.8, 3.8)  # of lines, by heat
_DENSE = 100  # lines from which they are thinner
_STEPS = 12  # points of a bent line
_LABELS = 16  # names a row


@dataclass(frozen=True)
class _Bundle:
    """The links between two places, both ways."""

    a: int
    b: int
    links: int
    busiest: int
    busy_ps: int
    mean_ps: float
    wire_bytes: int


def fabric(table: pa.Table, makespan_ps: int, box_gpus: int) -> View | None:
    """Return the picture of the results' `links`; None for a fabric without links, or a run that took no time.

    `box_gpus` consecutive GPUs share a box.
    """
    if not table.num_rows or not makespan_ps:
        return None
    places, source, destination = lay_out(
        table["source"].to_pylist(), table["destination"].to_pylist(), box_gpus
    )
    bundles = _bundles(table, source, destination)
    return View(
        "fabric",
        "Fabric",
        _sentence(table, makespan_ps),
        (_chart(table, places, bundles, makespan_ps),),
        (_table(table, places, bundles, makespan_ps),),
        "A line stands for all links between two places, both ways, and has the colour of its busiest link; thin "
        "grey ones carried nothing. Links inside a place are in the table of links below, not here.",
    )


def _bundles(table: pa.Table, source: Ints, destination: Ints) -> list[_Bundle]:
    """Return the bundles, the least busy first, so that the busiest are drawn on top."""
    busy, carried = table["busy_ps"].to_numpy(), table["wire_bytes"].to_numpy()
    low, high = np.minimum(source, destination), np.maximum(source, destination)
    between = np.flatnonzero(low != high)
    order = between[np.lexsort((busy[between], high[between], low[between]))]
    if not len(order):
        return []
    new = np.flatnonzero(np.diff(low[order] * (high.max() + 1) + high[order], prepend=-1))
    ends = [*new[1:], len(order)]
    made = []
    for first, end in zip(new, ends, strict=True):
        rows = order[first:end]
        top = int(rows[-1])
        times = int(busy[top]), float(busy[rows].mean())
        made.append(_Bundle(int(low[top]), int(high[top]), len(rows), top, *times, int(carried[rows].sum())))
    return sorted(made, key=lambda bundle: bundle.busy_ps)


def _sentence(table: pa.Table, makespan_ps: int) -> str:
    busy = table["busy_ps"].to_numpy()
    idle, most = int((busy == 0).sum()), int(busy.argmax())
    if idle == len(busy):
        return f"None of the fabric's {count_text(len(busy), 'link')} carried anything."
    hot = int((busy >= 0.9 * busy[most]).sum())
    more = f"; {hot - 1:,} more come within a tenth of it" if hot > 1 else ""
    return (
        f"{len(busy) - idle:,} of {count_text(len(busy), 'link')} carried something. The busiest, "
        f"{short(table['name'][most].as_py())}, was busy for {time_text(int(busy[most]))}, "
        f"{share_text(busy[most], makespan_ps)} of the run{more}."
    )


def _chart(table: pa.Table, places: Sequence[Place], bundles: Sequence[_Bundle], makespan_ps: int) -> Chart:
    spots = _spots(places)
    most = max((bundle.busy_ps for bundle in bundles), default=0)
    heat: dict[int, list[_Bundle]] = {}
    for bundle in bundles:
        heat.setdefault(-(-4 * bundle.busy_ps // most) if most else 0, []).append(bundle)
    data = [_lines(level, heat[level], spots, 0.5 if len(bundles) > _DENSE else 1) for level in sorted(heat)]
    data += [_points(table, bundles, spots, makespan_ps)] if bundles else []
    data += [
        _nodes(what, places, spots)
        for what in sorted({p.kind for p in places}, key=lambda k: k not in ("gpu", "box"))
    ]
    rows = max(place.y for place in places) + 1
    blank = {"visible": False, "fixedrange": False}
    layout: dict[str, Any] = {
        "xaxis": {**blank, "range": [-0.01, 1.03]},
        "yaxis": {**blank, "range": [-0.45, max(rows - 1, 1) + 0.45]},
        "hovermode": "closest",
        "showlegend": False,
        "margin": {"l": 120, "r": 20, "t": 10, "b": 10},
        "annotations": _levels(places, spots),
    }
    return Chart("How busy links were", data, layout, 200 + 95 * max(rows, 2))


def _spots(places: Sequence[Place]) -> list[tuple[float, float]]:
    """Return where places are drawn: in rows, or on a circle where there is but one row and no switch."""
    if any(place.y for place in places) or len(places) < 3:
        return [(place.x, float(place.y)) for place in places]
    turns = [2 * pi * (place.x - 0.25) for place in places]
    return [(0.5 + 0.32 * sin(turn), 0.5 - 0.6 * cos(turn)) for turn in turns]


def _path(a: tuple[float, float], b: tuple[float, float], rows: bool) -> list[tuple[float, float]]:
    """Return the points of a line: bent upwards between places of one row, straight otherwise."""
    if a[1] != b[1] or not rows:
        return [a, b]
    lift = 0.1 + 0.3 * abs(a[0] - b[0])
    return [
        (a[0] + (b[0] - a[0]) * step / _STEPS, a[1] + lift * sin(pi * step / _STEPS))
        for step in range(_STEPS + 1)
    ]


def _lines(
    level: int, bundles: Sequence[_Bundle], spots: Sequence[tuple[float, float]], thin: float
) -> dict[str, Any]:
    x: list[float | None] = []
    y: list[float | None] = []
    rows = len({spot[1] for spot in spots}) < len(spots) // 2 + 2
    for bundle in bundles:
        path = _path(spots[bundle.a], spots[bundle.b], rows)
        x += [*(round(px, 4) for px, _ in path), None]
        y += [*(round(py, 4) for _, py in path), None]
    color = f"@heat{level}" if level else "@line"
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "hoverinfo": "skip",
            "line": {"color": color, "width": thin * _WIDTHS[level]}}  # fmt: skip


def _points(
    table: pa.Table, bundles: Sequence[_Bundle], spots: Sequence[tuple[float, float]], makespan_ps: int
) -> dict[str, Any]:
    """Return what shows when a line's middle is pointed at, and the scale of colours."""
    rows = len({spot[1] for spot in spots}) < len(spots) // 2 + 2
    middles = []
    for bundle in bundles:
        path = _path(spots[bundle.a], spots[bundle.b], rows)
        (ax, ay), (bx, by) = path[(len(path) - 1) // 2], path[len(path) // 2]
        middles.append(((ax + bx) / 2, (ay + by) / 2))
    told = [
        [hover(table["name"][b.busiest].as_py()), time_text(b.busy_ps), share_text(b.busy_ps, makespan_ps),
         time_text(b.mean_ps), count_text(b.links, "link"), size_text(b.wire_bytes)]
        for b in bundles
    ]  # fmt: skip
    scale, unit = time_unit(bundles[-1].busy_ps)
    marker = {
        "size": 9, "symbol": "square", "opacity": 0, "color": [round(b.busy_ps / scale, 4) for b in bundles],
        "cmin": 0, "cmax": bundles[-1].busy_ps / scale or 1, "colorscale": "@heat",
        "showscale": bundles[-1].busy_ps > 0,
        "colorbar": {"title": {"text": f"{unit} busy", "side": "top"}, "thickness": 12, "outlinewidth": 0},
    }  # fmt: skip
    return {
        "type": "scatter", "mode": "markers", "x": [round(x, 4) for x, _ in middles],
        "y": [round(y, 4) for _, y in middles], "marker": marker, "customdata": told,
        "hovertemplate": "%{customdata[4]}, the busiest %{customdata[0]}:<br>busy %{customdata[1]}, "
        "%{customdata[2]} of the run; in the mean %{customdata[3]}, %{customdata[5]} in sum<extra></extra>",
    }  # fmt: skip


def _nodes(what: str, places: Sequence[Place], spots: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the places of a kind, with the numbers that tell them apart."""
    mine = [at for at, place in enumerate(places) if place.kind == what]
    every = -(-len(mine) // _LABELS)
    inner = 0 < places[mine[0]].y < max(place.y for place in places)
    every = len(mine) + 1 if inner and every > 1 else every  # lines would cross them
    mine.sort(key=lambda at: spots[at])
    texts = [
        "" if turn % every or every > len(mine) else label(_number(places[at].name, what), 12)
        for turn, at in enumerate(mine)
    ]
    low = what in ("gpu", "box")
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [round(spots[at][0], 4) for at in mine],
        "y": [round(spots[at][1], 4) for at in mine],
        "text": texts,
        "textposition": "bottom center" if low else "top center",
        "textfont": {"size": 11, "color": "@soft"},
        "marker": {"size": 13 if len(mine) <= _LABELS * 2 else 9, "symbol": "square",
                   "color": "@compute" if low else "@link", "line": {"width": 1, "color": "@card"}},
        "customdata": [[hover(places[at].name), f"{places[at].members:,}"] for at in mine],
        "hovertemplate": "%{customdata[0]} (%{customdata[1]} in one place)<extra></extra>",
    }  # fmt: skip


def _number(name: str, what: str) -> str:
    return name[len(what) :].strip().replace(" to ", "-") or name


def _levels(places: Sequence[Place], spots: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """Say on the left what each row holds."""
    rows: dict[float, Counter[str]] = {}
    for place, (_, y) in zip(places, spots, strict=True):
        row = y if any(p.y for p in places) else 0.5
        rows.setdefault(row, Counter())[place.kind] += place.members
    texts = {y: "<br>".join(_called(k, count) for k, count in kinds.items()) for y, kinds in rows.items()}
    return [
        {"x": -0.01, "y": y, "xref": "paper", "xanchor": "right", "yref": "y", "text": text, "showarrow": False,
         "align": "right", "font": {"size": 12, "color": "@soft"}}
        for y, text in texts.items()
    ]  # fmt: skip


def _called(what: str, count: int) -> str:
    if what in ("gpu", "box"):
        return f"{count:,} {'GPUs' if what == 'gpu' else 'boxes'}"
    return f"{label(what, 16)} x {count:,}"


def _table(table: pa.Table, places: Sequence[Place], bundles: Sequence[_Bundle], makespan_ps: int) -> Table:
    kept = bundles[::-1][:ROWS]
    columns = (
        Column("between", [places[b.a].name for b in kept]),
        Column("and", [places[b.b].name for b in kept]),
        Column("links", [b.links for b in kept]),
        Column("the busiest", [table["name"][b.busiest].as_py() for b in kept]),
        Column("busy (µs)", micro([b.busy_ps for b in kept])),
        Column("busy (%)", [round(100 * b.busy_ps / makespan_ps, 4) for b in kept], 1),
        Column("busy in the mean (µs)", micro([b.mean_ps for b in kept])),
        Column("bytes on the wire", [b.wire_bytes for b in kept]),
    )
    return Table("the fabric's lines", columns, left_out(len(kept), len(bundles), "lines", "the busiest"))
