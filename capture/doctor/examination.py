"""All the doctor's questions, in the order of the table that it prints."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..gpus import Backend, find_backend

Status = Literal["ok", "gap", "absent"]


@dataclass(frozen=True)
class Finding:
    """One row: what was asked, `ok`, `gap` (capture loses something) or `absent`, what was seen, the remedy."""

    topic: str
    status: Status
    seen: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON takes it."""
        return asdict(self)


@dataclass(frozen=True)
class Machine:
    """Where the doctor looks: roots of /proc, /sys and /dev, folders searched for libraries, the out folder."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    packages: tuple[Path, ...] = field(default_factory=lambda: tuple(Path(p) for p in sys.path if p))
    libraries: tuple[Path, ...] = field(default_factory=lambda: library_folders())
    out: Path = Path()
    open_backend: Callable[[], Backend] = find_backend


def library_folders() -> tuple[Path, ...]:
    """Return where a loader would look for NCCL and RCCL: LD_LIBRARY_PATH, then where packages put them."""
    set_by_user = [Path(p) for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p]
    usual = [Path(p) for p in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")]
    return (*set_by_user, *usual, Path("/usr/local/lib"), Path("/opt/rocm/lib"))


def examine(machine: Machine | None = None) -> list[Finding]:
    """Return what `machine` (default: this one) can capture. Never raises for what it may find."""
    from . import devices, host, libraries, software

    at = machine or Machine()
    backend = at.open_backend()

    def all_of() -> Iterator[Finding]:
        yield from software.findings()
        yield from devices.findings(backend)
        yield from libraries.findings(at.packages, at.libraries)
        yield from host.findings(at.proc, at.sys, at.dev, at.out, vendor=devices.vendor(backend))

    try:
        return list(all_of())
    finally:
        backend.close()
