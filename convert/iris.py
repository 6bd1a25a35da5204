"""Traces of iris -> a trace: remote stores, loads and atomics of workgroups, where the kernel brackets them.

Their layout: ROCm/iris at 10cd81f95166, iris/tracing/core.py (`Tracing.export`, schema 1.1) and events.py: trace
events of category iris, a file a rank (NAME_rankR.json), or one merged by rank 0 whose times count from the
earliest of all ranks. Times are ticks of s_memrealtime, whose rate the metadata says (100 MHz). In iris' own
buffers `duration_cycles` is the end's stamp; the export has turned it into `dur`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError
from .brackets import Brackets
from .files import find_files, read_chunks, whole
from .formats import Format, Head, read_head
from .json_stream import EventFile, recover
from .rank import RankRecord

_MARK = re.compile(rb'"cat"\s*:\s*"iris"')
_RATE = re.compile(r"@\s*(\d{1,6})\s*MHz")
_STORES = ("store", "put", "copy")
_ATOMIC = "atomic_"
_LATEST_TICKS = 2**62 // 1000
"""So that no time, in ns at 1 MHz, leaves 64 bits."""


def recognise(head: Head) -> bool:
    """Whether a file begins with trace events of category iris."""
    return head.start[:64].lstrip()[:1] == b"{" and bool(_MARK.search(head.start[:8192]))


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[Path]:
    """Return the files; a merged one holds all ranks."""
    del companions
    return find_files(paths, lambda file: recognise(read_head(file)), "traces of iris")


def read(path: Path, alone: bool) -> list[RankRecord]:
    """Read the ranks of a file. Raises InputError where it holds no event of iris, or not the timer's rate."""
    del alone
    file = EventFile(path)
    own: dict[int, _Rank] = defaultdict(_Rank)
    for event in _events(file):
        rank = whole(event.get("pid"), 0, 2**31 - 1)
        if event.get("cat") == "iris" and rank is not None:
            own[rank].add(rank, event)
    if not own:
        raise InputError(
            f"{path} holds no event of iris; call tracing.enable() before the kernel is launched"
        )
    metadata = file.metadata.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    tick_ns = _tick_ns(path, metadata)
    records = [_record(path, rank, events, metadata, tick_ns) for rank, events in sorted(own.items())]
    lost = Counter(records[0].dropped) + file.dropped
    records[0].dropped = dict(lost)
    for record in records:
        record.truncated = file.truncated
    return records


FORMAT = Format(name="iris", recognise=recognise, plan=plan, read=read)


class _Source:
    """The bounded content of a file, to be read as a stream."""

    def __init__(self, path: Path) -> None:
        self._chunks, self._left = read_chunks(path), b""

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; empty at the end."""
        if not self._left:
            self._left = next(self._chunks, b"")
        given, self._left = self._left[:count], self._left[count:]
        return given


def _events(file: EventFile) -> Iterator[dict[str, Any]]:
    """Yield the file's events; afterwards `file` holds its metadata, and what was lost."""
    rest = b""
    pieces = file.pieces(_Source(file.path))  # type: ignore[arg-type]  # of a stream it only reads
    for piece in pieces:
        events, rest, ended = recover(rest + piece, file.dropped)
        yield from events
        if ended:
            file.end(rest)
            rest = b""
            for _ in pieces:  # so that the metadata behind the array is read
                pass
            break
    file.finish(rest)


def _tick_ns(path: Path, metadata: dict[str, Any]) -> int:
    unit = metadata.get("time_unit")
    rate = _RATE.search(unit[:256]) if isinstance(unit, str) else None
    mhz = int(rate[1]) if rate else 0
    if not mhz or 1000 % mhz:
        raise InputError(
            f"{path} does not say at which rate its timer ticks (metadata.time_unit, such as `raw cycles "
            "(s_memrealtime @ 100MHz)`); is the file whole?"
        )
    return 1000 // mhz


