"""Fused GEMM + All-to-All; the protocol is described in gemm_alltoall.c."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .spec import LARGEST_INPUT, Arrays, Floats, FusedKernel, draw


@dataclass(frozen=True, kw_only=True)
class GemmAllToAll(FusedKernel):
    """A product of `rows` x `inner` by `inner` x `columns` on every rank, its rows split over their owners."""

    name: ClassVar[str] = "gemm-alltoall"
    phases: ClassVar[tuple[str, ...]] = ("remote_tiles", "local_tiles", "wait_outputs")
    regions: ClassVar[tuple[str, ...]] = ("outputs",)
    flags: ClassVar[dict[str, str]] = {"rows": "-m", "columns": "-n", "inner": "-k"}
    rows: int = 1024
    columns: int = 256
    inner: int = 64
    tile_rows: int = 32
    tile_columns: int = 32

    def check(self) -> None:
        """Raise UsageError for a shape that makes no sense."""
        self.share("rows")
        self.exact("inner", LARGEST_INPUT**2)

    @property
    def result_words(self) -> int:
        """Floats of one rank's result of one iteration."""
        return self.rows * self.columns

    def numbers(self) -> tuple[int, ...]:
        """Return the shape, in the order of the kernel's `struct fused_job`."""
        return self.rows, self.columns, self.inner, self.tile_rows, self.tile_columns

    def inputs(self) -> list[Arrays]:
        """Return each rank's left factor, and a right one an iteration."""
        random = np.random.default_rng(self.seed)
        return [
            {
                "left": draw(random, self.rows, self.inner),
                "right": draw(random, self.iterations, self.inner, self.columns),
            }
            for _ in range(self.gpus)
        ]

    def expected(self, inputs: list[Arrays]) -> Floats:
        """Return each rank's rows, from every source, tile by tile: ranks x iterations x (source, tiles)."""
        length = self.share("rows")
        result = np.empty((self.gpus, self.iterations, self.gpus, length * self.columns), np.float32)
        for source, rank in enumerate(inputs):
            for iteration, product in enumerate(rank["left"] @ rank["right"]):
                for owner in range(self.gpus):
                    rows = product[owner * length : (owner + 1) * length]
                    result[owner, iteration, source] = np.concatenate(self._tiles(rows))
        return result.reshape(self.gpus, self.iterations, self.result_words)

    def _tiles(self, rows: Floats) -> list[Floats]:
        down, across = range(0, len(rows), self.tile_rows), range(0, self.columns, self.tile_columns)
        return [rows[i : i + self.tile_rows, j : j + self.tile_columns].ravel() for i in down for j in across]
