"""Algorithms of users: functions that emit operations, found by entry point.

A package names its functions in the group `eidola.algorithms`, as OPERATION.NAME:

    [project.entry-points."eidola.algorithms"]
    "all_reduce.star" = "my_package.star:all_reduce"
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from ...schemas import EidolaError, UsageError
from .operation import Track
from .work import Work

GROUP = "eidola.algorithms"
Algorithm = Callable[[Work], list[Track]]


def plugins() -> dict[tuple[str, str], EntryPoint]:
    """Return the entry points of installed packages, by operation and name."""
    return _found(tuple(sys.path))


@lru_cache(maxsize=8)
def _found(path: tuple[str, ...]) -> dict[tuple[str, str], EntryPoint]:
    del path  # what is installed depends on it
    split = {entry: entry.name.partition(".") for entry in entry_points(group=GROUP)}
    return {(operation, name): entry for entry, (operation, _, name) in split.items()}


def guarded(entry: EntryPoint) -> Algorithm:
    """Return a user's function; whatever goes wrong inside is a UsageError that names it.

    Raises UsageError where it cannot be imported.
    """
    try:
        function = entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"algorithm {entry.name} cannot be imported from {entry.value}: {error}; correct the entry point of "
            f"group {GROUP}, or uninstall the package"
        ) from error

    def run(work: Work) -> list[Track]:
        try:
            tracks = list(function(work))
        except EidolaError:
            raise
        except Exception as error:  # anything may go wrong in foreign code; say where
            raise UsageError(
                f"algorithm {entry.name} ({entry.value}) failed on {work.operation.operation} of {work.size} "
                f"ranks: {type(error).__name__}: {error}"
            ) from error
        if not tracks or any(len(track) != work.size for track in tracks):
            shapes = ", ".join(str(len(track)) for track in tracks) or "none"
            raise UsageError(
                f"algorithm {entry.name} ({entry.value}) must return tracks with a list of calls for each of the "
                f"{work.size} ranks; it returned tracks for {shapes}"
            )
        return tracks

    return run
