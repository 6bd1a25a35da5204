"""Matched collectives as calls of their algorithm's blocks, under the size laws of a growing group."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..collectives import Expansion, Operation, expand, tuning
from ..fabric import Fabric
from ..program import Builder, Collective
from .laws import law_of, size_bytes, split_bytes
from .matching import Instance
from .plan import Plan


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
    plan: Plan
    algorithms: Mapping[str, str]
    apart: bool = False
    notes: Counter[str] = field(default_factory=Counter)
    _expanded: dict[int, Expanded] = field(default_factory=dict)

    def expanded(self, instance: Instance) -> Expanded | None:
        """Return the expansion of `instance`, or None where `expand` was not asked for it."""
        return self._expanded.get(id(instance))

    def expand(self, instance: Instance) -> None:
        """Expand `instance`. Raises UsageError for an algorithm that its operation lacks."""
        operation, part = self._operation(instance), instance.parts[0]
        wanted = self.algorithms.get(instance.operation, part.algorithm)
        how = tuning(self.fabric, operation, instance.members, wanted, part.protocol, part.channels)
        if instance.operation in self.algorithms:
            how = replace(how, algorithm=self.algorithms[instance.operation])
        name = (
            instance.communicator if instance.copy == 0 else f"{instance.communicator} copy {instance.copy}"
        )
        channels = f"{name} {instance.sequence}" if self.apart else name
        found = expand(self.builder, self.fabric, instance.members, operation, how, channels)
        collective = Collective(
            instance.operation, name, instance.sequence, operation.size_bytes, how.algorithm
        )
        positions = {gpu: position for position, gpu in enumerate(instance.members)}
        self._note(instance)
        self._expanded[id(instance)] = Expanded(self.builder.collective(collective), positions, found)

    def _operation(self, instance: Instance) -> Operation:
        """Return what to expand: sizes under the plan's law, the root where it has one."""
        captured, members, law = instance.captured_size, len(instance.members), self.plan.law
        law = law if self.plan.gpus != len(self.plan.job) else "weak"
        largest = max(max(part.size_bytes for part in instance.parts), 0)
        size = size_bytes(instance.operation, largest, captured, members, law)
        split = None
        if instance.operation == "all_to_allv":
            split = split_bytes(list(instance.parts), captured, law)
        rooted = instance.operation in ("broadcast", "reduce", "gather", "scatter")
        root = next((p.peer for p in instance.parts if p.peer is not None), 0) if rooted else 0
        unit = instance.parts[0].element_bytes
        name = f"{instance.operation} {instance.sequence} of {instance.communicator}"
        return Operation(instance.operation, size, split, root, unit, name)

    def _note(self, instance: Instance) -> None:
        if len(instance.members) != instance.captured_size:
            law = law_of(instance.operation, self.plan.law)
            sizes = f"{instance.captured_size} ranks, on {len(instance.members)}"
            self.notes[f"{instance.operation} of {sizes}: {law}"] += 1
