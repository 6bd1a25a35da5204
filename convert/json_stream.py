"""Cut a trace-event JSON file, plain or gzip, into pieces of whole events, without parsing it.

A piece ends where `}`, a comma and `{"` follow one another. Inside a JSON string the quote would be escaped,
and a cut between objects nested in an event leaves a piece that does not parse; so a piece that parses as a
list of objects was cut rightly, and one that does not is read event by event by `recover`.
"""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from ..schemas.errors import InputError

PIECE_BYTES = 8 << 20
"""Bytes read at a time; what is held of a file is a few of these, however long the file."""
_READ_BYTES = 64 << 10
_HEAD_LIMIT_BYTES = 64 << 20
_STALL_LIMIT_BYTES = 256 << 20
_OBJECT_LIMIT_BYTES = 64 << 10
_BRACES = 48
"""How many braces back the one of an object is looked for: mostly it is the first or second, but a node of an
ExecutionTrace may have its list of attributes before its name."""

BOM = b"\xef\xbb\xbf"
BOUNDARY = re.compile(rb'\}\s*,\s*\{\s*"')
_ARRAY_END = re.compile(rb'\}\s*\](?=\s*(?:\}|,\s*"|$))')
_TRAILING = re.compile(rb",\s*([}\]])")
_SEPARATORS = re.compile(r"[\s,]*")
_TEXT_BOUNDARY = re.compile(BOUNDARY.pattern.decode())


def decode_json(text: str) -> Any:
    """Parse JSON leniently: control characters, NaN and Infinity pass; numbers with a point are Decimal."""
    return _DECODER.decode(text)


def _constant(name: str) -> None:
    """NaN and Infinity are no values: null stands for them."""


_DECODER = json.JSONDecoder(strict=False, parse_float=Decimal, parse_constant=_constant)


def open_bytes(path: Path) -> BinaryIO:
    """Open a plain or gzip file (several members, zero padding) by its first bytes, not by its name."""
    try:
        with path.open("rb") as probe:
            magic = probe.read(2)
        return gzip.open(path, "rb") if magic == b"\x1f\x8b" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}; check the path") from error


