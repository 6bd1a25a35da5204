"""What host records and kernels say of collectives, found again by name, time and thread.

Arguments are JSON text in the scratch and become objects when they are asked for: a collective may have
thousands of bytes of them, such as the splits of an all-to-all among a thousand ranks.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .narrow import Column
from .scratch import Scratch
from .sorting import Ints, Lookup, every

DESCRIBING = frozenset(
    (
        "Collective name", "In msg nelems", "Out msg nelems", "dtype", "In split size", "Out split size", "peer",
        "Dst Rank", "Src Rank", "Process Group Name", "Process Group Description", "Process Group Ranks",
        "Group size", "Rank", "External id", "Global rank start", "Global rank stride", "Seq", "Input Dims", "Input type",
    )
)  # fmt: skip
"""Arguments that describe a collective, as PyTorch names them."""


@dataclass(frozen=True)
class Detail:
    """A host record or kernel that may describe a collective, and those of its arguments that do."""

    name: str
    start_ns: int
    tid: int | None
    args: dict[str, Any]


class Details:
    """Details in a scratch, in the order in which they were added."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._texts: list[Any] = []
        self._host, self._kernel, self._labelled = (Column(scratch) for _ in range(3))

    def add(self, detail: Detail) -> None:
        """Add one. Of several of one name, time and thread the last counts."""
        self._host.append(hash((detail.name, detail.start_ns, detail.tid)))
        self._kernel.append(hash((detail.name, detail.start_ns)))
        if "Collective name" in detail.args:
            self._labelled.append(detail.start_ns)
        text = json.dumps([detail.name, detail.start_ns, detail.tid, detail.args]).encode()
        self._texts.append(self._scratch.keep(np.frombuffer(text, np.uint8)))

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Detail]:
        return map(self._at, range(len(self)))

    def _at(self, row: int) -> Detail:
        return Detail(*json.loads(self._texts[row].tobytes()))

    def labelled(self) -> Ints:
        """Return the sorted times at which something starts that names its collective."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *self._labelled.parts()]))

    def index(self) -> None:
        """Make all that was added to be found."""
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
