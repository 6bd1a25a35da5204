"""A folder that appears under its name only when it is whole, with a manifest that says what it is."""

import fcntl
import glob
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from .errors import InputError, SchemaError, UsageError
from .store import generator


class FolderWriter:
    """Build a folder beside its final place; a context manager.

    On a clean exit the folder appears under `path`; on an exception nothing does. An existing folder of the
    same kind is replaced only with `overwrite`; anything else that bears the name is left alone. What a killed
    process left beside it is removed, or put back where that was about to replace it. Raises UsageError where
    `path` is taken.
    """

    kind: ClassVar[str]
    manifest_name: ClassVar[str]
    version: ClassVar[int]

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        self._clear_dead()
        if self.path.exists() and not overwrite:
            raise UsageError(f"{self.path} exists; remove it, choose another -o, or pass --overwrite")
        if self.path.exists() and not (self.path / self.manifest_name).is_file():
            raise UsageError(f"{self.path} exists and is no {self.kind}; it is left alone, choose another -o")
        self.partial = self.path.with_name(f".{self.path.name}.partial.{os.getpid()}")

    def describe(self) -> dict[str, Any]:
        """Return what the manifest holds beside kind, version and generator."""
        return {}

    def finish(self) -> None:
        """Write what is due once all tables are there."""

    def inspect(self) -> None:
        """Look at the whole folder before it appears; what this raises, it does not."""

    def __enter__(self) -> Self:
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self._lock = _locked(self.partial)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
                head = {"kind": self.kind, "version": self.version, "generator": generator()}
                write_json(self.partial / self.manifest_name, {**self.describe(), **head})
                self.inspect()
                self._publish()
        finally:
            shutil.rmtree(self.partial, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)

    def _clear_dead(self) -> None:
        """Remove what writers of this path left that were killed; the folder of a living one is locked."""
        for left in sorted(self.path.parent.glob(f".{glob.escape(self.path.name)}.partial.*")):
            if left.suffix == ".old" and not self.path.exists():
                left.rename(self.path)
            elif (lock := _locked(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)

    def _publish(self) -> None:
        """Rename into place; what is replaced moves aside first, so that neither is ever half there."""
        old = self.partial.with_name(self.partial.name + ".old")
        if self.path.exists():
            self.path.rename(old)
        self.partial.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)


def _locked(folder: Path) -> int | None:
    """Lock `folder` until the descriptor is closed or the process ends; None where another holds it."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def write_json(file: Path, value: Any) -> None:
    """Write `value` as JSON in one canonical form: keys sorted, one space of indent."""
    file.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _why(path: Path, name: str, error: Exception) -> str:
    """Say why the manifest `name` of `path` was not read: what is there in its place."""
    if not path.exists():
        return "there is no such folder"
    if not path.is_dir():
        return "it is a file"
    if (path / name).exists():
        return f"{name} cannot be read ({error})"
    others = {"trace.json": "a trace", "manifest.json": "a run", "capture.json": "a raw capture"}
    found = [what for file, what in others.items() if (path / file).exists()]
    return f"it is {found[0]}" if found else f"it has no {name}"


def read_manifest(path: Path, name: str, kind: str, newest: int, remedy: str) -> tuple[dict[str, Any], int]:
    """Return the manifest of folder `path` and its schema version.

    Raises InputError where `path` is no folder of that kind, SchemaError where it is newer than `newest`.
    """
    try:
        manifest = json.loads((path / name).read_text())
        version = int(manifest.get("version", 0))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no {kind}: {_why(path, name, error)}; {remedy}") from error
    if not 0 <= version <= newest:
        raise SchemaError(
            f"{path} has schema version {version}; this eidola reads up to {newest}: upgrade eidola"
        )
    return manifest, version
