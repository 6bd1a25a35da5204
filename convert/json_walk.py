"""Walk a JSON file value by value, so that of a file of any size only one value is in memory."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ..schemas.errors import InputError
from .json_stream import open_bytes

PIECE_BYTES = 1 << 20
VALUE_LIMIT = 64 << 20
"""Characters that one value, which is not walked into, may take."""
_FILLED = re.compile(r"[^ \t\r\n]")
_LITERAL = 16  # characters at the end of a file that may be the beginning of a number, true, false or null
_DEPTH = 8  # of objects and lists that are stepped over piece by piece


class CutError(Exception):
    """The file ends before the JSON does."""


class Walker:
    """A place in a JSON file. Every method raises CutError at a premature end, InputError where it is no JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_bytes(path)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._parse = json.JSONDecoder(strict=False).raw_decode
        self._text = ""
        self._at = 0
        self._ended = False

    def __enter__(self) -> "Walker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _fill(self) -> None:
        """Read on; what was walked past is forgotten. A value that did not fit is met with pieces of its size."""
        if self._ended:
            raise CutError
        self._text = self._text[self._at :]
        self._at = 0
        if len(self._text) > VALUE_LIMIT:
            raise self._wrong("a value that does not end within 64 MB")
        try:
            data = self._file.read(max(PIECE_BYTES, len(self._text)))
        except (EOFError, zlib.error, gzip.BadGzipFile, OSError):
            data = b""
        self._ended = not data
        self._text += self._decode(data, not data)

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self.path}: {what}, near {self._text[self._at :][:40]!r}; record it again")

    def peek(self) -> str:
        """Return the next character that is no white space."""
        while not (found := _FILLED.search(self._text, self._at)):
            self._at = len(self._text)
            self._fill()
        self._at = found.start()
        return found[0]

    def _take(self, wanted: str) -> str:
        character = self.peek()
        if character not in wanted:
            raise self._wrong(f"no {' or '.join(wanted)}")
        self._at += 1
        return character

    def value(self) -> Any:
        """Return the value here, whole."""
        self.peek()
        while True:
            try:
                found, end = self._parse(self._text, self._at)
            except json.JSONDecodeError as error:
                end = len(self._text)
                if self._ended:
                    if error.pos + _LITERAL < end and not error.msg.startswith("Unterminated"):
                        self._at = error.pos
                        raise self._wrong(f"no JSON ({error.msg})") from error
                    raise CutError from None
            except RecursionError as error:
                raise self._wrong("values nested too deep") from error
            if end < len(self._text):  # else more digits may follow
                self._at = end
                return found
            self._fill()

    def members(self) -> Iterator[str]:
        """Yield the keys of the object here; each one's value must be taken before the next."""
        self._take("{")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise self._wrong("an object's key that is no string")
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def items(self) -> Iterator[None]:
        """Stop at each item of the list here; each must be taken before the next."""
        self._take("[")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield
            if self._take(",]") == "]":
                return

    def skip(self, depth: int = 0) -> None:
        """Step over the value here, whatever its size."""
        character = self.peek()
        if depth < _DEPTH and character == "{":
            for _ in self.members():
                self.skip(depth + 1)
        elif not depth and character == "[":
            for _ in self.items():
                self.value()
        else:
            self.value()
