"""Where a capture's rings are while their processes run: in shared memory, where there is room.

A page of a file on a disk goes through the file system's journal when it is first written to, and again after each
time that it was written back, in the middle of a training step. Shared memory has none, and outlives a killed
process too.
"""

import os
import platform
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

SHARED = Path("/dev/shm")
ROOM = 64
"""How many times the memory of one rank must be free: data loaders and NCCL live in shared memory too."""
_OF = "capture"  # the file that names the capture's folder, and who can see it


def home(folder: Path) -> Path:
    """Return where this process puts its rings of the capture in `folder`: `folder` itself where nothing was made.

    Nor does a rank on another host, or in a container of its own, see the memory that whoever collects it does.
    """
    link = _link(folder)
    return link if link.is_dir() else folder


def make(folder: Path, bytes_a_rank: int) -> Path:
    """Make a place for the rings of this host's ranks, where there is room; return `home`.

    What captures left there whose folders are gone is removed.
    """
    link = _link(folder)
    _sweep()
    if link.is_symlink() or _free() < ROOM * bytes_a_rank:
        return home(folder)
    target = SHARED / f"eidola-{uuid.uuid4().hex}"
    try:
        target.mkdir(mode=0o700)
        (target / _OF).write_text(_seen_as(folder.resolve()), encoding="utf-8")
        link.symlink_to(target)
    except OSError:  # refused, or another rank was first
        shutil.rmtree(target, ignore_errors=True)
    return home(folder)


def collect(folder: Path, pattern: str = "*") -> None:
    """Move this host's rings that match `pattern` into `folder`; with all of them, also end their place."""
    link = _link(folder)
    if not link.is_symlink():
        return
    for file in link.glob(f"{pattern}.ring"):
        shutil.move(file, folder / file.name)
    if pattern == "*":
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()


def discard(folder: Path) -> None:
    """Remove the place of the rings of a capture that has come to nothing."""
    link = _link(folder)
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)


def _link(folder: Path) -> Path:
    return folder / f"rings-{platform.node()}"


def _free() -> int:
    try:
        found = os.statvfs(SHARED)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _sweep() -> None:
    for left in SHARED.glob("eidola-*"):
        with suppress(OSError):  # another user's
            told = (left / _OF).read_text(encoding="utf-8")
            folder = Path(told.partition("\n")[2])
            if told == _seen_as(folder) and not folder.exists():
                shutil.rmtree(left, ignore_errors=True)


def _seen_as(folder: Path) -> str:
    """Name a folder and the file systems that it is seen in: containers may share memory and not those."""
    try:
        mounts = Path("/proc/self/ns/mnt").stat().st_ino
    except OSError:
        mounts = 0
    return f"{platform.node()} {mounts}\n{folder}"
