"""Which write ended which wait: the first to bring the flag to the value waited for."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from ...schemas import Trace

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FlagWrites:
    """All writes of a trace that raise a flag, in order of (peer, flag, issue); 48 bytes of memory each.

    `row` counts the writes of a rank in the order of its file; `reached` is what the flag has come to: values
    stored as they are, values added (atomics) summed, never falling.
    """

    rank: Ints
    row: Ints
    issue_ns: Ints
    reached: Ints
    _groups: dict[tuple[int, int], tuple[int, int]]

    def releasing(self, rank: int, flag: int, expected: int) -> int:
        """Return the index of the write that brings `flag` at `rank` to `expected`; -1 where none does."""
        begin, end = self._groups.get((rank, flag), (0, 0))
        index = begin + int(np.searchsorted(self.reached[begin:end], expected))
        return index if index < end and expected > 0 else -1


def read_flag_writes(trace: Trace) -> FlagWrites:
    """Read the writes that raise flags, of all ranks."""
    chunks = list(_columns(trace))
    rank, row, peer, flag, value, added, issue = (
        np.concatenate([chunk[i] for chunk in chunks]) if chunks else np.zeros(0, np.int64) for i in range(7)
    )
    order = np.lexsort((row, rank, issue, flag, peer))
    rank, row, peer, flag, value, added, issue = (
        column[order] for column in (rank, row, peer, flag, value, added, issue)
    )
    differs = (peer[1:] != peer[:-1]) | (flag[1:] != flag[:-1])
    bounds = [*range(min(1, len(peer))), *(np.flatnonzero(differs) + 1).tolist(), len(peer)]
    reached = value.copy()
    groups = {}
    for begin, end in pairwise(bounds):
        part = np.where(
            added[begin:end] > 0, np.cumsum(value[begin:end] * added[begin:end]), value[begin:end]
        )
        reached[begin:end] = np.maximum.accumulate(part)
        groups[int(peer[begin]), int(flag[begin])] = (begin, end)
    return FlagWrites(rank, row, issue, reached, groups)


def _columns(trace: Trace) -> Iterator[tuple[Ints, ...]]:
    for file_rank in trace.ranks():
        table = trace.read("writes", ["peer", "flag", "value", "kind", "issue_ns"], [file_rank])
        raises = np.flatnonzero(table["flag"].is_valid().to_numpy())
        if not len(raises):
            continue
        held = table.take(raises)
        value = pc.fill_null(held["value"], 1).to_numpy()
        added = pc.equal(held["kind"], "atomic").to_numpy(zero_copy_only=False).astype(np.int64)
        peer, flag, issue = (held[name].to_numpy().astype(np.int64) for name in ("peer", "flag", "issue_ns"))
        yield np.full(len(raises), file_rank, np.int64), raises, peer, flag, value, added, issue
