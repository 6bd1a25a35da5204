"""Fused embedding + All-to-All, as recommendation models with sharded tables do it.

Every GPU holds `tables` tables, pools them for all samples of the batch (remote slices first), and writes slice
j straight into GPU j's `embeddings`: one flag a peer a workgroup, for which the receiver's workgroup waits.
"""

from dataclasses import dataclass
from typing import ClassVar

from .columns import at_least
from .exchange import Exchange, Tiles, cut, memory_cost, scatter
from .kernel import H100_MEMORY_MB_PER_S, Kernel


@dataclass(frozen=True, kw_only=True)
class EmbeddingAllToAll(Kernel):
    """`batch` samples over all GPUs; each looks `pooling` rows of `dimension` elements up in each table.

    A tile of `tile_samples` (None: a tile a workgroup, at most 64) takes the time to read its rows from memory.
    """

    name: ClassVar[str] = "embedding-alltoall"
    batch: int = 65536
    tables: int = 8
    dimension: int = 128
    pooling: int = 32
    tile_samples: int | None = None
    element_bytes: int = 4
    memory_mb_per_s: int = H100_MEMORY_MB_PER_S

    def check(self) -> None:
        """Raise UsageError for a shape that makes no sense."""
        self.share("batch", self.batch)
        at_least(1, tables=self.tables, dimension=self.dimension, pooling=self.pooling)
        at_least(1, element_bytes=self.element_bytes, memory_rate=self.memory_mb_per_s)
        at_least(1, tile_samples=1 if self.tile_samples is None else self.tile_samples)

    def exchanges(self) -> tuple[Exchange, ...]:
        """Return the one exchange, of pooled embeddings."""
        length = self.batch // self.gpus
        samples = cut(length, self.tile(self.tile_samples, length))
        sizes = samples * self.tables * self.dimension * self.element_bytes
        cost = memory_cost(self.workgroups, self.memory_mb_per_s)
        tiles = Tiles(sizes, sizes * self.pooling)
        return (scatter(self.gpus, self.workgroups, tiles, cost, "embeddings", "wait_embeddings"),)
