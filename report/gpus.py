"""Where the time of each GPU goes: computing, waiting with nothing to compute, and the rest."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .blame import Blame
from .text import count_text, share_text, time_text, time_unit
from .view import Chart, Column, Table, View, bar_gap, micro

Ints = npt.NDArray[np.int64]
_BARS = 64  # GPUs that get a bar each
_LONGEST = 32  # GPUs shown, where there are more
_BINS = 40
_NOTE = (
    " Waited most for: the GPU that came last to collectives, or, without collectives, that raised the flags; the "
    "times sum single waits, which may overlap."
)
_ROLES = (("computing", "@compute"), ("waiting", "@wait"), ("other", "@other"))


def gpus(
    rank: Ints,
    compute_ps: Ints,
    exposed_ps: Ints,
    makespan_ps: int,
    more: Mapping[str, Any],
    cause: str = "",
    on: Blame | None = None,
    whole: str = "run",
) -> View | None:
    """Return the time of each GPU, up to `makespan_ps`; None where there is none.

    `more` are further columns of the table; `cause` is said of the GPU that waited longest, `on` says for whom GPUs
    waited most, `whole` is what the time is part of.
    """
    if not len(rank) or not makespan_ps:
        return None
    other_ps = np.maximum(makespan_ps - compute_ps - exposed_ps, 0)
    parts = (compute_ps, exposed_ps, other_ps)
    order = np.argsort(-exposed_ps, kind="stable")
    shown = np.arange(len(rank)) if len(rank) <= _BARS else order[:_LONGEST]
    title = "Time of each GPU"
    if len(shown) < len(rank):
        title = (
            f"The {len(shown)} GPUs that waited longest"
            if exposed_ps.any()
            else f"The first {len(shown)} GPUs"
        )
    on = on or {}
    charts = [_bars(title, rank[shown], [part[shown] for part in parts], makespan_ps, on)]
    if len(shown) < len(rank) and exposed_ps.any():
        charts.append(_histogram(exposed_ps))
    columns = [
        Column("GPU", rank),
        Column("computing (µs)", micro(compute_ps)),
        Column("waiting (µs)", micro(exposed_ps)),
        Column("waiting (%)", np.round(100 * exposed_ps / makespan_ps, 4), 1),
        Column("other (µs)", micro(other_ps)),
        *_on_whom(rank, on),
        *(Column(name, values) for name, values in more.items()),
    ]
    return View(
        "gpus",
        "Time by GPU",
        _sentence(rank, exposed_ps, makespan_ps, cause, whole),
        charts,
        (Table("time by GPU", columns),),
        "Waiting: some agent of the GPU waited, or ran a collective, and none computed. Other: nothing ran, or "
        "only the host did." + (_NOTE if on else ""),
    )


def _on_whom(rank: Ints, on: Blame) -> list[Column]:
    """Return the columns that say for whom each GPU waited most; none where that is not known."""
    if not on:
        return []
    found = [on.get(int(each), (None, None)) for each in rank]
    times = [None if time is None else round(time / 1e6, 6) for _, time in found]
    return [Column("waited most for GPU", [whom for whom, _ in found]), Column("for it (µs)", times)]


def _sentence(rank: Ints, exposed_ps: Ints, makespan_ps: int, cause: str, whole: str) -> str:
    most, least = int(exposed_ps.argmax()), int(exposed_ps.argmin())
    if not exposed_ps.any():
        return "No GPU ever waited with nothing to compute."
    if exposed_ps[most] == exposed_ps[least]:
        time = time_text(int(exposed_ps[most]))
        who = f"{'The' if len(rank) == 1 else 'Each of the'} {count_text(len(rank), 'GPU')}"
        return f"{who} waited {time}, {share_text(exposed_ps[most], makespan_ps)} of the {whole}{cause}."
    longest, shortest = (time_text(int(exposed_ps[at])) for at in (most, least))
    share = share_text(exposed_ps[most], makespan_ps)
    return (
        f"GPU {rank[most]} waited longest: {longest}, {share} of the {whole}{cause}. "
        f"The mean of {count_text(len(rank), 'GPU')} is {time_text(float(exposed_ps.mean()))}; GPU {rank[least]} "
        f"waited least, {shortest}."
    )


def _bars(title: str, rank: Ints, parts: list[Ints], makespan_ps: int, on: Blame) -> Chart:
    """Return a bar a GPU; the label of its waiting says for whom."""
    told = [f", most for GPU {on[int(each)][0]}" if int(each) in on else "" for each in rank]
    scale, unit = time_unit(makespan_ps)
    places = list(range(len(rank)))
    data = [
        {
            "type": "bar",
            "name": role,
            "x": places,
            "y": np.round(part / scale, 6).tolist(),
            "customdata": [
                [int(each), why if role == "waiting" else ""] for each, why in zip(rank, told, strict=True)
            ],
            "marker": {"color": color, "line": {"width": 0}},
            "hovertemplate": f"GPU %{{customdata[0]}}, {role}: %{{y}} {unit}%{{customdata[1]}}<extra></extra>",
        }
        for (role, color), part in zip(_ROLES, parts, strict=True)
    ]
    every = 4 if len(rank) > 40 else 2 if len(rank) > 24 and rank.max() > 999 else 1
    layout = {
        "barmode": "stack",
        "bargap": bar_gap(len(rank)),
        "legend": {"traceorder": "normal"},
        "xaxis": {"title": {"text": "GPU"}, "showgrid": False, "tickvals": places[::every],
                  "ticktext": [str(r) for r in rank[::every]], "tickangle": 0},
        "yaxis": {"title": {"text": f"time ({unit})"}},
    }  # fmt: skip
    return Chart(title, data, layout, 320)


def _histogram(exposed_ps: Ints) -> Chart:
    scale, unit = time_unit(int(exposed_ps.max()))
    count, edges = np.histogram(exposed_ps / scale, _BINS)
    data = [
        {
            "type": "bar",
            "x": np.round((edges[1:] + edges[:-1]) / 2, 6).tolist(),
            "y": count.tolist(),
            "width": float(edges[1] - edges[0]),
            "marker": {"color": "@wait"},
            "hovertemplate": f"about %{{x}} {unit}: %{{y}} GPUs<extra></extra>",
        }
    ]
    layout = {
        "xaxis": {"title": {"text": f"waiting ({unit})"}},
        "yaxis": {"title": {"text": "GPUs"}},
        "bargap": 0.05,
    }
    return Chart("How long all GPUs waited", data, layout, 240)
