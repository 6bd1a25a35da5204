"""The work of every GPU: a captured rank's own, under the laws; of added ranks, with drawn steps."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from .items import RankWork
from .kernels import TENSOR_LAW
from .plan import Plan
from .stepping import Steps, find_steps


@dataclass
class Works:
    """By captured rank the work as `captured` and, under laws and edits, its `base`; alike draws share one work."""

    plan: Plan
    captured: dict[int, RankWork]
    base: dict[int, RankWork]
    _steps: dict[int, Steps] = field(default_factory=dict)
    _drawn: dict[tuple[int, tuple[int, ...]], RankWork] = field(default_factory=dict)

    def of(self, gpu: int) -> RankWork:
        """Return the work of a GPU: captured ranks keep their own, others repeat or draw steps of their source."""
        rank = self.plan.source(gpu)
        if self.plan.captured(gpu):
            return self.base[rank]
        if rank not in self._steps:
            self._steps[rank] = find_steps(self.base[rank])
        steps = self._steps[rank]
        drawn = steps.draw(self.plan.seed, gpu)
        if drawn == tuple(range(len(drawn))):
            return self.base[rank]
        if (rank, drawn) not in self._drawn:
            self._drawn[rank, drawn] = steps.apply(self.base[rank], drawn)
        return self._drawn[rank, drawn]

    def all(self) -> Iterator[RankWork]:
        """Yield every work that some GPU has."""
        seen: set[int] = set()
        for gpu in range(self.plan.gpus):
            work = self.of(gpu)
            if id(work) not in seen:
                seen.add(id(work))
                yield work

    def notes(self) -> list[str]:
        """Say which ranks drew steps, and which could not."""
        drawing = [rank for rank, steps in self._steps.items() if steps.count > 1 and steps.lanes]
        single = [rank for rank in self._steps if rank not in drawing]
        told = [TENSOR_LAW.format(self.plan.sharding)] if self.plan.sharding != 1 else []
        if drawing:
            lanes = min(len(self._steps[rank].lanes) for rank in drawing)
            told.append(
                f"added ranks draw whole steps of their source rank (seed {self.plan.seed}); {lanes} or more lanes "
                "a rank hold the same items in every step, the others repeat"
            )
        if single:
            told.append(
                f"added ranks repeat the one step (or unlike steps) of {len(single)} source ranks as captured"
            )
        return told
