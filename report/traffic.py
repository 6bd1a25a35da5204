"""Who sends how much to whom."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .text import count_text, share_text, size_text, size_unit
from .view import ROWS, Chart, Column, Table, View, left_out

Ints = npt.NDArray[np.int64]
MOST = 256  # GPUs of a matrix that shows each one
_GROUPS = 128  # groups at most, where it does not
_BOX = 8  # GPUs of the smallest group, where the boxes are not known: those of the usual box


def matrix(
    source: Ints, destination: Ints, size_bytes: Ints, gpus: int, box_gpus: int = 1
) -> tuple[Ints, int]:
    """Return the (G, G) bytes from row to column, and how many neighbouring GPUs make a row.

    Writes to the own GPU, and to and from switches (numbered behind the GPUs), are left out. A row is one GPU up to
    MOST of them, else a box of `box_gpus` (1: not known, taken as 8), or 2, 4, 8, ... boxes.
    """
    group = 1 if gpus <= MOST else box_gpus if box_gpus > 1 else _BOX
    while -(-gpus // group) > (MOST if group == 1 else _GROUPS):
        group *= 2
    rows = -(-gpus // group)
    away = (source != destination) & (source < gpus) & (destination < gpus)
    cell = (source[away] // group).astype(np.int64) * rows + destination[away] // group
    sums = np.zeros(rows * rows, np.int64)
    np.add.at(sums, cell, size_bytes[away])
    return sums.reshape(rows, rows), group


def traffic(source: Ints, destination: Ints, size_bytes: Ints, gpus: int, box_gpus: int = 1) -> View | None:
    """Return the traffic matrix of writes; None where nothing went from one GPU to another."""
    sums, group = matrix(source, destination, size_bytes, gpus, box_gpus)
    if not sums.any():
        return None
    names = [_name(row, group, gpus) for row in range(len(sums))]
    what = "GPU" if group == 1 else f"{'box' if group == box_gpus else 'group'} of {group} GPUs"
    note = "Payload, without headers; a row sends, a column receives."
    if (np.maximum(source, destination) >= gpus).any():
        note += " What goes to and from switches that reduce is left out."
    if group > 1:
        note += (
            f" Each row and column stands for {group} neighbouring GPUs; the diagonal is traffic inside it."
        )
    return View(
        "traffic",
        "Traffic",
        _sentence(sums, names, what),
        (_chart(sums, names, group),),
        (_table(sums, names),),
        note,
    )


def _name(row: int, group: int, gpus: int) -> str:
    """Name a row: `GPU 3`, or `GPUs 8-15`."""
    first, last = row * group, min(row * group + group, gpus) - 1
    return f"GPU {first}" if first == last else f"GPUs {first}-{last}"


def _sentence(sums: Ints, names: list[str], what: str) -> str:
    total, sent = int(sums.sum()), sums.sum(axis=1)
    pairs, most = int((sums > 0).sum()), np.unravel_index(int(sums.argmax()), sums.shape)
    text = f"{size_text(total)} went over {count_text(pairs, 'pair')} of {len(names):,} {_plural(what)}. "
    used = sums[sums > 0]
    if used.min() == used.max() and pairs > 1:
        return f"{text}Every pair that talks carries the same: {size_text(int(used[0]))}."
    heaviest = int(sums[most])
    text += (
        f"The heaviest is {names[most[0]]} to {names[most[1]]} with {size_text(heaviest)}, "
        f"{share_text(heaviest, total)} of all; "
    )
    if sent.min() == sent.max():
        return f"{text}each {what} sends {size_text(int(sent[0]))}."
    top = names[int(sent.argmax())]
    who = f"{top} {'sends' if top.startswith('GPU ') else 'send'}"
    return f"{text}{who} most, {size_text(int(sent.max()))}."


def _plural(what: str) -> str:
    return "GPUs" if what == "GPU" else what.replace("group", "groups", 1).replace("box", "boxes", 1)


def _chart(sums: Ints, names: list[str], group: int) -> Chart:
    scale, unit = size_unit(int(sums.max()))
    shown = np.round(sums / scale, 3).tolist()
    step = 1 if len(names) <= 32 else -(-len(names) // (16 if group == 1 else 8))
    axis: dict[str, Any] = {
        "type": "category",
        "showgrid": False,
        "tickvals": names[::step],
        "ticktext": [name.split(" ")[1] for name in names[::step]],
        "constrain": "domain",
    }
    gap = 1 if len(names) <= 64 else 0
    data = [
        {
            "type": "heatmap",
            "x": names,
            "y": names,
            "z": [[value or None for value in row] for row in shown],
            "colorscale": "@heat",
            "zmin": 0,
            "zmax": max(map(max, shown)),
            "xgap": gap,
            "ygap": gap,
            "hoverongaps": False,
            "colorbar": {"title": {"text": unit, "side": "top"}, "thickness": 12, "outlinewidth": 0},
            "hovertemplate": f"%{{y}} to %{{x}}: %{{z}} {unit}<extra></extra>",
        }
    ]
    layout = {
        "xaxis": {**axis, "title": {"text": "to GPU"}},
        "yaxis": {**axis, "title": {"text": "from GPU"}, "autorange": "reversed", "scaleanchor": "x"},
    }
    return Chart("Bytes from GPU to GPU", data, layout, 460)


def _table(sums: Ints, names: list[str]) -> Table:
    source, destination = np.nonzero(sums)
    order = np.argsort(-sums[source, destination], kind="stable")[:ROWS]
    kept = source[order], destination[order]
    return Table(
        "traffic by pair",
        (
            Column("from", [names[at] for at in kept[0]]),
            Column("to", [names[at] for at in kept[1]]),
            Column("bytes", sums[kept]),
        ),
        left_out(len(order), len(source), "pairs", "the largest"),
    )
