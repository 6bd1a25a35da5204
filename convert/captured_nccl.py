"""What NCCL told its plugin in a captured job, joined with the collectives that PyTorch called for.

NCCL hands an operation to the GPU within the call of PyTorch that asks for it, on the host's clock of both, which
joins the two. A call that only notes the operation (a coalescing block) leaves that to later: then the operations
of one kind in one communicator, which NCCL numbers, are the calls of that kind in one group, in order, from a place
that another of them, or their sizes, tell. What differs in size from its call is not joined.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .captured_record import Row
from .captured_ring import Call
from .captured_window import CALL
from .nccl_dump import NcclDump, read_dump
from .nccl_plugin import PATTERN, gpu_times, lowered
from .nccl_ring import read_header
from .operations import operation_of
from .parts import Part

Pair = tuple[Call, Part]
"""A call of PyTorch, and the collective that it is in the trace."""
Stream = tuple[int, str]
"""A communicator, by its place in the file, and a kind of operation: what NCCL numbers."""

_ONE_SIDED = ("send", "recv")
_BY_SENDS = ("send", "recv", "all_to_all", "all_to_allv", "gather", "scatter")
_KINDS: Mapping[str, tuple[str, ...]] = {
    # What PyTorch calls NCCL for (ProcessGroupNCCL.cpp of 2.13): a barrier is an all-reduce of one element, uneven
    # gathers are broadcasts and uneven reductions reduces; NCCL tells sends and receives of what is made of them.
    "barrier": ("all_reduce",),
    "all_gather": ("all_gather", "broadcast"),
    "reduce_scatter": ("reduce_scatter", "reduce"),
    **{name: (name, *_ONE_SIDED) for name in ("all_to_all", "gather", "scatter")},
    "all_to_allv": ("all_to_all", *_ONE_SIDED),
}
_LOOK_BACK = 8
"""How many calls before the last that began are looked at: threads' calls overlap, few at a time."""


@dataclass
class Joined:
    """What of a rank's records was joined: `parts` by operation's event, and `notes` for the reader."""

    dump: NcclDump
    parts: dict[int, Part] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    offset_ns: int = 0
    timed: bool = False


