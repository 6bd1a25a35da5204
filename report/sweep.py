"""The report of a sweep: what came out of every point, against the first numeric axis of its grid."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..schemas import InputError
from .page import Head
from .text import count_text, hover, label, short, time_text, time_unit
from .view import ROWS, Chart, Column, Table, View, left_out

_METRICS = {
    "makespan_ps": "makespan",
    "collectives_ps": "collectives' own time, summed",
    "flag_reads": "flag reads",
}
_COLORS = ("@compute", "@wait", "@link", "@captured")
_DASHES = ("solid", "dash", "dot", "dashdot")
_LINES = len(_COLORS) * len(_DASHES)
_TICKS = 12  # values of an axis that each get a tick
_DECADES = 16  # largest over smallest value from which an axis is logarithmic
_ERRORS = 3  # failures that the page names on top

Axes = Mapping[str, Sequence[Any]]


def sweep_report(folder: Path) -> tuple[Head, list[View]]:
    """Return head and views of the study in `folder`: its study.json and results.parquet.

    Raises InputError where they cannot be read.
    """
    try:
        record = json.loads((folder / "study.json").read_text())
        table = pq.read_table(folder / "results.parquet")
        axes = {name: table[name].unique().to_pylist() for name in record["axes"]}
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{folder} is no study ({error}); sweep again into it") from error
    views = [_view(metric, title, table, axes) for metric, title in _METRICS.items()]
    return _head(record, table, axes), [view for view in views if view is not None]


def _head(record: Mapping[str, Any], table: pa.Table, axes: Axes) -> Head:
    names = [name for name in table.column_names[1 : table.column_names.index("status")] if name not in axes]
    fixed = [(name, table[name].unique().to_pylist()) for name in names]
    facts = [(name, f"swept: {', '.join(map(str, values))}") for name, values in axes.items()]
    facts += [(name, str(values[0])) for name, values in fixed if len(values) == 1 and values[0] is not None]
    errors = [error for error in table["error"].to_pylist() if error is not None]
    warnings = [f"A point failed. {short(error, 400)}" for error in list(dict.fromkeys(errors))[:_ERRORS]]
    sizes = " x ".join(f"{len(values)} {name}" for name, values in axes.items())
    lead = f"{count_text(table.num_rows, 'point')}: {sizes}. {len(errors) or 'None'} failed."
    heading = f"Sweep {Path(record.get('study', '')).name}"
    return Head(heading, lead, facts, warnings, {"study.json": dict(record)})


def _view(metric: str, title: str, table: pa.Table, axes: Axes) -> View | None:
    """Return a metric against an axis; None where it is nowhere above 0."""
    values = table[metric].to_pylist()
    if not any(values):
        return None
    across = next((name for name in axes if _numeric(table[name])), next(iter(axes)))
    lines = _lines(table, across, [name for name in axes if name != across])
    chart = _chart(metric, title, across, table, lines)
    note = f"The first {_LINES} of {len(lines)} lines; all are in the table." if len(lines) > _LINES else ""
    return View(
        metric, title.capitalize(), _sentence(metric, title, table, axes), (chart,), (_table(table),), note
    )


def _numeric(column: pa.ChunkedArray) -> bool:
    whole = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return bool(whole) and not column.null_count


def _lines(table: pa.Table, across: str, others: Sequence[str]) -> dict[str, list[int]]:
    """Return rows by line, in grid order: a line for each combination of the other axes."""
    columns = [table[name].to_pylist() for name in others]
    keys = zip(*columns, strict=True) if columns else itertools.repeat((), table.num_rows)
    lines: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        name = ", ".join(f"{other} {value}" for other, value in zip(others, key, strict=True))
        lines.setdefault(name or "all points", []).append(row)
    places = table[across].to_pylist()
    ordered = _numeric(table[across])
    return {
        name: sorted(rows, key=lambda row: places[row]) if ordered else rows for name, rows in lines.items()
    }


def _chart(metric: str, title: str, across: str, table: pa.Table, lines: Mapping[str, list[int]]) -> Chart:
    places, values = table[across].to_pylist(), table[metric].to_pylist()
    scale, unit = time_unit(max(v for v in values if v is not None)) if metric.endswith("_ps") else (1, "")
    numeric = _numeric(table[across])
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if numeric else "markers",
            "name": label(name),
            "x": [places[row] if numeric else label(str(places[row])) for row in rows],
            "y": [None if values[row] is None else round(values[row] / scale, 6) for row in rows],
            "line": {"color": _COLORS[at % len(_COLORS)], "dash": _DASHES[at // len(_COLORS)], "width": 1.5},
            "marker": {"color": _COLORS[at % len(_COLORS)], "symbol": at // len(_COLORS), "size": 7},
            "hovertemplate": f"{hover(name)}<br>{hover(across)} %{{x}}: %{{y}} {unit}<extra></extra>",
        }
        for at, (name, rows) in enumerate(list(lines.items())[:_LINES])
    ]
    axis: dict[str, Any] = {"title": {"text": label(across)}}
    axis |= _scale(sorted(set(places))) if numeric else {"type": "category"}
    vertical = {"title": {"text": f"{title} ({unit})" if unit else title}, "rangemode": _base(values)}
    shown = len(lines) > 1
    layout = {"xaxis": axis, "yaxis": vertical, "showlegend": shown}
    return Chart(f"{title.capitalize()} against {across}", data, layout, 360 + 12 * min(len(data), _LINES))


def _scale(places: Sequence[float]) -> dict[str, Any]:
    """Return a numeric axis: logarithmic where its values span much, with a tick at each of few."""
    wide = places[0] > 0 and places[-1] >= _DECADES * places[0]
    ticks = (
        {"tickvals": list(places), "ticktext": [f"{p:,}" for p in places]} if len(places) <= _TICKS else {}
    )
    return {"type": "log" if wide else "linear", **ticks}


def _base(values: Sequence[float | None]) -> str:
    """Return how an axis begins: at zero, unless values differ so little that they would look alike."""
    known = [value for value in values if value is not None]
    return "tozero" if min(known) < max(known) / 2 else "normal"


def _sentence(metric: str, title: str, table: pa.Table, axes: Axes) -> str:
    values = np.array([np.nan if v is None else v for v in table[metric].to_pylist()], np.float64)
    least, most = int(np.nanargmin(values)), int(np.nanargmax(values))

    def amount(row: int) -> str:
        return time_text(values[row]) if metric.endswith("_ps") else f"{values[row]:,.0f}"

    def said(row: int) -> str:
        return (
            f"{amount(row)} at {', '.join(f'{name} {short(str(table[name][row].as_py()))}' for name in axes)}"
        )

    if values[least] == values[most]:
        return f"{title.capitalize()}: {amount(least)} at every point."
    return f"{title.capitalize()}: least {said(least)}; most {said(most)}."


def _table(table: pa.Table) -> Table:
    """Return the study's table; columns that say the same of all points are facts on top, and left out."""
    kept = [
        name
        for at, name in enumerate(table.column_names)
        if at == 0 or name in _METRICS or name == "status" or len(table[name].unique()) > 1
    ]
    shown = table.slice(0, ROWS)
    columns = [Column(name, [_cell(value) for value in shown[name].to_pylist()], 6) for name in kept]
    return Table("points", columns, left_out(shown.num_rows, table.num_rows, "points", "in grid order"))


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
