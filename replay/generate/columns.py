"""What a generator yields: one rank's rows of the trace's tables, as columns."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...schemas import UsageError
from .draws import Ints

Columns = dict[str, Any]
Mask = npt.NDArray[np.bool_]

FLAG_BYTES = 8  # as the captured kernels' flags
MOST_GPUS = 65536


class RankTraffic(NamedTuple):
    """One rank's rows."""

    rank: int
    spans: Columns
    writes: Columns
    waits: Columns


class Generator(Protocol):
    """Parameters of one family, and the traffic that they mean."""

    name: ClassVar[str]

    @property
    def gpus(self) -> int:
        """Number of ranks."""

    @property
    def seed(self) -> int:
        """Start of all random draws."""

    def traffic(self, targets: int | None = None) -> Iterator[RankTraffic]:
        """Yield every rank's rows; with `targets`, only traffic to or from the first so many ranks."""

    def flags(self) -> str:
        """Return how flags are numbered, in words, for the trace's notes."""


def named(index: Ints, names: Sequence[str]) -> pa.Array:
    """Return `names[index]` as an Arrow column, null where the index is negative."""
    where = pa.array(index, pa.int32(), mask=index < 0)
    return pa.DictionaryArray.from_arrays(where, pa.array(names, pa.string()))


def nullable(values: Ints) -> pa.Array:
    """Return values as an Arrow column, negative ones as null."""
    return pa.array(values, pa.int64(), mask=values < 0)


def served(start_ns: Ints, issue_ns: Ints, poll_ns: int) -> tuple[Ints, Ints, Ints]:
    """Serve waits one after another, and return start, end and polls of each, of the shape of `issue_ns`.

    `start_ns` (...,) is the first wait's start, `issue_ns` (..., waits) when each one's flag was raised. A flag is
    seen by the first poll after that instant: an ideal fabric delivers a picosecond later. A wait whose flag is
    there takes one poll and no time; any other one ends a multiple of `poll_ns` after the first wait's start,
    so that the latest flag so far says when.
    """
    late_ns = issue_ns - start_ns[..., None]
    periods = np.maximum.accumulate(np.where(late_ns >= 0, late_ns // poll_ns + 1, 0), axis=-1)
    before = np.concatenate([np.zeros_like(periods[..., :1]), periods[..., :-1]], axis=-1)
    start = start_ns[..., None]
    return start + before * poll_ns, start + periods * poll_ns, periods - before + 1


def chosen(gpus: int, targets: int | None) -> Mask | None:
    """Return (gpus,) which ranks are targets; None where all are. Raises UsageError for a count out of range."""
    if targets is None:
        return None
    if not 1 <= targets <= gpus:
        raise UsageError(
            f"--targets {targets}: give 1 to {gpus}, how many GPUs, counted from 0, stay targets"
        )
    return np.arange(gpus) < targets


def at_least(smallest: int, **values: int) -> None:
    """Raise UsageError for a value below `smallest`, naming its option."""
    for name, value in values.items():
        if value < smallest:
            raise UsageError(f"--{name.replace('_', '-')} {value}: give at least {smallest}")


def check_gpus(gpus: int) -> None:
    """Raise UsageError for a number of GPUs that no traffic fits."""
    if not 2 <= gpus <= MOST_GPUS:
        raise UsageError(f"--gpus {gpus}: traffic between GPUs needs 2 to {MOST_GPUS}")
