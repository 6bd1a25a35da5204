"""Ways to write a file otherwise that mean the same, after which a conversion must give the same trace."""

import gzip
import json
import pickle
import sqlite3
import tempfile
from pathlib import Path
from random import Random
from typing import Any

SAME = "written otherwise"
PACKED = "gzip in members"
UNCHANGED = (SAME, PACKED)
_INDENTS = (None, 0, 1, 7, "\t")
_UNKNOWN: list[Any] = [None, 0, -1.5, "", "unknown", [], {}, [[1]], {"a": {"b": [None]}}]


def document(data: bytes, rng: Random) -> bytes:
    """Write JSON with other white space, order of keys and escapes, and with keys that no format has."""
    return _dumped(_added(json.loads(data), rng), rng, rng.choice(_INDENTS))


def ordered(data: bytes, rng: Random) -> bytes:
    """Write JSON with other white space, order of keys and escapes; no other keys, where a reader copies all."""
    return _dumped(json.loads(data), rng, rng.choice(_INDENTS))


def lines(data: bytes, rng: Random) -> bytes:
    """Write one of several lines of JSON so."""
    held = data.splitlines()
    at = rng.randrange(len(held))
    held[at] = _dumped(_added(json.loads(held[at]), rng), rng, None)
    return b"\n".join(held) + b"\n"


def _dumped(value: Any, rng: Random, indent: int | str | None) -> bytes:
    separators = rng.choice(((",", ":"), (", ", ": "), (" ,", " : ")))
    text = json.dumps(
        _shuffled(value, rng), indent=indent, separators=separators, ensure_ascii=rng.random() < 0.5
    )
    return text.encode()


def _shuffled(value: Any, rng: Random) -> Any:
    if isinstance(value, list):
        return [_shuffled(item, rng) for item in value]
    if not isinstance(value, dict):
        return value
    items = [(key, _shuffled(item, rng)) for key, item in value.items()]
    rng.shuffle(items)
    return dict(items)


def _added(value: Any, rng: Random) -> Any:
    if isinstance(value, list):
        return [_added(item, rng) for item in value]
    if not isinstance(value, dict):
        return value
    more = {f"eidola_{rng.randrange(1000)}": rng.choice(_UNKNOWN)} if rng.random() < 0.1 else {}
    return {key: _added(item, rng) for key, item in value.items()} | more


def members(data: bytes, rng: Random) -> bytes:
    """Pack it as several members of gzip, of different levels, padded with zeros."""
    cuts = sorted(rng.randrange(len(data)) for _ in range(rng.randrange(4)))
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return b"".join(gzip.compress(part, rng.randint(0, 9), mtime=0) for part in parts) + b"\0" * rng.choice(
        (0, 0, 1, 512)
    )


def database(data: bytes, rng: Random) -> bytes:
    """Give a database pages of another size, indices, and tables and columns that the format does not have."""
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as file:
        Path(file.name).write_bytes(data)
        base = sqlite3.connect(file.name)
        tables = [row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in rng.sample(tables, min(3, len(tables))):
            if rng.random() < 0.5:
                base.execute(f'ALTER TABLE "{table}" ADD COLUMN "eidola_{rng.randrange(1000)}" INTEGER')
            column = rng.choice([row[1] for row in base.execute(f'PRAGMA table_info("{table}")')])
            base.execute(f'CREATE INDEX "eidola_index_{table}" ON "{table}" ("{column}")')
        base.execute(f"CREATE TABLE eidola_{rng.randrange(1000)} AS SELECT {rng.randrange(1000)} AS a")
        base.commit()
        base.execute(f"PRAGMA page_size = {rng.choice((512, 1024, 8192, 65536))}")
        base.execute("VACUUM")
        base.close()
        return Path(file.name).read_bytes()


def pickled(data: bytes, rng: Random) -> bytes:
    """Pickle the same under another protocol, with its keys in another order."""
    return pickle.dumps(_added(_shuffled(pickle.loads(data), rng), rng), rng.randint(2, 5))


def messages(data: bytes, rng: Random) -> bytes:
    """Put fields that no format has behind messages of Protocol Buffers that each follow their length."""
    found, at = b"", 0
    while at < len(data):
        size, at = _varint(data, at)
        unknown = rng.choice(
            (b"", b"\x80\x7d\x05", b"\x82\x7d\x03abc", b"\x85\x7d\0\0\0\0", b"\x81\x7d" + b"\1" * 8)
        )
        found += _encoded(size + len(unknown)) + data[at : at + size] + unknown
        at += size
    return found


_FIELDS = (b"", b"\x80\x7d\x05", b"\x82\x7d\x03abc", b"\x85\x7d\0\0\0\0", b"\x81\x7d" + b"\1" * 8)
"""Fields of number 2000: a varint, three bytes, a fixed 32 and a fixed 64 bits."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def _encoded(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])
