"""The ranks that one task gave, in a folder of their own: how they go from one process, or run, to another.

Columns are Arrow files, written and read some rows at a time; everything else is JSON. Pickles would be as
quick, but whoever can write a folder could then run code in the process that reads it.
"""

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..schemas.errors import InputError
from .columns import Blocks, Columns, row_count, slices
from .parts import Group, Part
from .rank import RankRecord

_TABLES = ("spans", "edges", "parts", "more")
_RANKS = "ranks.json"


def save_ranks(records: Sequence[RankRecord], folder: Path) -> None:
    """Write `records` as `folder`, which appears when it is whole; of two writers the first is kept."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        told = []
        for number, record in enumerate(records):
            groups = list(dict.fromkeys(part.group for part in record.parts))
            tables = {"spans": record.spans, "edges": record.edges, **record.more}
            tables["parts"] = _part_columns(record.parts, groups)
            rows = {name: _write(partial / f"{number}.{name}.arrow", tables[name]) for name in tables}
            plain = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in _TABLES}
            told.append(
                {
                    **plain,
                    "path": str(record.path),
                    "tables": rows,
                    "groups": list(map(asdict, groups)),
                }
            )
        (partial / _RANKS).write_text(json.dumps(told, default=_plain))
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_ranks(folder: Path) -> list[RankRecord]:
    """Return what `save_ranks` wrote; columns are read as they are asked for. Raises InputError for damage."""
    try:
        told = json.loads((folder / _RANKS).read_text())
        return [_record(folder, number, plain) for number, plain in enumerate(told)]
    except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        raise InputError(f"{folder} cannot be read ({error}); remove it and convert again") from error


def _record(folder: Path, number: int, plain: dict[str, Any]) -> RankRecord:
    tables: dict[str, Columns] = {
        name: _read(folder / f"{number}.{name}.arrow", rows) for name, rows in plain.pop("tables").items()
    }
    groups = [
        Group(**{**group, "ranks": None if group["ranks"] is None else tuple(group["ranks"])})
        for group in plain.pop("groups")
    ]
    told = (row for some in slices(tables.pop("parts")) for row in pa.table(dict(some)).to_pylist())
    parts = [Part(**{**row, "group": groups[row["group"]]}) for row in told]
    plain |= {
        "path": Path(plain["path"]),
        "window_ns": tuple(plain["window_ns"]),
        "contradicted": Counter(plain["contradicted"]),
    }
    spans, edges = tables.pop("spans"), tables.pop("edges")
    return RankRecord(**plain, spans=spans, edges=edges, parts=parts, more=tables)


def _part_columns(parts: Sequence[Part], groups: Sequence[Group]) -> dict[str, list[Any]]:
    place = {group: at for at, group in enumerate(groups)}
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Part)}
    return columns | {"group": [place[part.group] for part in parts]}


def _write(file: Path, columns: Columns) -> int:
    """Write columns some rows at a time; return how many rows. None make no file."""
    if not isinstance(columns, Blocks):
        table = pa.table({name: _column(values) for name, values in columns.items()})
        table = table.unify_dictionaries().combine_chunks()
        columns = {name: table[name].chunk(0) for name in table.column_names} if table.num_rows else {}
    with ExitStack() as opened:
        writer = None
        for some in slices(columns):
            batch = pa.record_batch(dict(some))
            writer = writer or opened.enter_context(pa.ipc.new_file(file, batch.schema))
            writer.write_batch(batch)
    return row_count(columns)


def _column(values: Any) -> pa.Array | pa.ChunkedArray:
    return values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)


def _read(file: Path, rows: int) -> Blocks:
    """Return the columns of a file, which are read some rows at a time. Raises what opening it does."""
    if rows:
        with pa.OSFile(str(file)) as source:
            pa.ipc.open_file(source)
    return Blocks(rows, lambda: _batches(file) if rows else iter(()))


def _batches(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with pa.OSFile(str(file)) as source:
            opened = pa.ipc.open_file(source)
            for number in range(opened.num_record_batches):
                batch = opened.get_batch(number)
                yield dict(zip(batch.schema.names, batch.columns, strict=True))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} cannot be read ({error}); remove it and convert again") from error


def _plain(value: Any) -> Any:
    """Return a NumPy number as Python's, for JSON."""
    return value.item()
