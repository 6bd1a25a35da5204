"""The tables of one run of a rocpd database, by their names without the run's uuid."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .database import Database, Table
from .scanner import NULL

Ints = npt.NDArray[np.int64]


class Tables:
    """The tables of the run whose uuid `suffix` is, with the underscore before it; "" where there is none."""

    def __init__(self, database: Database, suffix: str) -> None:
        self.database = database
        self._suffix = suffix

    def find(self, name: str) -> Table | None:
        """Return a table; None where the run has none of that name."""
        return self.database.tables.get(f"rocpd_{name}{self._suffix}")

    def named(self, name: str, key: str, value: str) -> dict[Any, Any]:
        """Return a small table of information as a mapping; empty where it is absent."""
        table = self.find(name)
        if table is None or not {key, value} <= table.columns:
            return {}
        return dict(self.database.rows(f'SELECT "{key}", "{value}" FROM "{table.name}" LIMIT 100000'))

    def event(self, table: Table) -> tuple[str, list[str]]:
        """Return SQL that joins rows with their events, and their correlation ids and categories as columns."""
        events = self.find("event") if "event_id" in table.columns else None
        if events is None or not {"id", "stack_id", "category_id"} <= events.columns:
            return "", []
        join = f'LEFT JOIN "{events.name}" AS e ON e.id = t.event_id'
        return join, ["e.stack_id AS correlation", "e.category_id AS category"]

    def strings(self, ids: Ints) -> list[str]:
        """Return the strings of (n,) `ids`."""
        return self.database.strings(self.find("string"), ids, "string")


def column(batch: dict[str, Ints], name: str) -> Ints:
    """Return a column of a batch; without it no row has a value."""
    return batch[name] if name in batch else np.full(len(batch["start"]), NULL)
