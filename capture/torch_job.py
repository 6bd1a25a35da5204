"""What the ranks of a PyTorch job left in a folder -> a complete raw capture."""

import gzip
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..schemas.errors import CaptureError
from . import nccl, raw
from .recorder import place, ring

_PRIVATE = re.compile(r'("(?:host_name|traceName)": )"[^"]*"')
_LEFT = ("claim-*", "left-*", "completing", ".partial.*", "failed-*.txt")
KILLED = "the process ended without closing its record: killed by a signal, or by os._exit"


def complete(
    folder: Path,
    command: str,
    *,
    exit_code: int | None = None,
    anonymous: bool = False,
    absent: Sequence[str] = (),
) -> int:
    """Write `capture.json` for the ranks in `folder`, newest restart of each; return how many there are.

    Rings are cut to what they hold, windows are packed, and what killed processes left open is marked as a gap.
    `absent` names the sources that could not be used, and why. Raises CaptureError where no rank attached, with
    what the processes left as a reason.
    """
    newest, earlier = _ranks(folder)
    failures = sorted({file.read_text(encoding="utf-8") for file in folder.glob("failed-*.txt")})
    if not newest:
        raise CaptureError(_nobody(failures))
    place.collect(folder)
    lost = {file.name: ring.compact(file)["lost"] for file in sorted(folder.glob("rank*.ring"))}
    for file in folder.glob("nccl.*.ring"):
        nccl.compact(file, anonymous=anonymous)
    for file in folder.glob("rank*.*.json"):
        if file.name.endswith((".kineto.json", ".et.json")):
            _pack(file, anonymous=anonymous)
    for pattern in _LEFT:
        for file in folder.glob(pattern):
            file.unlink()
    for record in [*newest, *earlier]:
        _close(folder, record, lost, anonymous=anonymous)
    oversubscribed = {host: len(ranks) > raw.usable_cores() for host, ranks in _by_host(newest).items()}
    raw.write_manifest(folder, {
        "kind": "torch",
        "backend": "gpu" if any(record["device"] for record in newest) else "host",
        "command": command,
        "exit_code": exit_code,
        "machine": raw.machine(anonymous=anonymous),
        "versions": {**raw.versions(), **newest[0].get("versions", {})},
        "oversubscribed": any(oversubscribed.values()),
        "clock": "the realtime clock, one for all ranks of a host",
        "ring_version": ring.VERSION,
        "failures": failures,
        "absent": list(absent),
        "cost": _cost(newest),
        "ranks": [_entry(record) for record in newest],
        "earlier_restarts": [_entry(record) for record in earlier],
    })  # fmt: skip
    return len(newest)


def _ranks(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the record of each rank's newest restart, by rank, and those of earlier ones."""
    records = []
    for file in folder.glob("rank*.json"):
        if re.fullmatch(r"rank\d+\.\d+\.json", file.name):
            records.append({**json.loads(file.read_text(encoding="utf-8")), "file": file.name})
    records.sort(key=lambda record: (record["rank"], record["restart"]))
    last = {record["rank"]: record for record in records}
    return list(last.values()), [record for record in records if record is not last[record["rank"]]]


def _by_host(records: list[dict[str, Any]]) -> dict[str, list[int]]:
    hosts: dict[str, list[int]] = {}
    for record in records:
        hosts.setdefault(record["host"] or "", []).append(record["rank"])
    return hosts


def _entry(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("rank", "restart", "file", "sealed", "gaps", "lost_records")}


def _close(folder: Path, record: dict[str, Any], lost: dict[str, int], *, anonymous: bool) -> None:
    """Complete one rank's record: packed windows, lost records, and the gap that a killed process left."""
    name = record.pop("file")
    for window in record["windows"]:
        for kind in ("trace", "execution_trace"):
            window[kind] = window[kind] and f"{window[kind]}.gz"
    record["lost_records"] = sum(lost.get(record[kind] or "", 0) for kind in ("calls", "marks"))
    if record["sealed"] is None:
        record["gaps"].append({"start_ns": _last_ns(folder, record), "end_ns": None, "reason": KILLED})
    if anonymous:
        record["host"] = None
    (folder / name).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    record["file"] = name


def _last_ns(folder: Path, record: dict[str, Any]) -> int:
    """Return the time of the last thing that a rank recorded."""
    times: list[int] = [record["attached_ns"], *(window["end_ns"] for window in record["windows"])]
    times += [ring.last_ns(folder / record[kind]) for kind in ("calls", "marks") if record[kind]]
    return max(times)


def _cost(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the windows of the dearest rank cost, in ns, and of how long a run."""

    def of(record: dict[str, Any]) -> dict[str, Any]:
        windows = record["windows"]
        parts = ("open_ns", "slowdown_ns", "stop_ns", "save_ns")
        cost: dict[str, Any] = {part: sum(window[part] or 0 for window in windows) for part in parts}
        run_ns = (record["sealed_ns"] or record["attached_ns"]) - record["attached_ns"]
        attach_ns = record.get("attach_ns", 0)
        return {
            "rank": record["rank"],
            "windows": len(windows),
            "run_ns": run_ns,
            "attach_ns": attach_ns,
            **cost,
        }

    return max(
        map(of, records), key=lambda cost: sum(cost[p] for p in cost if p.endswith("_ns") and p != "run_ns")
    )


def _pack(file: Path, *, anonymous: bool) -> None:
    packed = file.with_name(f"{file.name}.gz")
    if anonymous:
        text = _PRIVATE.sub(r'\1""', file.read_text(encoding="utf-8"))
        packed.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
    else:
        with file.open("rb") as source, gzip.open(packed, "wb", 6) as target:
            shutil.copyfileobj(source, target)
    file.unlink()


def _nobody(failures: list[str]) -> str:
    if failures:
        return f"no rank was captured: {failures[0]}"
    return (
        "no rank attached: no process called torch.distributed.init_process_group with the capture in its "
        "environment. `python -E`, `-I` and `-S` switch it off: run without them. A script without process groups "
        "can use `with eidola.capture.session(...)`"
    )
