"""Fused GEMV + AllReduce, two-phase direct, as `eidola capture kernel gemv-allreduce` captures it.

Rank r holds columns / gpus columns of the matrix and computes partial products of all rows: remote slices first,
each tile straight into the owner's `partials`, one flag a peer a workgroup. Then it reduces its own slice over
all partials, writes the sums into every peer's `results`, raises its flags again, and waits for the others'.
"""

from dataclasses import dataclass
from typing import ClassVar

from .columns import at_least
from .exchange import Exchange, Tiles, broadcast, cut, memory_cost, scatter
from .kernel import H100_MEMORY_MB_PER_S, Kernel


@dataclass(frozen=True, kw_only=True)
class GemvAllReduce(Kernel):
    """A GEMV of `rows` x `columns` elements, columns split over GPUs, its result reduced to all of them.

    A tile of `tile_rows` (None: a tile a workgroup, at most 64) takes the time to read its part of the matrix
    from memory; reducing it, the time to read all ranks' partials of it.
    """

    name: ClassVar[str] = "gemv-allreduce"
    rows: int = 8192
    columns: int = 8192
    tile_rows: int | None = None
    element_bytes: int = 4
    memory_mb_per_s: int = H100_MEMORY_MB_PER_S

    def check(self) -> None:
        """Raise UsageError for a shape that makes no sense."""
        self.share("rows", self.rows)
        self.share("columns", self.columns)
        at_least(1, element_bytes=self.element_bytes, memory_rate=self.memory_mb_per_s)
        at_least(1, tile_rows=1 if self.tile_rows is None else self.tile_rows)

    def exchanges(self) -> tuple[Exchange, ...]:
        """Return the exchange of partials, and that of results."""
        length = self.rows // self.gpus
        sizes = cut(length, self.tile(self.tile_rows, length)) * self.element_bytes
        cost = memory_cost(self.workgroups, self.memory_mb_per_s)
        partials = Tiles(sizes, sizes * (self.columns // self.gpus))
        results = Tiles(sizes, sizes * self.gpus)
        return (
            scatter(self.gpus, self.workgroups, partials, cost, "partials", "wait_partials"),
            broadcast(self.gpus, self.workgroups, results, cost, "results", "wait_results"),
        )
