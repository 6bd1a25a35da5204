"""SQLite files of profilers, read by query: opened so that nothing in them is executed, fetched a batch at a time.

Only ordinary tables are read, never views, triggers, virtual tables or computed columns, which a file could use to
run what it likes. The work of every query is bounded by the size of the file, so that a page that points back at
itself ends in an error.
"""

import gzip
import re
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ..schemas.errors import InputError
from .scanner import NULL

MAGIC = b"SQLite format 3\x00"
BATCH_ROWS = 1 << 14
"""Rows that are Python objects at a time."""
TEXT_LIMIT = 4096
"""Characters kept of a text; profilers' names are shorter."""
_STEPS_A_CALL = 1_000_000
_STEPS_A_BYTE = (
    16  # of SQLite's virtual machine; reading a row of 100 bytes by its columns takes some hundreds
)
_LEAST_STEPS = 200_000_000
_UNPACKED_PART = 0.5  # of the free disk that a gzip database may take
_LARGEST_RATIO = 1032  # of deflate

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """An ordinary table: its name and columns."""

    name: str
    columns: frozenset[str]


class Database:
    """A database that is being read. Raises InputError, naming the file, wherever it is none, or is broken."""

    def __init__(self, path: Path, source: Path | None = None) -> None:
        """Open `path`; messages name `source`, where that is the file that was given."""
        self.path = source or path
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise InputError(
                f"{self.path} is not whole without {log.name}; let the profiler end, or run "
                f"`sqlite3 {path.name} 'pragma wal_checkpoint(truncate)'`"
            )
        _refuse_half_written(path, self.path)
        _refuse_cut(path, self.path)
        self._left = 0
        self._budget = max(_LEAST_STEPS, path.stat().st_size * _STEPS_A_BYTE) // _STEPS_A_CALL
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True, isolation_level=None
            )
            self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            self._connection.set_progress_handler(self._step, _STEPS_A_CALL)
        except sqlite3.Error as error:
            raise self._broken(error) from error
        for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0"):
            self.rows(f"PRAGMA {pragma}")
        self.tables = self._tables()

    def __enter__(self) -> "Database":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def _step(self) -> int:
        self._left -= 1
        return int(self._left < 0)

    def _broken(self, error: Exception) -> InputError:
        what = str(error)
        if "interrupt" in what:
            what = "a query takes more steps than a file of its size can need; do its pages form a loop?"
        return InputError(f"{self.path} is no whole SQLite database ({what}); export it again")

    def _tables(self) -> dict[str, Table]:
        found = {}
        for name, sql in self.rows("SELECT name, substr(sql, 1, 40) FROM sqlite_master WHERE type = 'table'"):
            if not isinstance(name, str) or not str(sql).upper().startswith("CREATE TABLE"):
                continue
            info = self.rows("SELECT name, hidden FROM pragma_table_xinfo(?)", (name,))
            found[name] = Table(name, frozenset(str(column) for column, hidden in info if hidden == 0))
        return found

    def find(self, name: str) -> Table | None:
        """Return the table `name` in its newest variant (`name_V2`, `name_V3`), or None where there is none."""
        found = (
            (int(m[1] or 1), table)
            for other, table in self.tables.items()
            if (m := re.fullmatch(rf"{name}(?:_V(\d{{1,9}}))?", other))
        )
        return max(found, key=lambda pair: pair[0], default=(0, None))[1]

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query that has few; `batches` is for many."""
        return [row for batch in self._fetch(sql, values) for row in batch]

    def _fetch(self, sql: str, values: Sequence[Any]) -> Iterator[list[tuple[Any, ...]]]:
        self._left = self._budget
        try:
            with closing(self._connection.execute(sql, values)) as cursor:
                while rows := cursor.fetchmany(BATCH_ROWS):
                    yield rows
        except (sqlite3.Error, MemoryError, OverflowError, UnicodeError) as error:
            raise self._broken(error) from error

    def batches(
        self,
        table: Table,
        columns: Sequence[str],
        where: str = "1",
        values: Sequence[Any] = (),
        *,
        texts: Sequence[str] = (),
        joined: str = "",
        others: Sequence[str] = (),
    ) -> Iterator[tuple[dict[str, Ints], dict[str, list[Any]]]]:
        """Yield a table's rows by column: integers (NULL where a row or the table has none), and texts.

        `where` and `joined` are SQL; `others` are integer expressions of joined tables, by the alias that they end
        in (`e.stack_id AS stack`); the table itself is `t`.
        """
        own = [integer(f't."{c}"') if c in table.columns else "NULL" for c in columns]
        more = [integer(e.partition(" AS ")[0]) for e in others]
        words = [_text(f't."{c}"') if c in table.columns else "NULL" for c in texts]
        names = [*columns, *(e.partition(" AS ")[2] for e in others)]
        sql = f'SELECT {", ".join([*own, *more, *words])} FROM "{table.name}" AS t {joined} WHERE {where}'
        for rows in self._fetch(sql, values):
            given = list(zip(*rows, strict=True))
            numbers = {n: _integers(given[i]) for i, n in enumerate(names)}
            yield numbers, {n: list(given[len(names) + i]) for i, n in enumerate(texts)}

    def strings(self, table: Table | None, ids: Ints, column: str) -> list[str]:
        """Return the text of each of `ids` in a table of (id, `column`); one that is not there is empty."""
        found: dict[int, str] = {}
        if table and {"id", column} <= table.columns:
            value = _text(f't."{column}"')
            wanted = ids.tolist()
            for i in range(0, len(wanted), 500):
                some = wanted[i : i + 500]
                marks = ", ".join("?" * len(some))
                query = f'SELECT t.id, {value} FROM "{table.name}" AS t WHERE t.id IN ({marks})'
                found |= {key: text for key, text in self.rows(query, some) if isinstance(text, str)}
        return [found.get(key, "") for key in ids.tolist()]


def integer(expression: str) -> str:
    """Return SQL for a column's value where that is an integer: a column's type binds nobody in SQLite."""
    return f"CASE typeof({expression}) WHEN 'integer' THEN {expression} END"


def _text(expression: str) -> str:
    return (
        f"CASE typeof({expression}) WHEN 'text' THEN substr({expression}, 1, {TEXT_LIMIT}) "
        f"WHEN 'blob' THEN substr({expression}, 1, {TEXT_LIMIT}) END"
    )


def _integers(values: Sequence[int | None]) -> Ints:
    if None in values:
        return np.array([NULL if v is None else v for v in values], np.int64)
    return np.array(values, np.int64)


def _refuse_half_written(path: Path, told: Path) -> None:
    """Raise InputError where what a killed writer had not finished is still to be undone.

    A rollback journal that is needed begins with this: https://www.sqlite.org/fileformat2.html, 3.
    """
    journal = path.with_name(f"{path.name}-journal")
    if journal.is_file():
        with journal.open("rb") as file:
            hot = file.read(8) == bytes.fromhex("d9d505f920a163d7")
        if hot:
            raise InputError(
                f"{told} was not written to its end, as {journal.name} beside it says: record it again, or keep "
                f"what is whole with `sqlite3 {path.name} 'pragma integrity_check'`"
            )


def _refuse_cut(path: Path, told: Path) -> None:
    """Raise InputError where a file is shorter than its header says; SQLite takes what is missing for zeros.

    Page size, count and when that is valid: https://www.sqlite.org/fileformat2.html, 1.3.
    """
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100:
        return  # SQLite says what that is
    size = int.from_bytes(head[16:18], "big")
    wanted = (65536 if size == 1 else size) * int.from_bytes(head[28:32], "big")
    if head[24:28] == head[92:96] and path.stat().st_size < wanted:
        raise InputError(
            f"{told} is no whole SQLite database ({path.stat().st_size} of {wanted} bytes): copy it or "
            "export it again"
        )


@contextmanager
def open_database(path: Path) -> Iterator[Database]:
    """Open a database, plain or gzip (unpacked beside the temporary files until it is closed)."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}; check the path") from error
    if not packed:
        with Database(path) as database:
            yield database
        return
    with tempfile.TemporaryDirectory(prefix="eidola-") as folder:
        plain = Path(folder) / "unpacked.sqlite"
        _unpack(path, plain)
        with Database(plain, path) as database:
            yield database


def _unpack(path: Path, plain: Path) -> None:
    limit = int(shutil.disk_usage(plain.parent).free * _UNPACKED_PART)
    limit = min(limit, path.stat().st_size * _LARGEST_RATIO)
    size = 0
    try:
        with gzip.open(path, "rb") as source, plain.open("wb") as target:
            while piece := source.read(1 << 20):
                size += len(piece)
                if size > limit:
                    raise InputError(
                        f"{path} unpacks to more than {limit} bytes, half of the free disk; unpack it"
                    )
                target.write(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked ({error}); is it whole?") from error
