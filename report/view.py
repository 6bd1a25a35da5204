"""A view: a sentence that says what is seen, charts, and the charts' data as tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

ROWS = 2000  # rows that a table keeps; the page stays small however large the run is


@dataclass(frozen=True)
class Column:
    """One column of a table: numbers (None for unknown) shown with up to `digits` decimals, or texts."""

    name: str
    values: Sequence[Any] | npt.NDArray[Any]
    digits: int = 3

    def encode(self) -> dict[str, Any]:
        """Return the column for JSON; a text column holds each different text once."""
        values = self.values.tolist() if isinstance(self.values, np.ndarray) else list(self.values)
        if any(isinstance(value, str) for value in values):
            unique = list(dict.fromkeys(values))
            place = {value: at for at, value in enumerate(unique)}
            return {"name": self.name, "unique": unique, "index": [place[value] for value in values]}
        return {"name": self.name, "values": values, "digits": self.digits}


@dataclass(frozen=True)
class Table:
    """The data of a chart. `left_out` says which rows are not there."""

    title: str
    columns: Sequence[Column]
    left_out: str = ""
    opened: bool = False  # shown without being asked for

    def encode(self) -> dict[str, Any]:
        """Return the table for JSON."""
        return {
            "title": self.title,
            "columns": [column.encode() for column in self.columns],
            "rows": len(self.columns[0].values),
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class Chart:
    """A plotly figure as plain data. Colors name a role of the page's palette: `@compute`, `@wait`, `@heat`.

    Names in `data` and `layout` come through `text.label` and `text.hover`.
    """

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 320

    def encode(self) -> dict[str, Any]:
        """Return the chart for JSON."""
        return {"data": self.data, "layout": self.layout, "height": self.height}


@dataclass(frozen=True)
class View:
    """One section of the report. `sentence` is computed from the data; `note` says how to read it."""

    key: str
    title: str
    sentence: str
    charts: Sequence[Chart] = field(default_factory=tuple)
    tables: Sequence[Table] = field(default_factory=tuple)
    note: str = ""

    def encode(self) -> dict[str, Any]:
        """Return charts and tables for JSON; the texts are in the page itself."""
        return {"charts": [c.encode() for c in self.charts], "tables": [t.encode() for t in self.tables]}


Progress = Callable[[str, int, int], None]  # what is done, how much of it, and of how much


def drawn(parts: Sequence[Callable[[], View | None]], progress: Progress | None) -> list[View]:
    """Return the views that there are, in order; tell `progress` of each."""
    views = []
    for done, part in enumerate(parts):
        if progress:
            progress("drawing views", done, len(parts))
        views.append(part())
    return [view for view in views if view]


def left_out(shown: int, total: int, what: str, order: str) -> str:
    """Say which rows a table does not have; nothing where it has all."""
    return f"{shown:,} of {total:,} {what}, {order}" if shown < total else ""


def bar_gap(bars: int) -> float:
    """Return the share of an axis between its bars: few bars stay slim."""
    return max(0.3, 1 - bars / 12)


def micro(values: Any) -> npt.NDArray[np.float64]:
    """Return picoseconds as microseconds, exact to the picosecond."""
    return np.round(np.asarray(values, np.float64) / 1e6, 6)
