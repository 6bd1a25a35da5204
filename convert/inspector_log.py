"""The lines of an NCCL inspector's log: one a collective, send or receive, of whichever version of the format.

Up to v4.2 every line has the communicator (`header`) and the process (`metadata`) beside its `coll_perf` or
`p2p_perf`. From v4.1 on a line `dump_stats` precedes those of each dump, with what the rings lost; from v4.3 on it
alone has header and metadata, and says how many lines they are of (NVIDIA/nccl, commit 08618d4a,
plugins/profiler/inspector/inspector_json_reader.py).
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .files import STRANGE_LINES, read_lines, whole
from .nccl_calls import OF_ALL_RANKS
from .nccl_ranks import Place
from .operations import operation_of

_LATEST_US = 2**63 // 1000 - 1
_RECORDS = ("coll_records", "p2p_records", "proxy_records")
_UNKNOWN = "unknown"
CHANNELS = "channels"
"""What times an operation where the log is verbose."""


@dataclass(frozen=True)
class Line:
    """One operation; `source` says what timed it, `peer` the other side of a send or receive, as a group rank."""

    place: Place
    description: str | None
    host: str | None
    operation: str
    number: int | None
    size_bytes: int | None
    start_ns: int
    end_ns: int
    launch_ns: int | None
    channels: int | None
    source: str
    path: Path
    peer: int | None = None
    algorithm: str | None = None
    protocol: str | None = None


@dataclass
class Log:
    """What a file holds.

    `broken` counts lines that are cut or not the inspector's, `proxies` those on the network's steps, which are not
    read. `lost` is what each place's rings lost, `ringed` whether the format tells that; `cut` whether lines of the
    last dump are missing.
    """

    path: Path
    lines: list[Line] = field(default_factory=list)
    broken: int = 0
    proxies: int = 0
    lost: Counter[Place] = field(default_factory=Counter)
    lost_pairs: bool = False
    ringed: bool = False
    cut: bool = False


def read_log(path: Path) -> Log:
    """Read a file, as far as it is the inspector's."""
    log = Log(path)
    context: Mapping[str, Any] = {}
    left = 0
    for text in read_lines(path):
        if not text.strip():
            continue
        record = _object(text)
        if isinstance(stats := record.get("dump_stats"), dict):
            log.cut |= left > 0
            context = {name: record[name] for name in ("header", "metadata") if name in record}
            counts = (whole(stats.get(name), 0) for name in _RECORDS) if _alone(context) else ()
            left = sum(count or 0 for count in counts)
            _note_losses(log, context, stats)
            continue
        if "header" not in record and left:
            left -= 1
            record = {**context, **record}
        if isinstance(record.get("proxy_trace"), dict):
            log.proxies += 1
        elif line := _line(path, record):
            log.lines.append(line)
        else:
            log.broken += 1
            if log.broken >= STRANGE_LINES and not log.lines:
                break
    log.cut |= left > 0
    log.lines = _laid_out(log.lines)
    return log


def _object(text: bytes) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _alone(context: Mapping[str, Any]) -> bool:
    """Whether the lines of a dump have header and metadata in its `dump_stats` only."""
    metadata = context.get("metadata")
    version = metadata.get("inspector_output_format_version") if isinstance(metadata, dict) else None
    return version not in ("v4.1", "v4.2")


def _note_losses(log: Log, context: Mapping[str, Any], stats: Mapping[str, Any]) -> None:
    log.ringed = True
    if place := _place(context):
        lost = [whole(stats.get(f"{kind}_dropped_total"), 0) or 0 for kind in ("coll", "p2p")]
        log.lost[place] = max(log.lost[place], sum(lost))
        log.lost_pairs |= lost[1] > 0


def _place(record: Mapping[str, Any]) -> Place | None:
    """Return which rank of which communicator a line is of; None where it does not say."""
    header, metadata = record.get("header"), record.get("metadata")
    if not isinstance(header, dict) or not isinstance(metadata, dict):
        return None
    rank, size = whole(header.get("rank"), 0, 2**31 - 1), whole(header.get("n_ranks"), 1, 2**31 - 1)
    name = header.get("id")
    if rank is None or not isinstance(name, str) or (size is not None and rank >= size):
        return None
    return Place((_host(metadata), whole(metadata.get("pid"))), name, rank, size)


