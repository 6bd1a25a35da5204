"""Bring tables of an older schema version up to the current one, a version at a time.

A migration is a function from an Arrow table of version n to one of version n + 1, registered for the table
that it changes; tables without one pass unchanged:

    @migration(TRACE_TABLES["spans"], 1)
    def _(old: pa.Table) -> pa.Table: ...
"""

from collections.abc import Callable

import pyarrow as pa

from .tables import Table

Migration = Callable[[pa.Table], pa.Table]
MIGRATIONS: dict[tuple[str, str, int], Migration] = {}


def migration(table: Table, version: int) -> Callable[[Migration], Migration]:
    """Register the decorated function as the step of `table` from `version` to `version + 1`."""

    def register(function: Migration) -> Migration:
        MIGRATIONS[table.kind, table.name, version] = function
        return function

    return register


def migrate(table: Table, data: pa.Table, version: int) -> pa.Table:
    """Return `data`, written under schema `version`, as the current version of `table` has it."""
    for step in range(version, table.version):
        data = MIGRATIONS.get((table.kind, table.name, step), lambda same: same)(data)
    return data
