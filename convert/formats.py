"""The formats that can be converted: their names, how each is recognised, planned and read.

A format is one module with a `FORMAT`. What all of them go through afterwards (matching, clocks, writing, the
report) is the same: `conversion`. Packages add formats by entry points of the group `eidola.formats`.
"""

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..schemas.errors import InputError, UsageError
from .json_stream import BOM

if TYPE_CHECKING:
    from .rank import RankRecord

GROUP = "eidola.formats"
HEAD_BYTES = 1 << 16
TITLES = {
    "iris": "traces of iris (bracketed remote stores of Triton kernels)",
    "kineto": "PyTorch profiler traces (Kineto JSON)",
    "nsys": "Nsight Systems reports (SQLite export)",
    "rocprofv3": "rocprofv3 JSON",
    "rocpd": "rocprofv3 databases (rocpd)",
    "nccl-plugin": "NCCL and RCCL operations, as the profiler plugin of this project records them",
    "chakra": "Chakra execution traces (.et, and their JSON)",
    "nccl-example": "text of NCCL's example profiler plugin",
    "nccl-inspector": "logs of the NCCL inspector (JSON lines)",
    "npkit": "NPKit dumps (with the npkit_event.h of the traced library)",
    "flight-recorder": "PyTorch flight-recorder dumps (c10d's collectives, pickled or as JSON)",
    "flashinfer": "profiler buffers of FlashInfer and Mirage (8-byte tags with a 32-bit timer)",
}
"""The formats of this package, in the order in which files are tried; `a-b` is read by the module `a_b`."""


@dataclass(frozen=True)
class Head:
    """The beginning of a file: its path and up to HEAD_BYTES of its content, decompressed."""

    path: Path
    start: bytes


@dataclass(frozen=True)
class Format:
    """One kind of input.

    `name` is what `eidola convert NAME` calls it. `recognise` says whether a file is of this kind, by its name
    and beginning. `plan` takes the files or folders given, and those of the companion format (a second file a
    rank, such as PyTorch's ExecutionTrace), and returns independent tasks, each picklable. A task names, as Paths
    in whatever fields it has, every file that reading it opens: from their sizes and times a later run knows what
    changed. `read` turns one task into the ranks that it holds (its second argument: whether there is no other
    task), in another process if need be. Both raise InputError that names the file and the remedy.
    """

    name: str
    recognise: Callable[[Head], bool]
    plan: Callable[[Sequence[Path], Sequence[Path]], Sequence[Any]]
    read: Callable[[Any, bool], "list[RankRecord]"]
    companion: str | None = None


def titles() -> dict[str, str]:
    """Return what can be converted, by name: this package's formats, then those of others."""
    return TITLES | {e.name: f"{e.name} ({e.value})" for e in _plugins() if e.name not in TITLES}


@cache
def find_format(name: str) -> Format:
    """Return the format `name`. Raises UsageError where there is none, or its package is broken."""
    if name in TITLES:
        return import_module(f".{name.replace('-', '_')}", __package__).FORMAT  # type: ignore[no-any-return]
    for entry in _plugins():
        if entry.name == name:
            try:
                return entry.load()  # type: ignore[no-any-return]
            except (ImportError, AttributeError) as error:
                raise UsageError(
                    f"format {name} cannot be imported from {entry.value}: {error}; correct the entry point of "
                    f"group {GROUP}, or uninstall the package"
                ) from error
    raise UsageError(f"no format {name!r}; there are {', '.join(titles())}")


def _plugins() -> Any:
    from importlib.metadata import entry_points  # takes as long as all else here, and is seldom needed

    return entry_points(group=GROUP)


def _unpacked(path: Path) -> bytes:
    """Return the beginning of a gzip file, of whatever members, up to where it is damaged."""
    start = b""
    with gzip.open(path, "rb") as packed:
        try:
            while len(start) < HEAD_BYTES and (more := packed.read1(HEAD_BYTES - len(start))):
                start += more
        except (OSError, EOFError, zlib.error):
            if not start:
                raise
    return start


def read_head(path: Path) -> Head:
    """Return the beginning of `path`, decompressed where it is gzip; raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(HEAD_BYTES)
        if start[:2] == b"\x1f\x8b":
            start = _unpacked(path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); is it whole?") from error
    return Head(path, start.removeprefix(BOM))
