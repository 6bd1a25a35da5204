"""Axes of parallelism: which digits of a rank's number are tensor, context, expert, data and pipeline parallel.

A communicator whose ranks form a grid (contiguous, strided, or both) spans some digits of a mixed-radix number.
Where all communicators fit one such number, its digits are the job's axes. A digit's axis is what the user says, or
what the framework's name of a communicator says, or it is inferred: point-to-point only is pipeline, all-to-all
only is expert, contiguous is tensor, strided is data. What these leave open is refused by name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from ...schemas import UsageError
from .groups import Group

AXES = ("tensor", "context", "expert", "data", "pipeline")
_WORDS = {
    "tensor": {"tp", "tensor"},
    "context": {"cp", "context", "sequence"},
    "expert": {"ep", "expert", "moe"},
    "data": {"dp", "data", "fsdp", "ddp", "hsdp", "replicate", "shard"},
    "pipeline": {"pp", "pipe", "pipeline"},
}
_REDUCING = {"all_reduce", "all_gather", "reduce_scatter"}


@dataclass
class Digit:
    """One digit of the rank number: `size` values, each `stride` ranks apart; its axis, and how that is known."""

    stride: int
    size: int
    axis: str = ""
    known_by: str = ""


@dataclass(frozen=True)
class Axes:
    """A job's digits, innermost first, and which of them (indices) each communicator spans."""

    digits: tuple[Digit, ...]
    spans: dict[str, tuple[int, ...]]

    def size(self, axis: str) -> int:
        """Return the captured size of an axis, 1 where the job lacks it; data includes expert digits inside it."""
        return prod(self.digits[i].size for i in self.of(axis))

    def of(self, axis: str) -> list[int]:
        """Return the digits of an axis; of data also the expert digits that its communicators span."""
        mine = [i for i, digit in enumerate(self.digits) if digit.axis == axis]
        return sorted({*mine, *self.shared()}) if axis == "data" and mine else mine

    def shared(self) -> set[int]:
        """Return the expert digits that communicators which also span data digits, but not all digits, span."""
        found: set[int] = set()
        for spanned in self.spans.values():
            axes = {self.digits[i].axis for i in spanned}
            if axes == {"data", "expert"}:
                found |= {i for i in spanned if self.digits[i].axis == "expert"}
        return found

    def axis_of(self, communicator: str) -> str:
        """Return the axes that a communicator spans, innermost first, as in `tensor` or `expert x data`."""
        spanned = [self.digits[i].axis for i in self.spans.get(communicator, ())]
        return " x ".join(dict.fromkeys(spanned))


