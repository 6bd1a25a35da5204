"""Dumps of PyTorch's flight recorder -> a trace, and which rank is stuck in which collective.

A dump is a pickle of plain values, one a rank, which a hung or failed job leaves behind (`nccl_trace_rank_0`,
`comm_lib_trace_rank_0`), or the JSON that `_dump_nccl_trace_json` returns. Its layout: pytorch/pytorch at
1189309e9a32, torch/csrc/distributed/c10d/FlightRecorderDetail.hpp (`getCollectiveTrace`, `dump_dict`, `dump_json`);
versions up to 2.10 were read. Starts and ends are when the watchdog of the process noticed them, and there is none
of what had not ended. Only what ended becomes a collective of the trace; what did not is an annotation up to the
last moment that any dump knows, and a note.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError
from .files import find_files, read_bytes, whole
from .flight_states import Call, mismatched, stuck
from .formats import Format, Head, read_head
from .operations import operation_of
from .parts import Group, Part
from .plain_pickle import load
from .rank import RankRecord
from .torch_types import element_type

_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_JSON_MARKS = (b'"collective_seq_id"', b'"profiling_name"')
_MARKS = (b"pg_config", b"version")
_PEER = re.compile(r"(?:send|recv) \d+\s*(?:->|<-)\s*(\d+)")
_RANK = re.compile(r"(\d+)(?:\.[A-Za-z]\w*)*$")
_LONGEST_NAME = 4096


def recognise(head: Head) -> bool:
    """Whether a file is a pickle, or JSON, that begins like a dump."""
    pickled = bool(_PICKLE.match(head.start)) and all(mark in head.start for mark in _MARKS)
    return pickled or (head.start.lstrip()[:1] == b"{" and all(mark in head.start for mark in _JSON_MARKS))


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Return one task of all dumps: who is stuck shows only in all of them."""
    del companions
    return [tuple(find_files(paths, lambda file: recognise(read_head(file)), "flight-recorder dumps"))]


@dataclass
class _Dump:
    rank: int
    path: Path
    calls: list[Call]
    groups: dict[str, Group]
    notes: list[str]
    dropped: int


def read(paths: tuple[Path, ...], alone: bool) -> list[RankRecord]:
    """Read all ranks' dumps. Raises InputError where one is no dump, or nothing is in any of them."""
    del alone
    dumps = [_read(path, alone=len(paths) == 1) for path in paths]
    calls = [call for dump in dumps for call in dump.calls]
    if not calls:
        raise InputError(
            f"{paths[0]}: no dump holds an entry; set TORCH_FR_BUFFER_SIZE (2000, say) before the job starts"
        )
    horizon_ns = max(max(call.created_ns, call.completed_ns or 0, call.started_ns or 0) for call in calls)
    apart = mismatched(calls)
    records = [_record(dump, horizon_ns, {key for key, _ in apart if key}) for dump in dumps if dump.calls]
    records[0].notes += [
        "starts and ends are when a watchdog noticed them, late by up to its polling interval; clocks are the "
        "hosts' own",
        *(text for _, text in apart),
        *stuck(calls, {dump.rank for dump in dumps}),
    ]
    return records


FORMAT = Format(name="flight-recorder", recognise=recognise, plan=plan, read=read)


def _read(path: Path, *, alone: bool) -> _Dump:
    document = _document(path)
    entries = document.get("entries", []) if isinstance(document, dict) and "version" in document else None
    if not isinstance(entries, (list, tuple)):
        raise InputError(
            f"{path} is no dump of the flight recorder: it has no version and entries; dump it again"
        )
    named = _RANK.search(path.name)
    if named is None and not alone:
        raise InputError(
            f"{path} does not tell its rank; name the dumps so that each ends in its rank, as _rank_0"
        )
    rank = int(named[1][:9]) if named else 0
    notes = [] if named else [f"{path.name} does not tell its rank; 0 was taken"]
    groups = _groups(document.get("pg_config"))
    ended = _ended(document.get("pg_status"))
    sizes: dict[int, int | None] = {}
    calls = [
        call
        for entry in entries
        if isinstance(entry, dict) and (call := _call(rank, entry, groups, ended, sizes))
    ]
    return _Dump(rank, path, calls, groups, notes, len(entries) - len(calls))


def _document(path: Path) -> Any:
    content = read_bytes(path)
    if not content.lstrip().startswith(b"{"):
        return load(path, content)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no whole JSON ({error}); copy or dump it again") from error


def _groups(config: Any) -> dict[str, Group]:
    """Return the groups that the rank is in; their ranks are JSON in a string, and may be left empty."""
    groups = {}
    for name, told in config.items() if isinstance(config, dict) else ():
        if not isinstance(name, str) or not isinstance(told, dict):
            continue
        try:
            ranks = json.loads(told["ranks"])
        except (ValueError, TypeError, KeyError, RecursionError):
            ranks = []
        known = isinstance(ranks, list) and all(whole(r, 0, 2**31 - 1) is not None for r in ranks)
        members = tuple(ranks) if known and len(set(ranks)) == len(ranks) else ()
        description = told.get("desc")
        groups[name] = Group(
            name, members or None, len(members) or None, description if isinstance(description, str) else None
        )
    return groups


def _ended(status: Any) -> dict[str, int]:
    """Return the last collective that ended, by the group's number, where the process keeps account."""
    if not isinstance(status, dict):
        return {}
    last = {
        str(key): _number(told.get("last_completed_collective"))
        for key, told in status.items()
        if isinstance(told, dict)
    }
    return {key: number for key, number in last.items() if number is not None}


