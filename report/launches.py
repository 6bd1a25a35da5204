"""Launch and queueing time of kernels, and where a job turns from CPU- to GPU-bound.

TKLQT, the total kernel launch and queueing time, sums from each kernel's launch call to its start (Vellaisamy et
al., "Characterizing and Optimizing LLM Inference Workloads on CPU-GPU Coupled Architectures", arXiv:2504.11750).
While the CPU is the bottleneck it stays at the bare launch latency a kernel; it grows once kernels queue behind one
another. Here that is told apart kernel by kernel: one is queued where the kernel before it on its stream ended
after its launch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .text import count_text, hover, label, share_text, time_text, time_unit
from .view import ROWS, Chart, Column, Table, View, left_out, micro

Ints = npt.NDArray[np.int64]
_BINS = 100
_BARS = 15


@dataclass(frozen=True)
class _Kernels:
    """(K,) kernels with a known launch, in the order of their launches; `wait_ns` is from launch to start."""

    name: Ints  # index into `names`
    names: list[str]
    launch_ns: Ints
    wait_ns: Ints
    queued: npt.NDArray[np.bool_]


def launches(spans: pa.Table) -> View | None:
    """Return launch and queueing time of a trace's spans; None where no kernel's launch is known.

    `spans` has rank, lane, kind, name, launch_ns, start_ns, end_ns.
    """
    found = _kernels(spans)
    if not len(found.launch_ns):
        return None
    edges, median, share = _over_time(found)
    return View(
        "launches",
        "Kernel launches",
        _sentence(found, edges, share),
        (_time_chart(edges, median, share), _kernel_chart(found)),
        (_kernel_table(found), _time_table(edges, median, share)),
        "From the host's launch call to the kernel's start. A kernel is queued where the one before it on its "
        "stream ended after its launch: the GPU then limits, otherwise the CPU. Other streams are not looked at.",
    )


def _kernels(spans: pa.Table) -> _Kernels:
    table = spans.filter((pc.field("kind") == "kernel") & pc.field("launch_ns").is_valid())
    lanes = zip(table["rank"].to_pylist(), table["lane"].to_pylist(), strict=True)
    numbers: dict[tuple[int, str], int] = {}
    lane = np.array([numbers.setdefault(key, len(numbers)) for key in lanes], np.int64)
    launch, start, end = (table[name].to_numpy() for name in ("launch_ns", "start_ns", "end_ns"))
    order = np.lexsort((start, lane))
    before = np.concatenate(([np.iinfo(np.int64).min], end[order][:-1]))
    first = np.concatenate(([True], np.diff(lane[order]) != 0))[: len(order)]
    queued = np.zeros(len(order), bool)
    queued[order] = ~first & (before[: len(order)] > launch[order])
    encoded = table["name"].combine_chunks().dictionary_encode()
    by_launch = np.argsort(launch, kind="stable")
    columns = (np.asarray(encoded.indices, np.int64), launch, np.maximum(start - launch, 0), queued)
    name, launch, wait, behind = (column[by_launch] for column in columns)
    return _Kernels(name, encoded.dictionary.to_pylist(), launch, wait, behind.astype(bool))


def _over_time(found: _Kernels) -> tuple[Ints, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the bins' edges in ns from the first launch; of each the mean wait and queued share (NaN: none)."""
    time = found.launch_ns - found.launch_ns[0]
    edges = np.linspace(0, int(time[-1]) + 1, _BINS + 1)
    which = np.clip(np.searchsorted(edges, time, side="right") - 1, 0, _BINS - 1)
    count = np.bincount(which, minlength=_BINS).astype(np.float64)
    count[count == 0] = np.nan
    waited = np.bincount(which, found.wait_ns.astype(np.float64), _BINS) / count
    return edges.astype(np.int64), waited, np.bincount(which, found.queued.astype(np.float64), _BINS) / count


def turns(share: npt.NDArray[np.float64]) -> list[int]:
    """Return the bins in which the bound changes: most kernels queued (GPU) against most not (CPU)."""
    known = np.flatnonzero(~np.isnan(share))
    gpu = share[known] >= 0.5
    return [int(known[at]) for at in np.flatnonzero(gpu[1:] != gpu[:-1]) + 1]


def _sentence(found: _Kernels, edges: Ints, share: npt.NDArray[np.float64]) -> str:
    free = found.wait_ns[~found.queued]
    total, queued = time_text(1000 * int(found.wait_ns.sum())), int(found.queued.sum())
    text = (
        f"{count_text(len(found.wait_ns), 'kernel')} waited {total} between launch and start in sum (TKLQT). "
        f"{share_text(queued, len(found.queued))} were queued behind another"
    )
    if len(free):
        text += f"; the others started {time_text(1000 * float(np.median(free)))} after their launch in the median"
    changes = turns(share)
    known = share[~np.isnan(share)]
    first = "GPU" if known[0] >= 0.5 else "CPU"
    if not changes:
        return f"{text}. The job is {first}-bound throughout."
    other = "CPU" if first == "GPU" else "GPU"
    at = time_text(1000 * int(edges[changes[0]]))
    more = f"; it turns {len(changes) - 1:,} more times" if len(changes) > 1 else ""
    gpu = share_text(int((known >= 0.5).sum()), len(known))
    return (
        f"{text}. The job begins {first}-bound and turns {other}-bound {at} after the first launch{more}; it is "
        f"GPU-bound for {gpu} of its time with launches."
    )


