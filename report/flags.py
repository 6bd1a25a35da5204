"""Which flags were waited for, how long, how often they were read, and who raised them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .text import count_text, hover, label, short, time_text, time_unit
from .view import ROWS, Chart, Column, Table, View, left_out, micro

Ints = npt.NDArray[np.int64]
_BARS = 20
NOBODY = -1  # releaser of a wait that was free to go, or whose releaser nobody recorded


@dataclass(frozen=True)
class Flags:
    """Waits summed by flag, the longest first; one row a flag.

    `releaser` is the GPU that released most of the time (NOBODY: unknown), `released_ps` its part of it. `first` is
    a wait on the flag; `wait_names` and `wait_policies` hold the flag's name (null: none) and the policy of each
    wait.
    """

    rank: Ints
    flag: Ints
    waited_ps: Ints
    waits: Ints
    reads: Ints
    releaser: Ints
    released_ps: Ints
    first: Ints
    wait_names: pa.ChunkedArray
    wait_policies: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.rank)

    def name(self, row: int) -> str:
        """Return the name of the flag of a row."""
        return self.wait_names[int(self.first[row])].as_py() or f"flag {self.flag[row]}"

    def policy(self, row: int) -> str | None:
        """Return how a wait on the flag of a row was served; None where it was captured."""
        policy: str | None = self.wait_policies[int(self.first[row])].as_py()
        return policy


def by_flag(waits: pa.Table, waited_ps: Ints, releaser: Ints) -> Flags:
    """Sum waits by (GPU, flag).

    `waits` has the columns rank, flag, flag_name, policy, polls; `releaser` (W,) is the GPU whose write released
    each. Waits that the own GPU released are left out.
    """
    rank = waits["rank"].to_numpy()
    kept = np.flatnonzero(releaser != rank)
    rank, flag, waited, by = rank[kept], waits["flag"].to_numpy()[kept], waited_ps[kept], releaser[kept]
    key = rank.astype(np.int64) * (int(flag.max(initial=0)) + 1) + flag
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    size = len(first)
    total = _sums(group, waited, size)
    top, part = _largest(group, by, waited, size)
    order = np.lexsort((flag[first], rank[first], -total))
    row = first[order]
    return Flags(
        rank[row],
        flag[row],
        total[order],
        np.bincount(group, minlength=size)[order],
        _sums(group, waits["polls"].fill_null(0).to_numpy()[kept], size)[order],
        top[order],
        part[order],
        kept[row],
        waits["flag_name"],
        waits["policy"],
    )


def _sums(group: Ints, values: Ints, size: int) -> Ints:
    """Return (size,) sums by group."""
    total = np.zeros(size, np.int64)
    np.add.at(total, group, values)
    return total


def _largest(group: Ints, releaser: Ints, waited_ps: Ints, size: int) -> tuple[Ints, Ints]:
    """Return (size,) the releaser of the most time of each group, and that time."""
    span = int(releaser.max(initial=NOBODY)) + 2
    pair, inverse = np.unique(group * span + releaser + 1, return_inverse=True)
    part = _sums(inverse, waited_ps, len(pair))
    order = np.lexsort((pair, -part, pair // span))
    first = order[np.searchsorted((pair // span)[order], np.arange(size))] if size else order
    return pair[first] % span - 1, part[first]


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
    """Say for which flag GPU `rank` waited most, such as `, mostly for ready, raised by GPU 0`."""
    mine = np.flatnonzero((found.rank == rank) & (found.waited_ps > 0))
    if not len(mine):
        return ""
    first = int(mine[0])
    most = "mostly" if 2 * found.waited_ps[first] >= found.waited_ps[mine].sum() else "longest"
    by = "" if found.releaser[first] == NOBODY else f", raised by GPU {found.releaser[first]}"
    return f", {most} for {short(found.name(first))}{by}"


def _sentence(found: Flags) -> str:
    total, reads = int(found.waited_ps.sum()), int(found.reads.sum())
    waits, size = count_text(int(found.waits.sum()), "wait"), count_text(len(found), "flag")
    text = f"{waits} on {size} took {time_text(total)} in sum and read flags {reads:,} times"
    if not total:
        return f"{text}; nobody ever had to wait."
    by = "" if found.releaser[0] == NOBODY else f"; GPU {found.releaser[0]} released most of it"
    return (
        f"{text}. The flag waited for longest is {short(found.name(0))} of GPU {found.rank[0]}: "
        f"{time_text(int(found.waited_ps[0]))} over {count_text(int(found.waits[0]), 'wait')}{by}."
    )


def _chart(found: Flags) -> Chart:
    size = min(_BARS, int((found.waited_ps > 0).sum()))
    scale, unit = time_unit(int(found.waited_ps[0]))
    full = [f"{found.name(at)} of GPU {found.rank[at]}" for at in range(size)]
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
                [hover(full[at]), f"{found.waits[at]:,}", f"{found.reads[at]:,}", raised[at]] for at in rows
            ],
            "hovertemplate": "%{customdata[0]}<br>waited %{x} " + unit
            + " in %{customdata[1]} waits, %{customdata[2]} reads%{customdata[3]}<extra></extra>",
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
    columns = [
        Column("flag", [found.name(at) for at in range(size)]),
        Column("GPU", found.rank[:size]),
        Column("waited (µs)", micro(found.waited_ps[:size])),
        Column("waits", found.waits[:size]),
        Column("reads", found.reads[:size]),
        Column("served by", [found.policy(at) for at in range(size)]),
        Column("released mostly by", release),
        Column("of the time (%)", [s if r else None for s, r in zip(share, release, strict=True)], 1),
    ]
    columns = [c for c in columns if any(v is not None for v in c.values)]
    return Table("waiting by flag", columns, left_out(size, len(found), "flags", "the longest waited for"))
