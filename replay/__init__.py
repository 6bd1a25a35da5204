"""The schema -> simulated traffic at N GPUs -> results."""

from typing import TYPE_CHECKING

from ..schemas.lazy import attach

if TYPE_CHECKING:
    from .api import replay, verify
    from .builder import Builder
    from .comparison import Comparison, compare
    from .confirmation import Confirmation, confirm
    from .device import Device
    from .edits import Edits, read_edits
    from .explanation import Explanation, explain
    from .fabric import Fabric, FabricBuilder
    from .lowering.lower import Lowered, lower
    from .outcome import Outcome
    from .passes import make_pipeline
    from .program import Program
    from .run import run
    from .scaled import write_scaled
    from .scaling import scale
    from .schedules import write_schedule
    from .wait_text import parse_wait
    from .waiting import IDEAL, WaitPolicy, backoff, monitor, polls_table, spin

__all__ = [
    "IDEAL",
    "Builder",
    "Comparison",
    "Confirmation",
    "Device",
    "Edits",
    "Explanation",
    "Fabric",
    "FabricBuilder",
    "Lowered",
    "Outcome",
    "Program",
    "WaitPolicy",
    "backoff",
    "compare",
    "confirm",
    "explain",
    "lower",
    "make_pipeline",
    "monitor",
    "parse_wait",
    "polls_table",
    "read_edits",
    "replay",
    "run",
    "scale",
    "spin",
    "verify",
    "write_scaled",
    "write_schedule",
]

__getattr__ = attach(
    __name__,
    **{"lowering.lower": "Lowered lower"},
    api="replay verify",
    builder="Builder",
    comparison="Comparison compare",
    confirmation="Confirmation confirm",
    device="Device",
    edits="Edits read_edits",
    explanation="Explanation explain",
    fabric="Fabric FabricBuilder",
    outcome="Outcome",
    passes="make_pipeline",
    program="Program",
    run="run",
    scaled="write_scaled",
    scaling="scale",
    schedules="write_schedule",
    wait_text="parse_wait",
    waiting="IDEAL WaitPolicy backoff monitor polls_table spin",
)
