"""Numba's compiler with this project's settings, its results kept in the user's cache folder.

Import this before anything that compiles: the cache's place is set here. Its name holds a hash of the engine's
sources, because Numba looks for changes only in the file of the function that it loads, not in those that it calls.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numba
import platformdirs


def _cache_folder() -> Path:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return Path(platformdirs.user_cache_dir("eidola")) / f"engine-{digest.hexdigest()[:16]}"


CACHE = Path(os.environ.get("NUMBA_CACHE_DIR") or _cache_folder())
numba.config.CACHE_DIR = str(CACHE)


def is_compiled() -> bool:
    """Whether an earlier process has left compiled code for these sources."""
    return any(CACHE.rglob("*.nbi"))


# Nothing here allocates, so reference counting is off; calls pass dozens of arrays, so everything is inlined.
jit: Any = numba.njit(cache=True, error_model="numpy", boundscheck=False, forceinline=True, _nrt=False)
