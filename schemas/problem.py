"""What a check found, and the collecting of it with bounded output."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Severity = Literal["error", "warning"]
LIMIT = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (file, column, zero-based row, as far as they apply), and a remedy.

    An error breaks the schema; a warning says that the trace is not all there.
    """

    table: str
    file: str
    column: str
    row: int | None
    message: str
    remedy: str
    severity: Severity = "error"

    def __str__(self) -> str:
        """Return the problem as one line."""
        column = f", column {self.column}" if self.column else ""
        row = f", row {self.row}" if self.row is not None else ""
        return f"{self.severity}: {self.file}{column}{row}: {self.message}; {self.remedy}"


@dataclass(frozen=True)
class Kind:
    """One kind of problem: what it is, what to do about it, and how bad it is."""

    message: str
    remedy: str
    severity: Severity = "error"


class Findings:
    """The problems found so far, at most LIMIT of a kind for a column; the others are counted."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._counts: Counter[tuple[str, str, Kind]] = Counter()

    def one(
        self, kind: Kind, table: str, file: object, column: str = "", detail: str = "", row: int | None = None
    ) -> None:
        """Add one problem, of `row` where it is of a particular one."""
        if self._room(kind, table, column):
            self._put(kind, table, file, column, row, detail)
        self._counts[table, column, kind] += 1

    def rows(
        self,
        kind: Kind,
        table: str,
        file: object,
        column: str,
        bad: Any,
        values: pa.ChunkedArray | None = None,
    ) -> None:
        """Add a problem for each row where `bad` (Arrow or NumPy booleans, null: not bad) is true."""
        if isinstance(bad, pa.Array | pa.ChunkedArray):
            bad = bad.fill_null(False).to_numpy(zero_copy_only=False) if len(bad) else np.zeros(0, np.bool_)
        rows: npt.NDArray[np.int64] = np.flatnonzero(bad)
        for row in rows[: self._room(kind, table, column)].tolist():
            shown = repr(values[row].as_py()) if values is not None else ""
            self._put(kind, table, file, column, row, shown)
        self._counts[table, column, kind] += len(rows)

    def problems(self) -> list[Problem]:
        """Return what was found, with a last line for each kind that was found more than LIMIT times."""
        more = [
            Problem(
                table,
                table,
                column,
                None,
                f"{kind.message}: {count - LIMIT} more",
                kind.remedy,
                kind.severity,
            )
            for (table, column, kind), count in self._counts.items()
            if count > LIMIT
        ]
        return self._problems + more

    def _room(self, kind: Kind, table: str, column: str) -> int:
        return max(LIMIT - self._counts[table, column, kind], 0)

    def _put(self, kind: Kind, table: str, file: object, column: str, row: int | None, detail: str) -> None:
        detail = detail if len(detail) <= 300 else f"{detail[:297]}..."
        message = f"{kind.message}: {detail}" if detail else kind.message
        self._problems.append(Problem(table, str(file), column, row, message, kind.remedy, kind.severity))
