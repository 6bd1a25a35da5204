"""Matched collectives as calls of their algorithm's blocks, under the size laws of a growing group."""

from collections import Counter
from dataclasses import dataclass, field

from ..fabric import Fabric
from ..program import Builder
from .matching import Instance
from .plan import Plan


@dataclass
class Expanded:
    """An expanded operation: its index in the program, and each member's calls."""

    collective: int
    members: dict[int, int]
    calls: list[list[dict[str, int]]]

    def call(self, builder: Builder, agent: int, gpu: int, activity: int) -> None:
        """Append the calls of `gpu` to `agent`."""
        for call in self.calls[self.members[gpu]]:
            builder.call(agent, activity=activity, **call)


@dataclass
class Expander:
    """Expands each operation once."""

    builder: Builder
    fabric: Fabric
    plan: Plan
    notes: Counter[str] = field(default_factory=Counter)

    def expand(self, instance: Instance) -> Expanded | None:
        """Return the expansion of `instance`."""
        return None
