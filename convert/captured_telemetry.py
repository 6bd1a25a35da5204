"""Samples of a machine's GPUs, beside a captured job -> `counters` and `links` of the ranks that used them.

A rank's GPU is found by its UUID or PCI address, never by its number: CUDA and what samples may count differently.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .telemetry import Telemetry, read_telemetry

FILE = "telemetry.jsonl"

Tables = dict[int, dict[str, dict[str, list[Any]]]]
"""Columns by rank and table."""


def tables(folder: Path, records: Mapping[int, Mapping[str, Any]]) -> tuple[Tables, list[str]]:
    """Return what the samples in `folder` say of each rank's GPU, and notes for the reader.

    Raises InputError where the file cannot be read.
    """
    if not (folder / FILE).is_file():
        return {}, []
    telemetry = read_telemetry(folder / FILE)
    if telemetry.missing:
        return {}, [f"telemetry sampled no GPU: {telemetry.missing}"]
    rank_of = _rank_of(telemetry, records)
    found: Tables = {}
    for gpu, rank in rank_of.items():
        found[rank] = {"counters": telemetry.counters(gpu), "links": telemetry.links_of(gpu, rank_of)}
    cpu_ns = telemetry.samples[-1]["cpu_ns"] if telemetry.samples else 0
    sampled = f"{len(telemetry.samples)} samples of {telemetry.source}"
    notes = [f"telemetry: {sampled} took {cpu_ns / 1e6:.0f} ms of a core"]
    if left := sorted({gpu["index"] for gpu in telemetry.gpus} - set(rank_of)):
        notes.append(f"telemetry of GPUs {left} was left out: no rank is known to have used them")
    return found, notes


def _rank_of(telemetry: Telemetry, records: Mapping[int, Mapping[str, Any]]) -> dict[int, int]:
    """Return the one rank that used each GPU; a GPU of several ranks is none's."""
    ranks: dict[int, list[int]] = {}
    for rank, record in records.items():
        device = record.get("device") or {}
        for gpu in telemetry.gpus:
            if _plain(gpu["uuid"]) == _plain(device.get("uuid")) != "" or _same_place(
                gpu["pci"], device.get("pci")
            ):
                ranks.setdefault(gpu["index"], []).append(rank)
    return {gpu: found[0] for gpu, found in ranks.items() if len(found) == 1}


def _plain(uuid: str | None) -> str:
    return (uuid or "").lower().removeprefix("gpu-")


def _same_place(pci: str, other: list[int] | None) -> bool:
    """Compare `domain:bus:device.function` in hexadecimal with domain, bus and device."""
    if other is None:
        return False
    return [int(part, 16) for part in pci.partition(".")[0].split(":")] == other
