"""Fused GEMM + All-to-All, as a mixture of experts combines: each GPU's rows go back to the GPUs they came from.

Every GPU computes a product of `rows` x `columns`; slice j of its rows belongs to GPU j. Workgroups compute tiles
of the remote slices first, write each straight into its owner's `outputs`, where a tile's elements lie together,
raise one flag a peer, compute the own slice, and wait for the peers' flags.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .columns import at_least
from .exchange import Exchange, Tiles, compute_cost, cut, scatter
from .kernel import H100_BF16_GFLOP_PER_S, Kernel


@dataclass(frozen=True, kw_only=True)
class GemmAllToAll(Kernel):
    """A GEMM of `rows` x `inner` by `inner` x `columns` on every GPU, rows split over their owners.

    A tile of `tile_rows` x `tile_columns` takes the time of its 2 * tile * inner operations at `gflop_per_s`.
    """

    name: ClassVar[str] = "gemm-alltoall"
    rows: int = 8192
    columns: int = 4096
    inner: int = 4096
    tile_rows: int = 128
    tile_columns: int = 128
    element_bytes: int = 2
    gflop_per_s: int = H100_BF16_GFLOP_PER_S

    def check(self) -> None:
        """Raise UsageError for a shape that makes no sense."""
        self.share("rows", self.rows)
        at_least(1, columns=self.columns, inner=self.inner, element_bytes=self.element_bytes)
        at_least(1, tile_rows=self.tile_rows, tile_columns=self.tile_columns, flop_rate=self.gflop_per_s)

    def exchanges(self) -> tuple[Exchange, ...]:
        """Return the one exchange, of output tiles."""
        heights = cut(self.rows // self.gpus, self.tile_rows)
        elements = np.multiply.outer(heights, cut(self.columns, self.tile_columns)).ravel()
        cost = compute_cost(self.workgroups, self.gflop_per_s)
        tiles = Tiles(elements * self.element_bytes, elements * 2 * self.inner)
        return (scatter(self.gpus, self.workgroups, tiles, cost, "outputs", "wait_outputs"),)
