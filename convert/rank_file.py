"""The ranks that one task gave, in a folder of their own: how they go from one process, or run, to another.

Columns are Arrow files, which the reader maps rather than copies; everything else is JSON. Pickles would be as
quick, but whoever can write a folder could then run code in the process that reads it.
"""

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..schemas.errors import InputError
from .collectives import Group, Part
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
            for name, columns in tables.items():
                _write(partial / f"{number}.{name}.arrow", columns)
            _write(partial / f"{number}.parts.arrow", _part_columns(record.parts, groups))
            plain = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in _TABLES}
            told.append(
                {
                    **plain,
                    "path": str(record.path),
                    "tables": list(tables),
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
    """Return what `save_ranks` wrote; columns are mapped from the files. Raises InputError where it is damaged."""
    try:
        told = json.loads((folder / _RANKS).read_text())
        return [_record(folder, number, plain) for number, plain in enumerate(told)]
    except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        raise InputError(f"{folder} cannot be read ({error}); remove it and convert again") from error


def _record(folder: Path, number: int, plain: dict[str, Any]) -> RankRecord:
    tables: dict[str, Mapping[str, Any]] = {
        name: _read(folder / f"{number}.{name}.arrow") for name in plain.pop("tables")
    }
    groups = [
        Group(**{**group, "ranks": None if group["ranks"] is None else tuple(group["ranks"])})
        for group in plain.pop("groups")
    ]
    rows = pa.table(_read(folder / f"{number}.parts.arrow")).to_pylist()
    parts = [Part(**{**row, "group": groups[row["group"]]}) for row in rows]
    plain |= {
        "path": Path(plain["path"]),
        "window_ns": tuple(plain["window_ns"]),
        "contradicted": Counter(plain["contradicted"]),
    }
    spans, edges = dict(tables.pop("spans")), dict(tables.pop("edges"))
    return RankRecord(**plain, spans=spans, edges=edges, parts=parts, more=tables)


def _part_columns(parts: Sequence[Part], groups: Sequence[Group]) -> dict[str, list[Any]]:
    place = {group: at for at, group in enumerate(groups)}
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Part)}
    return columns | {"group": [place[part.group] for part in parts]}


def _write(file: Path, columns: Mapping[str, Any]) -> None:
    table = pa.table({name: _column(values) for name, values in columns.items()})
    table = table.unify_dictionaries().combine_chunks()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _column(values: Any) -> pa.Array | pa.ChunkedArray:
    return values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)


def _read(file: Path) -> dict[str, Any]:
    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_file(source).read_all()
    columns = zip(table.column_names, table.columns, strict=True)
    return {name: c.chunk(0) if c.num_chunks == 1 else c.combine_chunks() for name, c in columns}


def _plain(value: Any) -> Any:
    """Return a NumPy number as Python's, for JSON."""
    return value.item()
