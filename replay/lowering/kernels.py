"""Compute laws a kernel class: by how much an item's compute changes with the axes of the job."""

import re
from fractions import Fraction

from .items import Item
from .plan import Plan

SHARDED = re.compile(
    r"gemm|cutlass|cublas|nvjet|\bCijk_|wgrad|dgrad|matmul|attention|fmha|flash", re.IGNORECASE
)
"""Kernels whose work is split with the weights or heads: the names of the libraries' GEMM and attention kernels."""

TENSOR_LAW = "GEMM and attention kernels (by name) x {}; all other kernels as captured"


def compute_law(item: Item, plan: Plan) -> Fraction:
    """Return the law's factor: what a GPU does follows the batch, sharded kernels the tensor axis too."""
    if item.parts or item.kind not in ("kernel", "copy", "phase"):
        return Fraction(1)
    return plan.batch * (plan.sharding if SHARDED.search(item.name) else 1)
