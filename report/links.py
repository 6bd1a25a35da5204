"""Which links were busy, and when."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .text import count_text, hover, label, share_text, short, size_text, time_text, time_unit
from .view import ROWS, Chart, Column, Table, View, left_out, micro

_BUSIEST = 20  # links that the chart shows


def links(table: pa.Table, use: pa.Table, makespan_ps: int) -> View | None:
    """Return link use over time, of the busiest links and of all; None where no link carried anything.

    `table` is the results' links, `use` their link_use.
    """
    busy = table["busy_ps"].to_numpy()
    if not busy.any() or not makespan_ps:
        return None
    order = np.argsort(-busy, kind="stable")
    top = order[: min(_BUSIEST, int((busy > 0).sum()))]
    names = table["name"].to_pylist()
    starts, share, total = _bins(use, top, table.num_rows)
    return View(
        "links",
        "Links",
        _sentence(table, order, makespan_ps),
        (_chart([names[at] for at in top], starts, share, total),) if len(starts) else (),
        (_table(table, order, makespan_ps), _use_table([names[at] for at in top], starts, share, total)),
        "Busy means serialising bytes, headers included; queued sums what all segments waited for the link, and so "
        "can exceed the run.",
    )


def _bins(
    use: pa.Table, top: npt.NDArray[Any], links_total: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the bins' starts (B,), the busy share of the top links (T, B), and links busy at once (B,)."""
    if not use.num_rows:
        return np.zeros(0, np.int64), np.zeros((len(top), 0)), np.zeros(0)
    width = int(use["width_ps"][0].as_py())
    link, bin_at = use["link"].to_numpy(), use["start_ps"].to_numpy() // width
    share = use["busy_ps"].to_numpy() / width
    size = int(bin_at.max()) + 1
    row = np.full(links_total, -1)
    row[top] = np.arange(len(top))
    shown = row[link] >= 0
    cell = row[link[shown]] * size + bin_at[shown]
    matrix = np.bincount(cell, share[shown], len(top) * size).reshape(len(top), size)
    return np.arange(size) * width, matrix, np.bincount(bin_at, share, size)


def _sentence(table: pa.Table, order: npt.NDArray[Any], makespan_ps: int) -> str:
    busy, queued = table["busy_ps"].to_numpy(), table["queued_ps"].to_numpy()
    most = int(order[0])
    tied = int((busy == busy[most]).sum())
    who = f"Link {short(table['name'][most].as_py())} was busy longest"
    if tied > 1:
        who = (
            f"{count_text(tied, 'link')}, {short(table['name'][most].as_py())} among them, were busy longest"
        )
    text = (
        f"{who}: {time_text(int(busy[most]))}, {share_text(busy[most], makespan_ps)} of the run, carrying "
        f"{size_text(table['wire_bytes'][most].as_py())}{' each' if tied > 1 else ''}. "
    )
    worst = int(queued.argmax())
    if not queued[worst]:
        return f"{text}Nothing queued on any link."
    return (
        f"{text}Most queueing was for {short(table['name'][worst].as_py())}: segments waited "
        f"{time_text(int(queued[worst]))} in sum."
    )


def _chart(
    names: list[str], starts: npt.NDArray[Any], share: npt.NDArray[Any], total: npt.NDArray[Any]
) -> Chart:
    width = int(starts[1] - starts[0]) if len(starts) > 1 else 1
    scale, unit = time_unit(int(starts[-1]) + width)
    middle = np.round((starts + width / 2) / scale, 6).tolist()
    rows = list(range(len(names)))
    data: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            "x": middle,
            "y": rows,
            "z": np.round(100 * share, 4).tolist(),
            "colorscale": "@heat",
            "zmin": 0,
            "zmax": 100 * float(share.max()) or 100,
            "ygap": 1,
            "text": [hover(name) for name in names],
            "customdata": [[hover(name)] * len(middle) for name in names],
            "hovertemplate": f"%{{customdata}}<br>%{{x}} {unit}: %{{z:.2f}} % busy<extra></extra>",
            "colorbar": {"title": {"text": "% busy", "side": "top"}, "thickness": 12, "outlinewidth": 0,
                         "len": 0.74, "y": 0, "yanchor": "bottom"},
        },
        {
            "type": "scatter",
            "mode": "lines",
            "x": middle,
            "y": np.round(total, 4).tolist(),
            "yaxis": "y2",
            "line": {"color": "@link", "shape": "hvh", "width": 1.5},
            "fill": "tozeroy",
            "hovertemplate": f"%{{x}} {unit}: %{{y}} links busy<extra></extra>",
            "showlegend": False,
        },
    ]  # fmt: skip
    del data[0]["text"]
    layout = {
        "xaxis": {"title": {"text": f"time ({unit})"}, "showgrid": False},
        "yaxis": {"domain": [0, 0.74], "tickvals": rows, "ticktext": [label(n) for n in names],
                  "autorange": "reversed", "showgrid": False, "zeroline": False},
        "yaxis2": {"domain": [0.82, 1], "title": {"text": "links busy"}, "rangemode": "tozero", "nticks": 3},
    }  # fmt: skip
    return Chart("The busiest links over time, and how many of all were busy at once", data, layout,
                 200 + 20 * max(len(names), 6))  # fmt: skip


def _table(table: pa.Table, order: npt.NDArray[Any], makespan_ps: int) -> Table:
    used = int((table["segments"].to_numpy() > 0).sum())
    kept = table.take(pa.array(order[: min(ROWS, used)]))
    return Table(
        "links, the busiest first",
        (
            Column("link", kept["name"].to_pylist()),
            Column("rate (GB/s)", kept["rate_mb_per_s"].to_numpy() / 1000),
            Column("latency (µs)", micro(kept["latency_ps"])),
            Column("bytes on the wire", kept["wire_bytes"].to_pylist()),
            Column("segments", kept["segments"].to_pylist()),
            Column("busy (µs)", micro(kept["busy_ps"])),
            Column("busy (%)", np.round(100 * kept["busy_ps"].to_numpy() / makespan_ps, 4), 1),
            Column("queued (µs)", micro(kept["queued_ps"])),
        ),
        left_out(kept.num_rows, used, "links that carried something", "the busiest"),
    )


def _use_table(
    names: list[str], starts: npt.NDArray[Any], share: npt.NDArray[Any], total: npt.NDArray[Any]
) -> Table:
    columns = [Column("from (µs)", micro(starts)), Column("links busy", np.round(total, 4), 2)]
    columns += [
        Column(f"{short(name)} (% busy)", np.round(100 * row, 3), 1)
        for name, row in zip(names, share, strict=True)
    ]
    return Table("use over time", columns)
