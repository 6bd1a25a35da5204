"""How good predictions are: errors by table, by size and by machine, and whether the bars are met."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .score import Score, Scored

CLASSES = (("below 64 KiB", 0, 2**16), ("64 KiB to 16 MiB", 2**16, 2**24), ("16 MiB and more", 2**24, 2**63))
"""Names of the size classes, first size, and first size beyond."""
FULL_SWEEP = 10
"""A full sweep has at least as many sizes, in all classes, and no gap of a class."""
BARS = {  # percent: median of each class, and 90th percentile of the last
    "one box": (30, 20, 8, 20),
    "several boxes": (40, 30, 12, 30),
}


@dataclass(frozen=True)
class Errors:
    """Errors of some rows, as fractions: signed median, median and 90th percentile of the absolute ones."""

    rows: int
    signed: float
    median: float
    high: float

    @classmethod
    def of(cls, errors: Sequence[float]) -> "Errors | None":
        """Return the statistics of some errors; None of none."""
        if not errors:
            return None
        size = np.abs(errors)
        return cls(
            len(errors), float(np.median(errors)), float(np.median(size)), float(np.percentile(size, 90))
        )


def judged(rows: Iterable[Scored]) -> list[Scored]:
    """Return the rows that have an error; of an out-of-place and an in-place row that are else alike the first.

    Both are one prediction; counting both would weigh such tables twice.
    """
    kept: dict[tuple[object, ...], Scored] = {}
    for scored in rows:
        if scored.error is None:
            continue
        key = (
            scored.row.text("table_id"),
            scored.case,
            scored.row.text("algorithm_or_env"),
            scored.row.text("source_url"),
        )
        old = kept.get(key)
        if old is None or (old.row.text("in_place") == "1" and scored.row.text("in_place") != "1"):
            kept[key] = scored
    return list(kept.values())


def size_class(size_bytes: int) -> int:
    """Return the number of the class of a size."""
    return next(i for i, (_, low, high) in enumerate(CLASSES) if low <= size_bytes < high)


def by_table(made: Score) -> dict[str, list[Scored]]:
    """Return all rows of each table, in the file's order."""
    found: dict[str, list[Scored]] = {}
    for scored in made.rows:
        found.setdefault(scored.row.text("table_id"), []).append(scored)
    return found


def errors_of(rows: Sequence[Scored], of_class: int | None = None) -> Errors | None:
    """Return the statistics of rows, of one size class or of all."""
    return Errors.of([
        s.error for s in rows
        if s.error is not None and s.case and of_class in (None, size_class(s.case.size_bytes))
    ])  # fmt: skip


def is_full_sweep(rows: Sequence[Scored]) -> bool:
    """Return whether a table's judged rows are an NCCL or RCCL collective's, over all size classes.

    Frameworks' tables (XLA) are not: they hold 20 to 180 us of launch, which is no property of the machine. Nor are
    machines of PCIe cards, for which no bar is set.
    """
    cases = [s.case for s in rows if s.case]
    sizes = {case.size_bytes for case in cases}
    return (
        len(sizes) >= FULL_SWEEP
        and {size_class(size) for size in sizes} == set(range(len(CLASSES)))
        and all(case.method.library != "custom" and case.method.harness != "xla" for case in cases)
        and not any(case.machine.preset.startswith("pcie") for case in cases)
    )


def scope(scored: Scored) -> str:
    """Return which bar a row is held to: `one box` or `several boxes`."""
    return "one box" if scored.case and scored.case.machine.boxes == 1 else "several boxes"


def sweeps(rows: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Return the judged rows of full sweeps by scope; a table with several group sizes is judged for each."""
    parts: dict[tuple[str, str, int], list[Scored]] = {}
    for s in rows:
        key = s.row.text("table_id"), scope(s), s.case.ranks if s.case else 0
        parts.setdefault(key, []).append(s)
    found: dict[str, list[Scored]] = {name: [] for name in BARS}
    for (_, name, _), part in parts.items():
        if is_full_sweep(part):
            found[name] += part
    return found
