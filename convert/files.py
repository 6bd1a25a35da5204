"""Files of the smaller formats: which are meant, and their content, within bounds whatever they hold."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError
from .json_stream import open_bytes

STRANGE_LINES = 10_000
"""So many lines that are not the format's, and none that is, make a file another's."""
LIMIT_BYTES = 1 << 30
"""What is read of one file, decompressed; these formats' files are kilobytes to hundreds of megabytes."""
_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_ENDS = re.compile(rb"[\r\n]+")
_FREE_BYTES, _RATIO = 16 << 20, 200
"""Decompressed bytes that any file may have, and how often its own size a longer one: logs pack 10 to 50 times."""


def find_files(paths: Sequence[Path], own: Callable[[Path], bool], what: str) -> list[Path]:
    """Return the files given, and those of folders that are `own`, once each.

    Raises InputError, naming `what` is missing, where there is none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(file for file in sorted(path.rglob("*")) if file.is_file() and own(file))
        elif path.is_file():
            found[path] = None
        else:
            raise InputError(f"{path} does not exist; give {what}, or a folder of them")
    if not found:
        raise InputError(f"{', '.join(map(str, paths))} holds no {what}; give them, or their folder")
    return list(found)


def allowed_bytes(path: Path) -> int:
    """Return how many bytes the content of `path`, unpacked, may have to be read at once."""
    return min(LIMIT_BYTES, max(_FREE_BYTES, _RATIO * path.stat().st_size))


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the content of a plain or gzip file; a gzip file that breaks off just ends.

    Raises InputError where it cannot be opened, or is beyond any file of its kind.
    """
    total, allowed = 0, allowed_bytes(path)
    with open_bytes(path) as source:
        while True:
            try:
                chunk = source.read(_CHUNK_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                return
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}; check the path") from error
            if not chunk:
                return
            total += len(chunk)
            if total > allowed:
                raise InputError(f"{path} holds more than {allowed >> 20} MiB; is it what it was given for?")
            yield chunk


def read_bytes(path: Path) -> bytes:
    """Return the content of a plain or gzip file; raises InputError as `read_chunks` does."""
    return b"".join(read_chunks(path))


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield each line that is not empty; raises InputError as `read_chunks` does, and on endless lines."""
    rest = b""
    for chunk in read_chunks(path):
        *lines, rest = _ENDS.split(rest + chunk)
        yield from lines
        if len(rest) > _LINE_BYTES:
            raise InputError(
                f"{path} has a line that does not end within {_LINE_BYTES >> 20} MiB; is it text?"
            )
    if rest:
        yield rest


def whole(value: Any, low: int = -(2**63), high: int = 2**63 - 1) -> int | None:
    """Return `value` where it is an integer from `low` to `high`, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None
