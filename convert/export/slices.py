"""Intervals on rows in which they nest: what a viewer of begin and end events can show."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Slice(NamedTuple):
    """One interval, in the viewer's unit of time; `what` is the caller's."""

    start: int
    end: int
    what: Any


def rows_of(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Distribute slices over as few rows as first fit gives, so that any two in a row are disjoint or nested.

    Each row is in order of (start, longest first).
    """
    rows: list[list[Slice]] = []
    stacks: list[list[int]] = []
    for item in sorted(slices, key=lambda s: (s.start, -s.end)):
        for row, open_ends in zip(rows, stacks, strict=True):  # noqa: B007 - the row that the loop breaks at
            while open_ends and open_ends[-1] <= item.start:
                open_ends.pop()
            if not open_ends or open_ends[-1] >= item.end:
                break
        else:
            row, open_ends = [], []
            rows.append(row)
            stacks.append(open_ends)
        row.append(item)
        open_ends.append(item.end)
    return rows


def begins_and_ends(row: Iterable[Slice]) -> Iterator[tuple[int, bool, Any]]:
    """Yield (time, whether it begins, what) of a row's slices, as a stack opens and closes them."""
    stack: list[Slice] = []
    for item in row:
        while stack and stack[-1].end <= item.start:
            closed = stack.pop()
            yield closed.end, False, closed.what
        yield item.start, True, item.what
        stack.append(item)
    while stack:
        closed = stack.pop()
        yield closed.end, False, closed.what
