"""Matched collectives as calls of their algorithm's blocks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..builder import Builder
from ..collectives import Expansion, expand, tuning
from ..fabric import Fabric
from ..program import Collective
from .matching import Instance
from .sizing import Sizer


@dataclass(frozen=True)
class Expanded:
    """An expanded operation: its index in the program, and each GPU's position among its members."""

    collective: int
    positions: dict[int, int]
    expansion: Expansion

    def call(self, builder: Builder, agent: int, gpu: int, activity: int) -> None:
        """Append the calls of `gpu` to `agent`."""
        for call in self.expansion.calls[self.positions[gpu]]:
            builder.call(agent, activity=activity, **call)


@dataclass
class Expander:
    """Expands each operation once. `algorithms` by operation overrides what was captured.

    With `apart` every operation's channels are agents of their own, so that none waits for an earlier one.
    """

    builder: Builder
    fabric: Fabric
    sizer: Sizer
    algorithms: Mapping[str, str]
    apart: bool = False
    _expanded: dict[int, Expanded] = field(default_factory=dict)

    def expanded(self, instance: Instance) -> Expanded | None:
        """Return the expansion of `instance`, or None where `expand` was not asked for it."""
        return self._expanded.get(id(instance))

    def expand(self, instance: Instance) -> None:
        """Expand `instance`. Raises UsageError for an algorithm that its operation lacks."""
        operation, part = self.sizer.operation(instance), instance.parts[0]
        chosen = self.sizer.chosen(instance) or self.algorithms.get(instance.operation)
        wanted = chosen or part.algorithm
        how = tuning(self.fabric, operation, instance.members, wanted, part.protocol, part.channels)
        if chosen:
            how = replace(how, algorithm=chosen)
        name = instance.name
        channels = f"{name} {instance.sequence}" if self.apart else name
        found = expand(self.builder, self.fabric, instance.members, operation, how, channels)
        collective = Collective(
            operation.operation, name, instance.sequence, operation.size_bytes, how.algorithm
        )
        positions = {gpu: position for position, gpu in enumerate(instance.members)}
        self._expanded[id(instance)] = Expanded(self.builder.collective(collective), positions, found)
