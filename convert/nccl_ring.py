"""The file that the NCCL plugin leaves: a header, communicators, a ring of records (`capture/nccl/ring.h`).

Times in it are CLOCK_MONOTONIC; each communicator's beginning and end tie that to Unix time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas.errors import InputError

MAGIC = b"EIDNCCL1"
FORMAT = 1

_HEADER = np.dtype(
    {
        "names": [
            *("magic", "format", "record_bytes", "capacity", "process", "rank", "world", "restart"),
            *("interface", "mask", "communicators", "names_lost", "timer_khz", "next", "library", "names"),
        ],
        "formats": [
            *("S8", "<u4", "<u4", "<u8", "<u4", "<i4", "<i4", "<i4", "<i4", "<i4", "<u4", "<u4", "<u4"),
            *("<u8", "S128"),
            ([("state", "<u4"), ("text", "S28")], 64),
        ],
        "offsets": [0, 8, 12, 16, 24, 28, 32, 36, 40, 44, 48, 52, 56, 128, 192, 2048],
        "itemsize": 4096,
    }
)
_COMMUNICATOR = np.dtype(
    [
        *(
            (name, "<u8")
            for name in ("identity", "opened_ns", "closed_ns", "opened_unix_ns", "closed_unix_ns")
        ),
        *((name, "<i4") for name in ("rank", "ranks", "nodes")),
        *(("named", "<u4"), ("name", "S72")),
    ]
)
_RECORD = np.dtype(
    [
        *((name, "<u8") for name in ("commit", "time_ns", "event", "parent")),
        *(("action", "u1"), ("type", "u1"), ("communicator", "<u2")),
        *((name, "u1") for name in ("operation", "datatype", "algorithm", "protocol")),
        *(("a", "<u8"), ("b", "<u8"), ("peer", "<i4")),
        *((name, "u1") for name in ("channels", "warps", "flags", "state")),
    ]
)
_COMMUNICATORS = 256
_RECORDS_AT = _HEADER.itemsize + _COMMUNICATORS * _COMMUNICATOR.itemsize


@dataclass(frozen=True)
class NcclCommunicator:
    """One communicator of the process. `ranks` and `nodes` are None before NCCL 2.27; names may be empty."""

    identity: int
    name: str
    rank: int | None
    ranks: int | None
    nodes: int | None
    opened_ns: int
    closed_ns: int | None


@dataclass(frozen=True)
class Ring:
    """One file: its header, the communicators, and the records that are whole, oldest first."""

    header: Any
    communicators: tuple[NcclCommunicator, ...]
    names: tuple[str | None, ...]
    records: npt.NDArray[Any]
    lost: int
    library: str
    timer_hz: int | None
    unix_offset_ns: int
    unix_spread_ns: int

    def said(self, name: str) -> int | None:
        """Return a number of the header; None for -1, which stands for not said."""
        return _said(self.header[name])


def read_ring(path: Path) -> Ring:
    """Return what is in the file. Raises InputError where it is none, is cut short, or is of a newer version."""
    content = _content(path)
    header = np.frombuffer(content, _HEADER, 1)[0]
    used = min(int(header["communicators"]), _COMMUNICATORS)
    raw = np.frombuffer(content, _COMMUNICATOR, used, _HEADER.itemsize)
    offset, spread = _unix_offset(raw)
    library = _text(header["library"])
    return Ring(
        header,
        tuple(_communicator(c, offset) for c in raw),
        (None, *(_text(n["text"]) if n["state"] == 2 else None for n in header["names"][1:])),
        *_whole(content, int(header["capacity"]), int(header["next"])),
        library,
        _timer_hz(library, int(header["timer_khz"])),
        offset,
        spread,
    )


def read_header(path: Path) -> Any:
    """Return the file's header alone. Raises InputError where it is no such file, or cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER.itemsize)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    if start[: len(MAGIC)] != MAGIC or len(start) < _HEADER.itemsize:
        raise InputError(
            f"{path} is no ring file of the NCCL plugin: it does not begin with {MAGIC.decode()}"
        )
    return np.frombuffer(start, _HEADER, 1)[0]


def _content(path: Path) -> bytes:
    header = read_header(path)
    if header["format"] > FORMAT:
        raise InputError(
            f"{path} has format {header['format']}; this eidola reads up to {FORMAT}: upgrade it"
        )
    content = path.read_bytes()
    whole = _RECORDS_AT + int(header["capacity"]) * _RECORD.itemsize
    if header["record_bytes"] != _RECORD.itemsize or len(content) != whole:
        raise InputError(f"{path} has {len(content)} bytes instead of {whole}: copy it again, whole")
    return content


def _whole(content: bytes, capacity: int, following: int) -> tuple[npt.NDArray[Any], int]:
    """Return the records that were completed, in order of their index, and how many are missing."""
    slots = np.frombuffer(content, _RECORD, capacity, _RECORDS_AT)
    index = slots["commit"] - np.uint64(1)
    at = np.arange(capacity, dtype=np.uint64)
    there = (slots["commit"] > 0) & (index < following) & (index % np.uint64(capacity) == at)
    found = slots[there]
    return found[np.argsort(found["commit"])], following - len(found)


def _timer_hz(library: str, khz: int) -> int | None:
    """Return the GPU timer's rate: NCCL reads %globaltimer, in ns; RCCL a counter whose rate the device gives.

    RCCL's own plugin printed 24,384 for what the host saw take 238 us (ROCm/rocm-systems, pull request 4888).
    """
    if khz:
        return khz * 1000
    return None if "rccl" in Path(library).name else 10**9


def _unix_offset(communicators: npt.NDArray[Any]) -> tuple[int, int]:
    """Return Unix time minus the records' clock, by the median of the anchors, and how far these differ."""
    pairs = [
        int(c[f"{when}_unix_ns"]) - int(c[f"{when}_ns"])
        for c in communicators
        for when in ("opened", "closed")
        if c[f"{when}_ns"]
    ]
    if not pairs:
        return 0, 0
    return sorted(pairs)[len(pairs) // 2], max(pairs) - min(pairs)


def _communicator(c: Any, offset: int) -> NcclCommunicator:
    closed = int(c["closed_ns"])
    return NcclCommunicator(
        int(c["identity"]),
        _text(c["name"]) if c["named"] == 2 else "",
        _said(c["rank"]),
        _said(c["ranks"]),
        _said(c["nodes"]),
        int(c["opened_ns"]) + offset,
        closed + offset if closed else None,
    )


def _said(value: Any) -> int | None:
    return None if value < 0 else int(value)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
