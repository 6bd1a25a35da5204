"""Generators by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from .columns import Generator
from .embedding_alltoall import EmbeddingAllToAll
from .gemm_alltoall import GemmAllToAll
from .gemv_allreduce import GemvAllReduce
from .pattern_file import KINDS, read_patterns
from .patterns import Pattern, Patterns


def _alone(make: Callable[..., Pattern]) -> Callable[..., Generator]:
    """Return a generator of one pattern; `gpus`, `seed`, `poll_ns`, `jitter_ns` are the job's own."""

    def made(*, gpus: int, seed: int = 0, poll_ns: int = 100, jitter_ns: int = 0, **options: Any) -> Patterns:
        return Patterns(
            gpus=gpus, patterns=(make(**options),), seed=seed, poll_ns=poll_ns, jitter_ns=jitter_ns
        )

    return made


GENERATORS: Mapping[str, Callable[..., Generator]] = MappingProxyType(
    {kernel.name: kernel for kernel in (GemvAllReduce, EmbeddingAllToAll, GemmAllToAll)}
    | {name: _alone(make) for name, make in KINDS.items()}
    | {"patterns": read_patterns}
)
