"""A trace on disk: a folder of Parquet files, a sub-folder a table, a file a rank."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from . import html
from .errors import InputError, UsageError
from .folder import FolderWriter, read_manifest
from .rows import refuse_bad_rows
from .store import TableFile, conform, read_file, select, write_file
from .tables import TRACE_TABLES, TRACE_VERSION, Table

MANIFEST = "trace.json"
_SHOWN = 8  # ranks that a notebook shows


class TraceWriter(FolderWriter):
    """Write a trace folder; a context manager.

    `with TraceWriter("job.eidola") as w: w.write("spans", 0, {...})`. On a clean exit the folder appears
    under its name; on an exception nothing does. An existing trace is replaced only with `overwrite`. Ranks
    may be written from several processes: a writer can be pickled, and each file has one writer. With `verify`,
    for rows from files that others wrote, what breaks the schema in a row is refused as it is written.
    """

    kind = "trace"
    manifest_name = MANIFEST
    version = TRACE_VERSION

    def __init__(self, path: str | Path, *, overwrite: bool = False, verify: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self.verify = verify
        self.notes: dict[str, Any] = {}

    def write(self, name: str, rank: int, columns: Mapping[str, Any] | pa.Table) -> None:
        """Write one rank's rows of table `name`; the `rank` column is filled in where it is not given.

        Raises UsageError for an unknown table, SchemaError for columns or, under `verify`, rows that do not fit it.
        """
        if isinstance(columns, Mapping) and "rank" not in columns:
            rows = len(next(iter(columns.values()), ()))
            columns = {"rank": np.full(rows, rank, np.int32), **columns}
        self.write_table(name, rank, conform(_table(name), columns, encoded=True))

    def write_table(self, name: str, rank: int, table: pa.Table) -> None:
        """Write a conforming Arrow table as rank `rank`'s file of table `name`; empty tables are left out."""
        if not table.num_rows:
            return
        if self.verify:
            refuse_bad_rows(_table(name), table, rank)
        write_file(_table(name), self._file(name, rank), table)

    def write_slices(self, name: str, rank: int, slices: Iterable[Mapping[str, Any]]) -> None:
        """Write one rank's rows of table `name` a slice at a time, as `write` does; none may be empty."""
        with ExitStack() as opened:
            written: TableFile | None = None
            first = 0
            for columns in slices:
                rows = len(next(iter(columns.values())))
                table = conform(
                    _table(name), {"rank": np.full(rows, rank, np.int32), **columns}, encoded=True
                )
                if self.verify:
                    refuse_bad_rows(_table(name), table, rank, first)
                written = written or opened.enter_context(TableFile(_table(name), self._file(name, rank)))
                written.write(table)
                first += rows

    def _file(self, name: str, rank: int) -> Path:
        folder = self.partial / name
        folder.mkdir(exist_ok=True)
        return folder / file_name(rank)

    def describe(self) -> dict[str, Any]:
        """Return the notes, which the manifest keeps."""
        return {"notes": self.notes}


class Trace:
    """A trace folder, read lazily. Raises InputError where `path` is none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        remedy = "make one with `eidola convert`"
        self.manifest, self.version = read_manifest(self.path, MANIFEST, "trace", TRACE_VERSION, remedy)

    @property
    def notes(self) -> dict[str, Any]:
        """What the converter noted: sources, what they could not tell, what was unmatched."""
        return dict(self.manifest.get("notes", {}))

    def ranks(self) -> list[int]:
        """Return the ranks that have a row in `ranks`, ascending."""
        return sorted(self.read("ranks", ["rank"])["rank"].to_pylist())

    def files(self, name: str, ranks: Iterable[int] | None = None) -> list[Path]:
        """Return the files of table `name`, of the chosen ranks (in their order) or of all, in rank order."""
        folder = self.path / name
        if ranks is None:
            return sorted(folder.glob("rank*.parquet"), key=lambda file: (len(file.name), file.name))
        return [f for f in (folder / file_name(rank) for rank in ranks) if f.is_file()]

    def read(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        ranks: Iterable[int] | None = None,
        filters: pc.Expression | None = None,
    ) -> pa.Table:
        """Read table `name`: chosen columns and ranks, and the rows that pass `filters`; migrated.

        Raises UsageError for an unknown table or column, InputError for a file that cannot be read.
        """
        table = _table(name)
        wanted = select(table, columns)
        parts = [read_file(table, f, self.version, wanted, filters) for f in self.files(name, ranks)]
        if len(parts) == 1:
            return parts[0]
        empty = pa.schema([table.by_name[c].field() for c in wanted]).empty_table()
        return pa.concat_tables([empty, *parts])

    def _repr_html_(self) -> str:
        """Show the ranks, and how many rows the tables have, in a notebook."""
        columns = ["rank", "backend", "host", "model"]
        ranks = self.read("ranks", columns).sort_by("rank").to_pylist()
        rows = [[name, sum(map(_rows, self.files(name)))] for name in TRACE_TABLES]
        more = [f"... {len(ranks):,} ranks in all"] if len(ranks) > _SHOWN else []
        return (
            html.paragraphs([f"trace {self.path}, {len(ranks):,} ranks"])
            + html.table(columns, [[rank[c] for c in columns] for rank in ranks[:_SHOWN]])
            + html.paragraphs(more)
            + html.table(["table", "rows"], [row for row in rows if row[1]])
        )


def _rows(file: Path) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{file} cannot be read ({error}); convert the trace again") from error


def file_name(rank: int) -> str:
    """Return the name of rank `rank`'s file in a table's folder."""
    return f"rank{rank:05d}.parquet"


def _table(name: str) -> Table:
    if name not in TRACE_TABLES:
        raise UsageError(f"no table {name!r}; a trace has {', '.join(TRACE_TABLES)}")
    return TRACE_TABLES[name]
