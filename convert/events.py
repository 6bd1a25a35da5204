"""Kineto's events as Arrow: what replay needs of a trace file, with times in exact integer nanoseconds.

Pieces of the file (`json_stream`) are scanned in threads (`scanner`); a piece that the scanner gives back is read
event by event (`objects`). Timestamps go from digits to integers, never through a float.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .details import DESCRIBING, Detail, Details
from .json_stream import EventFile, decode_json, open_bytes, recover
from .narrow import Table
from .objects import columns_of, integer
from .scanner import ANNOTATION, CALL, INTEGERS, KERNEL, NULL, OPERATOR, Scanned, scan

THREADS = 2
_LIBRARIES = re.compile("(?i)nccl|rccl")
_CALLS = re.compile("launch|memcpy|memset|eventrecord|streamwaitevent|synchronize")

_TEXT = pa.dictionary(pa.int32(), pa.string())  # few distinct ones, of up to thousands of bytes
_NUMBERS = [(name, pa.int64()) for name in ("start_ns", "duration_ns", "tid", *INTEGERS, "grid_x")]
SCHEMA = pa.schema([("kind", pa.int8()), ("name", _TEXT), *_NUMBERS])
ALL = pa.schema([*((name, _TEXT) for name in ("phase", "category", "name")), ("pid", pa.int64()), *_NUMBERS])
"""What `read_all` yields of every event; `phase` is one character, or null."""

Rows = npt.NDArray[np.int64] | slice


@dataclass
class Events:
    """What was kept of one file: `rows` have the columns of SCHEMA, times relative to `base_ns`."""

    path: Path
    rows: Table
    details: Details
    metadata: dict[str, Any]
    dropped: Counter[str]
    truncated: bool
    base_ns: int = 0

    @property
    def table(self) -> pa.Table:
        """All rows as Arrow."""
        return self.rows.table()


@dataclass
class _Piece:
    table: pa.Table
    details: list[Detail] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def read_events(path: Path) -> Events:
    """Read what replay needs of the Kineto file `path`.

    Raises InputError where the file cannot be opened, is no JSON, is empty or has no traceEvents. Broken
    events and a missing end are survived and counted in `dropped`.
    """
    file = EventFile(path)
    rows, dropped = Table(SCHEMA), Counter[str]()
    details = Details(rows.scratch)
    for piece in _pieces(file, everything=False):
        rows.add(piece.table)
        details.add(piece.details)
        dropped += piece.dropped
    base_ns = integer(file.metadata.get("baseTimeNanoseconds")) or 0
    return Events(path, rows, details, file.metadata, file.dropped + dropped, file.truncated, base_ns)


def read_all(path: Path) -> Iterator[pa.Table]:
    """Yield every event of the Kineto file `path`, of all phases and categories, a few megabytes at a time.

    Tables have the columns of ALL; times are relative to the file's base time. Raises what `read_events` does.
    """
    for piece in _pieces(EventFile(path), everything=True):
        yield piece.table


def _pieces(file: EventFile, everything: bool) -> Iterator[_Piece]:
    """Read pieces ahead in threads, yield them in order; recover what cannot be scanned."""
    ahead: deque[tuple[bytes, Future[_Piece | None]]] = deque()
    rest = b""
    more = True
    with open_bytes(file.path) as source, ThreadPoolExecutor(THREADS) as pool:
        pieces = file.pieces(source)
        while more or ahead:
            while more and len(ahead) <= THREADS:
                raw = next(pieces, None)
                more = raw is not None
                if raw is not None:
                    ahead.append((raw, pool.submit(_from_bytes, raw, everything)))
            if not ahead:
                break
            raw, future = ahead.popleft()
            piece = _from_bytes(rest + raw, everything) if rest else future.result()
            raw, rest = rest + raw, b""
            if piece is None:
                piece, rest, ended = _from_rest(file, raw, everything)
                if ended:
                    file.end(rest + b"".join(later for later, _ in ahead))
                    ahead.clear()
                    rest = b""
            yield piece
    file.finish(rest)


def _from_rest(file: EventFile, raw: bytes, everything: bool) -> tuple[_Piece, bytes, bool]:
    """Read a piece with the array's end or a broken event; return it, the rest, and whether it ended."""
    for end in file.end_of_array(raw):
        if (piece := _from_bytes(raw[:end], everything)) is not None:
            return piece, raw[end:], True
    events, rest, ended = recover(raw, file.dropped)
    return _from_objects(events, everything), rest, ended


def _from_bytes(raw: bytes, everything: bool) -> _Piece | None:
    """Read whole events separated by commas; None where the scanner met anything unexpected."""
    found = scan(raw, everything)
    if found is None:
        return None

    def event(row: int) -> dict[str, Any]:
        begin, end = (int(found.columns[name][row]) for name in ("begin", "end"))
        return dict(decode_json(raw[begin:end].decode("utf-8", "replace")))

    return _piece(found, event, everything)