def _number(value: Any) -> int | None:
    """Return a number from 0, which JSON has as text here."""
    text = isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value)
    return whole(int(value) if text else value, 0)


def _call(
    rank: int,
    entry: Mapping[str, Any],
    groups: Mapping[str, Group],
    ended: Mapping[str, int],
    sizes: dict[int, int | None],
) -> Call | None:
    """Return what an entry says, or None where it says no time, no name or no group."""
    name, created = entry.get("profiling_name"), whole(entry.get("time_created_ns"), 1)
    told = entry.get("process_group")
    pair = [text for text in told if isinstance(text, str)] if isinstance(told, (list, tuple)) else []
    if not isinstance(name, str) or created is None or len(pair) != 2:
        return None
    peer = _PEER.search(name[:_LONGEST_NAME])
    told_p2p = entry.get("is_p2p")
    p2p = bool(peer) if told_p2p is None else told_p2p is True  # dumps before version 2.2 do not say
    sequence = whole(entry.get("p2p_seq_id" if p2p else "collective_seq_id"), 0)
    dtype, size_bytes = _size(entry, sizes)
    completed = whole(entry.get("time_discovered_completed_ns"), created)
    counted = not p2p and sequence is not None and sequence <= ended.get(str(entry.get("pg_id")), -1)
    started = whole(entry.get("time_discovered_started_ns"), created)
    state = "completed" if completed or counted else "started" if started else "scheduled"
    return Call(
        rank=rank,
        name=name[:_LONGEST_NAME],
        operation=operation_of(name[:_LONGEST_NAME]),
        group=groups.get(pair[0]) or Group(pair[0], None, None, pair[1] or None),
        sequence=sequence,
        p2p=p2p,
        peer=whole(int(peer[1][:18]), 0, 2**31 - 1) if peer else None,
        dtype=dtype,
        size_bytes=size_bytes,
        created_ns=created,
        started_ns=started,
        completed_ns=completed,
        duration_ns=_duration(entry.get("duration_ms")),
        state=state,
    )


def _duration(value: Any) -> int | None:
    """Return the GPU's own duration, which is there with TORCH_NCCL_ENABLE_TIMING."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12
    return round(value * 1_000_000) if known else None


def _size(entry: Mapping[str, Any], sizes: dict[int, int | None]) -> tuple[str | None, int | None]:
    """Return type and bytes of the inputs; `sizes` keeps elements by list, as entries may share theirs."""
    types, shapes = entry.get("input_dtypes"), entry.get("input_sizes")
    first = types[0] if isinstance(types, (list, tuple)) and types else None
    known = element_type(first) if isinstance(first, str) and len(first) < 64 else None
    if known is None or not isinstance(shapes, (list, tuple)):
        return None, None
    if id(shapes) not in sizes:
        counts = [_elements(shape, sizes) for shape in shapes]
        told = [count for count in counts if count is not None]
        sizes[id(shapes)] = sum(told) if len(told) == len(counts) else None
    elements = sizes[id(shapes)]
    return known[0], None if elements is None else whole(elements * known[1], 0)


def _elements(shape: Any, sizes: dict[int, int | None]) -> int | None:
    if id(shape) not in sizes:
        fit = isinstance(shape, (list, tuple)) and len(shape) <= 64
        fit = fit and all(whole(extent, 0) is not None for extent in shape)
        sizes[id(shape)] = whole(math.prod(shape), 0) if fit else None
    return sizes[id(shape)]


def _record(dump: _Dump, horizon_ns: int, apart: set[tuple[str | None, int]]) -> RankRecord:
    """Return a rank's record: an annotation a call, and a collective where its end was noticed."""
    parts, starts, ends = [], [], []
    for span, call in enumerate(dump.calls):
        start, end = call.window(horizon_ns)
        starts.append(start)
        ends.append(end)
        if call.completed_ns and call.sequence is not None and (call.group.name, call.sequence) not in apart:
            parts.append(_part(span, call, start, end))
    timeless = sum(call.state == "completed" and not call.completed_ns for call in dump.calls)
    dropped = {"entry without time, name or group": dump.dropped, "collective that ended unnoticed": timeless}
    host = all(call.name.startswith(("gloo:", "mpi:")) for call in dump.calls)
    world = next((g.size for g in dump.groups.values() if g.description == "default_pg" and g.size), None)
    labels = [
        call.name if call.state == "completed" else f"{call.name} ({call.state}, not completed)"
        for call in dump.calls
    ]
    return RankRecord(
        rank=dump.rank,
        path=dump.path,
        world_size=world,
        hardware={"backend": "host" if host else "gpu"},
        spans={
            "span": range(len(dump.calls)),
            "lane": [f"group {call.group.name}" for call in dump.calls],
            "kind": ["annotation"] * len(dump.calls),
            "name": labels,
            "launch_ns": [call.created_ns for call in dump.calls],
            "start_ns": starts,
            "end_ns": ends,
        },
        edges={},
        parts=parts,
        window_ns=(min(call.created_ns for call in dump.calls), max(ends)),
        dropped={reason: count for reason, count in dropped.items() if count},
        notes=dump.notes,
        late=True,
    )


def _part(span: int, call: Call, start_ns: int, end_ns: int) -> Part:
    return Part(
        span=span,
        record=-1,
        operation=call.operation,
        source="flight recorder",
        group=call.group,
        start_ns=start_ns,
        end_ns=end_ns,
        launch_ns=call.created_ns,
        sequence=call.sequence,
        dtype=call.dtype,
        size_bytes=call.size_bytes,
        peer=call.peer if call.operation in ("send", "recv") else None,
        on_gpu=False,
    )
