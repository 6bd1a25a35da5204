"""What host records and kernels say of collectives, found again by name, time and thread.

Arguments are JSON text in the scratch and become objects when they are asked for: a collective may have
thousands of bytes of them, such as the splits of an all-to-all among a thousand ranks.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from .narrow import Column
from .scratch import Scratch
from .sorting import Ints, Lookup, every

DESCRIBING = frozenset(
    (
        "Collective name", "In msg nelems", "Out msg nelems", "dtype", "In split size", "Out split size", "peer",
        "Dst Rank", "Src Rank", "Process Group Name", "Process Group Description", "Process Group Ranks",
        "Group size", "Rank", "External id", "Global rank start", "Global rank stride", "Seq", "Input Dims",
        "Input type",
    )
)  # fmt: skip
"""Arguments that describe a collective, as PyTorch names them."""


_DIGITS = 19  # of the largest integer of 64 bits


@dataclass(frozen=True)
class Detail:
    """A host record or kernel that may describe a collective, and those of its arguments that do."""

    name: str
    start_ns: int
    tid: int | None
    args: dict[str, Any]


def _number(value: Any) -> int | float:
    """Return a number with a fraction or an exponent, which are read as decimals, as JSON has it."""
    whole = isinstance(value, Decimal) and value.adjusted() < _DIGITS and value == value.to_integral_value()
    return int(value) if whole else float(value)


class Details:
    """Details in a scratch, in the order in which they were added."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._first: list[int] = []  # of each of the lists added
        self._texts: list[npt.NDArray[np.uint8]] = []
        self._count = 0
        self._host, self._kernel, self._end, self._labelled = (Column(scratch) for _ in range(4))

    def add(self, details: Sequence[Detail]) -> None:
        """Add some. Of several of one name, time and thread the last counts."""
        if not details:
            return
        for told in details:
            self._host.append(hash((told.name, told.start_ns, told.tid)))
            self._kernel.append(hash((told.name, told.start_ns)))
            if "Collective name" in told.args:
                self._labelled.append(told.start_ns)
        texts = [json.dumps([d.name, d.start_ns, d.tid, d.args], default=_number) for d in details]
        self._end.add(np.cumsum([len(text) for text in texts]))
        self._texts.append(self._scratch.keep(np.frombuffer("".join(texts).encode("ascii"), np.uint8)))
        self._first.append(self._count)
        self._count += len(details)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Detail]:
        self.index()
        return map(self._at, range(len(self)))

    def _at(self, row: int) -> Detail:
        some = bisect_right(self._first, row) - 1
        begin = int(self._ends[row - 1]) if row > self._first[some] else 0
        return Detail(*json.loads(self._texts[some][begin : int(self._ends[row])].tobytes()))

    def labelled(self) -> Ints:
        """Return the sorted times at which something starts that names its collective."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *self._labelled.parts()]))

    def index(self) -> None:
        """Make all that was added to be found."""
        self._ends = self._end.values()
        self._by_host, self._by_kernel = (
            Lookup(self._scratch, keys, every(self._scratch, len(keys)))
            for keys in (column.values() for column in (self._host, self._kernel))
        )

    def of_host(self, name: str, start_ns: int, tid: int) -> dict[str, Any]:
        """Return the arguments of a host record; empty where there are none."""
        found = self._found(self._by_host, (name, start_ns, tid))
        return (
            found.args if found and (found.name, found.start_ns, found.tid) == (name, start_ns, tid) else {}
        )

    def of_kernel(self, name: str, start_ns: int) -> dict[str, Any]:
        """Return the arguments of a kernel; empty where there are none."""
        found = self._found(self._by_kernel, (name, start_ns))
        return found.args if found and (found.name, found.start_ns) == (name, start_ns) else {}

    def _found(self, index: Lookup, key: tuple[Any, ...]) -> Detail | None:
        row = int(index.find(np.array([hash(key)]))[0])
        return self._at(row) if row >= 0 else None
