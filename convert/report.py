"""What a conversion did, and what it could not do."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..schemas import html

_RANK = re.compile(r"rank (\d+): ")


@dataclass
class ConversionReport:
    """What was converted into `path`, and everything that was dropped, inferred, unmatched or missing.

    `spans` and `dependencies` count rows (dependencies by `kind origin`), `collectives` rank records by
    operation, `sources` the same by what described them, `matched` operations that every captured rank of
    their group took part in; `unmatched` has a line for each of the others, `notes` a line for anything else
    that a reader must know.
    """

    path: Path
    ranks: list[int] = field(default_factory=list)
    missing_ranks: list[int] = field(default_factory=list)
    spans: int = 0
    dependencies: Counter[str] = field(default_factory=Counter)
    collectives: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    matched: int = 0
    unmatched: list[str] = field(default_factory=list)
    dropped: dict[int, dict[str, int]] = field(default_factory=dict)
    truncated_ranks: list[int] = field(default_factory=list)
    contradicted: Counter[str] = field(default_factory=Counter)
    residual_ns: int | None = None
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {
            "path": str(self.path),
            "ranks": self.ranks,
            "missing_ranks": self.missing_ranks,
            "spans": self.spans,
            "dependencies": dict(sorted(self.dependencies.items())),
            "collectives": dict(sorted(self.collectives.items())),
            "collectives_described_by": dict(sorted(self.sources.items())),
            "matched_operations": self.matched,
            "unmatched": self.unmatched,
            "dropped_events": {str(rank): reasons for rank, reasons in sorted(self.dropped.items())},
            "truncated_ranks": self.truncated_ranks,
            "contradicted_edges": dict(sorted(self.contradicted.items())),
            "clock_residual_ns": self.residual_ns,
            "notes": self.notes,
        }

    def _repr_html_(self) -> str:
        """Show the lines in a notebook."""
        return html.paragraphs(self.lines())

    def lines(self) -> list[str]:
        """Return the report as lines for people."""
        matched = f"; {self.matched} operations matched" if len(self.ranks) > 1 else ""
        text = [
            f"{self.path}: {len(self.ranks)} ranks, {self.spans} spans, "
            f"{sum(self.dependencies.values())} dependencies",
            f"collectives: {_counts(self.collectives)}{matched}",
        ]
        if self.residual_ns is not None:
            text.append(f"clocks agree within {self.residual_ns / 1000:g} us at the ends of collectives")
        if self.missing_ranks:
            text.append(f"missing ranks: {_short(self.missing_ranks)}")
        text += _together(
            [
                *(
                    f"rank {rank}: dropped {_counts(reasons)}"
                    for rank, reasons in sorted(self.dropped.items())
                ),
                *(
                    f"rank {rank}: the file ends before its end; what was whole is kept"
                    for rank in self.truncated_ranks
                ),
            ]
        )
        if self.unmatched:
            text.append(f"unmatched: {len(self.unmatched)}, such as {self.unmatched[0]}")
        return text + _together(self.notes)


def _together(lines: Iterable[str]) -> list[str]:
    """Return the lines, those that say the same of several ranks as one, where the first of them stood."""
    ranks: dict[str, list[int]] = {}
    for line in lines:
        told = _RANK.match(line)
        ranks.setdefault(line[told.end() :] if told else line, []).extend([int(told[1])] if told else [])
    text = {1: "rank {}: ", 0: ""}
    return [text.get(len(own), "ranks {}: ").format(_short(own)) + line for line, own in ranks.items()]


def _counts(counts: Counter[str] | dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _short(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8]))
    return shown if len(ranks) <= 8 else f"{shown}, ... ({len(ranks)} in all)"
