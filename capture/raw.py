"""Write a raw capture: a folder with `capture.json` and one file a rank, whole or not at all."""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ..schemas.errors import UsageError

MANIFEST = "capture.json"
FORMAT = 1


@contextmanager
def raw_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on a clean exit it takes the name, on an exception it goes.

    Raises UsageError where `path` exists and is not a raw capture, or is one and `overwrite` is false.
    """
    refuse_existing(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.partial.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace(folder: Path, path: Path) -> None:
    """Give `folder` the name `path`, in place of what is there."""
    if path.exists():
        shutil.rmtree(path)
    folder.rename(path)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError unless `path` is free, or a raw capture (or an empty folder) that may be replaced."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MANIFEST).is_file():
        raise UsageError(f"{path} exists and is no raw capture; it is left alone, choose another -o")
    if not overwrite:
        raise UsageError(f"{path} exists; remove it, choose another -o, or pass --overwrite")


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write `capture.json`: `content` with the format's version, the date and the machine."""
    stamp = {"format": FORMAT, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    text = json.dumps({**stamp, **content}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def machine(*, anonymous: bool = False) -> dict[str, Any]:
    """Return what this machine is: CPU, cores, memory, system; host name and build unless `anonymous`."""
    cpu = _cpu_fields()
    release = platform.release().split("-")[0] if anonymous else platform.release()
    return {
        "host": None if anonymous else platform.node(),
        "cpu_vendor": cpu.get("vendor_id"),
        "cpu_model": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {release} {platform.machine()}",
    }


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, of this package, and of those `packages` that are installed."""
    found = {"python": platform.python_version()}
    for package in ("eidola-sim", *packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_fields() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return {}
    lines = (line.partition(":") for line in info.read_text().split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
