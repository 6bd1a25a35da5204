"""Arrays that may be larger than memory: past a budget they lie in files without a name, beside what is written.

They are NumPy arrays like others, mapped from their files. What was touched of them counts as the process's
memory until `release`, which hands the pages back to the system and loses nothing. A file goes when its array does,
or with the process, however that ends.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import pyarrow as pa

BLOCK_ROWS = 1 << 17
"""Rows that are worked on at a time."""
IN_MEMORY_BYTES = 24 << 20
"""What one scratch holds in memory before it takes to files."""
SEGMENT_BYTES = 32 << 20
"""Small arrays share files of this size."""

_LOOKED_UP = 1 << 7  # looking up a row touches 64 KiB around it

_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """Let what is made inside keep its files in `folder`, which is there and on a disk with room.

    Arrow's memory is that of the system meanwhile, to which it goes back: other pools of its keep what they had.
    """
    token, pool = _folder.set(folder), pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(pool)
        _folder.reset(token)


class Scratch:
    """Arrays of one rank. Raises OSError where the disk is full."""

    def __init__(self) -> None:
        self._folder = _folder.get()
        self._left = IN_MEMORY_BYTES
        self._maps: WeakSet[mmap.mmap] = WeakSet()
        self._segment = np.empty(0, np.uint8)

    def empty(self, rows: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return (rows,) of `dtype`, whose values are not set."""
        kind = np.dtype(dtype)
        if not rows or self._in_memory(rows * kind.itemsize):
            return np.empty(rows, kind)
        return np.frombuffer(self._map(rows * kind.itemsize), kind, rows)

    def keep(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a copy of (n,) `values`, a chunk of a column. One value that is repeated takes no room."""
        if values.strides == (0,):
            return values
        if self._in_memory(values.nbytes):
            return values.copy()
        if len(self._segment) < values.nbytes:
            self.release()
            self._segment = np.frombuffer(self._map(max(SEGMENT_BYTES, values.nbytes)), np.uint8)
        kept, rest = np.split(self._segment, [-(-values.nbytes // 8) * 8])
        self._segment = rest
        kept = kept[: values.nbytes].view(values.dtype)
        kept[:] = values
        return kept

    def _in_memory(self, size: int) -> bool:
        fits = size <= self._left
        self._left -= size if fits else 0
        return fits

    def _map(self, size: int) -> mmap.mmap:
        with tempfile.TemporaryFile(prefix="eidola-", dir=self._folder) as file:
            # Room is taken at once: a disk that is full is an error here, and the end of the process later.
            # What has no such call (macOS) gets a file with holes.
            allocate = getattr(os, "posix_fallocate", lambda _, __, size: file.truncate(size))
            allocate(file.fileno(), 0, size)
            mapped = mmap.mmap(file.fileno(), size)
        self._maps.add(mapped)
        return mapped

    def blocks(self, rows: int) -> Iterator[slice]:
        """Yield the slices of (rows,) arrays to be worked on one at a time; between them memory is released."""
        for begin in range(0, rows, BLOCK_ROWS):
            yield slice(begin, min(begin + BLOCK_ROWS, rows))
            self.release()

    def few(self, rows: int) -> Iterator[slice]:
        """Yield the slices of (rows,) items for each of which rows all over several arrays are looked up."""
        for begin in range(0, rows, _LOOKED_UP):
            yield slice(begin, min(begin + _LOOKED_UP, rows))
            self._drop()

    def release(self) -> None:
        """Give memory back to the system: pages of files, and what sorting took, which would stay in holes."""
        self._drop()
        pa.system_memory_pool().release_unused()

    def _drop(self) -> None:
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)
