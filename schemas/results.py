"""The results of a run on disk: a folder with a Parquet file a table, a summary and a manifest."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .errors import InputError, UsageError
from .folder import FolderWriter, read_manifest, write_json
from .store import conform, read_file, select, write_file
from .tables import RESULT_TABLES, RESULT_VERSION, Table

MANIFEST = "manifest.json"
SUMMARY = "summary.json"


class ResultsWriter(FolderWriter):
    """Write the folder of a run; a context manager.

    `with ResultsWriter("run/") as w: w.write("messages", {...}); w.summary = {...}; w.manifest = {...}`. On a
    clean exit the folder appears under its name; on an exception nothing does. An existing run is replaced
    only with `overwrite`.
    """

    kind = "run"
    manifest_name = MANIFEST
    version = RESULT_VERSION

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self.summary: dict[str, Any] = {}
        self.manifest: dict[str, Any] = {}

    def write(self, name: str, columns: Mapping[str, Any] | pa.Table) -> pa.Table:
        """Write table `name`, and return it as Arrow, typed as the schema says.

        Raises UsageError for an unknown table, SchemaError for columns that do not fit it.
        """
        table = _table(name)
        data = conform(table, columns)
        write_file(table, self.partial / f"{name}.parquet", data)
        return data

    def describe(self) -> dict[str, Any]:
        """Return what the caller put into the manifest."""
        return self.manifest

    def finish(self) -> None:
        """Write the summary."""
        write_json(self.partial / SUMMARY, self.summary)


class Results:
    """The folder of a run, read lazily. Raises InputError where `path` is none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        remedy = "make one with `eidola replay run`"
        self.manifest, self.version = read_manifest(self.path, MANIFEST, "run", RESULT_VERSION, remedy)

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary; raises InputError where it cannot be read."""
        file = self.path / SUMMARY
        try:
            return dict(json.loads(file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{file} cannot be read ({error}); run the replay again") from error

    def tables(self) -> list[str]:
        """Return the names of the tables that the run has, in the schema's order."""
        return [name for name in RESULT_TABLES if (self.path / f"{name}.parquet").is_file()]

    def read(
        self, name: str, columns: Sequence[str] | None = None, filters: pc.Expression | None = None
    ) -> pa.Table:
        """Read table `name`: chosen columns, and row groups that pass `filters`; migrated to this version.

        Raises UsageError for an unknown table or column, InputError for a file that is not there (some tables
        are written on request) or cannot be read.
        """
        table = _table(name)
        file = self.path / f"{name}.parquet"
        if not file.is_file():
            held = ", ".join(self.tables()) or "none"
            raise InputError(
                f"{file} is not there; the run has the tables {held}: run the replay again with it"
            )
        return read_file(table, file, self.version, select(table, columns), filters)


def _table(name: str) -> Table:
    if name not in RESULT_TABLES:
        raise UsageError(f"no table {name!r}; a run has {', '.join(RESULT_TABLES)}")
    return RESULT_TABLES[name]
