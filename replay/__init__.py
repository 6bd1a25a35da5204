"""The schema -> simulated traffic at N GPUs -> results."""

from typing import TYPE_CHECKING

from ..schemas.lazy import attach

if TYPE_CHECKING:
    from .api import replay, verify
    from .comparison import Comparison, compare
    from .explanation import Explanation, explain
    from .fabric import Fabric, FabricBuilder
    from .lowering.lower import Lowered, lower
    from .outcome import Outcome
    from .program import Builder, Program
    from .run import run
    from .scaling import scale
    from .waiting import IDEAL, WaitPolicy, monitor, spin

__all__ = [
    "IDEAL",
    "Builder",
    "Comparison",
    "Explanation",
    "Fabric",
    "FabricBuilder",
    "Lowered",
    "Outcome",
    "Program",
    "WaitPolicy",
    "compare",
    "explain",
    "lower",
    "monitor",
    "replay",
    "run",
    "scale",
    "spin",
    "verify",
]

__getattr__ = attach(
    __name__,
    **{"lowering.lower": "Lowered lower"},
    api="replay verify",
    comparison="Comparison compare",
    explanation="Explanation explain",
    fabric="Fabric FabricBuilder",
    outcome="Outcome",
    program="Builder Program",
    run="run",
    scaling="scale",
    waiting="IDEAL WaitPolicy monitor spin",
)
