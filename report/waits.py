"""How waits were served, what polling cost, and what a monitor would save."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .text import count_text, label, share_text, time_text
from .view import Chart, Column, Table, View, bar_gap, micro

Ints = npt.NDArray[np.int64]
_POLLED = ("spin", "backoff", "table", "captured")


@dataclass(frozen=True)
class Served:
    """Waits of one policy: how many, how many of them blocked, and sums over them.

    `late_ps` is from the arrival, or the wait's start if that was later, until the waiter went on; None where the
    arrival is not known.
    """

    policy: str
    waits: int
    blocked: int
    waited_ps: int
    reads: int
    late_ps: int | None

    @property
    def monitored(self) -> int:
        """Flag reads with a monitor: one a wait, which arms it."""
        return self.waits if self.policy in _POLLED else self.reads


def by_policy(table: pa.Table) -> list[Served]:
    """Sum waits, with policy, start_ps, end_ps, polls and, where known, arrival_ps, by policy; most reads first."""
    policies = np.array(table["policy"].to_pylist(), object)
    start, end = (table[name].to_numpy() for name in ("start_ps", "end_ps"))
    polls = table["polls"].fill_null(0).to_numpy()
    arrival = table["arrival_ps"].to_numpy() if "arrival_ps" in table.column_names else None
    made = []
    for policy in dict.fromkeys(policies.tolist()):
        mine = policies == policy
        late = None
        if arrival is not None:
            known = mine & (arrival >= 0)
            late = int(np.maximum(end[known] - np.maximum(arrival, start)[known], 0).sum())
        waited = end[mine] - start[mine]
        made.append(
            Served(
                str(policy),
                int(mine.sum()),
                int((waited > 0).sum()),
                int(waited.sum()),
                int(polls[mine].sum()),
                late,
            )
        )
    return sorted(made, key=lambda served: (-served.reads, -served.waited_ps))


def waits(served: list[Served]) -> View | None:
    """Return waits by policy; None where there are none."""
    if not served:
        return None
    return View(
        "waits",
        "Waits and polling",
        _sentence(served),
        (_chart(served),) if any(s.reads for s in served) else (_times(served),),
        (_table(served),),
        "An event is served by hardware or a runtime and reads no memory. With a monitor a wait reads its flag "
        "once, to arm it, and wakes at the arrival; the monitor's own latency is taken as 0.",
    )


def _sentence(served: list[Served]) -> str:
    waits, reads = sum(s.waits for s in served), sum(s.reads for s in served)
    text = f"{count_text(waits, 'wait')} read flags {count_text(reads, 'time')}"
    polled = [s for s in served if s.policy in _POLLED and s.reads]
    if not polled:
        return f"{text}; none was served by polling."
    saved = sum(s.reads - s.monitored for s in polled)
    text += f". A monitor would save {saved:,} of them, {share_text(saved, reads)}"
    late = [s.late_ps for s in polled if s.late_ps is not None]
    if late:
        text += (
            f", and up to {time_text(sum(late))} from arrivals to the polls that saw them, summed over waits"
        )
    return f"{text}."


def _chart(served: list[Served]) -> Chart:
    shown = [s for s in served if s.reads]
    names = [label(s.policy) for s in shown]
    data = [
        _bar("as served", "@wait", names, [s.reads for s in shown]),
        _bar("with a monitor", "@captured", names, [s.monitored for s in shown]),
    ]
    layout = {
        "barmode": "group",
        "bargap": bar_gap(len(names)),
        "xaxis": {"type": "category", "title": {"text": "how waits were served"}, "showgrid": False},
        "yaxis": {"title": {"text": "flag reads"}, "rangemode": "tozero"},
        "showlegend": True,
    }
    return Chart("Flag reads, as served and with a monitor", data, layout, 280)


def _bar(role: str, color: str, names: list[str], values: list[int]) -> dict[str, Any]:
    return {"type": "bar", "name": role, "x": names, "y": values, "marker": {"color": color},
            "hovertemplate": f"%{{x}}, {role}: %{{y:,}} reads<extra></extra>"}  # fmt: skip


def _times(served: list[Served]) -> Chart:
    names = [label(s.policy) for s in served]
    data = [
        {"type": "bar", "x": names, "y": [round(s.waited_ps / 1e6, 6) for s in served],
         "marker": {"color": "@wait"}, "hovertemplate": "%{x}: waited %{y} µs<extra></extra>"}
    ]  # fmt: skip
    layout = {
        "bargap": bar_gap(len(names)),
        "xaxis": {"type": "category", "title": {"text": "how waits were served"}, "showgrid": False},
        "yaxis": {"title": {"text": "time waited, summed (µs)"}},
    }
    return Chart("Time waited", data, layout, 260)


def _table(served: list[Served]) -> Table:
    columns = [
        Column("served by", [s.policy for s in served]),
        Column("waits", [s.waits for s in served]),
        Column("that blocked", [s.blocked for s in served]),
        Column("waited (µs)", micro([s.waited_ps for s in served])),
        Column("flag reads", [s.reads for s in served]),
        Column("with a monitor", [s.monitored for s in served]),
    ]
    if any(s.late_ps is not None for s in served):
        columns.append(
            Column("late (µs)", [None if s.late_ps is None else round(s.late_ps / 1e6, 6) for s in served])
        )
    return Table("waits by policy", columns)
