"""The rings of a captured rank -> its calls of collectives, what ran them, its steps and phases.

The layout is that of `capture/recorder/ring.py`, version 1; a file says how many records and names it has.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas.errors import InputError

_HEADER = struct.Struct("<8sIIQQIIQ")
_MAGIC, _VERSION = b"EIDOLARB", 1
_NAME_BYTES = 128
_RECORD = np.dtype([
    ("sequence", "<u8"), ("start_ns", "<i8"), ("end_ns", "<i8"), ("call", "<u8"), ("in_bytes", "<i8"),
    ("out_bytes", "<i8"), ("tid", "<u4"), ("name", "<u4"), ("group", "<u4"), ("peer", "<i4"), ("kind", "<u2"),
    ("dtype", "<i2"), ("number", "<u4"), ("data", "V56"),
])  # fmt: skip
_CALL, _RUN, _SPLITS, _STEP, _OWN_STEP, _PHASE = _KINDS = range(1, 7)
_BLOCKING = 256
_DTYPES = {
    # c10::ScalarType (c10/core/ScalarType.h, PyTorch 2.13) -> (NCCL's name, bytes of an element)
    0: ("uint8", 1), 1: ("int8", 1), 2: ("int16", 2), 3: ("int32", 4), 4: ("int64", 8), 5: ("float16", 2),
    6: ("float32", 4), 7: ("float64", 8), 11: ("uint8", 1), 15: ("bfloat16", 2), 23: ("float8e5m2", 1),
    24: ("float8e4m3", 1),
}  # fmt: skip


@dataclass
class Call:
    """One call of a c10d operator: what it moves, in which group, and whether the caller waits for its end.

    `number` is its place among the group's collectives, or among the sends (receives) between the two.
    """

    number: int
    name: str
    group: str
    tid: int
    start_ns: int
    end_ns: int
    in_bytes: int | None
    out_bytes: int | None
    dtype: str | None
    element_bytes: int
    peer: int | None
    blocking: bool
    shape: tuple[int, ...]
    in_splits: list[int] = field(default_factory=list)
    out_splits: list[int] = field(default_factory=list)


@dataclass
class Run:
    """One user-scope event: what ran an operation (`call` is not 0), or a named stretch of the script."""

    name: str
    tid: int
    start_ns: int
    end_ns: int
    call: int


@dataclass
class Mark:
    """A step (its number) or a phase (its name)."""

    name: str
    start_ns: int
    end_ns: int


def read_calls(path: Path) -> tuple[dict[int, Call], list[Run]]:
    """Return the calls in the ring `path`, by their id, and the runs, in order of start."""
    records, names = _read(path)
    calls: dict[int, Call] = {}
    runs = []
    splits = []
    for r in records:
        kind = int(r["kind"]) & (_BLOCKING - 1)
        if kind == _RUN:
            times = int(r["start_ns"]), int(r["end_ns"])
            runs.append(Run(names[r["name"]], int(r["tid"]), *times, int(r["call"])))
        elif kind == _CALL:
            calls[int(r["call"])] = _call(r, names)
        elif kind == _SPLITS:
            splits.append(r)
    for r in splits:
        if call := calls.get(int(r["call"])):
            values = np.frombuffer(r["data"].tobytes(), "<i8", int(r["peer"])).tolist()
            (call.out_splits if r["name"] else call.in_splits).extend(values)
    return calls, sorted(runs, key=lambda run: run.start_ns)


def read_marks(path: Path) -> tuple[list[Mark], list[Mark]]:
    """Return the steps and the phases in the ring `path`; the script's own steps replace the optimizer's."""
    records, _ = _read(path)
    marks: dict[int, list[Mark]] = {_STEP: [], _OWN_STEP: [], _PHASE: []}
    for r in records:
        kind = int(r["kind"])
        text = r["data"].tobytes().rstrip(b"\0").decode("utf-8", "replace")
        name = text if kind == _PHASE else f"step {int(r['number'])}"
        marks[kind].append(Mark(name, int(r["start_ns"]), int(r["end_ns"])))
    return marks[_OWN_STEP] or marks[_STEP], marks[_PHASE]


def _call(r: Any, names: list[str]) -> Call:
    _, dims = struct.unpack_from("<II", r["data"].tobytes())
    dtype, element_bytes = _DTYPES.get(int(r["dtype"]), (None, 0))
    return Call(
        number=int(r["number"]),
        name=names[r["name"]],
        group=names[r["group"]],
        tid=int(r["tid"]),
        start_ns=int(r["start_ns"]),
        end_ns=int(r["end_ns"]),
        in_bytes=_known(r["in_bytes"]),
        out_bytes=_known(r["out_bytes"]),
        dtype=dtype,
        element_bytes=element_bytes,
        peer=_known(r["peer"]),
        blocking=bool(r["kind"] & _BLOCKING),
        shape=struct.unpack_from(f"<{min(dims, 6)}q", r["data"].tobytes(), 8),
    )


def _known(value: Any) -> int | None:
    return int(value) if value >= 0 else None


def _read(path: Path) -> tuple[Any, list[str]]:
    """Return the records of a ring in order, and its names; the first is empty."""
    try:
        raw = path.read_bytes()
        magic, version, size, capacity, names_at, names, _, at = _HEADER.unpack_from(raw)
        if magic != _MAGIC:
            raise ValueError("it is no ring")
        if version != _VERSION or size != _RECORD.itemsize:
            raise InputError(
                f"{path} has version {version} of the records; this eidola reads {_VERSION}: upgrade it"
            )
        records = np.frombuffer(raw, _RECORD, capacity, at)
        texts = [_name(raw, names_at + number * _NAME_BYTES) for number in range(names)]
    except (OSError, ValueError, struct.error) as error:
        raise InputError(f"{path} cannot be read ({error}); copy the whole capture folder again") from error
    _check(path, records)
    records = records[records["sequence"] > 0]
    return records[np.argsort(records["sequence"])], texts or [""]


def _check(path: Path, records: Any) -> None:
    """Raise InputError for records that no recorder wrote: of unknown kinds, or not in their places.

    Record i is in slot i mod capacity with sequence i + 1, or, once the capture ended, the whole ones are in order.
    """
    slots = np.flatnonzero(records["sequence"])
    held = records[slots]
    numbers = held["sequence"].astype(np.int64) - 1
    placed = np.array_equal(numbers % max(len(records), 1), slots)
    ordered = len(held) == len(records) and bool((np.diff(numbers) > 0).all())
    if not (placed or ordered) or not np.isin(held["kind"] & (_BLOCKING - 1), [*_KINDS]).all():
        raise InputError(f"{path} holds records that no recorder wrote: copy the whole capture folder again")


def missing(path: Path) -> int:
    """Return how many records before the last one are not there: never finished, or damaged."""
    records, _ = _read(path)
    if not len(records):
        return 0
    numbers = records["sequence"].astype(np.int64)
    return int(numbers[-1] - numbers[0] + 1 - len(numbers))


def _name(raw: bytes, at: int) -> str:
    (length,) = struct.unpack_from("<I", raw, at)
    return raw[at + 4 : at + 4 + length].decode("utf-8", "replace")
