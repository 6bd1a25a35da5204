"""Collectives as the writes and flags of their algorithms."""

from typing import TYPE_CHECKING

from ...schemas.lazy import attach

if TYPE_CHECKING:
    from .algorithms import ALGORITHMS
    from .expand import Expansion, expand
    from .experts import Routed, routed
    from .operation import Call, Operation, Track, Tuning
    from .orders import ring_order
    from .tuning import tuning
    from .work import Work

__all__ = [
    "ALGORITHMS",
    "Call",
    "Expansion",
    "Operation",
    "Routed",
    "Track",
    "Tuning",
    "Work",
    "expand",
    "ring_order",
    "routed",
    "tuning",
]

__getattr__ = attach(
    __name__,
    algorithms="ALGORITHMS",
    expand="Expansion expand",
    experts="Routed routed",
    operation="Call Operation Track Tuning",
    orders="ring_order",
    tuning="tuning",
    work="Work",
)
