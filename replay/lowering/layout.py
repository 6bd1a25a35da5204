"""Where each GPU stands: the captured rank that it repeats, and the copy of each communicator that it is in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .axes import Axes
from .groups import Group


@dataclass(frozen=True)
class Layout:
    """GPU t repeats the job's rank `place[t]`; `block[t]` numbers its copies of the job, the captured one 0.

    `copies[name][t]` is the copy of a communicator that GPU t is in; where a group grows, several blocks share one.
    `axis_of` a communicator and `growth` (captured and target size) of an axis are empty where the job grows as
    one group.
    """

    place: list[int]
    block: list[int]
    copies: dict[str, list[int]]
    axis_of: dict[str, str] = field(default_factory=dict)
    growth: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def gpu_at(self) -> dict[tuple[int, int], int]:
        """Return the GPU of each (block, place)."""
        return {key: gpu for gpu, key in enumerate(zip(self.block, self.place, strict=True))}

    def copy(self, communicator: str, gpu: int) -> int:
        """Return the copy of a communicator that a GPU is in; one a block where its members are not known."""
        return self.copies.get(communicator, self.block)[gpu]


def one_group(ranks: int, gpus: int, groups: Mapping[str, Group], replicas: bool) -> Layout:
    """Repeat the job's ranks in their order; groups of all ranks grow to all GPUs, unless `replicas`."""
    block = [gpu // ranks for gpu in range(gpus)]
    copies = {
        name: [0] * gpus if group.size == ranks and not replicas else block for name, group in groups.items()
    }
    return Layout([gpu % ranks for gpu in range(gpus)], block, copies)


def shaped(axes: Axes, sizes: Sequence[int]) -> Layout:
    """Give each digit of the rank number another size; what lies beyond the captured one repeats it."""
    gpus = int(np.prod(sizes, dtype=np.int64))
    number, stride = np.arange(gpus), 1
    place, turns = np.zeros(gpus, np.int64), []
    for digit, size in zip(axes.digits, sizes, strict=True):
        coordinate = number // stride % size
        place += coordinate % digit.size * digit.stride
        turns.append(coordinate // digit.size)
        stride *= size
    every = range(len(sizes))
    return Layout(
        place.tolist(),
        _number(turns, list(every), gpus),
        {
            name: _number(turns, [i for i in every if i not in spanned], gpus)
            for name, spanned in axes.spans.items()
        },
        {name: axes.axis_of(name) for name in axes.spans},
        {
            axis: (axes.size(axis), int(np.prod([sizes[i] for i in axes.of(axis)])))
            for axis in dict.fromkeys(digit.axis for digit in axes.digits)
        },
        tuple(_told(axes, sizes)),
    )


def _number(turns: list[np.ndarray], chosen: list[int], gpus: int) -> list[int]:
    number, radix = np.zeros(gpus, np.int64), 1
    for i in chosen:
        number += turns[i] * radix
        radix *= int(turns[i].max(initial=0)) + 1
    return number.tolist()


def _told(axes: Axes, sizes: Sequence[int]) -> list[str]:
    return [
        f"{digit.axis} axis ({digit.known_by}): {digit.size} ranks, {digit.stride} apart, on {size}"
        for digit, size in zip(axes.digits, sizes, strict=True)
    ]
