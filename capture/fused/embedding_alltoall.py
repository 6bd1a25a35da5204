"""Fused embedding + All-to-All; the protocol is described in embedding_alltoall.c."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .spec import LARGEST_INPUT, Arrays, Floats, FusedKernel, draw


@dataclass(frozen=True, kw_only=True)
class EmbeddingAllToAll(FusedKernel):
    """`batch` samples over all ranks; each pools `pooling` rows of `dimension` elements in each rank's `tables`.

    A table has `entries` rows; a tile is `tile_samples` samples.
    """

    name: ClassVar[str] = "embedding-alltoall"
    phases: ClassVar[tuple[str, ...]] = ("remote_tiles", "local_tiles", "wait_embeddings")
    regions: ClassVar[tuple[str, ...]] = ("embeddings",)
    flags: ClassVar[dict[str, str]] = {"batch": "-b"}
    batch: int = 4096
    tables: int = 4
    entries: int = 1000
    dimension: int = 32
    pooling: int = 8
    tile_samples: int = 32

    def check(self) -> None:
        """Raise UsageError for a shape that makes no sense."""
        self.share("batch")
        self.exact("pooling", LARGEST_INPUT)

    @property
    def result_words(self) -> int:
        """Floats of one rank's result of one iteration."""
        return self.batch * self.tables * self.dimension

    def numbers(self) -> tuple[int, ...]:
        """Return the shape, in the order of the kernel's `struct fused_job`."""
        return self.batch, self.tables, self.entries, self.dimension, self.pooling, self.tile_samples

    def inputs(self) -> list[Arrays]:
        """Return each rank's tables, and the rows that every sample of every iteration looks up in them."""
        random = np.random.default_rng(self.seed)
        picked = (self.iterations, self.batch, self.tables, self.pooling)
        return [
            {
                "weights": draw(random, self.tables, self.entries, self.dimension),
                "indices": random.integers(0, self.entries, picked, np.int32),
            }
            for _ in range(self.gpus)
        ]

    def expected(self, inputs: list[Arrays]) -> Floats:
        """Return each rank's samples, from every source: ranks x iterations x (source, sample, table, element)."""
        split = (self.iterations, self.gpus, self.share("batch"), self.tables * self.dimension)
        table = np.arange(self.tables)[:, None]
        pooled = [rank["weights"][table, rank["indices"]].sum(axis=3).reshape(split) for rank in inputs]
        by_owner = np.stack(pooled).transpose(2, 1, 0, 3, 4)
        return by_owner.reshape(self.gpus, self.iterations, self.result_words)
