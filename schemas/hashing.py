"""The hash of a run's results: the same on every machine, for both engines, whatever wrote the files.

Definition 2. The hash is SHA-256 over a line `NAME DIGEST` a table, in order of the names. A table's digest is
SHA-256 over a line `NAME VERSION`, a line `COLUMN TYPE` a column, and its rows in order of their key, in blocks of
65,536 (the last may be shorter): the number of rows in the block as 8 bytes, then column by column, in the
schema's order:

- integers: the fewest of 0, 1, 2, 4 or 8 bytes that hold largest - smallest, as one byte; the smallest as 8 bytes;
  then each value less the smallest, in so many bytes;
- times (picoseconds) that would take 8 bytes, where a column of times precedes: their differences from it, modulo
  2^64, if those take fewer; 128 is then added to the first byte;
- text: the distinct values, in order of their UTF-8 bytes: how many as 8 bytes, their lengths as integers are, the
  bytes; then each row's place among them, as integers are;
- a column that may be null has first, as integers are, 1 for each row with a value and 0 for each without. Without
  one, its value is 0 or the empty text.

All bytes are little-endian. Definition 1 hashed every value in full, 101 bytes a message instead of some 20.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .errors import SchemaError, UsageError
from .store import conform, integers
from .tables import RESULT_TABLES, Table

Ints = npt.NDArray[Any]

HASH_VERSION = 2
BLOCK_ROWS = 65536


def results_hash(tables: Mapping[str, pa.Table]) -> str:
    """Return the hash (hexadecimal) of the given result tables, independent of the order of their rows.

    Raises UsageError for an unknown table, SchemaError for two rows with one key.
    """
    if unknown := sorted(set(tables) - set(RESULT_TABLES)):
        raise UsageError(f"no table {unknown[0]!r}; a run has {', '.join(RESULT_TABLES)}")
    digests = {}
    for name, data in tables.items():
        digests[name] = TableHash(RESULT_TABLES[name])
        digests[name].update(in_order(RESULT_TABLES[name], conform(RESULT_TABLES[name], data, encoded=True)))
    return combined({name: digest.hexdigest() for name, digest in digests.items()}.items())


def combined(digests: Iterable[tuple[str, str]]) -> str:
    """Return the hash of tables whose digests are given."""
    return hashlib.sha256(
        "".join(f"{name} {digest}\n" for name, digest in sorted(digests)).encode()
    ).hexdigest()


class TableHash:
    """The digest of one table, taken of it a chunk of rows at a time."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._last: tuple[int, ...] = ()
        self._rest: pa.Table | None = None
        self._digest = hashlib.sha256(f"{table.name} {table.version}\n".encode())
        self._digest.update("".join(f"{column.name} {column.type}\n" for column in table.columns).encode())

    def update(self, data: pa.Table) -> None:
        """Take the next rows, conforming, their text encoded.

        Raises SchemaError where a row's key is not above that of the row before.
        """
        self._check(data)
        if self._rest is not None:
            data = pa.concat_tables([self._rest, data])
        whole = data.num_rows - data.num_rows % BLOCK_ROWS
        for low in range(0, whole, BLOCK_ROWS):
            self._block(data.slice(low, BLOCK_ROWS))
        self._rest = data.slice(whole) if whole < data.num_rows else None

    def hexdigest(self) -> str:
        """Return the digest of all rows, the last of which have been given."""
        if self._rest is not None:
            self._block(self._rest)
            self._rest = None
        return self._digest.hexdigest()

    def _check(self, data: pa.Table) -> None:
        keys = [data[name].to_numpy() for name in self.table.key]
        if not data.num_rows:
            return
        first = tuple(int(key[0]) for key in keys)
        if not (self._last < first and _increasing(keys)):
            key = ", ".join(self.table.key)
            raise SchemaError(
                f"table {self.table.name}: rows are not in order of their key ({key}), or two have one key; "
                "sort them, and give each its own"
            )
        self._last = tuple(int(key[-1]) for key in keys)

    def _block(self, data: pa.Table) -> None:
        self._digest.update(data.num_rows.to_bytes(8, "little"))
        before: Ints | None = None
        for column in self.table.columns:
            values = data[column.name]
            if not column.required:
                some = values.null_count not in (0, len(values))
                valid = values.is_valid().to_numpy() if some else np.array([not values.null_count])
                _integers(self._digest, valid.view(np.uint8))
            if pa.types.is_string(column.type):
                _text(self._digest, values)
            elif column.unit == "ps":
                times = values.to_numpy()
                _times(self._digest, times, before)
                before = times
            else:
                _integers(self._digest, (values.fill_null(0) if values.null_count else values).to_numpy())


