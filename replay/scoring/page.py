"""The page of a score: how good the predictions are, where they fail, and what is not covered."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...schemas import InputError
from .plot import draw
from .score import Score, Scored
from .statistics import BARS, CLASSES, Errors, by_table, errors_of, judged, scope, size_class, sweeps

WORST = 15
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write_page(made: Score, folder: Path) -> None:
    """Write validation.md and its plots below validation/ into a folder."""
    text = "\n".join(["# Predictions against published measurements", "", *_measured(made, folder)])
    (folder / "validation.md").write_text(text + "\n", encoding="utf-8")


def write_into(made: Score, page: Path) -> None:
    """Write the measured part between the two marks of a page, and the plots beside it.

    Raises InputError for a page without those marks.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{page}: {error.strerror or error}; give a Markdown page") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page}: has no lines {BEGIN} and {END}; add them where the measured part belongs")
    body = "\n".join(_measured(made, page.parent))
    page.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", encoding="utf-8")


def _measured(made: Score, folder: Path) -> Iterator[str]:
    rows = judged(made.rows)
    covered = sum(s.prediction.covered == "true" for s in made.rows)
    tables = by_table(made)
    some = sum(any(s.prediction.covered == "true" for s in found) for found in tables.values())
    yield (
        f"{len(made.rows):,} rows in {len(tables)} tables; {covered:,} rows in {some} tables are covered, "
        f"{len(rows):,} are judged (in-place repetitions of an out-of-place row are not counted twice). An error "
        "is predicted over measured time, less one."
    )
    yield ""
    yield from _bars(rows)
    yield from _tables(rows)
    yield from _plots(rows, folder)
    yield from _worst(rows)
    yield from _uncovered(made)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield _row(*("---" if i == 0 else "---:" for i in range(len(cells))))


def _bars(rows: Sequence[Scored]) -> Iterator[str]:
    """Hold full sweeps against their bars."""
    yield "### Against the bars"
    yield ""
    yield "Full sweeps: tables of NCCL's or RCCL's collectives with sizes in all three classes; no frameworks'."
    yield ""
    yield from _head(
        "full sweeps", "sizes", "rows", "signed median", "median", "90th percentile", "bar", "met"
    )
    for name, part in sweeps(rows).items():
        for i, (label, _, _) in enumerate(CLASSES):
            errors = errors_of(part, i)
            if errors is None:
                continue
            bar, high = BARS[name][i], BARS[name][3]
            last = i == len(CLASSES) - 1
            met = errors.median <= bar / 100 and (not last or errors.high <= high / 100)
            text = f"median {bar} %" + (f", 90th {high} %" if last else "")
            yield _row(name, label, *_precise(errors), text, "yes" if met else "**no**")
    yield ""


def _precise(errors: Errors) -> tuple[str, ...]:
    return str(errors.rows), f"{errors.signed:+.1%}", f"{errors.median:.1%}", f"{errors.high:.1%}"


def _tables(rows: Sequence[Scored]) -> Iterator[str]:
    """Errors of every table, by size class: rows, signed median, median of the absolute error."""
    yield "### By table"
    yield ""
    yield "Signed median error, behind the slash the 90th percentile of the absolute one, and the number of rows."
    yield ""
    yield from _head("table", "machine", "ranks", "what ran", *(label for label, _, _ in CLASSES))
    parts: dict[tuple[str, ...], list[Scored]] = {}
    for s in rows:
        if s.case:
            what = s.case.method.forced or s.case.method.seen or "default"
            key = s.row.text("table_id"), s.case.fabric, str(s.case.ranks), what
            parts.setdefault(key, []).append(s)
    for what_ran, part in parts.items():
        yield _row(*what_ran, *(_short(errors_of(part, i)) for i in range(len(CLASSES))))
    yield ""


def _short(errors: Errors | None) -> str:
    return f"{errors.signed:+.0%} / {errors.high:.0%} ({errors.rows})" if errors else ""


def _plots(rows: Sequence[Scored], folder: Path) -> Iterator[str]:
    """Draw a plot a machine."""
    machines: dict[str, list[Scored]] = {}
    for s in rows:
        if s.case:
            machines.setdefault(f"{s.case.machine.preset}, {scope(s)}", []).append(s)
    (folder / "validation").mkdir(exist_ok=True)
    yield "### By machine"
    yield ""
    for name, part in sorted(machines.items()):
        file = Path("validation") / f"{name.replace(', ', '-').replace(' ', '-')}.svg"
        draw(f"{name}: signed error by size", part, folder / file)
        yield f"![{name}]({file})"
        yield ""


def _worst(rows: Sequence[Scored]) -> Iterator[str]:
    """List the worst case of each table, the worst tables first."""
    worst: dict[str, Scored] = {}
    for s in rows:
        old = worst.get(s.row.text("table_id"))
        if s.error is not None and (old is None or old.error is None or abs(_log(s)) > abs(_log(old))):
            worst[s.row.text("table_id")] = s
    yield "### Worst cases"
    yield ""
    yield f"The worst row of a table, for the {WORST} tables where that is furthest off."
    yield ""
    yield from _head(
        "table", "row", "size", "measured us", "predicted us", "error", "why, as far as the row tells"
    )
    for s in sorted(worst.values(), key=lambda s: -abs(_log(s)))[:WORST]:
        if s.case and s.error is not None:
            yield _row(s.row.text("table_id"), s.row.line, f"{s.case.size_bytes:,}", f"{s.measured_us:,.1f}",
                       f"{s.prediction.predicted_us:,.1f}", f"{s.error:+.0%}", reason(s))  # fmt: skip
    yield ""


def _log(s: Scored) -> float:
    """Return how far off a row is, alike for twice as fast and twice as slow."""
    from math import log

    return log(max(s.prediction.predicted_us, 1e-9) / s.measured_us)


def reason(s: Scored) -> str:
    """Say what most probably makes a row's error, from its size, its machine and what started it."""
    if s.case is None or s.error is None:
        return ""
    small = size_class(s.case.size_bytes) == 0
    fast = s.error < 0
    if s.case.method.harness in ("xla", "torch") and fast and size_class(s.case.size_bytes) < 2:
        return "the framework's own launch, which varies by call"
    if s.case.method.library == "custom":
        return "a custom kernel: its launch and its barriers are not NCCL's"
    if s.case.machine.boxes > 1 and fast:
        how = s.case.machine.transport
        return (
            f"latency and proxies of the network ({how})"
            if small
            else f"the network ({how}) carries less than its rate"
        )
    if s.case.machine.boxes > 1:
        return "the network is used better than the replay's paths allow, or another algorithm ran"
    if small:
        return "launch and start of the kernel"
    return "a step of channels or protocol lies elsewhere" if fast else "another algorithm or protocol ran"


def _uncovered(made: Score) -> Iterator[str]:
    """List tables with rows that are not covered, and why."""
    yield "### Not covered"
    yield ""
    yield from _head("table", "rows", "why")
    for table, rows in by_table(made).items():
        for why, count in Counter(
            s.prediction.covered for s in rows if s.prediction.covered != "true"
        ).items():
            yield _row(table, count, why)
    yield ""
