"""Columns of a table, held whole or made some rows at a time, and their times on another clock."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..schemas.store import ROW_GROUP_ROWS


@dataclass(frozen=True)
class Blocks:
    """Columns of `rows` rows, too many to hold; `make` yields them, a block at a time, whenever called."""

    rows: int
    make: Callable[[], Iterator[Mapping[str, Any]]]


Columns = Mapping[str, Any] | Blocks
"""Columns by name: sequences or Arrow arrays of one length."""


def row_count(columns: Columns) -> int:
    """Return how many rows there are."""
    return columns.rows if isinstance(columns, Blocks) else len(next(iter(columns.values()), ()))


def slices(columns: Columns) -> Iterator[Mapping[str, Any]]:
    """Yield all rows, some at a time."""
    if isinstance(columns, Blocks):
        yield from columns.make()
        return
    for begin in range(0, row_count(columns), ROW_GROUP_ROWS):
        yield {name: values[begin : begin + ROW_GROUP_ROWS] for name, values in columns.items()}


def drifted(since_ns: int, drift_ppb: int) -> int:
    """Return what a clock that drifts by `drift_ppb` gains in `since_ns`, cut to whole nanoseconds."""
    gained = abs(since_ns * drift_ppb) // 10**9
    return gained if (since_ns < 0) == (drift_ppb < 0) else -gained


_TIMES = ("launch_ns", "start_ns", "end_ns", "issue_ns", "time_ns")


def whole(columns: Columns) -> dict[str, Any]:
    """Return all rows as one array a column: of what is known to be small."""
    if not isinstance(columns, Blocks):
        return dict(columns)
    tables = [pa.table(dict(some)) for some in slices(columns)]
    if not tables:
        return {}
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    return {name: column.chunk(0) for name, column in zip(table.column_names, table.columns, strict=True)}


def kept(columns: Columns, name: str, wanted: Sequence[int]) -> Columns:
    """Return the rows whose column `name` has a `wanted` value; `columns` themselves where all have."""
    rows = sum(int(_among(some[name], wanted).sum()) for some in slices(columns))
    if rows == row_count(columns):
        return columns

    def chosen(some: Mapping[str, Any]) -> dict[str, Any]:
        among = pa.array(_among(some[name], wanted))
        return {n: pa.array(values, from_pandas=True).filter(among) for n, values in some.items()}

    return (
        Blocks(rows, lambda: map(chosen, slices(columns))) if isinstance(columns, Blocks) else chosen(columns)
    )


def _among(values: Any, wanted: Sequence[int]) -> npt.NDArray[np.bool_]:
    return np.isin(np.asarray(values, np.int64), wanted)


def moved(columns: Columns, offset_ns: int, drift_ppb: int = 0, at_ns: int = 0) -> Columns:
    """Return `columns` with their moments later by `offset_ns`, and by `drift_ppb` of the time since `at_ns`."""
    if isinstance(columns, Blocks):
        return Blocks(columns.rows, lambda: (_moved(c, offset_ns, drift_ppb, at_ns) for c in columns.make()))
    return _moved(columns, offset_ns, drift_ppb, at_ns)


def _moved(columns: Mapping[str, Any], offset_ns: int, drift_ppb: int, at_ns: int) -> dict[str, Any]:
    return {
        name: _later(pa.array(values, pa.int64()), offset_ns, drift_ppb, at_ns) if name in _TIMES else values
        for name, values in columns.items()
    }


def _later(times: pa.Array, offset_ns: int, drift_ppb: int, at_ns: int) -> pa.Array:
    later = pc.add_checked(times, pa.scalar(offset_ns, pa.int64()))
    if not drift_ppb:
        return later
    since = pc.subtract_checked(times, pa.scalar(at_ns, pa.int64()))
    gained = pc.divide(pc.multiply_checked(since, pa.scalar(drift_ppb)), pa.scalar(10**9))
    return pc.add_checked(later, gained)