def _text(value: str) -> str:
    """Return the start of a text; half a surrogate pair, which JSON can spell, is no text."""
    return value[:256].encode("utf-8", "replace").decode()


class _Rank:
    """One rank's phases and writes, in ticks of its timer."""

    def __init__(self) -> None:
        self.spans = Brackets()
        self.writes: dict[str, list[Any]] = defaultdict(list)

    def add(self, rank: int, event: dict[str, Any]) -> None:
        """Add one event, and the write that it is; a moment only says that the operation was issued."""
        args, name = event.get("args"), event.get("name")
        start, length = whole(event.get("ts"), 0, _LATEST_TICKS), whole(event.get("dur", 0), 0, _LATEST_TICKS)
        if start is None or length is None or not isinstance(args, dict) or not isinstance(name, str):
            self.spans.dropped["event without name, time or arguments"] += 1
            return
        workgroup = whole(args.get("program_id"), 0, 2**31 - 1)
        lane = f"workgroup {'unknown' if workgroup is None else workgroup}"
        kind = "phase" if event.get("ph") == "X" else "annotation"
        self.spans.rows.append((lane, workgroup, kind, _text(name), start, start + length))
        peer, size = whole(args.get("target_rank"), 0, 2**31 - 1), whole(args.get("payload_size"), 0)
        if not name.startswith((*_STORES, _ATOMIC)) or peer == rank:
            return
        if size is None or peer is None:
            what = "size" if size is None else "target"
            self.spans.dropped[f"write of unknown {what} (kept as a phase)"] += 1
            return
        row = {
            "peer": peer,
            "workgroup": workgroup,
            "span": len(self.spans.rows) - 1,
            "issue_ns": start,
            "size_bytes": size,
            "kind": "atomic" if name.startswith(_ATOMIC) else "data",
            "origin": "measured",
        }
        for column, value in row.items():
            self.writes[column].append(value)


def _record(path: Path, rank: int, own: _Rank, metadata: dict[str, Any], tick_ns: int) -> RankRecord:
    spans, writes = own.spans, own.writes
    if not spans.rows:
        raise InputError(f"{path}: no event of rank {rank} has a name and a time; export again")
    first, last = spans.window()
    columns = spans.finish()
    for name in ("start_ns", "end_ns"):
        columns[name] = [ticks * tick_ns for ticks in columns[name]]
    if writes:
        writes["issue_ns"] = [ticks * tick_ns for ticks in writes["issue_ns"]]
    texts = {
        key: _text(value)
        for key in ("gpu_device_name", "hostname")
        if isinstance(value := metadata.get(key), str)
    }
    return RankRecord(
        rank=rank,
        path=path,
        world_size=whole(metadata.get("world_size"), 1, 2**31 - 1),
        hardware={
            "backend": "gpu",
            "vendor": "amd",
            "model": texts.get("gpu_device_name"),
            "host": texts.get("hostname"),
            "compute_units": whole(metadata.get("gpu_cu_count"), 0, 2**31 - 1),
        },
        spans=columns,
        edges={},
        parts=[],
        window_ns=(first * tick_ns, last * tick_ns),
        dropped=dict(spans.dropped),
        notes=_notes(rank, metadata, bool(writes)),
        more={"writes": writes} if writes else {},
    )


def _notes(rank: int, metadata: dict[str, Any], written: bool) -> list[str]:
    notes = [
        f"rank {rank}: only operations that the kernel brackets are there; loads and waits are phases, for whose "
        "they wait is not told, and addresses name no region"
    ]
    if not written:
        notes.append(f"rank {rank}: no remote store or atomic was traced")
    if "aligned" in metadata:
        notes.append("iris merged the ranks by subtracting one minimum; GPUs' timers were not aligned")
    most = whole(metadata.get("max_events"), 1)
    told = whole(metadata.get("total_events"), 0) or whole(metadata.get("num_events"), 0)
    if most and told and told >= most:
        notes.append(
            f"the trace holds as many events as its buffer ({most}); later ones were dropped silently"
        )
    return notes
