"""Matched collectives as calls of their algorithm's blocks, under the size laws of a growing group."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from ...schemas import UsageError
from ..collectives import Expansion, Operation, expand, tuning
from ..edits import NONE, CollectiveEdit, Edits, apportion, zipf_matrix
from ..fabric import Fabric, Ints
from ..program import Builder, Collective
from .laws import law_of, scaled, size_ratio, split_bytes
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
    edits: Edits = NONE
    apart: bool = False
    notes: Counter[str] = field(default_factory=Counter)
    _expanded: dict[int, Expanded] = field(default_factory=dict)

    def expanded(self, instance: Instance) -> Expanded | None:
        """Return the expansion of `instance`, or None where `expand` was not asked for it."""
        return self._expanded.get(id(instance))

    def expand(self, instance: Instance) -> None:
        """Expand `instance`. Raises UsageError for an algorithm that its operation lacks."""
        operation, part = self.operation(instance), instance.parts[0]
        edited = [edit.algorithm for edit in self.edits.of(instance.operation, instance.communicator)]
        chosen = next((a for a in reversed(edited) if a), self.algorithms.get(instance.operation))
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
        self._note(instance)
        self._expanded[id(instance)] = Expanded(self.builder.collective(collective), positions, found)

    def operation(self, instance: Instance) -> Operation:
        """Return what to expand: sizes under the plan's laws, the root where it has one."""
        captured, members = instance.captured_size, len(instance.members)
        ratio = size_ratio(instance.operation, self.plan, instance.communicator, captured, members)
        split = None
        edits = self.edits.of(instance.operation, instance.communicator)
        ratio *= prod(edit.factor for edit in edits)
        size = scaled(max(max(part.size_bytes for part in instance.parts), 0), ratio)
        if instance.operation == "all_to_allv":
            split = split_bytes(list(instance.parts), captured, ratio)
        kind = instance.operation
        weights = self._weights(instance, edits)
        if weights is not None:
            kind, unit = "all_to_allv", instance.parts[0].element_bytes
            totals = split.sum(axis=1).tolist() if split is not None else [size] * members
            split = np.stack([apportion(row, n, unit) for row, n in zip(weights, totals, strict=True)])
        rooted = instance.operation in ("broadcast", "reduce", "gather", "scatter")
        root = next((p.peer for p in instance.parts if p.peer is not None), 0) if rooted else 0
        unit = instance.parts[0].element_bytes
        name = f"{instance.operation} {instance.sequence} of {instance.name}"
        return Operation(kind, size, split, root, unit, name)

    def _weights(self, instance: Instance, edits: list[CollectiveEdit]) -> Ints | None:
        """Return (N, N) weights of an all-to-all that edits make uneven, or None."""
        members, weights = len(instance.members), None
        for edit in edits:
            if edit.matrix is not None:
                weights = np.array(edit.matrix, np.int64)
                if len(weights) != members:
                    raise UsageError(
                        f"{self.edits.path}: a matrix of {len(weights)} ranks for {instance.operation} of {members} in "
                        f"communicator {instance.name!r}; give one row and column a member"
                    )
            elif edit.zipf is not None:
                seed = self.plan.seed
                weights = zipf_matrix(members, edit.zipf, seed, instance.copy, instance.sequence)
        return weights

    def _note(self, instance: Instance) -> None:
        if len(instance.members) != instance.captured_size:
            law = law_of(instance.operation, self.plan, instance.communicator)
            sizes = f"{instance.captured_size} ranks, on {len(instance.members)}"
            self.notes[f"{instance.operation} of {sizes}: {law}"] += 1
