"""What damaged or hostile files make readers raise, told as an error that names the file.

Readers name what they know to go wrong. What nobody foresaw, such as text where a format has a number, ends here.
"""

import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from ..schemas.errors import InputError

UNFORESEEN: tuple[type[Exception], ...] = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RecursionError, TypeError,
    ValueError, pa.ArrowException, sqlite3.Error, struct.error, zlib.error,
)  # fmt: skip
_SHOWN = 3


@contextmanager
def told_of(files: list[Path]) -> Iterator[None]:
    """Turn what reading or relating `files` raises unforeseen into an InputError that names them."""
    try:
        yield
    except UNFORESEEN as error:
        names = ", ".join(map(str, files[:_SHOWN])) + (", ..." if len(files) > _SHOWN else "")
        what = " ".join(str(error).split())[:200]
        raise InputError(
            f"{names} cannot be converted ({type(error).__name__}: {what}): damaged, or of a kind that its reader "
            "does not know; record or copy it again, and report it with the file if it is whole"
        ) from error
