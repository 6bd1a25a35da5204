"""The schema -> simulated traffic at N GPUs -> results."""

from typing import TYPE_CHECKING

from ..schemas.lazy import attach

if TYPE_CHECKING:
    from .explanation import Explanation, explain
    from .fabric import Fabric, FabricBuilder
    from .outcome import Outcome
    from .program import Builder, Program
    from .run import run
    from .waiting import IDEAL, WaitPolicy, monitor, spin

__all__ = [
    "IDEAL",
    "Builder",
    "Explanation",
    "Fabric",
    "FabricBuilder",
    "Outcome",
    "Program",
    "WaitPolicy",
    "explain",
    "monitor",
    "run",
    "spin",
]

__getattr__ = attach(
    __name__,
    explanation="Explanation explain",
    fabric="Fabric FabricBuilder",
    outcome="Outcome",
    program="Builder Program",
    run="run",
    waiting="IDEAL WaitPolicy monitor spin",
)