def find_axes(
    groups: Mapping[str, Group],
    ranks: int,
    operations: Mapping[str, set[str]],
    given: Mapping[str, str] | None = None,
    wanted: Iterable[str] = (),
) -> Axes:
    """Find the axes of a job of `ranks`; `operations` by communicator, `given` axes by its name or description.

    A job of one digit is of the only axis in `wanted`, or data parallel. Raises UsageError, naming the
    communicator, where groups fit no common grid, or where an axis cannot be told.
    """
    levels = {name: _levels(group, ranks) for name, group in groups.items()}
    bounds = _bounds(levels, ranks)
    digits = tuple(Digit(low, high // low) for low, high in pairwise(bounds))
    spans = {
        name: tuple(
            i
            for i, digit in enumerate(digits)
            if any(s <= digit.stride and digit.stride * digit.size <= s * n for s, n in found)
        )
        for name, found in levels.items()
    }
    axes = Axes(digits, spans)
    _label(axes, _said(groups, given or {}))
    _infer(axes, operations, list(wanted))
    return axes


def _levels(group: Group, ranks: int) -> list[tuple[int, int]]:
    """Return a group's ranks as nested (stride, size), innermost first."""
    if group.size == ranks:
        return [(1, ranks)] if ranks > 1 else []
    if not group.complete:
        raise UsageError(
            f"communicator {group.label}: only {len(group.members)} of its {group.size} members were captured, so "
            "its axis cannot be told; capture all of them, or scale without axes"
        )
    places = sorted(group.members.values())
    offsets = [place - places[0] for place in places]
    found: list[tuple[int, int]] = []
    block = 1
    while block < len(offsets):
        stride, count = offsets[block], 1
        while offsets[count * block : (count + 1) * block] == [stride * count + o for o in offsets[:block]]:
            count += 1
        if count == 1 or places[0] // stride % count:
            raise UsageError(
                f"communicator {group.label} of ranks {_few(places)} is no grid of ranks, so it has no axis; scale "
                "without axes, or with --replicas"
            )
        found.append((stride, count))
        block *= count
    return found


def _bounds(levels: Mapping[str, list[tuple[int, int]]], ranks: int) -> list[int]:
    bounds, last = [1], ""
    edges = sorted(
        {(edge, name) for name, found in levels.items() for s, n in found for edge in (s, s * n)}
        | {(ranks, "the job")}
    )
    for edge, name in edges:
        if edge % bounds[-1]:
            raise UsageError(
                f"communicators {last!r} and {name!r} do not fit one grid of ranks; scale without axes, or with "
                "--replicas"
            )
        if edge > bounds[-1]:
            bounds.append(edge)
            last = name
    return bounds


def _said(groups: Mapping[str, Group], given: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return by communicator the axis that somebody named, and who did."""
    for name, axis in given.items():
        if axis not in AXES:
            raise UsageError(f"--axis {name}={axis}: the axes are {', '.join(AXES)}")
        if not any(name in (group.name, group.description) for group in groups.values()):
            raise UsageError(
                f"--axis {name}={axis}: no communicator has that name; the trace has {_few(list(groups))}"
            )
    said: dict[str, tuple[str, str]] = {}
    for group in groups.values():
        words = set(re.split(r"[^a-z]+", f"{group.name} {group.description}".lower()))
        hits = [axis for axis, known in _WORDS.items() if words & known]
        if asked := given.get(group.name) or given.get(group.description):
            said[group.name] = (asked, "given")
        elif len(hits) == 1:
            said[group.name] = (hits[0], f"named by {group.label}")
    return said


def _label(axes: Axes, said: Mapping[str, tuple[str, str]]) -> None:
    """Give digits the axes that were said: what spans fewer digits first, then what is left of wider groups."""
    order = sorted(said, key=lambda name: (said[name][1] != "given", len(axes.spans[name]), name))
    for name in order:
        axis, how = said[name]
        spanned = [axes.digits[i] for i in axes.spans[name]]
        free = [digit for digit in spanned if not digit.axis]
        for digit in free:
            digit.axis, digit.known_by = axis, how
        if spanned and not free and all(digit.axis != axis for digit in spanned):
            raise UsageError(
                f"communicator {name!r} is {axis} ({how}), but its ranks are those of the {spanned[0].axis} axis "
                f"({spanned[0].known_by}); say which with --axis {name}={axis}"
            )


def _infer(axes: Axes, operations: Mapping[str, set[str]], wanted: list[str]) -> None:
    for i, digit in enumerate(axes.digits):
        if digit.axis:
            continue
        own = [name for name, spanned in axes.spans.items() if spanned == (i,)]
        if len(axes.digits) == 1:
            axis = wanted[0] if len(wanted) == 1 else "data"
        else:
            axis = _guess(digit, set().union(*(operations.get(name, set()) for name in own)), bool(own))
        other = next((d for d in axes.digits if d.axis == axis), None)
        if other:
            who = own[0] if own else next((n for n, s in axes.spans.items() if i in s), "of all ranks")
            raise UsageError(
                f"communicator {who!r} (ranks {digit.stride} apart, {digit.size} of them) looks {axis} parallel, "
                f"and so do ranks {other.stride} apart; say what each is, as in --axis {who}=data"
            )
        digit.axis, digit.known_by = axis, "inferred"


def _guess(digit: Digit, operations: set[str], own: bool) -> str:
    if own and operations and operations <= {"send", "recv"}:
        return "pipeline"
    if own and operations & {"all_to_all", "all_to_allv"} and not operations & _REDUCING:
        return "expert"
    return "tensor" if own and digit.stride == 1 else "data"


def target_sizes(axes: Axes, gpus: int | None, wanted: Mapping[str, int]) -> list[int]:
    """Return each digit's size at `gpus` GPUs with the axes in `wanted`; data takes what is left where not given.

    Raises UsageError for shapes that make no sense, with the reason.
    """
    for axis, size in wanted.items():
        _check_axis(axes, axis, size)
    sizes = {axis: wanted.get(axis, axes.size(axis)) for axis in AXES}
    outside = [axis for axis in AXES if axis != "data" and not (axis == "expert" and axes.shared())]
    rest = prod(sizes[axis] for axis in outside)
    if gpus is not None and "data" not in wanted and axes.of("data") and gpus % rest == 0:
        sizes["data"] = gpus // rest
    if gpus is not None and rest * sizes["data"] != gpus:
        shape = " x ".join(f"{axis} {sizes[axis]}" for axis in (*outside, "data") if sizes[axis] > 1)
        raise UsageError(
            f"--to {gpus} GPUs are not {shape} = {rest * sizes['data']}; change one of the axes, or --to"
        )
    return _spread(axes, sizes)


def _check_axis(axes: Axes, axis: str, size: int) -> None:
    if axis not in AXES:
        raise UsageError(f"no axis {axis!r}; the axes are {', '.join(AXES)}")
    flag, captured = f"--{axis}-parallel {size}", axes.size(axis)
    if size < 1:
        raise UsageError(f"{flag}: an axis has at least one rank")
    if size == captured:
        return
    if not axes.of(axis):
        have = ", ".join(f"{a} {axes.size(a)}" for a in AXES if axes.of(a)) or "none"
        raise UsageError(
            f"{flag}: the capture has no {axis} axis (its axes: {have}), so nobody measured what it does; capture "
            "one, or say which communicator it is with --axis NAME=" + axis
        )
    if axis == "pipeline":
        raise UsageError(
            f"{flag}: the capture's pipeline has {captured} stages, and another depth is another schedule; make it "
            "with --schedule 1f1b (or gpipe, interleaved, zb-h1)"
        )
    if axis == "context":
        raise UsageError(
            f"{flag}: no law is known for the compute of another split of the sequence; keep {captured}"
        )


def _spread(axes: Axes, sizes: Mapping[str, int]) -> list[int]:
    """Give each axis's size to its digits: the outermost grows or shrinks, the inner ones stay."""
    found = [digit.size for digit in axes.digits]
    for axis in ("expert", "tensor", "context", "pipeline", "data"):
        own = [i for i, digit in enumerate(axes.digits) if digit.axis == axis]
        if not own:
            continue
        inner = prod(found[i] for i in axes.of(axis) if i != own[-1])
        size, captured = sizes[axis] // inner, axes.digits[own[-1]].size
        if sizes[axis] % inner:
            raise UsageError(
                f"--{axis}-parallel {sizes[axis]} is no multiple of the {inner} ranks inside it; choose one that is"
            )
        if size % captured and captured % size:
            raise UsageError(
                f"--{axis}-parallel {sizes[axis]} is neither a multiple nor a divisor of the captured "
                f"{captured * inner}; choose one that is"
            )
        found[own[-1]] = size
    return found


def _few(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:8])) + (", ..." if len(items) > 8 else "")