def _host(metadata: Mapping[str, Any]) -> str | None:
    host = metadata.get("hostname")
    return host if isinstance(host, str) else None


def _line(path: Path, record: Mapping[str, Any]) -> Line | None:
    """Return what one line says; None where it is cut or is not one of the inspector's."""
    place = _place(record)
    key = "p2p" if isinstance(record.get("p2p_perf"), dict) else "coll"
    told = record.get(f"{key}_perf")
    if place is None or not isinstance(told, dict) or not isinstance(kind := told.get(key), str):
        return None
    told = {name.removeprefix(f"{key}_"): value for name, value in told.items()}
    times = _times(record["metadata"], told, key)
    if times is None:
        return None
    operation = operation_of(kind.replace("All2All", "AlltoAll"))
    length = whole(told.get("msg_size_bytes"), 0)
    if operation in OF_ALL_RANKS:  # NCCL counts one rank's share
        length = whole(length * place.size, 0) if length is not None and place.size else None
    start_ns, end_ns, launch_ns, channels, source = times
    return Line(
        place,
        _told(record["header"].get("comm_name")),
        _host(record["metadata"]),
        operation,
        whole(told.get("sn"), 0, 2**56) if key == "coll" else None,
        length,
        start_ns,
        end_ns,
        launch_ns,
        channels,
        source,
        path,
        whole(told.get("peer"), 0, 2**31 - 1) if key == "p2p" else None,
        _lowered(told.get("algo")),
        _lowered(told.get("proto")),
    )


def _told(value: Any) -> str | None:
    """Return a name, None where it is the inspector's word for none."""
    return value[:256] if isinstance(value, str) and value and value.lower() != _UNKNOWN else None


def _lowered(value: Any) -> str | None:
    name = _told(value)
    return name.lower() if name is not None and len(name) < 64 else None


def _times(
    metadata: Mapping[str, Any], told: Mapping[str, Any], key: str
) -> tuple[int, int, int | None, int | None, str] | None:
    """Return start, end, call, channels and what timed it: the channels where the log is verbose."""
    said = told.get("timing_source")
    source = said if isinstance(said, str) and len(said) < 64 else _UNKNOWN
    trace = told.get("event_trace_ts")
    trace = trace if isinstance(trace, dict) else {}
    events = trace.get("kernel_events")
    rows = [e for e in events if isinstance(e, dict)] if isinstance(events, list) else []
    starts = [t for e in rows if (t := whole(e.get("kernel_start_ts"), 1, _LATEST_US))]
    ends = [t for e in rows if (t := whole(e.get("kernel_stop_ts"), 1, _LATEST_US))]
    called = whole(trace.get(f"{key}_start_ts"), 1, _LATEST_US)
    if starts and ends and max(ends) >= min(starts):
        launch_ns = called * 1000 if called else None
        return min(starts) * 1000, max(ends) * 1000, launch_ns, len(starts), CHANNELS
    written = whole(metadata.get("dump_timestamp_us"), 1, _LATEST_US)
    length = whole(told.get("exec_time_us"), 0, _LATEST_US)
    if written is None or length is None or length > written:
        return None
    return (written - length) * 1000, written * 1000, None, None, source


def lane_of(line: Line) -> str:
    """Return what does one operation at a time: a communicator's collectives, and each of its pairs."""
    pair = f" {line.operation} {'' if line.peer is None else line.peer}".rstrip()
    own = pair if line.operation in ("send", "recv") else ""
    return f"communicator {line.place.communicator}{own}"


def _laid_out(lines: list[Line]) -> list[Line]:
    """Return the lines with ends before what followed them: those of one dump were all written at one time."""
    following: dict[tuple[Place, str], int] = {}
    found = []
    for line in reversed(lines):
        if line.source != CHANNELS:
            key = line.place, lane_of(line)
            end = min(line.end_ns, following.get(key, line.end_ns))
            start = max(0, end - (line.end_ns - line.start_ns))
            line = replace(line, start_ns=start, end_ns=end)
            following[key] = start
        found.append(line)
    return found[::-1]
