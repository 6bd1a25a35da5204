"""One exchange of a fused kernel: tiles written to peers, a flag a peer and workgroup, then a wait for the peers'.

All ranks run the same program, so that one template stands for all: hops instead of peers, times from the
workgroup's begin. A workgroup is one of `workgroups` physical ones, which share the GPU's rate equally; it loops
over its tiles (its own number, plus multiples of `workgroups`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .draws import Ints


@dataclass(frozen=True)
class Cost:
    """How long work takes: ceil(work * up / down) nanoseconds, rounded once on the work so far, not a tile."""

    up: int
    down: int

    def ns(self, work: Ints) -> Ints:
        """Return the nanoseconds that `work` takes."""
        return -(-work * self.up // self.down)


def memory_cost(workgroups: int, mb_per_s: int) -> Cost:
    """Return the cost of bytes at a GPU's memory rate, of which each workgroup has an equal share."""
    return Cost(workgroups * 1000, mb_per_s)


def compute_cost(workgroups: int, gflop_per_s: int) -> Cost:
    """Return the cost of floating-point operations at a GPU's rate (a GFLOP/s is an operation a nanosecond)."""
    return Cost(workgroups, gflop_per_s)


@dataclass(frozen=True)
class Tiles:
    """The tiles of one slice: (T,) `size_bytes` written, and `work` done for it; offsets follow from sizes."""

    size_bytes: Ints
    work: Ints

    @property
    def slice_bytes(self) -> int:
        """Bytes of the slice."""
        return int(self.size_bytes.sum())

    @property
    def offset_bytes(self) -> Ints:
        """(T,) where each tile begins in its slice."""
        ends: Ints = np.cumsum(self.size_bytes)
        return ends - self.size_bytes


def cut(length: int, tile: int) -> Ints:
    """Return the lengths of tiles of at most `tile` that make up `length`."""
    starts = np.arange(0, length, tile)
    return np.minimum(tile, length - starts).astype(np.int64)


@dataclass(frozen=True)
class Exchange:
    """One exchange. `busy` are its working phases, each with (W,) durations in ns; the first one writes.

    The rows, in the order of each workgroup's program: `workgroup`, `hop` (1 .. gpus - 1), `after_ns` the
    workgroup's begin, `size_bytes`, and `offset_bytes` in the writer's slice of `region`; -1: the flag.
    `flag_ns` (W, gpus - 1) is when each flag is raised.
    """

    region: str
    wait: str
    busy: tuple[tuple[str, Ints], ...]
    slice_bytes: int
    workgroup: Ints
    hop: Ints
    after_ns: Ints
    size_bytes: Ints
    offset_bytes: Ints
    flag_ns: Ints

    @property
    def busy_ns(self) -> Ints:
        """(W,) from a workgroup's begin to its first wait."""
        total: Ints = np.sum([duration for _, duration in self.busy], axis=0)
        return total

    def rows_to(self, hops: Ints) -> Ints:
        """Return the rows to peers at `hops`, in order."""
        by_hop, first = self._by_hop
        found: Ints = np.sort(np.concatenate([by_hop[first[hop] : first[hop + 1]] for hop in hops]))
        return found

    @cached_property
    def _by_hop(self) -> tuple[Ints, Ints]:
        order = np.argsort(self.hop, kind="stable")
        return order, np.searchsorted(self.hop[order], np.arange(self.flag_ns.shape[1] + 3))


def scatter(gpus: int, workgroups: int, tiles: Tiles, cost: Cost, region: str, wait: str) -> Exchange:
    """Return an exchange of slices: all tiles of the nearest peer's slice and its flag, ..., the own slice last."""
    each = []
    total = np.array([tiles.work[w::workgroups].sum() for w in range(workgroups)], np.int64)
    for own in (slice(w, None, workgroups) for w in range(workgroups)):
        done = np.cumsum(np.append(tiles.work[own], 0))  # the last one is the flag
        hops = np.arange(gpus - 1)[:, None]
        rows = np.broadcast_to(hops * done[-1] + done, (gpus - 1, len(done)))
        sizes, offsets = np.append(tiles.size_bytes[own], 0), np.append(tiles.offset_bytes[own], -1)
        each.append([np.broadcast_to(c, rows.shape) for c in (hops + 1, cost.ns(rows), sizes, offsets)])
    remote, every = cost.ns((gpus - 1) * total), cost.ns(gpus * total)
    busy = (("remote_tiles", remote), ("local_tiles", every - remote))
    return _exchange(gpus, each, tiles, region, wait, busy)


def broadcast(gpus: int, workgroups: int, tiles: Tiles, cost: Cost, region: str, wait: str) -> Exchange:
    """Return an exchange of results: each tile to every peer as it is ready, all flags at the end."""
    each = []
    total = np.array([tiles.work[w::workgroups].sum() for w in range(workgroups)], np.int64)
    for own in (slice(w, None, workgroups) for w in range(workgroups)):
        done = np.cumsum(np.append(tiles.work[own], 0))[:, None]
        hops = np.arange(1, gpus)
        sizes, offsets = np.append(tiles.size_bytes[own], 0), np.append(tiles.offset_bytes[own], -1)
        columns = (hops, cost.ns(done), sizes[:, None], offsets[:, None])
        each.append([np.broadcast_to(c, (len(done), gpus - 1)) for c in columns])
    return _exchange(gpus, each, tiles, region, wait, (("reduce", cost.ns(total)),))


def _exchange(
    gpus: int,
    each: list[list[Ints]],
    tiles: Tiles,
    region: str,
    wait: str,
    busy: tuple[tuple[str, Ints], ...],
) -> Exchange:
    """Join the workgroups' rows: hop, time, size and offset of each, in two dimensions."""
    hop, after, size, offset = (np.concatenate([rows[i].ravel() for rows in each]) for i in range(4))
    workgroup = np.repeat(np.arange(len(each)), [rows[0].size for rows in each])
    flag = offset < 0
    flag_ns = np.zeros((len(each), gpus - 1), np.int64)
    flag_ns[workgroup[flag], hop[flag] - 1] = after[flag]
    return Exchange(region, wait, busy, tiles.slice_bytes, workgroup, hop, after, size, offset, flag_ns)
