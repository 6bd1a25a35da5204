"""What a matched collective moves at the GPU count: its size, splits and root, under the laws and the edits."""

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

import numpy as np

from ...schemas import UsageError
from ..collectives import Operation
from ..edits import NONE, CollectiveEdit, Edits, apportion, zipf_matrix
from ..fabric import Ints
from .laws import law_of, scaled, size_ratio, split_bytes
from .matching import Instance
from .plan import Plan


@dataclass
class Sizer:
    """Sizes each instance once; counts, in sentences, what is not of the captured size."""

    plan: Plan
    edits: Edits = NONE
    notes: Counter[str] = field(default_factory=Counter)
    _known: dict[int, Operation] = field(default_factory=dict)
    _chosen: dict[int, str | None] = field(default_factory=dict)

    def operation(self, instance: Instance) -> Operation:
        """Return what to expand: sizes under the plan's laws and the edits, the root where it has one."""
        if id(instance) not in self._known:
            self._known[id(instance)] = self._operation(instance)
        return self._known[id(instance)]

    def chosen(self, instance: Instance) -> str | None:
        """Return the algorithm that edits ask for."""
        self.operation(instance)
        return self._chosen[id(instance)]

    def _operation(self, instance: Instance) -> Operation:
        captured, members = instance.captured_size, len(instance.members)
        ratio = size_ratio(instance.operation, self.plan, instance.communicator, captured, members)
        split = None
        edits = self.edits.of(instance.operation, instance.communicator)
        self._chosen[id(instance)] = next((e.algorithm for e in reversed(edits) if e.algorithm), None)
        self._note(instance, ratio)
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
        members = len(instance.members)
        weights: Ints | None = None
        for edit in edits:
            if edit.matrix is not None:
                weights = np.array(edit.matrix, np.int64)
                if len(weights) != members:
                    raise UsageError(
                        f"{self.edits.path}: a matrix of {len(weights)} ranks for {instance.operation} of "
                        f"{members} in communicator {instance.name!r}; give one row and column a member"
                    )
            elif edit.zipf is not None:
                seed = self.plan.seed
                weights = zipf_matrix(members, edit.zipf, seed, instance.copy, instance.sequence)
        return weights

    def _note(self, instance: Instance, ratio: Fraction) -> None:
        if len(instance.members) != instance.captured_size or ratio != 1:
            law = law_of(instance.operation, self.plan, instance.communicator)
            sizes = f"{instance.captured_size} ranks, on {len(instance.members)}"
            self.notes[f"{instance.operation} of {sizes}: {law}"] += 1
