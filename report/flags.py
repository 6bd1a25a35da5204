"""Which flags were waited for, how long, how often they were read, and who raised them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .text import count_text, hover, label, short, time_text, time_unit
from .view import ROWS, Chart, Column, Table, View, left_out, micro

Ints = npt.NDArray[np.int64]
_BARS = 20
NOBODY = -1  # releaser of a wait that was free to go, or whose releaser nobody recorded


@dataclass(frozen=True)
class Flags:
    """Waits summed by flag, the longest first.

    `releaser` is the GPU that released most of the time (NOBODY: unknown), `released_ps` its part of it.
    """

    names: Sequence[str]
    rank: Ints
    waited_ps: Ints
    waits: Ints
    reads: Ints
    releaser: Ints
    released_ps: Ints
    policies: Sequence[str]

    def __len__(self) -> int:
        return len(self.rank)


def by_flag(waits: pa.Table, releaser: Ints) -> Flags:
    """Sum waits by (GPU, flag).

    `waits` has the columns rank, flag, flag_name, policy, waited_ps, polls; `releaser` (W,) is the GPU whose
    write released each.
    """
    table = waits.append_column("releaser", pa.array(releaser, pa.int64()))
    by_releaser = table.group_by(["rank", "flag", "releaser"], use_threads=False).aggregate(
        [("waited_ps", "sum")]
    )
    by_releaser = by_releaser.sort_by([("waited_ps_sum", "descending"), ("releaser", "ascending")])
    top = by_releaser.group_by(["rank", "flag"], use_threads=False).aggregate(
        [("releaser", "first"), ("waited_ps_sum", "first")]
    )
    sums = table.group_by(["rank", "flag"], use_threads=False).aggregate(
        [("waited_ps", "sum"), ("waited_ps", "count"), ("polls", "sum"), ("flag_name", "first"),
         ("policy", "first")]
    )  # fmt: skip
    sums = sums.join(top, ["rank", "flag"]).sort_by(
        [("waited_ps_sum", "descending"), ("rank", "ascending"), ("flag", "ascending")]
    )
    plain = [f"flag {flag}" for flag in sums["flag"].to_pylist()]
    names = pc.coalesce(sums["flag_name_first"], pa.array(plain, pa.string())).to_pylist()
    return Flags(
        names,
        sums["rank"].to_numpy(),
        sums["waited_ps_sum"].to_numpy(),
        sums["waited_ps_count"].to_numpy(),
        sums["polls_sum"].fill_null(0).to_numpy(),
        sums["releaser_first"].to_numpy(),
        sums["waited_ps_sum_first"].to_numpy(),
        sums["policy_first"].to_pylist(),
    )


def flags(found: Flags, note: str) -> View | None:
    """Return the flags that were waited for; None where nobody waited."""
    if not len(found):
        return None
    return View(
        "flags",
        "Waiting by flag",
        _sentence(found),
        (_chart(found),) if found.waited_ps[0] else (),
        (_table(found),),
        note,
    )


def cause(found: Flags, rank: int) -> str:
    """Say for which flag GPU `rank` waited most: `, mostly for ready of GPU 1, raised by GPU 0`."""
    mine = np.flatnonzero((found.rank == rank) & (found.waited_ps > 0))
    if not len(mine):
        return ""
    first = int(mine[0])
    most = "mostly" if 2 * found.waited_ps[first] >= found.waited_ps[mine].sum() else "longest"
    by = "" if found.releaser[first] == NOBODY else f", raised by GPU {found.releaser[first]}"
    return f", {most} for {short(found.names[first])}{by}"


def _sentence(found: Flags) -> str:
    total, reads = int(found.waited_ps.sum()), int(found.reads.sum())
    waits, size = count_text(int(found.waits.sum()), "wait"), count_text(len(found), "flag")
    text = f"{waits} on {size} took {time_text(total)} in sum and read flags {reads:,} times"
    if not total:
        return f"{text}; nobody ever had to wait."
    by = "" if found.releaser[0] == NOBODY else f"; GPU {found.releaser[0]} released it for most of that time"
    return (
        f"{text}. The longest wait was for {short(found.names[0])} of GPU {found.rank[0]}: "
        f"{time_text(int(found.waited_ps[0]))} over {count_text(int(found.waits[0]), 'wait')}{by}."
    )


def _chart(found: Flags) -> Chart:
    size = min(_BARS, int((found.waited_ps > 0).sum()))
    scale, unit = time_unit(int(found.waited_ps[0]))
    full = [f"{found.names[at]} of GPU {found.rank[at]}" for at in range(size)]
    raised = ["" if r == NOBODY else f"<br>released mostly by GPU {r}" for r in found.releaser[:size]]
    rows = list(range(size))
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "y": rows,
            "x": np.round(found.waited_ps[:size] / scale, 6).tolist(),
            "marker": {"color": "@wait"},
            "customdata": [
                [hover(name), by, f"{waits:,}", f"{reads:,}"]
                for name, by, waits, reads in zip(full, raised, found.waits, found.reads, strict=False)
            ],
            "hovertemplate": "%{customdata[0]}<br>waited %{x} " + unit
            + " in %{customdata[2]} waits, %{customdata[3]} reads%{customdata[1]}<extra></extra>",
        }
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": f"time waited, summed over its waits ({unit})"}},
        "yaxis": {"tickvals": rows, "ticktext": [label(name) for name in full], "autorange": "reversed",
                  "showgrid": False},
        "bargap": 0.3,
    }  # fmt: skip
    return Chart("The flags that were waited for longest", data, layout, 110 + 22 * max(size, 3))


def _table(found: Flags) -> Table:
    size = min(ROWS, len(found))
    release = [None if r == NOBODY else f"GPU {r}" for r in found.releaser[:size]]
    share = np.round(100 * found.released_ps[:size] / np.maximum(found.waited_ps[:size], 1), 4).tolist()
    columns = (
        Column("flag", found.names[:size]),
        Column("GPU", found.rank[:size]),
        Column("waited (µs)", micro(found.waited_ps[:size])),
        Column("waits", found.waits[:size]),
        Column("reads", found.reads[:size]),
        Column("served by", found.policies[:size]),
        Column("released mostly by", release),
        Column("of the time (%)", [s if r else None for s, r in zip(share, release, strict=True)], 1),
    )
    return Table("waiting by flag", columns, left_out(size, len(found), "flags", "the longest waited for"))
