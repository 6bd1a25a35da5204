"""A fused kernel on GPUs whose links other jobs use too: random messages beside the kernel's own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from eidola.replay.generate import Pattern, Patterns
from eidola.replay.generate.columns import RankTraffic, named
from eidola.replay.generate.kernel import Kernel
from eidola.replay.generate.patterns import rate_per_s
from eidola.replay.outcome import Outcome

LINK_MB_PER_S, SIZE_BYTES, DURATION_NS = 450_000, 65_536, 60_000
FIRST_SPAN = 10**6  # of the other jobs' phases: above the kernel's


@dataclass(frozen=True)
class Crowded:
    """A kernel beside Poisson traffic of 64 KiB messages that fills `load` of an HGX H100's NVLink."""

    name: ClassVar[str] = "crowded"
    kernel: Kernel
    load: float
    seed: int

    @property
    def gpus(self) -> int:
        """Number of ranks."""
        return self.kernel.gpus

    def flags(self) -> str:
        """Return how flags are numbered."""
        return self.kernel.flags()

    def traffic(self, targets: int | None = None) -> Iterator[RankTraffic]:
        """Yield every rank's rows: the kernel's, and a lane of messages on one more workgroup."""
        rate = rate_per_s(self.load, LINK_MB_PER_S, (SIZE_BYTES,))
        pattern = Pattern(arrivals="poisson", rate_per_s=rate, size_bytes=(SIZE_BYTES,), duration_ns=DURATION_NS,
                          flags="none")  # fmt: skip
        others = Patterns(gpus=self.gpus, patterns=(pattern,), seed=self.seed)
        lane, extra = self.kernel.workgroups, others.traffic(targets)
        for mine, other in zip(self.kernel.traffic(targets), extra, strict=True):
            count = len(other.spans["span"])
            spans = other.spans | {
                "span": np.array(other.spans["span"]) + FIRST_SPAN,
                "lane": named(np.zeros(count, np.int64), [f"workgroup {lane}"]),
                "workgroup": np.full(count, lane),
            }
            place = {"workgroup": other.writes["workgroup"] + lane, "span": other.writes["span"] + FIRST_SPAN}
            nowhere = {"offset_bytes": pa.nulls(len(place["span"]), pa.int64())}
            writes = other.writes | place | nowhere
            yield RankTraffic(mine.rank, _joined(mine.spans, spans), _joined(mine.writes, writes), mine.waits)


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of both, of the columns of the first."""
    return {name: pa.concat_arrays([_plain(column), _plain(second[name])]) for name, column in first.items()}


def _plain(column: Any) -> pa.Array:
    array = pa.array(column)
    return array.cast(pa.string()) if pa.types.is_dictionary(array.type) else array


def end_us(outcome: Outcome, kernel: Kernel) -> float:
    """Return when the kernel's own workgroups have all ended."""
    program = outcome.program
    extra = f"workgroup {kernel.workgroups}"
    own = np.array([program.names[name] != extra for name in program.agent_name])
    return float(outcome.final.agents["end_ps"][own].max() / 1e6)
