"""What the studies share: a markdown table, a straight line's fit, and a plot in SVG."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

Series = Mapping[str, Sequence[tuple[float, float]]]
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#000000")
WIDTH, HEIGHT, LEFT, TOP = 420, 240, 70, 30


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a markdown table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Return slope, intercept and r2 of the least-squares line through the points."""
    n = len(points)
    mean_x, mean_y = (sum(column) / n for column in zip(*points, strict=True))
    xx = sum((x - mean_x) ** 2 for x, _ in points)
    yy = sum((y - mean_y) ** 2 for _, y in points)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return xy / xx, mean_y - xy / xx * mean_x, xy * xy / (xx * yy) if yy else 1.0


def _ticks(low: float, high: float, logarithmic: bool) -> Iterator[float]:
    if logarithmic:
        steps = (1, 2, 5) if high < 100 * low else (1,)
        decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        every = (step * 10.0**k for k in decades for step in steps)
        yield from (tick for tick in every if low <= tick <= high)
        return
    step = 10 ** math.floor(math.log10((high - low) or 1))
    step = next(step * factor for factor in (0.2, 0.5, 1, 2) if (high - low) / (step * factor) <= 6)
    yield from (step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1))


def plot(
    path: Path,
    title: str,
    x_name: str,
    y_name: str,
    series: Series,
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> None:
    """Write an SVG of lines with a dot a point. Logarithmic axes take positive values only."""
    points = [point for line in series.values() for point in line]
    bounds = []
    for axis, logarithmic in ((0, log_x), (1, log_y)):
        values = [point[axis] for point in points]
        low, high = (min(values), max(values)) if logarithmic else (min(0, *values), max(values))
        bounds.append((low, high if high > low else low + 1, logarithmic))

    def place(value: float, axis: int) -> float:
        low, high, logarithmic = bounds[axis]
        part = math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / (high - low)
        return LEFT + WIDTH * part if axis == 0 else TOP + HEIGHT * (1 - part)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 230}" height="{TOP + HEIGHT + 50}" '
             'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
             f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>'
             f'<path d="M{LEFT} {TOP}v{HEIGHT}h{WIDTH}" fill="none" stroke="#333"/>']  # fmt: skip
    for tick in _ticks(*bounds[0]):
        at = place(tick, 0)
        parts.append(f'<path d="M{at:.1f} {TOP}v{HEIGHT + 4}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{tick:,.10g}</text>')
    for tick in _ticks(*bounds[1]):
        at = place(tick, 1)
        parts.append(f'<path d="M{LEFT - 4} {at:.1f}h{WIDTH + 4}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{tick:,.10g}</text>')
    parts.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">{x_name}</text>')
    middle = TOP + HEIGHT / 2
    parts.append(
        f'<text transform="rotate(-90 14 {middle})" x="14" y="{middle}" text-anchor="middle">{y_name}</text>'
    )
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        at = [(place(x, 0), place(y, 1)) for x, y in sorted(values)]
        parts.append(
            f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in at)}" fill="none" stroke="{colour}"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in at]
        y = TOP + 10 + 16 * number
        parts.append(f'<path d="M{LEFT + WIDTH + 12} {y - 4}h14" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + WIDTH + 30}" y="{y}">{name}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def bars(path: Path, title: str, y_name: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Write an SVG of upright bars on a logarithmic axis: a group a key, in it a bar a series; values from 1 on."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    high = max(2.0, max(value for group in groups.values() for value in group.values()))
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 250}" height="{TOP + HEIGHT + 50}" '
             'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
             f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>'
             f'<path d="M{LEFT} {TOP}v{HEIGHT}h{WIDTH}" fill="none" stroke="#333"/>']  # fmt: skip
    for tick in (step * 10.0**k for k in range(math.ceil(math.log10(high))) for step in (1, 2, 5)):
        if tick <= high:
            at = TOP + HEIGHT * (1 - math.log(tick) / math.log(high))
            parts.append(f'<path d="M{LEFT - 4} {at:.1f}h{WIDTH + 4}" stroke="#ddd"/>')
            parts.append(f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{tick:,.10g}</text>')
    wide = WIDTH / len(groups)
    for place, (group, values) in enumerate(groups.items()):
        left, bar = LEFT + wide * (place + 0.1), 0.8 * wide / len(names)
        centre = f'x="{left + 0.4 * wide:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle"'
        parts.append(f"<text {centre}>{group}</text>")
        for number, name in enumerate(names):
            tall = HEIGHT * math.log(max(1.0, values.get(name, 1.0))) / math.log(high)
            parts.append(f'<rect x="{left + bar * number:.1f}" y="{TOP + HEIGHT - tall:.1f}" width="{bar:.1f}" '
                         f'height="{tall:.1f}" fill="{COLOURS[number % len(COLOURS)]}"/>')  # fmt: skip
    for number, name in enumerate(names):
        y = TOP + 10 + 16 * number
        parts.append(
            f'<rect x="{LEFT + WIDTH + 12}" y="{y - 9}" width="14" height="9" fill="{COLOURS[number]}"/>'
        )
        parts.append(f'<text x="{LEFT + WIDTH + 30}" y="{y}">{name}</text>')
    middle = TOP + HEIGHT / 2
    parts.append(
        f'<text transform="rotate(-90 14 {middle})" x="14" y="{middle}" text-anchor="middle">{y_name}</text>'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")
