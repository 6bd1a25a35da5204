"""Ways to damage a file, as disks, killed programs and people who mean harm do: (bytes, generator) -> bytes."""

import gzip
import json
import re
import sqlite3
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import robustness_same as same

Mutation = Callable[[bytes, Random], bytes]

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_KEY = re.compile(rb'"[^"\\\n]{1,60}"\s*:')
_TEXT = re.compile(rb'"[^"\\\n]{1,200}"')
_WILD: list[Any] = [None, True, -1, 0, 1.5, 2**63, 2**64, -(2**63) - 1, 1e308, "", "x" * 5000, [], {}, [[]]]
_HUGE = [
    b"9" * 400, b"-" + b"9" * 400, b"1e999", b"-1e999", b"9" * 100_000, b"1e-999", b"NaN", b"18446744073709551615",
    b"9223372036854775807", b"-9223372036854775808", b"4294967296", b"0.0000000000001",
]  # fmt: skip
_NAMES = [
    b'"../../../../../../../../../tmp/escaped"', b'"/tmp/escaped"', b'"../escaped"',
    b'"../../escaped"', b'"/etc/passwd"', b'"a/b/../../c"', b'".."', b'"a\\u0000b"', b'"\\ud800"',
    b'"' + b"n" * 70_000 + b'"', b'"C:\\\\x"', b'"rank99999999999999999999"',
]  # fmt: skip
_DEEP = [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 3_000 + b"]" * 3_000, b'{"a":' * 900 + b"1" + b"}" * 900]
BOMB_BYTES = 1 << 30


def truncate(data: bytes, rng: Random) -> bytes:
    """Cut the file off."""
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: Random) -> bytes:
    """Flip one to eight bits."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def splice(data: bytes, rng: Random) -> bytes:
    """Leave out, repeat or overwrite a stretch."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 8, 64, 4096)))
    middle = rng.choice(
        (b"", data[start:end] * 2, rng.randbytes(end - start), b"\0" * (end - start), b"\xff" * 8)
    )
    return data[:start] + middle + data[end:]


def packed_truncated(data: bytes, rng: Random) -> bytes:
    """Cut off a gzip file of it."""
    return truncate(gzip.compress(data, 1, mtime=0), rng)


def packed_flip(data: bytes, rng: Random) -> bytes:
    """Flip bits in a gzip file of it."""
    return flip(gzip.compress(data, 1, mtime=0), rng)


def swap_type(data: bytes, rng: Random) -> bytes:
    """Put a value of another type somewhere into the JSON."""
    document = json.loads(data)
    places = [(document, key) for key in _keys(document)]
    at = 0
    while at < len(places):
        holder, key = places[at]
        places += [(holder[key], inner) for inner in _keys(holder[key])]
        at += 1
    holder, key = rng.choice(places)
    holder[key] = rng.choice(_WILD)
    return json.dumps(document).encode()


def _keys(value: Any) -> list[Any]:
    return (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )


def _replaced(pattern: re.Pattern[bytes], values: list[bytes]) -> Mutation:
    def mutate(data: bytes, rng: Random) -> bytes:
        found = rng.choice(list(pattern.finditer(data)))
        return data[: found.start()] + rng.choice(values) + data[found.end() :]

    return mutate


def deep(data: bytes, rng: Random) -> bytes:
    """Nest values a hundred thousand deep, or just below what parsers take."""
    found = rng.choice(list(_NUMBER.finditer(data)))
    return data[: found.start()] + rng.choice(_DEEP) + data[found.end() :]


def double_key(data: bytes, rng: Random) -> bytes:
    """Give a key a second time, with another value."""
    found = rng.choice(list(_KEY.finditer(data)))
    other = json.dumps(rng.choice(_WILD)).encode()
    return data[: found.start()] + found[0] + other + b"," + data[found.start() :]