def _plain(values: npt.NDArray[np.float64], digits: int = 4) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), digits) for value in values]


def _time_chart(edges: Ints, waited: npt.NDArray[np.float64], share: npt.NDArray[np.float64]) -> Chart:
    scale, unit = time_unit(1000 * int(edges[-1]))
    size, waits = time_unit(1000 * float(np.nanmedian(waited)) or 1)
    middle = np.round((edges[1:] + edges[:-1]) / 2 * 1000 / scale, 6).tolist()
    data: list[dict[str, Any]] = [
        {"type": "bar", "name": "queued", "x": middle, "y": _plain(100 * share), "marker": {"color": "@wait"},
         "width": float(edges[1] - edges[0]) * 1000 / scale,
         "hovertemplate": f"%{{x}} {unit}: %{{y:.0f}} % queued<extra></extra>"},
        {"type": "scatter", "mode": "lines+markers", "name": "launch to start", "x": middle,
         "y": _plain(1000 * waited / size), "yaxis": "y2", "line": {"color": "@compute", "width": 1.5},
         "marker": {"color": "@compute", "size": 4},
         "hovertemplate": f"%{{x}} {unit}: %{{y}} {waits} in the mean<extra></extra>"},
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": f"time since the first launch ({unit})"}, "showgrid": False},
        "yaxis": {"domain": [0, 0.42], "title": {"text": "queued (%)"}, "range": [0, 100], "nticks": 3},
        "yaxis2": {"domain": [0.52, 1], "title": {"text": f"launch to start ({waits})"}, "type": "log"},
        "showlegend": False,
        "bargap": 0,
    }
    return Chart("Launch to start over time, and how many kernels were queued", data, layout, 380)


def _by_name(found: _Kernels) -> tuple[Ints, Ints, Ints, Ints]:
    """Return names ordered by their sum, and sums, kernels and queued ones of each."""
    size = len(found.names)
    total = np.zeros(size, np.int64)
    np.add.at(total, found.name, found.wait_ns)
    count, queued = (np.bincount(found.name[mask], minlength=size) for mask in (slice(None), found.queued))
    order = np.argsort(-total, kind="stable")
    order = order[count[order] > 0]
    return order, total[order], count[order], queued[order]


def _kernel_chart(found: _Kernels) -> Chart:
    order, total, count, _ = (column[:_BARS] for column in _by_name(found))
    scale, unit = time_unit(1000 * int(total[0]))
    rows = list(range(len(order)))
    names = [found.names[at] for at in order]
    data: list[dict[str, Any]] = [
        {"type": "bar", "orientation": "h", "y": rows, "x": np.round(1000 * total / scale, 6).tolist(),
         "marker": {"color": "@compute"},
         "customdata": [[hover(n), f"{c:,}"] for n, c in zip(names, count, strict=True)],
         "hovertemplate": f"%{{customdata[0]}}<br>%{{x}} {unit} in %{{customdata[1]}} launches<extra></extra>"}
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": f"launch to start, summed ({unit})"}},
        "yaxis": {
            "tickvals": rows,
            "ticktext": [label(n) for n in names],
            "autorange": "reversed",
            "showgrid": False,
        },
        "bargap": 0.3,
    }
    return Chart(
        "Kernels that waited longest between launch and start", data, layout, 110 + 22 * max(len(rows), 3)
    )


def _kernel_table(found: _Kernels) -> Table:
    order, total, count, queued = _by_name(found)
    kept = slice(0, ROWS)
    columns = (
        Column("kernel", [found.names[at] for at in order[kept]]),
        Column("launches", count[kept]),
        Column("launch to start, summed (µs)", micro(1000 * total[kept])),
        Column("a launch (µs)", micro(np.round(1000 * total[kept] / count[kept]))),
        Column("queued (%)", np.round(100 * queued[kept] / count[kept], 4), 1),
    )
    return Table(
        "launch and queueing by kernel",
        columns,
        left_out(len(order[kept]), len(order), "kernels", "the longest"),
    )


def _time_table(edges: Ints, waited: npt.NDArray[np.float64], share: npt.NDArray[np.float64]) -> Table:
    columns = (
        Column("from (µs)", micro(1000 * edges[:-1])),
        Column("launch to start (µs)", _plain(waited / 1000, 6)),
        Column("queued (%)", _plain(100 * share), 1),
    )
    return Table("launches over time", columns)
