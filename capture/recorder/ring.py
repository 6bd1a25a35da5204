"""A ring of fixed-size records in a file that is mapped shared: it outlives the process, however that ends.

    0       header: magic, version, bytes a record, records, where names begin, how many, where records begin
    4096    names: 128 bytes each, a 32-bit length and UTF-8; 0 is no name. Only recorder.cpp writes them
    ...     records: 128 bytes each; see FIELDS. Record i is in slot i mod capacity, with sequence i + 1

A record's sequence number is stored last. recorder.cpp does so with release order. From Python the order of two
stores is that of the program, and that suffices: a file is read after its writer has ended, and what a process
stored before the instruction at which it was killed is in the page cache, later stores are not.
"""

import errno
import mmap
import os
import struct
from pathlib import Path
from typing import Any

from ...schemas.errors import CaptureError

VERSION = 1
MAGIC = b"EIDOLARB"
HEADER = struct.Struct("<8sIIQQIIQ")
HEADER_BYTES = 4096
NAME_BYTES = 128
RECORD_BYTES = 128
FIELDS = (
    ("sequence", "<u8"),
    ("start_ns", "<i8"),
    ("end_ns", "<i8"),
    ("call", "<u8"),  # a call's number; of a run or splits: the call that they belong to, 0: none
    ("in_bytes", "<i8"),  # -1: none
    ("out_bytes", "<i8"),
    ("tid", "<u4"),
    ("name", "<u4"),
    ("group", "<u4"),
    ("peer", "<i4"),  # root or other side, in the group; -1: none. Of splits: how many are in the record
    ("kind", "<u2"),  # KINDS; + 256: a call that blocks until the operation has ended
    ("dtype", "<i2"),  # c10::ScalarType; -1: none
    (
        "number",
        "<u4",
    ),  # place in its group's (or peer's) order; of splits: index of the first; a step's number
    ("data", "S56"),  # a call's tensors, dimensions and first shape; seven 64-bit splits; a phase's name
)
KINDS = {"call": 1, "run": 2, "splits": 3, "step": 4, "own_step": 5, "phase": 6}
_MARK = struct.Struct("<qqQqqIIIiHhI56s")


def create(path: Path, capacity: int, names: int = 0) -> dict[str, int]:
    """Allocate the ring `path` of `capacity` records; return its layout.

    Raises CaptureError where the file system refuses: a mapped file without its blocks would end the process
    with SIGBUS when the disk is full.
    """
    records_at = HEADER_BYTES + names * NAME_BYTES
    layout = {"bytes": records_at + capacity * RECORD_BYTES, "names_at": HEADER_BYTES, "names": names}
    layout |= {"records_at": records_at, "capacity": capacity}
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.posix_fallocate(file, 0, layout["bytes"])
        header = HEADER.pack(MAGIC, VERSION, RECORD_BYTES, capacity, HEADER_BYTES, names, 0, records_at)
        os.pwrite(file, header, 0)
    except OSError as error:
        path.unlink()
        reason = errno.errorcode.get(error.errno or 0, "unknown")
        raise CaptureError(
            f"{layout['bytes'] >> 10} KiB for records in {path.parent} were refused ({reason}: {error.strerror}); "
            "this rank is not captured, the script goes on. Free space, lower --ring-mib, or choose another -o"
        ) from error
    finally:
        os.close(file)
    return layout


class Marks:
    """A ring that Python writes: steps and phases."""

    def __init__(self, path: Path, capacity: int) -> None:
        layout = create(path, capacity)
        self._capacity, self._records_at = capacity, layout["records_at"]
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), layout["bytes"])
        self._next = 0

    def write(self, kind: str, start_ns: int, end_ns: int, *, number: int = 0, text: str = "") -> None:
        """Commit one record; `text` is cut at 56 bytes of UTF-8."""
        data = text.encode("utf-8", "replace")[:56].decode("utf-8", "ignore").encode()
        at = self._records_at + self._next % self._capacity * RECORD_BYTES
        struct.pack_into("<Q", self._map, at, 0)
        _MARK.pack_into(
            self._map, at + 8, start_ns, end_ns, 0, -1, -1, 0, 0, 0, -1, KINDS[kind], -1, number, data
        )
        self._next += 1
        struct.pack_into("<Q", self._map, at, self._next)


def compact(path: Path) -> dict[str, int]:
    """Rewrite a ring with its whole records only, in order; return how many it kept, and how many it lost.

    What is lost was overwritten, or not committed when the process ended.
    """
    raw = path.read_bytes()
    records, names_at, names = _records(path, raw)
    last = int(records["sequence"][-1]) if len(records) else 0
    used = max((n + 1 for n in range(names) if raw[names_at + n * NAME_BYTES]), default=0)
    at = HEADER_BYTES + used * NAME_BYTES
    partial = path.with_name(f".partial.{path.name}")
    with partial.open("wb") as file:
        header = HEADER.pack(MAGIC, VERSION, RECORD_BYTES, len(records), HEADER_BYTES, used, 0, at)
        file.write(header.ljust(HEADER_BYTES, b"\0"))
        file.write(raw[names_at : names_at + used * NAME_BYTES])
        file.write(records.tobytes())
    partial.rename(path)
    return {"kept": len(records), "lost": last - len(records)}


def last_ns(path: Path) -> int:
    """Return the latest end of a record in the ring; 0 where there is none."""
    records, _, _ = _records(path, path.read_bytes())
    return int(records["end_ns"].max(initial=0))


def _records(path: Path, raw: bytes) -> tuple[Any, int, int]:
    """Return a ring's whole records in order, where its names begin, and for how many there is room."""
    import numpy as np

    magic, version, _, capacity, names_at, names, _, records_at = HEADER.unpack_from(raw)
    if magic != MAGIC or version != VERSION:
        raise CaptureError(f"{path} is no ring of version {VERSION}")
    dtype: Any = np.dtype(list(FIELDS))
    records = np.frombuffer(raw, dtype, capacity, records_at)
    records = records[records["sequence"] > 0]
    return records[np.argsort(records["sequence"])], names_at, names
