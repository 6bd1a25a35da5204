"""A captured rank's record of itself: groups, windows, gaps, steps and phases, in every version there was."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError
from .captured_ring import Mark, read_marks
from .captured_window import load
from .member import member

_OLDEST, _NEWEST = 1, 2

Row = tuple[str, str, str, int | None, int, int]
"""A span's lane, kind, name, launch, start and end."""


def read_record(file: Path) -> dict[str, Any]:
    """Return a rank's record in the form of version 2, with its steps and phases. Older ones had one window."""
    record = load(file, file.read_bytes)
    version = record.get("version", _OLDEST)
    if type(record.get("rank")) is not int or not 0 <= record["rank"] < 1 << 31:
        raise InputError(
            f"{file} has a rank {repr(record.get('rank'))[:40]}: it is damaged; copy the capture again"
        )
    if version > _NEWEST:
        raise InputError(f"{file} has version {version}; this eidola reads up to {_NEWEST}: upgrade it")
    if version == _OLDEST:
        window = {"trace": record["trace"], "start_ns": None, "end_ns": None}
        start_ns = (record["window_ns"] or [0])[0]
        gap = [{"start_ns": start_ns, "end_ns": None, "reason": record["gap"]}] if record["gap"] else []
        record |= {"windows": [window] if record["trace"] else [], "calls": None, "gaps": gap}
        record["steps"] = [Mark(f"step {s['step']}", s["start_ns"], s["end_ns"]) for s in record["steps"]]
        record["phases"] = [Mark(p["name"], p["start_ns"], p["end_ns"]) for p in record["phases"]]
        return record
    record["steps"], record["phases"] = read_marks(member(file.parent, record["marks"]))
    return record


def gap_text(manifest: dict[str, Any]) -> str:
    """Return the gaps of all ranks in one line."""
    gaps = [f"rank {entry['rank']}: {gap}" for entry in manifest["ranks"] for gap in _gaps(entry)]
    return "; ".join(gaps) or "no gap is noted"


def _gaps(entry: Mapping[str, Any]) -> list[str]:
    if "gaps" in entry:
        return [str(gap["reason"]) for gap in entry["gaps"]]
    return [entry["gap"]] if entry.get("gap") else []


def mark_rows(record: dict[str, Any], last_ns: int) -> Iterator[Row]:
    """Yield steps, phases and gaps as annotations; what never ended ends at `last_ns`."""
    for lane in ("steps", "phases"):
        yield from ((lane, "annotation", m.name, None, m.start_ns, m.end_ns) for m in record[lane])
    for gap in record["gaps"]:
        end_ns = max(gap["start_ns"], last_ns if gap["end_ns"] is None else gap["end_ns"])
        yield "capture", "annotation", f"gap: {gap['reason']}", None, gap["start_ns"], end_ns