def find_file(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """Return the file of what NCCL told in the process of a rank's `record`; None where it told nothing.

    Raises InputError where a file cannot be read.
    """
    for file in sorted(folder.glob(PATTERN)):
        header = read_header(file)
        if header["process"] == record.get("pid") and header["rank"] in (-1, record["rank"]):
            return file
    return None


def find_dump(folder: Path, record: Mapping[str, Any]) -> NcclDump | None:
    """Return what NCCL told in the process of a rank's `record`; raises InputError where that cannot be read."""
    file = find_file(folder, record)
    return None if file is None else read_dump(file)


def join(dump: NcclDump, pairs: Sequence[Pair]) -> Joined:
    """Give the collectives of `pairs` the algorithm, protocol and channels that NCCL used, where it tells."""
    joined = Joined(dump)
    pairs = sorted(pairs, key=lambda pair: pair[0].start_ns)
    within = _in_window(dump, pairs)
    calls_of = _Calls(pairs)
    owner: dict[int, int] = {}
    by_stream: dict[Stream, list[dict[str, Any]]] = defaultdict(list)
    for row in within:
        at = calls_of.around(row)
        if at is not None:
            owner[row["event"]] = at
        if row["sequence_number"] is not None and row["communicator"] is not None:
            by_stream[row["communicator"], operation_of(row["operation"] or "")].append(row)
    for (_, kind), rows in by_stream.items():
        owner |= _by_number(rows, kind, owner, pairs)
    for at, rows in _of_calls(within, owner).items():
        if _same_size(pairs[at][0], rows):
            _describe(pairs[at][1], rows)
            joined.parts |= {row["event"]: pairs[at][1] for row in rows}
    _tell(joined, len(within))
    return joined


def _in_window(dump: NcclDump, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the operations from the first call on: what was before it tells nothing of the trace."""
    if not pairs:
        return []
    first, last = pairs[0][0].start_ns, max(call.end_ns for call, _ in pairs)
    rows: list[dict[str, Any]] = dump.operations.to_pylist()
    return [row for row in rows if first <= row["start_ns"] <= last]


class _Calls:
    """Calls in order of start: which of them was open when NCCL enqueued an operation."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._calls = [call for call, _ in pairs]
        self._starts = [call.start_ns for call in self._calls]

    def around(self, row: Mapping[str, Any]) -> int | None:
        """Return the index of the latest call that holds the operation and can be what it is for."""
        last = bisect_right(self._starts, row["start_ns"]) - 1
        for at in range(last, max(last - _LOOK_BACK, -1), -1):
            call = self._calls[at]
            if call.end_ns >= row["start_ns"] and operation_of(row["operation"] or "") in _kinds(call):
                return at
        return None


def _kinds(call: Call) -> tuple[str, ...]:
    operation = operation_of(call.name.removeprefix(CALL))
    return _KINDS.get(operation, (operation,))


def _by_number(
    rows: Sequence[Mapping[str, Any]], kind: str, owner: Mapping[int, int], pairs: Sequence[Pair]
) -> dict[int, int]:
    """Return the calls of those operations of one stream that no call holds, by their numbers."""
    groups: dict[str, list[int]] = defaultdict(list)
    for at, (call, _) in enumerate(pairs):
        if kind in _kinds(call):
            groups[call.group].append(at)
    for own in groups.values():
        own.sort(key=lambda at: pairs[at][0].number)
    place = {at: i for own in groups.values() for i, at in enumerate(own)}
    found: dict[int, int] = {}
    known = _anchor(rows, owner, groups, place, pairs)
    for row in sorted(rows, key=lambda row: int(row["sequence_number"])):
        if row["event"] in owner:
            at = owner[row["event"]]
            known = pairs[at][0].group, place[at] - row["sequence_number"]
        elif known is not None:
            own, i = groups[known[0]], row["sequence_number"] + known[1]
            found |= {row["event"]: own[i]} if 0 <= i < len(own) else {}
    return found


def _anchor(
    rows: Sequence[Mapping[str, Any]],
    owner: Mapping[int, int],
    groups: Mapping[str, Sequence[int]],
    place: Mapping[int, int],
    pairs: Sequence[Pair],
) -> tuple[str, int] | None:
    """Return group, and place less number, of a stream's first operation that a call holds, else by their sizes."""
    for row in rows:
        if row["event"] in owner:
            at = owner[row["event"]]
            return pairs[at][0].group, place[at] - row["sequence_number"]
    fits = [
        name
        for name, own in groups.items()
        if len(own) == len(rows)
        and all(_same_size(pairs[at][0], [row]) for at, row in zip(own, rows, strict=True))
    ]
    return (fits[0], -min(row["sequence_number"] for row in rows)) if len(fits) == 1 else None


def _of_calls(rows: Iterable[dict[str, Any]], owner: Mapping[int, int]) -> dict[int, list[dict[str, Any]]]:
    own: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["event"] in owner:
            own[owner[row["event"]]].append(row)
    return own


def _same_size(call: Call, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether operations move what their call does; a barrier, and what is made of sends, is not compared."""
    operation = operation_of(call.name.removeprefix(CALL))
    sizes = [row["size_bytes"] for row in rows]
    if operation == "barrier" or None in sizes:
        return True
    if operation in _BY_SENDS and operation not in _ONE_SIDED:
        return True
    return sum(sizes) in (call.in_bytes, call.out_bytes)


def _describe(part: Part, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what all of a call's operations have in common."""

    def common(name: str) -> Any:
        values = {row[name] for row in rows}
        return values.pop() if len(values) == 1 else None

    part.algorithm = lowered(common("algorithm")) or part.algorithm
    part.protocol = lowered(common("protocol")) or part.protocol
    part.channels = common("channels") or part.channels


def _tell(joined: Joined, operations: int) -> None:
    dump = joined.dump
    start, _, joined.offset_ns, width_ns = gpu_times(dump)
    joined.timed = bool(start)
    text = f"NCCL told {operations} operations of the time that is shown, of which {len(joined.parts)} were joined"
    clock = (
        f"; its GPU's timer is tied to the host's clock within {abs(width_ns) / 2000:.1f} us" if start else ""
    )
    joined.notes.append(text + clock)
    if dump.lost:
        joined.notes.append(f"{dump.lost} records of NCCL were lost by its ring: raise EIDOLA_NCCL_RECORDS")


def annotations(joined: Joined) -> list[Row]:
    """Return the channels of the joined operations' kernels, and their network transfers, as annotations."""
    rows: list[Row] = []
    for row in joined.dump.channels.to_pylist() if joined.timed else []:
        part = joined.parts.get(row["operation"])
        if part is not None and row["gpu_start_ns"] is not None and row["gpu_end_ns"] is not None:
            times = row["gpu_start_ns"] + joined.offset_ns, row["gpu_end_ns"] + joined.offset_ns
            rows.append((f"nccl channel {row['channel']}", "annotation", _named(part), None, *times))
    for row in joined.dump.transfers.to_pylist():
        part = joined.parts.get(row["operation"])
        if part is not None and row["end_ns"] is not None:
            lane = f"nccl {'send' if row['send'] else 'recv'} channel {row['channel']}"
            start_ns = row["start_ns"] if row["issue_ns"] is None else row["issue_ns"]
            rows.append(
                (lane, "annotation", _transfer(part, row), None, start_ns, max(start_ns, row["end_ns"]))
            )
    return sorted(rows, key=lambda row: row[4])


def _named(part: Part) -> str:
    return f"{part.operation} {part.sequence} of {part.group.name}"


def _transfer(part: Part, row: Mapping[str, Any]) -> str:
    ranks, peer = part.group.ranks, row["peer"]
    other = ranks[peer] if ranks and 0 <= peer < len(ranks) else peer
    size = "" if row["size_bytes"] is None else f" {row['size_bytes']} bytes"
    return f"{_named(part)}:{size} {'to' if row['send'] else 'from'} rank {other}"
