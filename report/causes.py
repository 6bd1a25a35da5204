"""The largest causes of a run's length, each tried twice as fast: what that promised, and what it gave."""

from collections.abc import Mapping, Sequence
from typing import Any

from .text import count_text, hover, label, share_text, short, time_text, time_unit
from .view import Chart, Column, Table, View

Row = Mapping[str, Any]
_WORK = ("kernel", "copy", "host call", "phase", "collective", "other")


def causes(confirmed: Mapping[str, Any] | None) -> View | None:
    """Return expected and actual savings; None where nobody tried, or nothing could be tried.

    `confirmed` is as `Results.confirmed` gives it.
    """
    tried = [row for row in confirmed["causes"] if row["saved_ps"] is not None] if confirmed else []
    if not confirmed or not tried:
        return None
    return View(
        "causes",
        "Causes, confirmed",
        _sentence(confirmed, tried),
        (_chart(tried),),
        (_table(confirmed["causes"]),),
        "Expected: half the cause's time on the critical path. Truth: the run made again with it twice as fast. It "
        "saves less where another path takes over, and more where the cause also acts off the path.",
    )


def _name(row: Row) -> str:
    return f"{_what(row)} {row['name']}, {row['where']}"


def _what(row: Row) -> str:
    """Return the start of a cause's name: `kernel`, `polling of`, `time` (before something)."""
    what = str(row["what"]).replace("_", " ")
    return "time" if what == "gap" else what if what in _WORK else f"{what} of"


def _sentence(confirmed: Mapping[str, Any], tried: Sequence[Row]) -> str:
    makespan = confirmed["makespan_ps"]
    best = max(tried, key=lambda row: row["saved_ps"])
    text = f"{count_text(len(tried), 'cause')} tried: "
    if best["saved_ps"] <= 0:
        return f"{text}none of them twice as fast shortens the run."
    text += (
        f"{_what(best)} {short(best['name'])} with {best['change']} saves most, {time_text(best['saved_ps'])} of "
        f"{time_text(makespan)} ({share_text(best['saved_ps'], makespan)}; expected "
        f"{time_text(best['expected_ps'])})."
    )
    off = [
        row for row in tried if abs(row["saved_ps"] - row["expected_ps"]) > 0.1 * max(row["expected_ps"], 1)
    ]
    if not off:
        return f"{text} All are within a tenth of what was expected."
    return f"{text} {len(off)} of them {'is' if len(off) == 1 else 'are'} off by more than a tenth."


def _chart(tried: Sequence[Row]) -> Chart:
    scale, unit = time_unit(max(max(row["saved_ps"], row["expected_ps"]) for row in tried))
    rows = list(range(len(tried)))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": role,
            "y": rows,
            "x": [round(row[key] / scale, 6) for row in tried],
            "marker": {"color": color},
            "customdata": [[hover(_name(row)), hover(row["change"])] for row in tried],
            "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}: "
            + f"{role} %{{x}} {unit}<extra></extra>",
        }
        for role, key, color in (("expected", "expected_ps", "@other"), ("truth", "saved_ps", "@compute"))
    ]
    layout = {
        "barmode": "group",
        "bargap": 0.3,
        "xaxis": {"title": {"text": f"saved ({unit})"}},
        "yaxis": {"tickvals": rows, "ticktext": [label(_name(row)) for row in tried], "autorange": "reversed",
                  "showgrid": False},
        "legend": {"traceorder": "normal"},
        "showlegend": True,
    }  # fmt: skip
    return Chart("What each cause twice as fast saves", data, layout, 130 + 34 * max(len(tried), 3))


def _table(rows: Sequence[Row]) -> Table:
    def micro(key: str) -> list[float | None]:
        return [None if row[key] is None else round(row[key] / 1e6, 6) for row in rows]

    columns = (
        Column("what", [row["what"].replace("_", " ") for row in rows]),
        Column("kernel, call or operation", [row["name"] for row in rows]),
        Column("where", [row["where"] for row in rows]),
        Column("on the path (µs)", micro("duration_ps")),
        Column("of the run (%)", [round(100 * row["share"], 4) for row in rows], 1),
        Column("tried", [row["change"] for row in rows]),
        Column("expected saving (µs)", micro("expected_ps")),
        Column("saved (µs)", micro("saved_ps")),
    )
    return Table("causes, each twice as fast", columns)
