"""A trace on disk: a folder of Parquet files, a sub-folder a table, a file a rank.

`TraceWriter` builds the folder beside its final place and renames it when complete, so that what bears the
final name is whole. `Trace` reads columns and ranks selectively.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import InputError, SchemaError, UsageError
from .migrate import migrate
from .tables import TRACE_TABLES, TRACE_VERSION

MANIFEST = "trace.json"


def generator() -> str:
    """Return the name and version that files written by this package carry."""
    try:
        return f"eidola {metadata.version('eidola-sim')}"
    except metadata.PackageNotFoundError:
        return "eidola (not installed)"


def conform(name: str, columns: Mapping[str, Any] | pa.Table) -> pa.Table:
    """Return `columns` as an Arrow table of the schema's types and order; missing optional columns are null.

    Raises SchemaError for unknown or missing required columns and for values that do not fit their type.
    """
    table = TRACE_TABLES[name]
    given = set(columns.column_names if isinstance(columns, pa.Table) else columns)
    if unknown := given - set(table.by_name):
        raise SchemaError(f"table {name}: unknown column {sorted(unknown)[0]!r}; see docs/schema.md")
    rows = columns.num_rows if isinstance(columns, pa.Table) else len(next(iter(columns.values()), ()))
    arrays = []
    for column in table.columns:
        if column.name not in given:
            if column.required and rows:
                raise SchemaError(f"table {name}: column {column.name!r} is required and was not given")
            arrays.append(pa.nulls(rows, column.type))
            continue
        values = columns[column.name]
        try:
            if not isinstance(values, pa.Array | pa.ChunkedArray):
                values = pa.array(values, column.type, from_pandas=True)
            arrays.append(values.cast(column.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise SchemaError(f"table {name}, column {column.name!r}: {error}") from error
    return pa.Table.from_arrays(arrays, schema=table.schema())


class TraceWriter:
    """Write a trace folder; a context manager.

    `with TraceWriter("job.eidola") as w: w.write("spans", 0, {...})`. On a clean exit the folder appears
    under its name; on an exception nothing does. An existing trace is replaced only with `overwrite`.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.notes: dict[str, Any] = {}
        if self.path.exists() and not overwrite:
            raise UsageError(f"{self.path} exists; remove it, choose another -o, or pass --overwrite")
        if self.path.exists() and not (self.path / MANIFEST).is_file():
            raise UsageError(f"{self.path} exists and is no trace; it is left alone, choose another -o")
        self.partial = self.path.with_name(f".{self.path.name}.partial.{os.getpid()}")

    def __enter__(self) -> "TraceWriter":
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        return self

    def write(self, name: str, rank: int, columns: Mapping[str, Any] | pa.Table) -> None:
        """Write one rank's rows of table `name`; the `rank` column is filled in where it is not given."""
        if isinstance(columns, Mapping) and "rank" not in columns:
            rows = len(next(iter(columns.values()), ()))
            columns = {"rank": [rank] * rows, **columns}
        self.write_table(name, rank, conform(name, columns))

    def write_table(self, name: str, rank: int, table: pa.Table) -> None:
        """Write a conforming Arrow table as rank `rank`'s file of table `name`; empty tables are left out."""
        if not table.num_rows:
            return
        folder = self.partial / name
        folder.mkdir(exist_ok=True)
        stamp = {b"eidola.table": name.encode(), b"eidola.version": str(TRACE_VERSION).encode()}
        stamp[b"eidola.generator"] = generator().encode()
        pq.write_table(table.replace_schema_metadata(stamp), folder / f"rank{rank:05d}.parquet",
                       compression="zstd")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
            return
        manifest = {"version": TRACE_VERSION, "generator": generator(), "notes": self.notes}
        (self.partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        if self.path.exists():
            shutil.rmtree(self.path)
        self.partial.rename(self.path)


class Trace:
    """A trace folder, read lazily. Raises InputError where `path` is none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.manifest: dict[str, Any] = json.loads((self.path / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            remedy = "make one with `eidola convert`"
            raise InputError(f"{self.path} is no trace: {MANIFEST} cannot be read ({error}); {remedy}") from error
        self.version = int(self.manifest.get("version", 0))
        if self.version > TRACE_VERSION:
            raise SchemaError(
                f"{self.path} has schema version {self.version}; this eidola reads up to {TRACE_VERSION}: upgrade it"
            )

    @property
    def notes(self) -> dict[str, Any]:
        """What the converter noted: sources, what they could not tell, what was unmatched."""
        return dict(self.manifest.get("notes", {}))

    def ranks(self) -> list[int]:
        """Return the ranks that have a row in `ranks`, ascending."""
        return sorted(self.read("ranks", ["rank"])["rank"].to_pylist())

    def files(self, name: str, ranks: Iterable[int] | None = None) -> list[Path]:
        """Return the files of table `name`, of the chosen ranks or of all, in rank order."""
        folder = self.path / name
        if ranks is None:
            return sorted(folder.glob("rank*.parquet"))
        return [f for f in (folder / f"rank{rank:05d}.parquet" for rank in ranks) if f.is_file()]

    def read(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        ranks: Iterable[int] | None = None,
        filters: pc.Expression | None = None,
    ) -> pa.Table:
        """Read table `name`: chosen columns, ranks, and row groups that pass `filters`; migrated to this version.

        Raises UsageError for an unknown table or column, InputError for a file that cannot be read.
        """
        if name not in TRACE_TABLES:
            raise UsageError(f"no table {name!r}; a trace has {', '.join(TRACE_TABLES)}")
        table = TRACE_TABLES[name]
        wanted = list(columns) if columns is not None else list(table.by_name)
        if unknown := set(wanted) - set(table.by_name):
            raise UsageError(f"table {name} has no column {sorted(unknown)[0]!r}")
        schema = pa.schema([table.by_name[c].field() for c in wanted])
        parts = []
        for file in self.files(name, ranks):
            try:
                if self.version == TRACE_VERSION:
                    part = pq.read_table(file, columns=wanted, filters=filters, partitioning=None)
                else:
                    part = migrate(name, pq.read_table(file, partitioning=None), self.version)
                    part = (part.filter(filters) if filters is not None else part).select(wanted)
                parts.append(part.replace_schema_metadata(None).cast(schema))
            except (OSError, pa.ArrowInvalid, ValueError, KeyError) as error:
                raise InputError(f"{file}: {error}; run `eidola convert check {self.path}`") from error
        return pa.concat_tables(parts) if parts else schema.empty_table()
