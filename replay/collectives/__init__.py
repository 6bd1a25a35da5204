"""Collectives as the writes and flags of their algorithms."""

from typing import TYPE_CHECKING

from ...schemas.lazy import attach

if TYPE_CHECKING:
    from .algorithms import ALGORITHMS
    from .expand import Expansion, expand
    from .orders import ring_order
    from .tuning import tuning
    from .work import Call, Operation, Tuning, Work

__all__ = [
    "ALGORITHMS",
    "Call",
    "Expansion",
    "Operation",
    "Tuning",
    "Work",
    "expand",
    "ring_order",
    "tuning",
]

__getattr__ = attach(
    __name__,
    algorithms="ALGORITHMS",
    expand="Expansion expand",
    orders="ring_order",
    tuning="tuning",
    work="Call Operation Tuning Work",
)
