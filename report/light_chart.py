"""Own times of operations against the speed of light."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from .operation import Operation
from .text import hover, short, time_unit
from .view import Chart

_POINTS = 2000
_SIDES = (
    ("predicted", "predicted_ps", "@compute", "circle"),
    ("captured", "captured_ps", "@captured", "diamond"),
)


def against(operations: Sequence[Operation]) -> str:
    """Say how far from the speed of light the operations are; nothing where it is not known."""
    texts = []
    for role, name, _, _ in _SIDES:
        ratios = [(getattr(o, name) / o.light_ps, o) for o in operations if o.light_ps and getattr(o, name)]
        if ratios:
            worst, where = max(ratios, key=lambda ratio: ratio[0])
            texts.append(
                f"{role} {median(ratio for ratio, _ in ratios):,.1f} times in the median, {worst:,.1f} times "
                f"at worst ({short(where.name)})"
            )
    return f" Against the speed of light: {'; '.join(texts)}." if texts else ""


def speed_of_light(operations: Sequence[Operation]) -> tuple[Chart, ...]:
    """Return the chart, a point an operation and side; none where no bound is known."""
    known = [o for o in operations if o.light_ps and (o.predicted_ps or o.captured_ps)]
    known = sorted(known, key=lambda o: -(o.predicted_ps or o.captured_ps or 0))[:_POINTS]
    if not known:
        return ()
    bounds = [o.light_ps or 0 for o in known]
    scale, unit = time_unit(median(bounds))
    low, high = min(bounds) / scale, max(bounds) / scale
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "name": "speed of light", "x": [low, high], "y": [low, high],
         "line": {"color": "@soft", "dash": "dot", "width": 1.5}, "hoverinfo": "skip"}
    ]  # fmt: skip
    for role, name, color, symbol in _SIDES:
        mine = [o for o in known if getattr(o, name)]
        if mine:
            data.append(_side(role, name, mine, scale, unit) | {"marker": _marker(color, symbol)})
    layout = {
        "xaxis": {"type": "log", "title": {"text": f"speed of light ({unit})"}},
        "yaxis": {"type": "log", "title": {"text": f"own time ({unit})"}},
        "showlegend": True,
    }
    return (Chart("Own time against the speed of light", data, layout, 380),)


def _side(role: str, name: str, mine: Sequence[Operation], scale: int, unit: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": role,
        "x": [(o.light_ps or 0) / scale for o in mine],
        "y": [getattr(o, name) / scale for o in mine],
        "customdata": [
            [hover(f"{o.name} of {o.communicator}"), f"{getattr(o, name) / (o.light_ps or 1):,.1f}"] for o in mine
        ],
        "hovertemplate": f"%{{customdata[0]}}<br>{role} %{{y}} {unit}, %{{customdata[1]}} times the speed of light"
        "<extra></extra>",
    }  # fmt: skip


def _marker(color: str, symbol: str) -> dict[str, Any]:
    return {"color": color, "symbol": symbol, "size": 8, "opacity": 0.75}
