"""The results of a run on disk: a folder with a Parquet file a table, a summary and a manifest."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from . import html
from .errors import InputError, UsageError
from .folder import FolderWriter, read_manifest, write_json
from .hashing import TableHash, combined, in_order
from .store import TableFile, conform, read_file, select
from .tables import RESULT_TABLES, RESULT_VERSION, Table

MANIFEST = "manifest.json"
SUMMARY = "summary.json"
CONFIRMED = "confirmed.json"  # what `eidola replay explain --confirm` found
Columns: TypeAlias = Mapping[str, Any] | pa.Table


class ResultsWriter(FolderWriter):
    """Write the folder of a run; a context manager.

    `with ResultsWriter("run/") as w: w.write("messages", {...}); w.summary = {...}; w.manifest = {...}`. On a
    clean exit the folder appears under its name; on an exception nothing does. An existing run is replaced
    only with `overwrite`. `w.results_hash()` is the hash of what has been written.
    """

    kind = "run"
    manifest_name = MANIFEST
    version = RESULT_VERSION

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self.summary: dict[str, Any] = {}
        self.manifest: dict[str, Any] = {}
        self._digests: dict[str, str] = {}

    def write(self, name: str, columns: Columns | Iterable[Columns]) -> None:
        """Write table `name` and hash it: whole, or a chunk of rows at a time, which are let go one after another.

        Raises UsageError for an unknown table; SchemaError for columns that do not fit it, for two rows with one
        key, and for chunks that are not in order of the key.
        """
        table = _table(name)
        whole = isinstance(columns, Mapping | pa.Table)
        digest = TableHash(table)
        with TableFile(table, self.partial / f"{name}.parquet") as file:
            for chunk in (columns,) if whole else columns:
                data = conform(table, chunk, encoded=True)
                file.write(data)
                digest.update(in_order(table, data) if whole else data)
        self._digests[name] = digest.hexdigest()

    def results_hash(self) -> str:
        """Return the hash of the tables written, as `results_hash` gives it."""
        return combined(self._digests.items())

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

    @property
    def confirmed(self) -> dict[str, Any] | None:
        """What making each cause twice as fast gave: makespan_ps, causes; None where nobody tried.

        A cause has what, name, where, duration_ps, share, segments, change, expected_ps and saved_ps. Raises
        InputError where it cannot be read.
        """
        file = self.path / CONFIRMED
        if not file.is_file():
            return None
        try:
            return dict(json.loads(file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{file} cannot be read ({error}); make it again with `eidola replay explain --confirm`"
            ) from error

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

    def _repr_html_(self) -> str:
        """Show the summary in a notebook, lists a line an entry."""
        rows = [
            [key, "; ".join(map(str, value)) if isinstance(value, list) else value]
            for key, value in self.summary.items()
            if value not in (None, [], {})
        ]
        tables = ", ".join(self.tables())
        return html.paragraphs([f"run {self.path}: tables {tables}"]) + html.table(["", ""], rows)


def _table(name: str) -> Table:
    if name not in RESULT_TABLES:
        raise UsageError(f"no table {name!r}; a run has {', '.join(RESULT_TABLES)}")
    return RESULT_TABLES[name]
