"""Numba's compiler with its results kept in the user's cache folder, a folder for each set of sources.

A cache's name holds a hash of all its sources, because Numba looks for changes only in the file of the function
that it loads, not in those that it calls.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import platformdirs


@dataclass(frozen=True)
class Compiler:
    """Compiles functions and keeps the result in `cache` ($NUMBA_CACHE_DIR where that is set)."""

    cache: Path

    def is_compiled(self) -> bool:
        """Whether an earlier process has left compiled code for these sources."""
        return any(self.cache.rglob("*.nbi"))

    def jit(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        """Return a decorator that compiles with `options` of `numba.njit`."""

        def decorate(function: Callable[..., Any]) -> Any:
            # A function finds its cache when it is decorated, by a setting that is global.
            before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(self.cache)
            try:
                return numba.njit(cache=True, error_model="numpy", boundscheck=False, **options)(function)
            finally:
                numba.config.CACHE_DIR = before

        return decorate


def compiler(name: str, sources: Iterable[Path]) -> Compiler:
    """Return the compiler for the functions in the files `sources`, which share the cache `name`."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Compiler(Path(given))
    digest = hashlib.sha256()
    for file in sorted(sources):
        digest.update(file.read_bytes())
    return Compiler(Path(platformdirs.user_cache_dir("eidola")) / f"{name}-{digest.hexdigest()[:16]}")
