"""What damaged or hostile files make readers raise, told as an error that names the file.

Readers name what they know to go wrong. What nobody foresaw, such as text where a format has a number, ends here.
"""

import errno
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from ..schemas.errors import InputError, UsageError

UNFORESEEN: tuple[type[Exception], ...] = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RecursionError, TypeError,
    ValueError, pa.ArrowException, sqlite3.Error, struct.error, zlib.error,
)  # fmt: skip
_SHOWN = 3
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def told_of(files: list[Path]) -> Iterator[None]:
    """Turn what reading or relating `files` raises unforeseen into an InputError that names them.

    A disk without room is a UsageError.
    """
    try:
        yield
    except UNFORESEEN as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise UsageError(
                f"no room on the disk ({error.strerror}): converting keeps what does not fit in memory beside the "
                "output, up to a quarter of the size of what it reads; free some, or choose -o on another disk"
            ) from error
        names = ", ".join(map(str, files[:_SHOWN])) + (", ..." if len(files) > _SHOWN else "")
        what = " ".join(str(error).split())[:200]
        raise InputError(
            f"{names} cannot be converted ({type(error).__name__}: {what}): damaged, or of a kind that its reader "
            "does not know; record or copy it again, and report it with the file if it is whole"
        ) from error
