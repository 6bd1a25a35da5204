"""The report of a comparison: what differs between two runs, or a run and what was captured, and why."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from .page import Head
from .text import count_text, error_text, hover, label, short, time_text, time_unit
from .view import ROWS, Chart, Column, Table, View, left_out

Row = Mapping[str, Any]
_BARS = 20


def comparison_report(found: Mapping[str, Any]) -> tuple[Head, list[View]]:
    """Return head and views of what `Comparison.as_dict` says: a, b, their makespans, and rows of what differs."""
    a, b = _names(found)
    views = [
        _bars("causes", "Causes", found["causes"], "what", a, b, found["difference_ps"],
              "Of the critical paths, which make up the makespans: the differences add up to that of the whole."),
        _bars("named", "Causes by name", found["named"], "cause", a, b, found["difference_ps"],
              "The same critical paths by kernel, call or operation, summed over GPUs, links and flags."),
        _bars("operations", "Operations", found["kernels"], "name", a, b, found["difference_ps"],
              "Operations are aligned by GPU, agent, kind, name and occurrence, then summed by name; what one side "
              "alone has is counted, and no difference. Sums over GPUs exceed the run's."),
        _collectives(found["collectives"], a, b),
        _bars("links", "Links", found["links"], "link", a, b, None, "Time that a link serialised bytes."),
    ]  # fmt: skip
    return _head(found, a, b), [view for view in views if view]


def _names(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the sides are called: the folders' names, where those differ."""
    names = PurePath(found["a"]).name or found["a"], PurePath(found["b"]).name or found["b"]
    return names if names[0] != names[1] else (found["a"], found["b"])


def _head(found: Mapping[str, Any], a: str, b: str) -> Head:
    facts = [
        ("a", found["a"]),
        ("b", found["b"]),
        ("makespan a", time_text(found["makespan_a_ps"])),
        ("makespan b", time_text(found["makespan_b_ps"])),
        ("b - a", time_text(found["difference_ps"])),
        *((f"error, {name.replace('_', ' ')}", error_text(value, sign=""))
          for name, value in found["errors"].items() if value is not None and found["same"] is None),
        *((f"{row['input']}", f"a: {row['a']}; b: {row['b']}") for row in found["inputs"][:_BARS]),
    ]  # fmt: skip
    heading = f"{short(a)} against {short(b)}"
    warnings = [found["caution"]] if found["caution"] else []
    return Head(heading, found["sentence"], facts, warnings, {"Inputs that differ (JSON)": found["inputs"]})


def _bars(
    key: str, title: str, rows: Sequence[Row], name: str, a: str, b: str, whole_ps: int | None, note: str
) -> View | None:
    """Return the rows with the largest differences; None where there are no rows."""
    if not rows:
        return None
    shown = [row for row in rows if row["difference_ps"]][:_BARS]
    titles = [str(row[name]).replace("_", " ") if name == "what" else str(row[name]) for row in shown]
    charts = (_chart(title, shown, titles),) if shown else ()
    return View(
        key,
        title,
        _sentence(title, rows, shown, titles, a, b, whole_ps),
        charts,
        (_table(title, rows, name),),
        note,
    )


def _sentence(
    title: str,
    rows: Sequence[Row],
    shown: Sequence[Row],
    titles: Sequence[str],
    a: str,
    b: str,
    whole_ps: int | None,
) -> str:
    if not shown:
        return f"No difference in {count_text(len(rows), 'row')}."
    most = shown[0]["difference_ps"]
    more = "more" if most > 0 else "less"
    text = f"{short(titles[0])} differs most: {time_text(abs(most))} {more} in {short(b)} "
    if whole_ps:
        text += f"than in {short(a)}, where the whole differs by {time_text(abs(whole_ps))}. "
    else:
        text += f"than in {short(a)}. "
    changed = sum(1 for row in rows if row["difference_ps"])
    if shown[0].get("matched", 0) > 1:
        text += f"That is the sum over {shown[0]['matched']:,} of it. "
    return f"{text}{changed:,} of {len(rows):,} {title.lower()} differ."


