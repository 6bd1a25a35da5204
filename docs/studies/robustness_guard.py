"""What a conversion does beside writing its trace: files elsewhere, programs started, connections."""

import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

_NEVER = {
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.symlink", "os.link", "os.chmod",
    "os.chown", "os.kill", "os.truncate", "subprocess.Popen", "socket.connect", "socket.bind", "pickle.find_class",
}  # fmt: skip
_PATHS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
ESCAPED = Path("/tmp/escaped")
"""Where names of the mutations lead that climb out of a folder."""


class Guard:
    """Note what Python's audit events say, while it is entered, and what lies where nothing should.

    https://docs.python.org/3/library/audit_events.html lists the events. Files that Arrow and SQLite open are seen
    only by their folders: `work` and what is beside it, the working directory and that of temporary files.
    """

    def __init__(self, work: Path) -> None:
        self.work = work = work.resolve()
        self.active = False
        self.case = str(work / "case") + os.sep
        self.temporary = str(work / "tmp") + os.sep
        self.told: list[str] = []
        tempfile.tempdir = str(work / "tmp")

    def begin(self) -> None:
        """Look on from now on; there is no way to stop."""
        self.names = {p.name for p in self.work.iterdir()} | {"case"}
        self.beside = {p.name for p in self.work.parent.iterdir()} if self.work.parent != Path("/") else set()
        sys.addaudithook(self._hear)

    def __enter__(self) -> None:
        self.told = []
        self.active = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.active = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES and not self._allowed(path):
                self.told.append(f"opened {path} for writing")
        elif event in _PATHS:
            in_folder = isinstance(arguments[-1], int) and arguments[-1] != -1  # relative to an open folder
            paths = arguments[:2] if event == "os.rename" else arguments[:1]
            self.told += [f"{event} {path}" for path in paths if not in_folder and not self._allowed(path)]
        elif event in _NEVER:
            self.told.append(f"{event} {arguments}"[:200])

    def _allowed(self, path: Any) -> bool:
        if isinstance(path, int):
            return True
        where = str(Path(os.fsdecode(path)).resolve())
        return where.startswith((self.case, self.temporary)) or where in (self.case[:-1], os.devnull)

    def strays(self) -> list[str]:
        """Return what was done or lies where it should not."""
        found = [*self.told, *sorted({p.name for p in self.work.iterdir()} - self.names)]
        found += [
            f"{folder.name}/{p.name}"
            for folder in (self.work / "cwd", self.work / "tmp")
            for p in folder.iterdir()
        ]
        return found + ([str(ESCAPED)] if ESCAPED.exists() else [])
