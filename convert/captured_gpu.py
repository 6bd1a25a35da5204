"""A captured PyTorch job on GPUs -> a trace of one window, its collectives described by the ring's calls.

A window is a trace of PyTorch's profiler, and is read as such. At the light level it holds kernels and their
launches only: a kernel that was launched during a call of the ring is that call's, which gives group, number,
type and sizes.
"""

from bisect import bisect_right
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..schemas import TraceWriter
from ..schemas.errors import InputError
from . import captured_nccl, captured_telemetry, nccl_plugin
from .captured_light import describe
from .captured_record import gap_text, mark_rows, read_record
from .captured_ring import Call, read_calls
from .captured_window import CALL
from .columns import whole
from .job import write_job
from .kineto import read_rank
from .member import member
from .operations import operation_of
from .parts import Part
from .rank import RankRecord
from .sources import Source


def convert(folder: Path, manifest: dict[str, Any], writer: TraceWriter) -> None:
    """Write the last window that all ranks of the capture in `folder` have, or what NCCL told where they have none.

    Raises InputError where there is neither, or a file cannot be read.
    """
    own = {entry["rank"]: read_record(member(folder, entry["file"])) for entry in manifest["ranks"]}
    step = _last_common_step(own)
    read = _read_nccl(folder, manifest, own) if step is None else _read_windows(folder, own, step)
    records = [_complete(folder, rank, own[rank], read[rank]) for rank in sorted(own)]
    sampled, notes = captured_telemetry.tables(folder, own)
    for made in records:
        made.more |= sampled.get(made.rank, {})
    records[0].notes += notes
    write_job(writer, records, "eidola capture of PyTorch")
    copied = ("backend", "command", "date", "exit_code", "oversubscribed", "failures")
    writer.notes |= {
        **{key: manifest[key] for key in copied},
        "first_step": step,
        "gaps": [{"rank": rank, **gap} for rank, record in own.items() for gap in record["gaps"]],
    }


def _last_common_step(own: dict[int, dict[str, Any]]) -> int | None:
    steps = [{window["first_step"] for window in record["windows"]} for record in own.values()]
    common = set.intersection(*steps)
    return int(max(common)) if common else None


def _read_windows(folder: Path, own: dict[int, dict[str, Any]], step: int) -> dict[int, RankRecord]:
    read = {}
    for rank, record in own.items():
        window = next(w for w in record["windows"] if w["first_step"] == step)
        traced = window["execution_trace"]
        source = Source(member(folder, window["trace"]), member(folder, traced) if traced else None)
        read[rank] = read_rank(source)
    return read


def _read_nccl(
    folder: Path, manifest: dict[str, Any], own: dict[int, dict[str, Any]]
) -> dict[int, RankRecord]:
    """Return what NCCL's records alone tell: every collective with its time on the GPU, and no other kernel."""
    read = {}
    for rank, record in own.items():
        file = captured_nccl.find_file(folder, record)
        if file is None:
            raise InputError(
                f"{folder}: no profiler window was sealed on every rank, so that no GPU work is known "
                f"({gap_text(manifest)}); capture for longer, or with --detail all"
            )
        (read[rank],) = nccl_plugin.read(file, alone=False)
    first = read[min(read)]
    first.notes.append(
        "no profiler window was sealed on every rank: of GPU work only what NCCL told is shown"
    )
    return read


def _complete(folder: Path, rank: int, record: dict[str, Any], read: RankRecord) -> RankRecord:
    """Add what the rank's record and ring know to what its window shows."""
    read.rank, read.world_size = rank, record["world_size"]
    device = record["device"] or {}
    read.hardware |= {key: value for key, value in device.items() if value is not None and key != "pci"}
    if record["host"]:
        read.hardware["host"] = record["host"]
    start_ns, end_ns = read.window_ns
    rows = [row for row in mark_rows(record, end_ns) if row[5] >= start_ns and row[4] <= end_ns]
    if record["calls"]:
        calls, _ = read_calls(member(folder, record["calls"]))
        groups = {group["name"]: group for group in record["groups"]}
        pairs = _describe_parts(read, list(calls.values()), groups)
        if (dump := captured_nccl.find_dump(folder, record)) is not None:
            joined = captured_nccl.join(dump, pairs)
            read.notes += [f"rank {rank}: {note}" for note in joined.notes]
            rows += captured_nccl.annotations(joined)
    spans = whole(read.spans)
    first = len(spans["span"])
    lanes, kinds, names, launched, starts, ends = zip(*rows, strict=True) if rows else ((),) * 6
    more = {
        "span": range(first, first + len(rows)), "lane": lanes, "kind": kinds, "name": names,
        "launch_ns": launched, "start_ns": starts, "end_ns": ends, "correlation": [None] * len(rows),
    }  # fmt: skip
    for name, values in more.items():
        held = spans.get(name, [None] * first)
        if isinstance(held, list):
            spans[name] = [*held, *values]
        else:
            spans[name] = pa.concat_arrays([held, pa.array(list(values), held.type)])
    read.spans = spans
    return read


def _describe_parts(
    read: RankRecord, calls: list[Call], groups: dict[str, dict[str, Any]]
) -> list[captured_nccl.Pair]:
    """Describe each part by the call during which its kernel was launched; return those where there is one."""
    pairs: list[captured_nccl.Pair] = []
    calls.sort(key=lambda call: call.start_ns)
    starts = [call.start_ns for call in calls]
    for part in read.parts:
        if part.launch_ns is None:
            continue
        at = bisect_right(starts, part.launch_ns) - 1
        if at >= 0 and calls[at].end_ns >= part.launch_ns and _is_call(part, calls[at]):
            describe(part, calls[at], groups)
            pairs.append((calls[at], part))
    return pairs


def _is_call(part: Part, call: Call) -> bool:
    """Say whether a part is all that a call asked for, not one of the sends that it is made of."""
    one_sided = part.operation in ("send", "recv")
    return not one_sided or operation_of(call.name.removeprefix(CALL)) == part.operation