@dataclass
class EventFile:
    """A trace-event file that is being read.

    `key` names the array that holds the events. `metadata` (all other keys) and `truncated` are known once
    `pieces` is exhausted and `finish` was called; `dropped` counts what was lost, by reason.
    """

    path: Path
    key: str = "traceEvents"
    metadata: dict[str, Any] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    truncated: bool = False
    _head: bytes = b""
    _tail: bytes = b""
    _ended: bool = False

    def __post_init__(self) -> None:
        self._array = re.compile(rf'"{self.key}"\s*:\s*\['.encode())

    def pieces(self, source: BinaryIO) -> Iterator[bytes]:
        """Yield the bytes after the array's `[`, cut between events; what follows the last cut comes last."""
        buffer = self._find_array(source)
        while data := self._read(source):
            if self._ended:  # only the metadata behind the array is left
                self._tail += (buffer + data)[: _HEAD_LIMIT_BYTES - len(self._tail)]
                buffer = b""
                continue
            buffer += data
            cut = _last_boundary(buffer)
            if cut:
                yield buffer[:cut]
                buffer = buffer[cut:]
            elif len(buffer) > _STALL_LIMIT_BYTES:
                raise InputError(
                    f"{self.path}: {len(buffer)} bytes without the end of an event; is it a trace?"
                )
        if self._ended:
            self._tail += buffer
        elif buffer:
            yield buffer

    def _read(self, source: BinaryIO) -> bytes:
        """Read PIECE_BYTES; less only at the end, or where a killed run broke a gzip stream off."""
        parts: list[bytes] = []
        missing = PIECE_BYTES
        try:
            # In small reads: one that meets a broken end gives nothing of what it had.
            while missing > 0 and (part := source.read(min(missing, _READ_BYTES))):
                parts.append(part)
                missing -= len(part)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.truncated = True
        return b"".join(parts)

    def _find_array(self, source: BinaryIO) -> bytes:
        head = b""
        while len(head) < _HEAD_LIMIT_BYTES:
            data = self._read(source)
            head = (head + data).removeprefix(BOM)
            start = head.lstrip()
            if start[:1] == b"[":  # the bare-array form of the trace-event format
                self._head = f'{{"{self.key}": ['.encode()
                return start[1:]
            if start and start[:1] != b"{":
                raise InputError(
                    f"{self.path} is no JSON: it starts with {start[:12]!r}; give a Kineto trace"
                )
            if match := self._array.search(head):
                self._head = head[: match.end()]
                return head[match.end() :]
            if not data:
                break
        what = "is empty" if not head.strip() else f"holds no {self.key}"
        raise InputError(f"{self.path} {what}; give a file that PyTorch's profiler wrote")

    def end_of_array(self, piece: bytes) -> Iterator[int]:
        """Yield where in `piece` the array may end (the index of its `]`), at most four places."""
        for _, match in zip(range(4), _ARRAY_END.finditer(piece), strict=False):
            yield match.end() - 1

    def end(self, tail: bytes) -> None:
        """Say that the array ended, and that `tail`, from its `]` on, is the metadata behind it."""
        self._ended, self._tail = True, tail

    def finish(self, rest: bytes) -> None:
        """Account for `rest`, which could not be parsed, and read the metadata around the array."""
        if rest and not self._ended:
            if match := _ARRAY_END.search(rest):
                self.dropped["malformed event"] += 1
                self.end(rest[match.end() - 1 :])
            else:
                self.dropped["cut-off event"] += bool(rest.strip(b" \r\n\t,"))
        self.truncated = self.truncated or not self._ended
        self.metadata = self._read_metadata()

    def _read_metadata(self) -> dict[str, Any]:
        before = self._array.sub(b"", self._head).rstrip(b" \r\n\t,")
        tail = self._tail.rstrip(b"\0 \r\n\t")
        for text, whole in ((self._head + (tail or b"]}"), True), (before + b"}", not tail)):
            for attempt in (text, _TRAILING.sub(rb"\1", text)):
                try:
                    metadata = decode_json(attempt.decode("utf-8", "replace"))
                except (ValueError, RecursionError):
                    continue
                if not whole:
                    self.dropped["unreadable metadata"] += 1
                return {k: v for k, v in metadata.items() if k != self.key}
        self.dropped["unreadable metadata"] += 1
        return {}


def _last_boundary(buffer: bytes) -> int:
    """Return the index behind the last event that is surely followed by another, or 0."""
    window = 1 << 16
    while True:
        start = max(0, len(buffer) - window)
        matches = list(BOUNDARY.finditer(buffer, start))
        if matches:
            return matches[-1].start() + 1
        if not start:
            return 0
        window *= 16


def recover(piece: bytes, dropped: Counter[str]) -> tuple[list[dict[str, Any]], bytes, bool]:
    """Read `piece` event by event; return the events, what is left, and whether the array ended before it.

    An event that cannot be parsed is dropped and counted, and reading goes on at the next boundary. What has
    no boundary behind it is left: it may have been cut, or more of it may follow.
    """
    text = piece.decode("utf-8", "replace")
    events: list[dict[str, Any]] = []
    position = 0
    while True:
        position = _SEPARATORS.match(text, position).end()  # type: ignore[union-attr]
        if position >= len(text):
            return events, b"", False
        if text[position] == "]":
            return events, text[position:].encode(), True
        try:
            event, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            following = _TEXT_BOUNDARY.search(text, position)
            if following is None:
                return events, text[position:].encode(), False
            dropped["malformed event"] += 1
            position = following.start() + 1
            continue
        if isinstance(event, dict):
            events.append(event)
        else:
            dropped["not an object"] += 1


def find_objects(raw: bytes, marks: re.Pattern[bytes], wanted: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of `raw` that hold a match of `marks` and have the key `wanted`, in order."""
    last = 0
    for mark in marks.finditer(raw):
        if mark.start() < last:
            continue
        brace = mark.start()
        for _ in range(_BRACES):
            brace = raw.rfind(b"{", last, brace)
            if brace < 0:
                break
            text = raw[brace : mark.end() + _OBJECT_LIMIT_BYTES].decode("utf-8", "replace")
            try:
                value, length = _DECODER.raw_decode(text)
            except (ValueError, RecursionError):
                continue
            end = brace + len(text[:length].encode())
            if end > mark.start() and wanted in value:
                yield value
                last = end
                break
