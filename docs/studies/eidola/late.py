"""The fused GEMV + AllReduce whose peers start late: Eidola's wake-up times."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eidola.replay.generate import GemvAllReduce, generate
from eidola.replay.generate.columns import RankTraffic
from eidola.replay.generate.fused import Fused
from eidola.schemas import Trace


@dataclass(frozen=True)
class LateFused(Fused):
    """Ranks from 1 on start `late_ns` after rank 0."""

    late_ns: int = 0

    def _jitter(self, rank: int) -> np.ndarray:
        return super()._jitter(rank) + (self.late_ns if rank else 0)


@dataclass(frozen=True, kw_only=True)
class LatePeers(GemvAllReduce):
    """GEMV + AllReduce, its peers late by `late_ns`."""

    late_ns: int = 0

    def traffic(self, targets: int | None = None) -> Iterator[RankTraffic]:
        """Yield every rank's rows."""
        fused = LateFused(
            self.gpus, self.workgroups, self.exchanges(), self.iterations, self.launch_ns, self.jitter_ns,
            self.poll_ns, self.seed, self.late_ns,
        )  # fmt: skip
        return fused.traffic(targets)

    def other_reads(self) -> int:
        """Return the 64-byte lines that one GPU reads for its matrix and its partial sums."""
        matrix = self.rows * self.columns // self.gpus
        partials = self.rows // self.gpus * self.gpus
        return (matrix + partials) * self.element_bytes // 64


def trace(folder: Path, kernel: LatePeers, targets: int | None = 1) -> Trace:
    """Write and return the kernel's trace, by default only what concerns GPU 0."""
    return generate(kernel, folder / "late.eidola", targets=targets, overwrite=True)
