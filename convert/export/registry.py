"""The formats that can be written, and the one way to write each: beside its place, then renamed into it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from ...schemas import Results, Trace
from ...schemas.errors import InputError, UsageError
from ...schemas.results import MANIFEST as RUN_MANIFEST
from .report import ExportReport

TITLES = {
    "chakra": "Chakra execution traces, one .et a rank, for ASTRA-sim",
    "goal": "a GOAL schedule, for LogGOPSim and ATLAHS",
    "perfetto": "a Perfetto trace, for ui.perfetto.dev",
    "writes": "a CSV list of peer writes, for simulators that inject them, such as gem5",
}
"""The formats that can be written; each is the module of its name."""

Source: TypeAlias = Trace | Results
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Export:
    """One format: whether it takes runs beside traces, whether it is a folder, and its writer.

    `write` puts `source` into the path that it is given, adds to the report, and calls the last argument with
    (what, done, total).
    """

    write: Callable[[Source, Path, ExportReport, Progress], None]
    runs: bool = False
    folder: bool = False


def export(
    name: str,
    source: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the trace or run folder `source` as format `name` to `output`; nothing half-written appears there.

    Raises UsageError for an unknown format, a source of the wrong kind or an `output` that exists (without
    `overwrite`); InputError where the source cannot be read or holds nothing to write.
    """
    if name not in TITLES:
        raise UsageError(f"no export format {name!r}; there are {', '.join(TITLES)}")
    kind: Export = import_module(f".{name}", __package__).EXPORT
    source, output = Path(source), Path(output)
    opened = open_source(source)
    if isinstance(opened, Results) and not kind.runs:
        raise UsageError(
            f"{name} is written of a trace, and {source} is a run; give the trace that it replayed"
        )
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; remove it, choose another -o, or pass --overwrite")
    if output.is_dir() and not kind.folder:
        raise UsageError(f"{output} is a folder, and {name} is written as a file; choose another -o")
    if output.is_dir() and not all(f.suffix in (".et", ".json") for f in output.iterdir()):
        raise UsageError(f"{output} holds other files; it is left alone, choose another -o")
    report = ExportReport(output, name)
    partial = output.with_name(f".{output.name}.partial.{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        kind.write(opened, partial, report, progress or (lambda what, done, total: None))
        if output.is_dir():
            shutil.rmtree(output)
        partial.rename(output)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error}); choose another -o") from error
    finally:
        _remove(partial)
    return report


def open_source(path: Path) -> Source:
    """Return the trace or run at `path`; raises InputError where it is neither."""
    return Results(path) if (path / RUN_MANIFEST).is_file() else Trace(path)


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)
