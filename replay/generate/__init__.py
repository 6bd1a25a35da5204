"""Traffic made to order: fused kernels and patterns, written as ordinary traces.

A generator is a frozen dataclass of parameters; it yields each rank's columns, which depend on nothing else.
`generate` writes them, `GENERATORS` holds them by name.
"""

from typing import TYPE_CHECKING

from ...schemas.lazy import attach

if TYPE_CHECKING:
    from .embedding_alltoall import EmbeddingAllToAll
    from .gemm_alltoall import GemmAllToAll
    from .gemv_allreduce import GemvAllReduce
    from .pattern_file import read_patterns
    from .patterns import Pattern, Patterns, incast, permutation, poisson, uniform
    from .registry import GENERATORS
    from .write import generate

__all__ = [
    "GENERATORS",
    "EmbeddingAllToAll",
    "GemmAllToAll",
    "GemvAllReduce",
    "Pattern",
    "Patterns",
    "generate",
    "incast",
    "permutation",
    "poisson",
    "read_patterns",
    "uniform",
]

__getattr__ = attach(
    __name__,
    embedding_alltoall="EmbeddingAllToAll",
    gemm_alltoall="GemmAllToAll",
    gemv_allreduce="GemvAllReduce",
    pattern_file="read_patterns",
    patterns="Pattern Patterns incast permutation poisson uniform",
    registry="GENERATORS",
    write="generate",
)
