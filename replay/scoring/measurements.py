"""A file of published measurements: its columns, and what is wrong with it.

Columns as in nccl-tests' tables: a size is the bytes of a rank's whole buffer (all_gather and alltoall: the total,
reduce_scatter: the input, collective_permute and sendrecv: the message); GB are 10^9 bytes. An empty cell was not
published.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from ...schemas import InputError

COLUMNS = ("table_id", "system", "ranks", "interconnect", "library_version", "algorithm_or_env", "operation",
           "size_bytes")  # fmt: skip
"""What a row is mapped by; a file without one of these cannot be scored."""
NUMBERS = {"ranks": int, "size_bytes": int, "time_us": float, "algbw_GBps": float, "busbw_GBps": float}
RESULTS = ("predicted_us", "fabric", "algorithm", "protocol", "covered")
"""What scoring adds."""


@dataclass(frozen=True)
class Measurement:
    """One row: `cells` by column, as written. `line` is where it stands in the file."""

    cells: dict[str, str]
    line: int

    def text(self, column: str) -> str:
        """Return a cell; empty where it was not published."""
        return self.cells.get(column, "").strip()

    def number(self, column: str) -> float:
        """Return a cell as a number; 0 where it was not published."""
        return float(self.text(column) or 0)

    @property
    def size_bytes(self) -> int:
        """Bytes of a rank's whole buffer; 0 where not published."""
        return int(self.number("size_bytes"))

    def measured_us(self, ranks: int, operation: str) -> float:
        """Return the time, from a bandwidth where there is no time; 0 where there is neither.

        Bus bandwidth is nccl-tests' (doc/PERFORMANCE.md): 2 (n - 1) / n buffers of an all-reduce, (n - 1) / n of
        all-gather, reduce-scatter and all-to-all, one of a send.
        """
        if time_us := self.number("time_us"):
            return time_us
        if algbw := self.number("algbw_GBps"):
            return self.size_bytes / algbw / 1000
        turns = (ranks - 1) / max(ranks, 1)
        part = {"all_reduce": 2 * turns, "all_gather": turns, "reduce_scatter": turns, "all_to_all": turns}
        busbw = self.number("busbw_GBps")
        return self.size_bytes * part.get(operation, 1) / busbw / 1000 if busbw else 0


def read_measurements(path: Path) -> tuple[list[str], list[Measurement]]:
    """Return the columns of a file, and its rows.

    Raises InputError, with row and column, for a file that is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, strict=True))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give a CSV file of measurements") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is no UTF-8; save the file as UTF-8") from error
    except csv.Error as error:
        raise InputError(
            f"{path}: not a CSV file: {error}; quote fields that hold commas or quotes"
        ) from error
    if not rows:
        raise InputError(f"{path}: empty; its first row must name the columns {', '.join(COLUMNS)}")
    header = [name.strip() for name in rows[0]]
    if missing := [name for name in COLUMNS if name not in header]:
        raise InputError(f"{path}: row 1 has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"{path}: row 1 names column {', '.join(twice)} twice; keep one")
    return header, [_measurement(path, header, row, i) for i, row in enumerate(rows[1:], 2) if row]


def _measurement(path: Path, header: list[str], row: list[str], line: int) -> Measurement:
    """Return a row whose numbers are numbers."""
    if len(row) != len(header):
        raise InputError(
            f"{path}: row {line} has {len(row)} cells, row 1 names {len(header)} columns; quote fields that hold "
            "commas"
        )
    cells = dict(zip(header, row, strict=True))
    for name, kind in NUMBERS.items():
        text = cells.get(name, "").strip()
        if text and not _is_number(text, kind):
            what = "whole number of at least 0" if kind is int else "number of at least 0"
            raise InputError(
                f"{path}: row {line}, column {name}: {text!r} is no {what}; correct it or leave it empty"
            )
    return Measurement(cells, line)


def _is_number(text: str, kind: type) -> bool:
    try:
        return bool(0 <= kind(text) < 1e18)
    except ValueError:
        return False
