"""Bring tables of an older schema version up to the current one, a version at a time.

A migration is a function from an Arrow table of version n to one of version n + 1, registered for the tables
that it changes; tables without one pass unchanged.
"""

from collections.abc import Callable

import pyarrow as pa

from .tables import TRACE_VERSION

Migration = Callable[[pa.Table], pa.Table]
_MIGRATIONS: dict[tuple[str, int], Migration] = {}


def migration(name: str, version: int) -> Callable[[Migration], Migration]:
    """Register the decorated function as table `name`'s step from `version` to `version + 1`."""

    def register(function: Migration) -> Migration:
        _MIGRATIONS[name, version] = function
        return function

    return register


def migrate(name: str, table: pa.Table, version: int) -> pa.Table:
    """Return `table`, written under schema `version`, as the current version has it."""
    for step in range(version, TRACE_VERSION):
        table = _MIGRATIONS.get((name, step), lambda same: same)(table)
    return table
