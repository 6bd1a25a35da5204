"""The critical path: what the run's length is made of, one thing after another."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .text import count_text, hover, label, share_text, short, time_text, time_unit
from .view import ROWS, Chart, Column, Table, View, left_out

_CAUSES = 15
_ROLES = {
    "kernel": "@compute", "copy": "@compute", "phase": "@compute", "host_call": "@captured", "gap": "@other",
    "queueing": "@link", "serialisation": "@link", "latency": "@link", "delivery": "@link",
    "acknowledgement": "@link",
}  # fmt: skip
_WORK = ("kernel", "copy", "phase", "host_call", "gap", "other", "collective")  # what a GPU or its host does
Segment = Mapping[str, Any]


def critical_path(segments: Sequence[Segment]) -> View | None:
    """Return the path as a list and its largest causes; None where it is empty.

    A segment has start_ps, end_ps, rank, agent, what, and where they are known name, link and flag. What takes no
    time is left out.
    """
    path = [s for s in segments if s["end_ps"] > s["start_ps"]]
    if not path:
        return None
    causes: Counter[tuple[str, str]] = Counter()
    for segment in path:
        causes[segment["what"], _cause(segment)] += segment["end_ps"] - segment["start_ps"]
    total = sum(causes.values())
    return View(
        "path",
        "Critical path",
        _sentence(path, causes, total),
        (_chart(causes, total),),
        (_table(path), _cause_table(causes, total)),
        "At any time exactly one thing is on the path: shortening anything else does not shorten the run. A gap is "
        "time of a stream, host thread or workgroup before its next recorded work, waiting for nothing known.",
    )


def _cause(segment: Segment) -> str:
    """Name what a segment is blamed on: its link, else its flag, else what its GPU does."""
    if segment.get("link"):
        return str(segment["link"])
    if segment.get("flag"):
        return str(segment["flag"])
    return f"{segment.get('name') or segment['agent']} on GPU {segment['rank']}"


def _titled(what: str, name: str) -> str:
    """Return `kernel gemm on GPU 3`, `time before gemm on GPU 3`, `polling of ready of GPU 3`."""
    if what in _WORK:
        return f"{'time' if what == 'gap' else what.replace('_', ' ')} {name}"
    return f"{what.replace('_', ' ')} of {name}"


def _sentence(path: Sequence[Segment], causes: Counter[tuple[str, str]], total: int) -> str:
    (what, name), most = causes.most_common(1)[0]
    kinds: Counter[str] = Counter()
    for (kind, _), spent in causes.items():
        kinds[kind] += spent
    most_kinds = [
        (kind.replace("_", " "), spent) for kind, spent in kinds.most_common(4) if 1000 * spent >= total
    ]
    parts = ", ".join(f"{kind} {share_text(spent, total)}" for kind, spent in most_kinds)
    visited = len({segment["rank"] for segment in path})
    return (
        f"{time_text(total)} in {count_text(len(path), 'step')} over {count_text(visited, 'GPU')}: {parts}. The "
        f"largest cause is {_titled(what, short(name))}: {time_text(most)}, {share_text(most, total)}."
    )


def _chart(causes: Counter[tuple[str, str]], total: int) -> Chart:
    top = [cause for cause in causes.most_common(_CAUSES) if cause[1] * 1000 >= total] or causes.most_common(
        1
    )
    scale, unit = time_unit(top[0][1])
    rows = list(range(len(top)))
    full = [_titled(what, name) for (what, name), _ in top]
    data: list[dict[str, Any]] = []
    for role, colour in (("work", "@compute"), ("host", "@captured"), ("links", "@link"), ("waiting", "@wait"),
                         ("gaps", "@other")):  # fmt: skip
        own = [at for at in rows if _ROLES.get(top[at][0][0], "@wait") == colour]
        if own:
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": role,
                    "y": own,
                    "x": [round(top[at][1] / scale, 6) for at in own],
                    "marker": {"color": colour},
                    "customdata": [[hover(full[at]), share_text(top[at][1], total)] for at in own],
                    "hovertemplate": "%{customdata[0]}<br>%{x} " + unit + ", %{customdata[1]}<extra></extra>",
                }
            )
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": f"time on the path ({unit})"}},
        "yaxis": {"tickvals": rows, "ticktext": [label(name) for name in full], "autorange": "reversed",
                  "showgrid": False},
        "showlegend": True,
        "bargap": 0.3,
    }  # fmt: skip
    return Chart("The path's largest causes", data, layout, 130 + 22 * max(len(top), 3))


def _table(path: Sequence[Segment]) -> Table:
    longest = sorted(range(len(path)), key=lambda at: path[at]["start_ps"] - path[at]["end_ps"])[:ROWS]
    kept = [path[at] for at in sorted(longest)]
    columns = (
        Column("start (µs)", [s["start_ps"] / 1e6 for s in kept]),
        Column("time (µs)", [round((s["end_ps"] - s["start_ps"]) / 1e6, 6) for s in kept]),
        Column("GPU", [s["rank"] for s in kept]),
        Column("agent", [s["agent"] for s in kept]),
        Column("what", [s["what"].replace("_", " ") for s in kept]),
        Column("kernel, call or operation", [s.get("name") or None for s in kept]),
        Column("link", [s.get("link") or None for s in kept]),
        Column("flag", [s.get("flag") or None for s in kept]),
    )
    return Table(
        "the path, in time order",
        columns,
        left_out(len(kept), len(path), "steps", "the longest"),
        opened=True,
    )


def _cause_table(causes: Counter[tuple[str, str]], total: int) -> Table:
    ranked = causes.most_common(ROWS)
    columns = (
        Column("what", [what.replace("_", " ") for (what, _), _ in ranked]),
        Column("where", [name for (_, name), _ in ranked]),
        Column("time (µs)", [round(spent / 1e6, 6) for _, spent in ranked]),
        Column("of the path (%)", [round(100 * spent / total, 4) for _, spent in ranked], 1),
    )
    return Table(
        "causes, the largest first", columns, left_out(len(ranked), len(causes), "causes", "the largest")
    )