def _from_objects(events: list[dict[str, Any]], everything: bool = False) -> _Piece:
    """Do for parsed events what `_from_bytes` does for bytes."""
    return _piece(columns_of(events), events.__getitem__, everything)


def _piece(found: Scanned, event: Callable[[int], dict[str, Any]], everything: bool) -> _Piece:
    """Return what was found as a piece; `event` gives the object that a row was read from."""
    if everything:
        texts = {"phase": _phases(found), "category": _texts(found, "category", slice(None))}
        return _Piece(_table(found, slice(None), ALL, texts))
    rows, dropped = _kept(found)
    kind = found.columns["kind"][rows]
    kinds = pa.array(np.where(kind == OPERATOR, ANNOTATION, kind), pa.int8())
    table = _table(found, rows, SCHEMA, {"kind": kinds})
    details = []
    for i in np.flatnonzero(found.columns["described"][rows]).tolist():
        told = event(int(rows[i]))
        args = told.get("args")
        tid = told.get("tid")
        start_ns = int(found.columns["start_ns"][rows[i]])
        details.append(
            Detail(
                str(told.get("name", "")),
                start_ns,
                tid if isinstance(tid, int) else None,
                {k: v for k, v in args.items() if k in DESCRIBING} if isinstance(args, dict) else {},
            )
        )
    return _Piece(table, details + _linked(found, rows), dropped)


def _linked(found: Scanned, rows: npt.NDArray[np.int64]) -> list[Detail]:
    """Return what kernels of NCCL or RCCL that do not describe themselves say of the operator that made them."""
    columns = {
        name: found.columns[name][rows] for name in ("kind", "described", "external", "name", "start_ns")
    }
    ours = np.array([*map(_is_library, found.texts), False])[np.maximum(columns["name"], -1)]
    linked = ours & (columns["kind"] == KERNEL) & (columns["described"] == 0) & (columns["external"] > 0)
    return [
        Detail(found.texts[name], start_ns, None, {"External id": external})
        for name, start_ns, external in zip(
            *(columns[key][linked].tolist() for key in ("name", "start_ns", "external")), strict=True
        )
    ]


def _kept(found: Scanned) -> tuple[npt.NDArray[np.int64], Counter[str]]:
    """Return the rows that replay needs; count those that cannot be placed in time."""
    columns = found.columns
    rows = np.flatnonzero((columns["phase"] == ord("X")) & (columns["kind"] >= 0))
    calls = np.array([*map(is_call, found.texts), False])
    rows = rows[(columns["kind"][rows] != CALL) | calls[np.maximum(columns["name"][rows], -1)]]
    start, duration = columns["start_ns"][rows], columns["duration_ns"][rows]
    good = np.full(len(rows), True)
    dropped: Counter[str] = Counter()
    for reason, bad in (
        ("no timestamp", start == NULL),
        ("no duration", duration == NULL),
        ("negative duration", duration < 0),
    ):
        dropped[reason] += int((good & bad).sum())
        good &= ~bad
    return rows[good], +dropped


@lru_cache(maxsize=1 << 16)
def _is_library(name: str) -> bool:
    """Whether a name may be that of a kernel of NCCL or RCCL."""
    return _LIBRARIES.search(name) is not None


@lru_cache(maxsize=1 << 16)
def is_call(name: str) -> bool:
    """Whether a runtime call launches or waits; pieces have few distinct names, and mostly the same."""
    return _CALLS.search(name.lower()) is not None


def _table(found: Scanned, rows: Rows, schema: pa.Schema, own: dict[str, Any]) -> pa.Table:
    """Return the chosen rows in the columns of `schema`, those of `own` as they are given."""
    columns = {
        name: found.columns[name][rows] for name in (*schema.names, "pid", "tid_number") if name not in own
    }
    tid, number = columns["tid"], columns["tid_number"]
    columns["stream"] = _either(columns["stream"], _either(number, tid))
    columns["tid"] = _either(tid, number)
    columns["device"] = _either(columns["device"], columns["pid"])
    own = {**own, "name": _texts(found, "name", rows)}
    return pa.table(
        [own[n] if n in own else pa.array(columns[n], mask=columns[n] == NULL) for n in schema.names], schema
    )


def _either(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.where(first != NULL, first, second)


def _texts(found: Scanned, column: str, rows: Rows) -> pa.DictionaryArray:
    """Return a column of strings; one that is not there is empty."""
    number = np.maximum(found.columns[column][rows], -1) + 1
    words = ["", *found.texts]
    used = np.flatnonzero(np.bincount(number, minlength=len(words)))
    place = np.zeros(len(words), np.int32)
    place[used] = np.arange(len(used))
    return pa.DictionaryArray.from_arrays(place[number], pa.array([words[n] for n in used], pa.string()))


def _phases(found: Scanned) -> pa.DictionaryArray:
    letters = pa.array([chr(n) if n else None for n in range(128)], pa.string())
    phase = found.columns["phase"]
    return pa.DictionaryArray.from_arrays(
        np.where((phase > 0) & (phase < 128), phase, 0).astype(np.int32), letters
    )
