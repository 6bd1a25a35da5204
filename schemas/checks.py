"""Whether a trace or a run keeps to the schema: every file, column and row, and what refers to what."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import InputError
from .migrate import migrate
from .problem import Findings, Kind, Problem
from .relations import Relations
from .results import MANIFEST as RUN_MANIFEST
from .results import Results
from .rows import NULL, REPORT, bad_rows
from .tables import RESULT_TABLES, TRACE_TABLES, Table
from .trace import MANIFEST as TRACE_MANIFEST
from .trace import Trace

_AGAIN = "convert the source again"

NO_FOLDER = Kind("cannot be read as a trace or a run", "name a folder that eidola wrote")
UNKNOWN = Kind("does not belong here and is ignored", "remove it", "warning")
UNREADABLE = Kind("cannot be read", _AGAIN)
STAMP = Kind("wrong or missing file metadata", "write files with TraceWriter or ResultsWriter")
MISSING = Kind("the column is missing", REPORT)
EXTRA = Kind("the schema has no such column", "remove it, or see docs/schema.md for its name")
TYPE = Kind("wrong type", REPORT)
UNIT = Kind("wrong unit in the field's metadata", REPORT)
KEY = Kind("the key is not unique", "number the rows of a rank anew, or leave repeated rows out")


def check(path: str | Path) -> list[Problem]:
    """Return what is wrong with the trace or run at `path`; nothing where it keeps to the schema.

    Never raises for what a file holds: an unreadable file is a problem that names it. Of each kind of
    problem at most 20 rows a column are listed, and the others counted.
    """
    path, findings = Path(path), Findings()
    try:
        if (path / RUN_MANIFEST).is_file():
            _check_run(Results(path), findings)
        else:
            _check_trace(Trace(path), findings)
    except InputError as error:
        findings.one(NO_FOLDER, "", path, detail=str(error))
    return findings.problems()


def _check_run(run: Results, findings: Findings) -> None:
    try:
        _ = run.summary
    except InputError as error:
        findings.one(UNREADABLE, "summary", run.path, detail=str(error))
    for name in run.tables():
        check_file(findings, RESULT_TABLES[name], run.path / f"{name}.parquet", run.version)


def _check_trace(trace: Trace, findings: Findings) -> None:
    """Check the tables that say who is there first, then all others a rank at a time."""
    files = {name: _by_rank(trace, name, findings) for name in TRACE_TABLES}
    for entry in sorted(trace.path.iterdir()):
        if entry.name not in TRACE_TABLES and entry.name != TRACE_MANIFEST:
            findings.one(UNKNOWN, entry.name, entry)
    relations = Relations(findings, trace.path)
    for name in ("ranks", "communicators"):
        for rank, file in files[name].items():
            relations.add_member(name, check_file(findings, TRACE_TABLES[name], file, trace.version, rank))
    relations.check_members()
    others = [name for name in TRACE_TABLES if name not in ("ranks", "communicators")]
    for rank in sorted({rank for name in others for rank in files[name]}):
        held = {
            name: check_file(findings, TRACE_TABLES[name], files[name][rank], trace.version, rank)
            for name in others
            if rank in files[name]
        }
        relations.check_rank(rank, held, {name: files[name][rank] for name in held})
    relations.check_operations()


def _by_rank(trace: Trace, name: str, findings: Findings) -> dict[int, Path]:
    """Return the files of table `name` by the rank in their names."""
    files = {}
    folder = trace.path / name
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        digits = file.name.removeprefix("rank").removesuffix(".parquet")
        if file.name == f"rank{digits}.parquet" and digits.isascii() and digits.isdigit() and file.is_file():
            files[int(digits)] = file
        else:
            findings.one(UNKNOWN, name, file)
    return files


def check_file(
    findings: Findings, table: Table, file: Path, version: int, rank: int | None = None
) -> pa.Table:
    """Check one file by itself; return its columns of the right type, migrated to the current version."""
    try:
        with pq.ParquetFile(file) as opened:
            data = opened.read()
        data.validate(full=True)
        _check_stamp(findings, table, file, data.schema, version)
        data = migrate(table, data, version)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        findings.one(UNREADABLE, table.name, file, detail=str(error).splitlines()[0] if str(error) else "")
        return pa.table({})
    data = _right_columns(findings, table, file, data, units=version == table.version)
    if not data.num_rows:
        return data
    for column, kind, bad in bad_rows(table, data, rank):
        findings.rows(kind, table.name, file, column, bad, None if kind is NULL else data[column])
    if table.key and set(table.key) <= set(data.column_names):
        findings.rows(KEY, table.name, file, ", ".join(table.key), _repeated(data, table.key))
    return data


def _check_stamp(findings: Findings, table: Table, file: Path, schema: pa.Schema, version: int) -> None:
    found = schema.metadata or {}
    for name, wanted in (("table", table.name), ("version", str(version))):
        value = found.get(f"eidola.{name}".encode(), b"").decode(errors="replace")
        if value != wanted:
            findings.one(STAMP, table.name, file, detail=f"eidola.{name} is {value!r}, not {wanted!r}")
    if not found.get(b"eidola.generator"):
        findings.one(STAMP, table.name, file, detail="eidola.generator is missing")


def _right_columns(findings: Findings, table: Table, file: Path, data: pa.Table, *, units: bool) -> pa.Table:
    """Report columns that are missing, unknown, doubled or of a wrong type or unit; return the right ones."""
    names = data.column_names
    for name in dict.fromkeys(names):
        if name not in table.by_name or names.count(name) > 1:
            findings.one(EXTRA, table.name, file, name)
    right = []
    for column in table.columns:
        if names.count(column.name) != 1:
            findings.one(MISSING, table.name, file, column.name)
            continue
        field = data.schema.field(column.name)
        if field.type != column.type:
            findings.one(TYPE, table.name, file, column.name, f"{field.type} instead of {column.type}")
            continue
        unit = (field.metadata or {}).get(b"unit", b"").decode(errors="replace")
        if units and unit != column.unit:
            findings.one(UNIT, table.name, file, column.name, f"{unit!r} instead of {column.unit!r}")
        right.append(column.name)
    return pa.table({name: data[name] for name in right})


def _repeated(data: pa.Table, key: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Return which rows are the last of several with one key."""
    rows = data.select(list(key)).append_column("__row", pa.array(np.arange(data.num_rows)))
    groups = rows.group_by(list(key)).aggregate([("__row", "max"), ("__row", "count")])
    bad = np.zeros(data.num_rows, np.bool_)
    bad[groups.filter(pc.field("__row_count") > 1)["__row_max"].to_numpy()] = True
    return bad
