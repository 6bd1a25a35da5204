"""NPKit dumps -> a trace: what each channel's kernel and proxy did, step by step.

A dump is a folder with gpu_events_rank_R_buf_B, cpu_events_rank_R_channel_C, cpu_clock_period_num_rank_R,
cpu_clock_period_den_rank_R and gpu_clock_rate_rank_R (kHz) of every rank. Records have 16 bytes, little-endian: id
u8, size u32, reserved u24 (a proxy's slot), timestamp u64. Sources: microsoft/NPKit at 0bea8f8addc1,
rccl_samples/npkit_trace_generator.py; the structure NpKitEvent of RCCL's and MSCCL++'s npkit_struct.h.
What ids mean differs between builds (clock records are 0x33 and 0x34 in NCCL's and RCCL's, 1 and 2 in MSCCL++'s),
so that the build's npkit_event.h (MSCCL++: npkit_event.hpp) is needed, as NPKit's own generator needs it. MSCCL++'s
header has one id for all operations of its executor, to which an operation's number is added
(microsoft/mscclpp at 37774813, include/mscclpp/npkit/npkit_event.hpp); their names differ between builds, too.

A CPU record holds the host's clock. A GPU record counts from the last TIME_SYNC_GPU of its buffer, which is put at
the TIME_SYNC_CPU before it.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas.errors import InputError
from .brackets import Brackets
from .files import find_files, read_bytes
from .formats import Format, Head
from .rank import RankRecord

HEADER = "npkit_event.h"
_HEADERS = (HEADER, "npkit_event.hpp")
_BASE = "EXECUTOR_OP_BASE_"
_EVENTS = re.compile(r"(gpu|cpu)_events_rank_(\d{1,9})_(?:buf|channel)_(\d{1,9})")
_CLOCKS = re.compile(r"(?:gpu_clock_rate|cpu_clock_period_(?:num|den))_rank_\d{1,9}")
_DEFINED = re.compile(r"^\s*#define\s+NPKIT_(?:EVENT_)?(\w+)\s+(0[xX][0-9a-fA-F]+|\d+)\s*$", re.MULTILINE)
_RECORD = np.dtype([("id", "u1"), ("size", "<u4"), ("slot", "u1", 3), ("timestamp", "<u8")])
_GPU_SYNC, _CPU_SYNC = "TIME_SYNC_GPU", "TIME_SYNC_CPU"
_LATEST_NS = 2**62


def recognise(head: Head) -> bool:
    """Whether a file is one of a dump, or the header beside it, by its name."""
    name = head.path.name
    return bool(name in _HEADERS or _EVENTS.fullmatch(name) or _CLOCKS.fullmatch(name))


@dataclass
class Dump:
    """The files of one rank; each of `gpu` and `cpu` with its buffer or channel."""

    rank: int
    header: Path
    folder: Path
    gpu: list[tuple[int, Path]] = field(default_factory=list)
    cpu: list[tuple[int, Path]] = field(default_factory=list)


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[Dump]:
    """Return the dumps by rank. Raises InputError where there is none, or no npkit_event.h."""
    del companions
    files = find_files(paths, lambda file: recognise(Head(file, b"")), "files of an NPKit dump")
    events = {file: match for file in files if (match := _EVENTS.fullmatch(file.name))}
    if not events:
        raise InputError(
            f"{paths[0]} holds no gpu_events_rank_R_buf_B or cpu_events_rank_R_channel_C of NPKit"
        )
    folders = dict.fromkeys(file.parent for file in events)
    headers = [file for file in files if file.name in _HEADERS]
    headers += [folder / name for folder in folders for name in _HEADERS if (folder / name).is_file()]
    if not headers:
        raise InputError(
            f"{next(iter(folders))} has no {HEADER}: ids of events differ between builds; copy the one of the "
            "library that was traced (src/include/npkit) into the folder"
        )
    dumps: dict[int, Dump] = {}
    for file, match in events.items():
        dump = dumps.setdefault(int(match[2]), Dump(int(match[2]), headers[0], file.parent))
        if file.parent != dump.folder:
            raise InputError(
                f"{dump.folder} and {file.parent} both hold a dump of rank {dump.rank}; give the files of one run"
            )
        (dump.gpu if match[1] == "gpu" else dump.cpu).append((int(match[3]), file))
    return [dumps[rank] for rank in sorted(dumps)]


def read(dump: Dump, alone: bool) -> list[RankRecord]:
    """Read one rank. Raises InputError where a clock file is missing or wrong, or nothing was recorded."""
    del alone
    names = _names(dump.header)
    spans, counters = Brackets(), defaultdict[str, list[Any]](list)
    num, den = (_number(dump, f"cpu_clock_period_{part}_rank_{dump.rank}") for part in ("num", "den"))
    for channel, path in sorted(dump.cpu):
        _read_cpu(path, f"proxy channel {channel}", names, (num, den), spans, counters)
    khz = _number(dump, f"gpu_clock_rate_rank_{dump.rank}") if dump.gpu else 1
    for buffer, path in sorted(dump.gpu):
        _read_gpu(path, f"buffer {buffer}", names, (num, den, khz), spans, counters)
    if not spans.rows:
        raise InputError(
            f"{dump.folder}: rank {dump.rank} recorded no event that begins and ends; dump again"
        )
    columns = spans.finish()
    return [
        RankRecord(
            rank=dump.rank,
            path=dump.folder,
            world_size=None,
            hardware={"backend": "gpu"},
            spans=columns,
            edges={},
            parts=[],
            window_ns=spans.window(),
            dropped=dict(spans.dropped),
            notes=[
                f"rank {dump.rank}: NPKit does not tell peers, collectives or communicators; bytes are in the "
                "counters, at the end of each step; GPU times assume the SM clock's rated frequency between syncs"
            ],
            more={"counters": counters} if counters else {},
        )
    ]


FORMAT = Format(name="npkit", recognise=recognise, plan=plan, read=read)


def _names(header: Path) -> dict[int, str]:
    found = _DEFINED.findall(read_bytes(header).decode("utf-8", "replace"))
    names = {int(number, 16 if number[:2] in ("0x", "0X") else 10): name for name, number in found}
    if not {_GPU_SYNC, _CPU_SYNC} <= set(names.values()):
        raise InputError(f"{header} defines no NPKIT_EVENT_TIME_SYNC_GPU and _CPU; give the traced library's")
    bases = {name.removeprefix(_BASE): number for number, name in names.items() if name.startswith(_BASE)}
    if {"ENTRY", "EXIT"} <= bases.keys() and bases["ENTRY"] < bases["EXIT"]:
        for number in range(bases["EXIT"] - bases["ENTRY"]):
            names |= {base + number: f"EXECUTOR_OP_{number}_{end}" for end, base in bases.items()}
    return names


def _number(dump: Dump, name: str) -> int:
    path = dump.folder / name
    try:
        text = path.read_bytes()[:32].decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy the whole dump") from error
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**63):
        raise InputError(f"{path} holds no positive whole number, but {text!r}; dump again")
    return int(text)


def _records(path: Path, names: Mapping[int, str], spans: Brackets) -> list[tuple[str, int, int, int]]:
    """Return name, size, slot and timestamp of each record."""
    content = read_bytes(path)
    whole = len(content) // _RECORD.itemsize
    spans.dropped["record that is cut"] += len(content) % _RECORD.itemsize > 0
    rows = np.frombuffer(content, _RECORD, whole)
    slots = rows["slot"].astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
    known = np.isin(rows["id"], list(names))
    spans.dropped["record of an id that the header does not define"] += int((~known).sum())
    spans.dropped = +spans.dropped
    rows, slots = rows[known], slots[known]
    return [
        (names[number], size, slot, timestamp)
        for number, size, slot, timestamp in zip(
            rows["id"].tolist(),
            rows["size"].tolist(),
            slots.tolist(),
            rows["timestamp"].tolist(),
            strict=True,
        )
    ]


def _read_cpu(
    path: Path,
    lane: str,
    names: Mapping[int, str],
    period: tuple[int, int],
    spans: Brackets,
    counters: dict[str, list[Any]],
) -> None:
    for name, size, slot, timestamp in _records(path, names, spans):
        time_ns = timestamp * 1_000_000_000 * period[0] // period[1]
        _add(name, size, time_ns, f"{lane} slot {slot}", spans, counters)


def _read_gpu(
    path: Path,
    lane: str,
    names: Mapping[int, str],
    clocks: tuple[int, int, int],
    spans: Brackets,
    counters: dict[str, list[Any]],
) -> None:
    num, den, khz = clocks
    cpu_ns: int | None = None
    gpu: int | None = None
    for name, size, _, timestamp in _records(path, names, spans):
        if name == _CPU_SYNC:
            cpu_ns, gpu = timestamp * 1_000_000_000 * num // den, None
        elif name == _GPU_SYNC:
            gpu = timestamp if gpu is None else gpu
        elif cpu_ns is None:
            spans.dropped["record before its buffer's first clock record"] += 1
        else:
            gpu = timestamp if gpu is None else gpu
            _add(name, size, cpu_ns + (timestamp - gpu) * 1_000_000 // khz, lane, spans, counters)


def _add(
    name: str, size: int, time_ns: int, lane: str, spans: Brackets, counters: dict[str, list[Any]]
) -> None:
    """Add one record to the spans, and the bytes of what it ends to the counters."""
    if not 0 <= time_ns < _LATEST_NS:
        spans.dropped["record of an impossible time"] += 1
    elif name.endswith("_ENTRY"):
        spans.begin((lane, name.removesuffix("_ENTRY")), time_ns)
    elif name.endswith("_EXIT"):
        label = name.removesuffix("_EXIT").lower()
        row = spans.end((lane, name.removesuffix("_EXIT")), time_ns, lane, None, label)
        if row is not None and size:
            told = ("npkit", f"{label}_bytes on {lane}", time_ns, float(size))
            for column, value in zip(("source", "name", "time_ns", "value"), told, strict=True):
                counters[column].append(value)
    else:
        spans.instant(time_ns, lane, None, name.lower())
