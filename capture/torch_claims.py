"""Which ranks of a session are at work in a folder, which have left it, and which were killed in it.

Each rank has a claim, the file `claim-RANK` with the host and process that made it. A rank that has left has also
`left-RANK`. A claim whose process has ended is what a killed job left behind.
"""

import fcntl
import json
import os
import platform
from pathlib import Path


def claim(folder: Path, rank: int) -> None:
    """Claim `rank` for this process; what ranks of ended processes left in `folder` goes."""
    with (folder / "claim-lock").open("w") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # so that none takes another's new claim for the stale one it replaces
        for stale in {*ended(folder), rank}:
            _forget(folder, stale)
        _write(folder / f"claim-{rank}")


def leave(folder: Path, rank: int, world_size: int) -> bool:
    """Note that `rank` has left; return whether this process is to complete the capture, as the last one."""
    (folder / f"left-{rank}").touch()
    left = {int(file.name.removeprefix("left-")) for file in folder.glob("left-*")}
    if len(left | ended(folder)) < world_size:
        return False
    try:
        (folder / "completing").open("x").close()
    except FileExistsError:
        return False
    return True


def claimed(folder: Path) -> set[int]:
    """Return the ranks that have a claim."""
    named = (file.name.removeprefix("claim-") for file in folder.glob("claim-*"))
    return {int(name) for name in named if name.isdigit()}


def ended(folder: Path) -> set[int]:
    """Return the ranks whose processes ran on this host and have ended."""
    return {rank for rank in claimed(folder) if not _runs(folder / f"claim-{rank}")}


def _forget(folder: Path, rank: int) -> None:
    """Remove what `rank` left in `folder`."""
    own = f"rank{rank:05d}.*"
    rings = (f"rings-*/{own}", f"rings-*/nccl.{own}")
    for pattern in (own, f".partial.{own}", f"nccl.{own}", f"left-{rank}", f"claim-{rank}", *rings):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
    (folder / "completing").unlink(missing_ok=True)


def _runs(file: Path) -> bool:
    """Say whether the process of a claim still runs; one of another host, or not yet noted, is taken to."""
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return bool(noted["host"] != platform.node() or noted["began"] == _began(noted["pid"]))


def _write(file: Path) -> None:
    pid = os.getpid()
    partial = file.with_name(f".partial.{file.name}")
    partial.write_text(
        json.dumps({"host": platform.node(), "pid": pid, "began": _began(pid)}), encoding="utf-8"
    )
    partial.rename(file)


def _began(pid: int) -> str | None:
    """Return when a process began, in ticks since boot: its number may be given again. None: it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return (
        None if fields[0] in "ZX" else fields[19]
    )  # state, and starttime: proc_pid_stat(5), fields 3 and 22