def _chart(title: str, rows: Sequence[Row], titles: Sequence[str]) -> Chart:
    scale, unit = time_unit(max(abs(row["difference_ps"]) for row in rows))
    places = list(range(len(rows)))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": role,
            "y": [at for at in places if (rows[at]["difference_ps"] > 0) == more],
            "x": [
                round(row["difference_ps"] / scale, 6) for row in rows if (row["difference_ps"] > 0) == more
            ],
            "marker": {"color": color},
            "customdata": [
                [hover(titles[at]), time_text(rows[at]["a_ps"]), time_text(rows[at]["b_ps"])]
                for at in places
                if (rows[at]["difference_ps"] > 0) == more
            ],
            "hovertemplate": f"%{{customdata[0]}}<br>a %{{customdata[1]}}, b %{{customdata[2]}}: %{{x:+}} {unit}"
            "<extra></extra>",
        }
        for role, color, more in (("b takes more", "@wait", True), ("b takes less", "@captured", False))
    ]
    layout = {
        "barmode": "overlay",
        "bargap": 0.3,
        "showlegend": True,
        "xaxis": {"title": {"text": f"b - a ({unit})"}, "zeroline": True},
        "yaxis": {"tickvals": places, "ticktext": [label(name) for name in titles], "autorange": "reversed",
                  "showgrid": False},
    }  # fmt: skip
    some = f", the {len(rows)} largest differences" if len(rows) == _BARS else ""
    return Chart(
        f"{title}: b minus a{some}", [d for d in data if d["x"]], layout, 120 + 22 * max(len(rows), 3)
    )


def _table(title: str, rows: Sequence[Row], name: str) -> Table:
    kept = rows[:ROWS]
    texts = [key for key in ("kind", name) if key in rows[0]]
    counts = [key for key in ("matched", "only_a", "only_b") if key in rows[0]]
    columns = [Column(key, [str(row[key]) for row in kept]) for key in texts]
    columns += [_micro(f"{word} (µs)", kept, key) for word, key in _SIDES]
    columns += [Column(key.replace("_", " in "), [row[key] for row in kept]) for key in counts]
    return Table(title.lower(), columns, left_out(len(kept), len(rows), "rows", "the largest differences"))


_SIDES = (("a", "a_ps"), ("b", "b_ps"), ("b - a", "difference_ps"))


def _micro(title: str, rows: Sequence[Row], key: str) -> Column:
    return Column(title, [None if row[key] is None else round(row[key] / 1e6, 6) for row in rows])


def _collectives(rows: Sequence[Row], a: str, b: str) -> View | None:
    """Return operations of both sides, a point each."""
    known = [row for row in rows if row["a_ps"] and row["b_ps"]]
    if not known:
        return None
    worst = max(known, key=lambda row: abs(row["difference_ps"]))
    faster = sum(1 for row in known if row["difference_ps"] < 0)
    both = count_text(len(known), "operation")
    sentence = (
        f"{both} on both sides, {faster:,} of them faster in {short(b)}. {short(worst['operation'])} "
        f"{worst['sequence']} differs most: {time_text(worst['a_ps'])} in {short(a)}, "
        f"{time_text(worst['b_ps'])} in {short(b)}."
    )
    kept = sorted(known, key=lambda row: -abs(row["difference_ps"]))[:ROWS]
    columns = (
        Column("operation", [row["operation"] for row in kept]),
        Column("communicator", [row["communicator"] for row in kept]),
        Column("sequence", [row["sequence"] for row in kept], 0),
        *(_micro(f"{word} (µs)", kept, key) for word, key in _SIDES),
        _micro("skew a (µs)", kept, "skew_a_ps"),
        _micro("skew b (µs)", kept, "skew_b_ps"),
    )
    table = Table(
        "collectives", columns, left_out(len(kept), len(known), "operations", "the largest differences")
    )
    note = "Aligned by communicator and sequence. Own time: from the last rank's start to the latest end."
    return View("collectives", "Collectives", sentence, (_points(kept),), (table,), note)


def _points(rows: Sequence[Row]) -> Chart:
    largest = max(max(row["a_ps"], row["b_ps"]) for row in rows)
    scale, unit = time_unit(largest)
    low, high = min(min(row["a_ps"], row["b_ps"]) for row in rows) / scale, largest / scale
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": [low, high], "y": [low, high], "hoverinfo": "skip",
         "line": {"color": "@soft", "dash": "dot", "width": 1}, "name": "equal"},
        {"type": "scatter", "mode": "markers", "name": "operations", "x": [row["a_ps"] / scale for row in rows],
         "y": [row["b_ps"] / scale for row in rows], "marker": {"color": "@compute", "size": 8, "opacity": 0.75},
         "customdata": [hover(f"{row['operation']} {row['sequence']} of {row['communicator']}") for row in rows],
         "hovertemplate": f"%{{customdata}}<br>a %{{x}} {unit}, b %{{y}} {unit}<extra></extra>"},
    ]  # fmt: skip
    axis = {"type": "log"}
    layout = {
        "xaxis": {**axis, "title": {"text": f"own time in a ({unit})"}},
        "yaxis": {**axis, "title": {"text": f"own time in b ({unit})"}},
        "showlegend": True,
    }
    return Chart("Own time of operations, b against a", data, layout, 400)
