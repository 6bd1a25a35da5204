"""Collectives: how long each took by itself, predicted and captured, and the skew before it.

An operation's own time is from the last rank's start to the latest end; its skew is from the first rank's start
to the last's.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from .light import Light
from .light_chart import against, speed_of_light
from .operation import Operation
from .text import count_text, error_text, hover, label, short, time_text, time_unit
from .view import ROWS, Chart, Column, Table, View, bar_gap, left_out

_BARS = 24  # operations that get a bar each; beyond, points
_POINTS = 2000
_FAR = 100  # a ratio of longest to shortest from which the axis is logarithmic


def replayed(table: pa.Table, light: Light | None = None) -> list[Operation]:
    """Return the operations of a run's `collectives`, in order; `light` bounds their times."""
    grouped = table.group_by("collective", use_threads=False).aggregate(
        [
            *((name, "first") for name in ("operation", "communicator", "sequence", "algorithm")),
            ("size_bytes", "max"),
            ("rank", "count"),
            ("rank", "list"),
            *((f"{end}_ps", how) for end in ("start", "end") for how in ("min", "max")),
            *((f"captured_{end}_ns", how) for end in ("start", "end") for how in ("min", "max", "count")),
        ]
    )
    made = []
    for row in grouped.sort_by("collective").to_pylist():
        whole = row["captured_start_ns_count"] == row["captured_end_ns_count"] == row["rank_count"]
        made.append(
            Operation(
                row["operation_first"],
                row["communicator_first"],
                row["sequence_first"],
                row["rank_count"],
                row["size_bytes_max"],
                row["algorithm_first"],
                row["end_ps_max"] - row["start_ps_max"],
                row["start_ps_max"] - row["start_ps_min"],
                1000 * (row["captured_end_ns_max"] - row["captured_start_ns_max"]) if whole else None,
                1000 * (row["captured_start_ns_max"] - row["captured_start_ns_min"]) if whole else None,
                light.bound_ps(row["operation_first"], row["size_bytes_max"], row["rank_list"])
                if light
                else None,
            )
        )
    return made


def captured(table: pa.Table) -> list[Operation]:
    """Return the operations of a trace's `collectives`, in time order; a send and a receive stand alone."""
    alone = np.isin(table["operation"].to_pylist(), ["send", "recv"])
    own = np.where(alone, table["rank"].to_numpy(), -1)
    keys = ["communicator", "sequence", "operation", "own", "pair"]
    pair = np.where(alone, table["peer"].fill_null(-1).to_numpy(), -1)
    table = table.append_column("own", pa.array(own)).append_column("pair", pa.array(pair))
    grouped = table.group_by(keys, use_threads=False).aggregate(
        [("size_bytes", "max"), ("rank", "count"), ("algorithm", "first"), ("start_ns", "min"),
         ("start_ns", "max"), ("end_ns", "max")]
    )  # fmt: skip
    return [
        Operation(
            row["operation"], row["communicator"], row["sequence"], row["rank_count"], row["size_bytes_max"],
            row["algorithm_first"],
            captured_ps=1000 * (row["end_ns_max"] - row["start_ns_max"]),
            captured_skew_ps=1000 * (row["start_ns_max"] - row["start_ns_min"]),
        )
        for row in grouped.sort_by("start_ns_min").to_pylist()
    ]  # fmt: skip


def collectives(operations: Sequence[Operation]) -> View | None:
    """Return the operations' own times, and their errors where both are known; None where there are none."""
    if not operations:
        return None
    compared = [o for o in operations if o.error is not None]
    points = len(compared) > _BARS
    chart = _points(compared) if points else _bars(operations)
    return View(
        "collectives",
        "Collectives",
        (_compared(compared, len(operations)) if compared else _alone(operations)) + against(operations),
        (chart, *speed_of_light(operations)),
        (_table(operations),),
        _note(bool(compared), any(o.light_ps for o in operations)),
    )


def _note(compared: bool, bounded: bool) -> str:
    text = (
        "Own time: from the last rank's start to the latest end. Skew, what ranks spent before the last one "
        "arrived, is apart."
    )
    if compared:
        text += " Error: predicted minus captured, by captured."
    if bounded:
        text += (
            " Speed of light: what must cross the tightest of the cuts around GPUs and boxes, by its rate, plus "
            "the least latency; no algorithm is faster."
        )
    return text


def _compared(compared: Sequence[Operation], total: int) -> str:
    errors = [o.error or 0.0 for o in compared]
    worst = max(compared, key=lambda o: abs(o.error or 0.0))
    some = f" of {total:,}" if len(compared) < total else ""
    noun = "operation" if len(compared) == 1 else "operations"
    size, farthest = error_text(median(map(abs, errors)), sign=""), error_text(worst.error or 0.0)
    times = f"predicted {time_text(worst.predicted_ps or 0)}, captured {time_text(worst.captured_ps or 0)}"
    return (
        f"{len(compared):,}{some} {noun} compared with the capture: the median error of their own times is "
        f"{error_text(median(errors))}, of their absolute errors {size}; the worst is {farthest}, "
        f"{short(worst.name)} ({times})."
    )


