"""Fused GEMV + AllReduce, two-phase direct; the protocol is described in gemv_allreduce.c."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from ...schemas.errors import UsageError
from .spec import LARGEST_INPUT, Arrays, Floats, FusedKernel, draw


@dataclass(frozen=True, kw_only=True)
class GemvAllReduce(FusedKernel):
    """`rows` x `columns`: columns split over the ranks, rows reduced by slices, in tiles of `tile_rows` rows."""

    name: ClassVar[str] = "gemv-allreduce"
    phases: ClassVar[tuple[str, ...]] = (
        *("remote_tiles", "local_tiles", "wait_partials", "reduce", "wait_results"),
    )
    regions: ClassVar[tuple[str, ...]] = ("partials", "results")
    flags: ClassVar[dict[str, str]] = {"rows": "-m", "columns": "-k"}
    rows: int = 8192
    columns: int = 1024
    tile_rows: int = 64

    def check(self) -> None:
        """Raise UsageError for a shape that makes no sense."""
        self.share("rows")
        self.exact("columns", LARGEST_INPUT**2)
        if self.columns < self.gpus:
            raise UsageError(f"columns is {self.columns}; it must be at least gpus {self.gpus}")

    @property
    def result_words(self) -> int:
        """Floats of one rank's result of one iteration."""
        return self.rows

    def scratch(self) -> dict[str, int]:
        """Return the floats of each buffer beside `results`, a rank."""
        return {"partials": self.rows}

    def numbers(self) -> tuple[int, ...]:
        """Return the shape, in the order of the kernel's `struct fused_job`."""
        return self.rows, self.columns, self.tile_rows

    def inputs(self) -> list[Arrays]:
        """Return each rank's columns of the matrix, and of one vector an iteration."""
        random = np.random.default_rng(self.seed)
        matrix, vectors = draw(random, self.rows, self.columns), draw(random, self.iterations, self.columns)
        cuts = [rank * self.columns // self.gpus for rank in range(self.gpus + 1)]
        return [
            {
                "matrix": np.ascontiguousarray(matrix[:, first:end]),
                "vectors": np.ascontiguousarray(vectors[:, first:end]),
            }
            for first, end in pairwise(cuts)
        ]

    def expected(self, inputs: list[Arrays]) -> Floats:
        """Return the products, the same on all ranks: ranks x iterations x rows."""
        product = np.sum([rank["vectors"] @ rank["matrix"].T for rank in inputs], axis=0)
        return np.broadcast_to(product, (self.gpus, self.iterations, self.rows))
