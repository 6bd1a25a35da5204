"""A collective from what kernel, host record or name say of it: its operation, group, type, sizes and peer."""

import json
from collections.abc import Sequence
from typing import Any

from .objects import integer
from .operations import SYMMETRIC, operation_of
from .parts import Group, Part, shared
from .torch_types import element_type
from .work import Work

_POINT_TO_POINT = ("send", "recv")
_WHOLE = (
    *("In msg nelems", "Out msg nelems", "Group size", "Seq", "Rank", "Src Rank", "Dst Rank"),
    *("Global rank start", "Global rank stride"),
)
_UNTOLD = ("Seq", "Rank")
"""Of symmetric memory these are always 0, and the own rank even where there is a root."""
_ROOTED = ("broadcast", "reduce", "gather", "scatter")


def described(work: Work, span: int, record: int, sources: Sequence[tuple[str, dict[str, Any]]]) -> Part:
    """Build a part from the first source that names a known operation, completed from the later ones."""
    args: dict[str, Any] = {}
    best, operation = "nothing", "unknown"
    for source, given in sources:
        name = str(given.get("Collective name") or "")
        named = operation_of(name)
        if operation == "unknown" and named not in ("unknown", "wait"):
            best, operation = source, named
        untold = _UNTOLD if name.startswith(SYMMETRIC) else ()
        args = {**{k: v for k, v in given.items() if v is not None and k not in untold}, **args}
    args |= {key: integer(args[key]) for key in _WHOLE if key in args}
    if operation == "all_to_all" and _list(args.get("In split size")):
        operation = "all_to_allv"
    part = Part(
        span, record, operation, best, _group(args, int(work.stream[span])),
        int(work.start_ns[span]), int(work.end_ns[span]), None,
    )  # fmt: skip
    part.stream = int(work.stream[span])
    sequence = args.get("Seq")
    # Of sends and receives it is no number that both sides share: each counts all of its own, or collectives.
    part.sequence = sequence if isinstance(sequence, int) and operation not in _POINT_TO_POINT else None
    _measure(part, args)
    return part


def _measure(part: Part, args: dict[str, Any]) -> None:
    """Fill in type, sizes and peer."""
    told = str(args["dtype"]) if args.get("dtype") else None
    known = element_type(told) if told else None
    part.dtype, element_bytes = known or (told, args.get("element_bytes"))
    count_in, count_out = args.get("In msg nelems"), args.get("Out msg nelems")
    if isinstance(count_in, int) and isinstance(element_bytes, int):
        part.size_bytes = count_in * element_bytes
    if part.operation == "all_to_allv" and isinstance(element_bytes, int):
        split_in, split_out = _list(args.get("In split size")), _list(args.get("Out split size"))
        row = _row_elements(split_in, count_in) or _row_elements(split_out, count_out) or 1
        part.in_split_bytes = [rows * row * element_bytes for rows in split_in] or None
        part.out_split_bytes = [rows * row * element_bytes for rows in split_out] or None
    if part.operation in (*_POINT_TO_POINT, *_ROOTED):
        part.peer = _other_side(part, args)


def _other_side(part: Part, args: dict[str, Any]) -> int | None:
    """Return the root or the other side, as a group rank.

    PyTorch's `Rank` is that for these operations, its `Src Rank` and `Dst Rank` count in the job
    (RECORD_PARAM_COMMS_DATA in ProcessGroupNCCL.cpp, saveNcclMeta in profiler/util.cpp).
    """
    peer = args.get("peer", args.get("Rank"))
    if isinstance(peer, int):
        return peer if peer >= 0 else None
    rank, group = args.get("Dst Rank" if part.operation == "send" else "Src Rank"), part.group
    if not isinstance(rank, int):
        return None
    if group.ranks:
        return group.ranks.index(rank) if rank in group.ranks else None
    if group.start is None or not group.stride or (rank - group.start) % group.stride:
        return None
    return (rank - group.start) // group.stride


def _row_elements(split: list[int], elements: Any) -> int | None:
    """Return how many elements a row has: PyTorch counts splits along the first dimension, in rows."""
    total = sum(split)
    if not isinstance(elements, int) or not elements or not total or elements % total:
        return None
    return elements // total


def _list(value: Any) -> list[int]:
    """Return a list of integers given as such or as JSON in a string; empty where it is neither or is cut."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return value if isinstance(value, list) and all(isinstance(n, int) for n in value) else []


def _group(args: dict[str, Any], stream: int) -> Group:
    name = args.get("Process Group Name")
    size = args.get("Group size")
    ranks = _list(args.get("Process Group Ranks"))
    description = args.get("Process Group Description")
    start, stride = args.get("Global rank start"), args.get("Global rank stride")
    group = Group(
        str(name) if name not in (None, "") else None,
        tuple(ranks) or None,
        size if isinstance(size, int) and size > 0 else None,
        str(description) if description else None,
        None if name not in (None, "") else stream,
        start if isinstance(start, int) else None,
        stride if isinstance(stride, int) and stride > 0 else None,
    )
    return shared(group)