def _alone(operations: Sequence[Operation]) -> str:
    run = any(o.predicted_ps is not None for o in operations)
    longest = max(operations, key=_own)
    skew = max(operations, key=_skew)
    text = (
        f"{count_text(len(operations), 'operation')}. The longest by itself is {short(longest.name)} of "
        f"{count_text(longest.ranks, 'rank')}, {time_text(_own(longest))}; the largest skew, "
        f"{time_text(_skew(skew))}, is before {short(skew.name)}."
    )
    return f"{text} Nothing was captured at this size to compare with." if run else text


def _own(operation: Operation) -> int:
    value = operation.captured_ps if operation.predicted_ps is None else operation.predicted_ps
    return value or 0


def _skew(operation: Operation) -> int:
    value = operation.captured_skew_ps if operation.predicted_skew_ps is None else operation.predicted_skew_ps
    return value or 0


def _bars(operations: Sequence[Operation]) -> Chart:
    """Bars of the operations, or of the longest of them."""
    longest = sorted(range(len(operations)), key=lambda at: -_own(operations[at]))[:_BARS]
    shown = [operations[at] for at in sorted(longest)]
    both = (("predicted", "@compute", [o.predicted_ps for o in shown]),
            ("captured", "@captured", [o.captured_ps for o in shown]))  # fmt: skip
    times = [t for _, _, values in both for t in values if t]
    scale, unit = time_unit(max(times, default=1))
    far = bool(times) and max(times) > _FAR * min(times)
    places = list(range(len(shown)))
    data = [
        {
            "type": "bar",
            "name": role,
            "x": places,
            "y": [None if value is None else round(value / scale, 6) for value in values],
            "marker": {"color": color},
            "customdata": [hover(f"{o.name} of {o.communicator}") for o in shown],
            "hovertemplate": f"%{{customdata}}<br>{role} %{{y}} {unit}<extra></extra>",
        }
        for role, color, values in both
        if any(value is not None for value in values)
    ]
    layout = {
        "barmode": "group",
        "bargap": bar_gap(len(shown)),
        "showlegend": True,
        "xaxis": {"tickvals": places, "ticktext": [label(o.name) for o in shown], "showgrid": False},
        "yaxis": {"title": {"text": f"own time ({unit}{', logarithmic' if far else ''})"},
                  **({"type": "log", "dtick": 1} if far else {})},
    }  # fmt: skip
    some = f", the {len(shown)} longest" if len(shown) < len(operations) else ""
    return Chart(f"Own time of the operations{some}", data, layout, 340)


def _points(compared: Sequence[Operation]) -> Chart:
    """Predicted against captured, one point an operation, and the line where they are equal."""
    shown = sorted(compared, key=lambda o: -_own(o))[:_POINTS]
    times = [t for o in shown for t in (o.predicted_ps or 0, o.captured_ps or 0) if t]
    scale, unit = time_unit(median(times))
    low, high = min(times) / scale, max(times) / scale
    kinds = sorted({o.operation for o in shown})
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": [low, high], "y": [low, high], "hoverinfo": "skip",
         "line": {"color": "@soft", "dash": "dot", "width": 1}, "name": "equal"}
    ]  # fmt: skip
    symbols = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
    colors = ("@compute", "@wait", "@captured", "@link", "@other")
    for at, kind in enumerate(kinds):
        mine = [o for o in shown if o.operation == kind]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label(kind),
                "x": [(o.captured_ps or 0) / scale for o in mine],
                "y": [(o.predicted_ps or 0) / scale for o in mine],
                "marker": {
                    "color": colors[at % len(colors)],
                    "symbol": symbols[at % len(symbols)],
                    "size": 8,
                    "opacity": 0.75,
                },
                "customdata": [[hover(o.name), error_text(o.error or 0.0)] for o in mine],
                "hovertemplate": "%{customdata[0]}<br>captured %{x} " + unit + ", predicted %{y} " + unit
                + ", %{customdata[1]}<extra></extra>",
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"type": "log", "title": {"text": f"captured own time ({unit})"}},
        "yaxis": {"type": "log", "title": {"text": f"predicted own time ({unit})"}},
        "showlegend": True,
    }
    return Chart("Own time, predicted against captured", data, layout, 420)


def _table(operations: Sequence[Operation]) -> Table:
    order = sorted(range(len(operations)), key=lambda at: (-abs(operations[at].error or 0.0), at))[:ROWS]
    kept = [operations[at] for at in sorted(order)]

    def micro(name: str) -> list[float | None]:
        values = [getattr(o, name) for o in kept]
        return [None if v is None else round(v / 1e6, 6) for v in values]

    columns = (
        Column("operation", [o.operation for o in kept]),
        Column("communicator", [o.communicator for o in kept]),
        Column("sequence", [o.sequence for o in kept], 0),
        Column("ranks", [o.ranks for o in kept]),
        Column("bytes a rank, at most", [o.size_bytes for o in kept]),
        Column("algorithm", [o.algorithm for o in kept]),
        Column("predicted (µs)", micro("predicted_ps")),
        Column("captured (µs)", micro("captured_ps")),
        Column("speed of light (µs)", micro("light_ps")),
        Column("error (%)", [None if o.error is None else round(100 * o.error, 4) for o in kept], 1),
        Column("skew predicted (µs)", micro("predicted_skew_ps")),
        Column("skew captured (µs)", micro("captured_skew_ps")),
    )
    known = [c for c in columns if any(v is not None for v in c.values)]
    missing = left_out(len(kept), len(operations), "operations", "those with the largest error")
    return Table("collectives", known, missing)