def bomb(data: bytes, rng: Random) -> bytes:
    """Pack a GiB of one byte behind the beginning of the file."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    filler = rng.choice((b" ", b"\0", b"[", b'"', b"1")) * (1 << 20)
    parts = [packer.compress(data[: rng.randrange(len(data))])]
    parts += [packer.compress(filler) for _ in range(BOMB_BYTES >> 20)]
    return b"".join([*parts, packer.flush()])


def _word(data: bytes, rng: Random) -> bytes:
    """Overwrite an aligned word of a binary file with an extreme."""
    at = rng.randrange(max(1, len(data) // 8)) * 8
    value = rng.choice((0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, rng.getrandbits(64)))
    return data[:at] + value.to_bytes(8, "little") + data[at + 8 :]


_SQL_VALUES = (
    None,
    -1,
    0,
    2**63 - 1,
    -(2**63),
    1.5,
    "x",
    "../../../../etc/passwd",
    b"\0\xff",
    "9" * 400,
    "x" * 100_000,
)


def sql(data: bytes, rng: Random) -> bytes:
    """Take away or rename a table or column, put odd values, repeat rows, or close parents into a loop."""
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as file:
        Path(file.name).write_bytes(data)
        base = sqlite3.connect(file.name)
        base.execute("PRAGMA journal_mode=OFF")
        base.execute("PRAGMA foreign_keys=OFF")
        with suppress(sqlite3.Error):  # a column that cannot be altered so stays as it was
            _alter(base, rng)
        base.commit()
        base.close()
        return Path(file.name).read_bytes()


def _alter(base: sqlite3.Connection, rng: Random) -> None:
    tables = [
        r[0]
        for r in base.execute("SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite%'")
    ]
    filled = [t for t in tables if base.execute(f'SELECT 1 FROM "{t}" LIMIT 1').fetchone()]
    table = rng.choice(filled if rng.random() < 0.9 else tables)
    columns = [r[1] for r in base.execute(f'PRAGMA table_info("{table}")')]
    column, what = rng.choice(columns), rng.randrange(8)
    row = f'WHERE rowid = (SELECT rowid FROM "{table}" ORDER BY rowid LIMIT 1 OFFSET {rng.randrange(20)})'
    if what == 0:
        base.execute(f'DROP TABLE "{table}"')
    elif what == 1:
        base.execute(f'DELETE FROM "{table}"')
    elif what == 2:
        base.execute(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "odd"')
    elif what == 3:
        base.execute(f'UPDATE "{table}" SET "{column}" = ?', (rng.choice(_SQL_VALUES),))
    elif what == 4:
        base.execute(f'UPDATE "{table}" SET "{column}" = "{rng.choice(columns)}"')
    elif what == 5:
        parents = [c for c in columns if "parent" in c.lower() or "stack" in c.lower()] or [column]
        base.execute(f'UPDATE "{table}" SET "{rng.choice(parents)}" = rowid')
    elif what == 6:
        base.execute(f'DROP TABLE "{table}"')
        base.execute(f'CREATE VIEW "{table}" AS SELECT 1 AS "{column}"')
    else:
        base.execute(f'UPDATE "{table}" SET "{column}" = ? {row}', (rng.choice(_SQL_VALUES),))


_GZIP: dict[str, Mutation] = {
    "gzip truncated": packed_truncated,
    "gzip bits flipped": packed_flip,
    same.PACKED: same.members,
}
BYTES: dict[str, Mutation] = {"truncated": truncate, "bits flipped": flip, "stretch replaced": splice}
TEXT: dict[str, Mutation] = {
    **BYTES,
    "type swapped": swap_type,
    "nested deep": deep,
    "huge number": _replaced(_NUMBER, _HUGE),
    "key twice": double_key,
    "odd name or path": _replaced(_TEXT, _NAMES),
}
COPIED_JSON: dict[str, Mutation] = {**TEXT, same.SAME: same.ordered}
"""Of readers that copy what a part of the file says, known or not."""
JSON: dict[str, Mutation] = {**TEXT, same.SAME: same.document}
PACKABLE: dict[str, Mutation] = {**TEXT, **_GZIP}
PACKABLE_JSON: dict[str, Mutation] = {**JSON, **_GZIP}
BINARY: dict[str, Mutation] = {**BYTES, "word replaced": _word}
PACKABLE_BINARY: dict[str, Mutation] = {**BINARY, **_GZIP}
SQL: dict[str, Mutation] = {**BYTES, "database altered": sql, same.SAME: same.database}