def in_order(table: Table, data: pa.Table) -> pa.Table:
    """Return `data` in order of its key, as it is where it is in that order already.

    Raises SchemaError for two rows with one key.
    """
    keys = [data[name].to_numpy() for name in table.key]
    if _increasing(keys):
        return data
    order = np.lexsort(keys[::-1])
    if not _increasing([key[order] for key in keys]):
        raise SchemaError(
            f"table {table.name}: two rows have one key ({', '.join(table.key)}); make it unique"
        )
    return data.take(integers(order))


def _increasing(keys: list[Ints]) -> bool:
    """Tell whether each row's key, compared column by column, is above that of the row before."""
    if len(keys) == 1:
        return bool((keys[0][1:] > keys[0][:-1]).all())
    above = np.zeros(max(len(keys[0]) - 1, 0), np.bool_)
    tied = np.ones_like(above)
    for key in keys:
        above |= tied & (key[1:] > key[:-1])
        tied &= key[1:] == key[:-1]
    return bool(above.all())


def _span(values: Ints) -> tuple[int, int]:
    """Return the smallest value, and in how many bytes the others' distance from it goes."""
    low = int(values.min())
    span = int(values.max()) - low
    return low, next(width for width in (0, 1, 2, 4, 8) if span < 1 << 8 * width)


def _integers(digest: "hashlib._Hash", values: Ints) -> None:
    _narrow(digest, values, *_span(values))


def _times(digest: "hashlib._Hash", values: Ints, before: Ints | None) -> None:
    low, width = _span(values)
    if width == 8 and before is not None:
        apart = values - before
        least, fewer = _span(apart)
        if fewer < width:
            return _narrow(digest, apart, least, fewer, mark=128)
    return _narrow(digest, values, low, width)


def _narrow(digest: "hashlib._Hash", values: Ints, low: int, width: int, mark: int = 0) -> None:
    digest.update(bytes([width + mark]) + low.to_bytes(8, "little", signed=True))
    if width:
        less = np.empty(len(values), f"<u{width}")
        np.subtract(values, low, out=less, casting="unsafe")  # modulo 2^64, where it does not fit
        digest.update(less.data)


def _text(digest: "hashlib._Hash", values: pa.ChunkedArray) -> None:
    """Hash text that is encoded: a dictionary of values, and each row's place in it."""
    encoded = values.chunk(0) if values.num_chunks == 1 else values.unify_dictionaries().combine_chunks()
    if encoded.null_count == len(encoded):
        index = np.array([-1])
    else:
        index = (encoded.indices.fill_null(-1) if encoded.null_count else encoded.indices).to_numpy()
    same = index.min() == index.max()
    used = index[:1] if same else pc.unique(integers(index)).to_numpy()
    texts = ["" if i < 0 else encoded.dictionary[i].as_py() for i in used.tolist()]
    distinct = sorted({text.encode() for text in texts})
    rank = {text: place for place, text in enumerate(distinct)}
    place = np.array([rank[text.encode()] for text in texts])
    digest.update(len(distinct).to_bytes(8, "little"))
    _integers(digest, np.array([len(text) for text in distinct]))
    digest.update(b"".join(distinct))
    if not same:
        places = np.empty(len(encoded.dictionary) + 1, np.int64)  # the last is that of rows without a value
        places[used] = place
        place = places[index]
    _integers(digest, place)
