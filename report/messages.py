"""How large messages are, and how long they take: distributions by size."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .text import count_text, share_text, size_text, time_text, time_unit
from .view import Chart, Column, Table, View, bar_gap, micro

Ints = npt.NDArray[np.int64]
_BINS = 40  # of latencies
_QUANTILES = (0.5, 0.99)


def messages(size_bytes: Ints, latency_ps: Ints | None) -> View | None:
    """Return the distributions of (M,) sizes and latencies (None: not known); None where there are no messages."""
    if not len(size_bytes):
        return None
    power = _powers(size_bytes)
    kinds = np.unique(power)
    charts = [_sizes(power, kinds, size_bytes)]
    if latency_ps is not None and latency_ps.any():
        charts += [_latencies(power, kinds, latency_ps), _by_size(power, kinds, latency_ps)]
    return View(
        "messages",
        "Messages",
        _sentence(size_bytes, power, latency_ps),
        charts,
        (_table(power, kinds, size_bytes, latency_ps),),
        "Writes from one endpoint to another, by payload: a class holds sizes from a power of two up to the next."
        + ("" if latency_ps is None else " Latency: from posting to the last byte's landing."),
    )


def _powers(size_bytes: Ints) -> Ints:
    """Return the power of two at or below each size; -1 of 0 bytes."""
    exact: Ints = np.frexp(np.maximum(size_bytes, 1).astype(np.float64))[1].astype(np.int64) - 1
    return np.where(size_bytes == 0, -1, exact)


def _name(power: int) -> str:
    if power < 0:
        return "0 B"
    step, rest = divmod(power, 10)
    return f"{1 << rest} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB')[step]}"


def _sentence(size_bytes: Ints, power: Ints, latency_ps: Ints | None) -> str:
    total = int(size_bytes.sum())
    values, counts = np.unique(power, return_counts=True)
    common = int(values[counts.argmax()])
    large, often = power == power.max(), share_text(int(counts.max()), len(power))
    text = (
        f"{count_text(len(size_bytes), 'message')}, {size_text(total)} in sum. Most common are those of "
        f"{_name(common)}{' and more' if common >= 0 else ', flags alone'}, {often} of them; the largest class, "
        f"{_name(int(power.max()))}, carries {share_text(int(size_bytes[large].sum()), total)} of the bytes."
    )
    if latency_ps is None:
        return text
    half, most = (int(np.quantile(latency_ps, q)) for q in _QUANTILES)
    return (
        f"{text} Half of all land within {time_text(half)}, 99 in 100 within {time_text(most)}; the slowest takes "
        f"{time_text(int(latency_ps.max()))}."
    )


def _sizes(power: Ints, kinds: Ints, size_bytes: Ints) -> Chart:
    counts = [int((power == kind).sum()) for kind in kinds]
    carried = [int(size_bytes[power == kind].sum()) for kind in kinds]
    data = [
        _bars("messages", "@compute", kinds, [100 * n / len(power) for n in counts], [f"{n:,}" for n in counts]),
        _bars("bytes", "@link", kinds, [100 * n / max(sum(carried), 1) for n in carried],
              [size_text(n) for n in carried]),
    ]  # fmt: skip
    layout = {
        "barmode": "group",
        "bargap": bar_gap(len(kinds)),
        "xaxis": {"type": "category", "title": {"text": "payload, at least"}, "showgrid": False},
        "yaxis": {"title": {"text": "share of all (%)"}},
        "showlegend": True,
    }
    return Chart("Messages and bytes by size", data, layout, 300)


def _bars(role: str, color: str, kinds: Ints, shares: list[float], told: list[str]) -> dict[str, Any]:
    return {
        "type": "bar", "name": role, "x": [_name(int(kind)) for kind in kinds], "y": [round(s, 4) for s in shares],
        "marker": {"color": color}, "customdata": told,
        "hovertemplate": f"%{{x}} and more: %{{customdata}} ({role}), %{{y:.1f}} %<extra></extra>",
    }  # fmt: skip


def _latencies(power: Ints, kinds: Ints, latency_ps: Ints) -> Chart:
    scale, unit = time_unit(float(np.median(latency_ps)))
    low, high = max(int(latency_ps.min()), 1) / scale, int(latency_ps.max()) / scale
    edges = np.geomspace(low, max(high, low * 1.01), _BINS + 1)
    edges[0], edges[-1] = 0, edges[-1] * 1.001
    count, _ = np.histogram(latency_ps / scale, edges)
    middle = np.sqrt(np.maximum(edges[:-1], low) * edges[1:])
    data = [
        {
            "type": "bar",
            "x": [float(f"{m:.4g}") for m in middle],
            "y": count.tolist(),
            "width": np.round(0.92 * (edges[1:] - np.maximum(edges[:-1], low)), 6).tolist(),
            "marker": {"color": "@link"},
            "hovertemplate": f"about %{{x}} {unit}: %{{y:,}} messages<extra></extra>",
        }
    ]
    layout = {
        "xaxis": {"type": "log", "title": {"text": f"latency ({unit}, logarithmic)"}},
        "yaxis": {"title": {"text": "messages"}},
    }
    return Chart("Latency of all messages", data, layout, 260)


def _by_size(power: Ints, kinds: Ints, latency_ps: Ints) -> Chart:
    rows = [np.quantile(latency_ps[power == kind], (*_QUANTILES, 1.0)) for kind in kinds]
    scale, unit = time_unit(float(np.median(latency_ps)))
    names = [_name(int(kind)) for kind in kinds]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": names,
            "y": [round(float(row[at]) / scale, 6) for row in rows],
            "line": {"color": color, "width": 1.5},
            "marker": {"color": color, "size": 7, "symbol": symbol},
            "hovertemplate": f"%{{x}} and more, {name}: %{{y}} {unit}<extra></extra>",
        }
        for at, (name, color, symbol) in enumerate(
            (("half within", "@compute", "circle"), ("99 in 100 within", "@wait", "square"),
             ("slowest", "@other", "diamond"))
        )
    ]  # fmt: skip
    layout = {
        "xaxis": {"type": "category", "title": {"text": "payload, at least"}},
        "yaxis": {"type": "log", "title": {"text": f"latency ({unit}, logarithmic)"}},
        "showlegend": True,
    }
    return Chart("Latency by size", data, layout, 300)


def _table(power: Ints, kinds: Ints, size_bytes: Ints, latency_ps: Ints | None) -> Table:
    columns = [
        Column("payload, at least", [_name(int(kind)) for kind in kinds]),
        Column("messages", [int((power == kind).sum()) for kind in kinds]),
        Column("bytes", [int(size_bytes[power == kind].sum()) for kind in kinds]),
    ]
    if latency_ps is not None:
        every = [latency_ps[power == kind] for kind in kinds]
        for name, q in (("fastest", 0.0), ("half within", 0.5), ("99 in 100 within", 0.99), ("slowest", 1.0)):
            columns.append(Column(f"{name} (µs)", micro([float(np.quantile(each, q)) for each in every])))
    return Table("messages by size", columns)
