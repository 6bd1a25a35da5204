"""What all fused kernels are asked for, beside their own shapes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ...schemas import UsageError
from .columns import RankTraffic, at_least, check_gpus
from .exchange import Exchange
from .fused import NUMBERING, Fused

# NVIDIA H100 SXM5 80 GB, data sheet: 3,350 GB/s of HBM3; 989.4 TFLOP/s in BF16 on tensor cores without sparsity.
H100_MEMORY_MB_PER_S = 3_350_000
H100_BF16_GFLOP_PER_S = 989_400
MOST_TILE_ROWS = 64  # as in `eidola capture kernel`


@dataclass(frozen=True, kw_only=True)
class Kernel(ABC):
    """`workgroups` physical workgroups a GPU share its rate; times in ns.

    `launch_ns` passes before every iteration (0: no launch is modelled), each rank starts it up to `jitter_ns`
    late, drawn by `seed`, and waits poll every `poll_ns`.
    """

    name: ClassVar[str]
    gpus: int
    workgroups: int = 8
    iterations: int = 1
    launch_ns: int = 0
    jitter_ns: int = 0
    poll_ns: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_gpus(self.gpus)
        at_least(1, workgroups=self.workgroups, iterations=self.iterations, poll_ns=self.poll_ns)
        at_least(0, launch_ns=self.launch_ns, jitter_ns=self.jitter_ns, seed=self.seed)
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raise UsageError for a shape that makes no sense."""

    @abstractmethod
    def exchanges(self) -> tuple[Exchange, ...]:
        """Return what an iteration exchanges, in order."""

    def flags(self) -> str:
        """Return how flags are numbered."""
        return NUMBERING

    def traffic(self, targets: int | None = None) -> Iterator[RankTraffic]:
        """Yield every rank's rows; with `targets`, only traffic to or from the first so many ranks."""
        return Fused(
            self.gpus,
            self.workgroups,
            self.exchanges(),
            self.iterations,
            self.launch_ns,
            self.jitter_ns,
            self.poll_ns,
            self.seed,
        ).traffic(targets)

    def share(self, option: str, total: int) -> int:
        """Return a GPU's share of `total`. Raises UsageError, naming the option, where it is no whole number."""
        if total < 1 or total % self.gpus:
            raise UsageError(
                f"--{option} {total} is no multiple of --gpus {self.gpus}: every GPU has an equal share; "
                f"give {max(1, round(total / self.gpus)) * self.gpus}, or another multiple"
            )
        return total // self.gpus

    def tile(self, given: int | None, length: int) -> int:
        """Return the tile's length: as given, or so that every workgroup has a tile, and at most 64."""
        return given or min(MOST_TILE_ROWS, -(-length // self.workgroups))
