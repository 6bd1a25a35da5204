"""Probe records of a captured fused kernel -> spans, writes and waits.

`capture.json` describes the record (fields and kinds), the phases, the regions and the flags; a rank's file
holds its workgroups' kept records, one workgroup after the other, each in program order. Where a rank has an
`anchor_hz`, its records count cycles, which probe_clock.py maps to nanoseconds.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..schemas import InputError, TraceWriter
from . import probe_clock
from .member import member

Rows = npt.NDArray[np.int64]

# What a capture on any backend but `gpu` can be trusted for; reports quote it.
HOST_TRUTH = "order, sizes, counts and protocol; never link rates, latencies or flag delays"


def convert(folder: Path, manifest: dict[str, Any], writer: TraceWriter) -> None:
    """Write every rank of the kernel capture in `folder`.

    Raises InputError for a rank's file whose size is not what `capture.json` says.
    """
    kinds, dtype = manifest["record"]["kinds"], np.dtype([tuple(f) for f in manifest["record"]["fields"]])
    ranks = [entry["rank"] for entry in manifest["ranks"]]
    units: dict[int, list[int]] = {}
    unended: dict[str, int] = {}
    for entry in manifest["ranks"]:
        rank = entry["rank"]
        rows = _read(member(folder, entry["file"]), dtype, entry["workgroups"])
        records = Records(rows, entry["workgroups"], kinds)
        unknown = int((~np.isin(rows["kind"], list(kinds.values()))).sum())
        if unknown:
            raise InputError(
                f"{folder / entry['file']} holds {unknown} records of no known kind; copy it again"
            )
        if lost := records.unpaired():
            unended[str(rank)] = lost
        step_ns = 0
        if "anchor_hz" in entry:
            file = str(member(folder, entry["file"]))
            own_ns, units[rank], step_ns = probe_clock.nanoseconds(
                file, records.time_ns, rows, records.workgroup, kinds["anchor"], entry["anchor_hz"]
            )
            records.time_ns = probe_clock.aligned(own_ns, entry.get("alignment"))
        writer.write("ranks", rank, _rank_row(manifest, entry.get("device", {})))
        writer.write("links", rank, _links(manifest, rank, ranks))
        writer.write("clocks", rank, _clock(manifest, entry, step_ns))
        writer.write("spans", rank, _spans(records, manifest["phases"]))
        writer.write("writes", rank, _writes(records, manifest["regions"], manifest["flags"]["size_bytes"]))
        writer.write("waits", rank, _waits(records))
    writer.notes.update(
        {**_notes(manifest, units), **({"phases_without_an_end": unended} if unended else {})}
    )


class Records:
    """One rank's records, with the workgroup of each, and what belongs together paired.

    `time_ns` has the time of each record. `phases` and `waits` are pairs (indices of begins, indices of their
    ends; -1: the buffer was full before).
    """

    def __init__(
        self, rows: npt.NDArray[np.void], workgroups: list[dict[str, int]], kinds: dict[str, int]
    ) -> None:
        self.rows = rows
        time = "time" if "time" in (rows.dtype.names or ()) else "time_ns"  # as early captures name it
        self.time_ns = rows[time].astype(np.int64)
        self.kinds = kinds
        self.workgroup = np.repeat([w["workgroup"] for w in workgroups], [w["kept"] for w in workgroups])
        begins, ends = self._pairs("phase_begin", "phase_end")
        self.phases = begins[ends >= 0], ends[ends >= 0]
        self.waits = self._pairs("wait_begin", "wait_end")

    def where(self, *kinds: str) -> Rows:
        """Return the indices of the records of these kinds, ascending."""
        return np.flatnonzero(np.isin(self.rows["kind"], [self.kinds[kind] for kind in kinds]))

    def enclosing(self, indices: Rows) -> list[int | None]:
        """Return the number of the closed phase around each record; None where there is none."""
        begins, ends = self.phases
        span = np.searchsorted(begins, indices, "right") - 1
        inside = (span >= 0) & (indices < np.append(ends, -1)[span])
        return [int(s) if ok else None for s, ok in zip(span, inside, strict=True)]

    def unpaired(self) -> int:
        """Return how many begins and ends of phases and waits have no other side; an open wait is a row."""
        open_phases = len(self.where("phase_begin")) - len(self.phases[0])
        closed = len(self.phases[0]) + int((self.waits[1] >= 0).sum())
        return open_phases + len(self.where("phase_end", "wait_end")) - closed

    def _pairs(self, begin: str, end: str) -> tuple[Rows, Rows]:
        """Pair each begin with the end that follows it in its workgroup before the next begin."""
        begins, ends = self.where(begin), self.where(end)
        following = np.append(ends, len(self.rows))[np.searchsorted(ends, begins)]
        next_begin = np.append(begins[1:], len(self.rows))
        closed = following < next_begin
        closed[closed] = self.workgroup[following[closed]] == self.workgroup[begins[closed]]
        return begins, np.where(closed, following, -1)


def _read(file: Path, dtype: np.dtype[np.void], workgroups: list[dict[str, int]]) -> npt.NDArray[np.void]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error}); copy the whole capture folder") from error
    expected = sum(w["kept"] for w in workgroups) * dtype.itemsize
    if len(data) != expected:
        raise InputError(
            f"{file} has {len(data)} bytes, not the {expected} that capture.json gives; copy it again"
        )
    return np.frombuffer(data, dtype)


def _rank_row(manifest: dict[str, Any], device: dict[str, Any]) -> dict[str, Any]:
    """Return what ran the rank: a GPU where the capture describes one, else the host's processor."""
    machine = manifest["machine"]
    processor = {"vendor": machine.get("cpu_vendor"), "model": machine.get("cpu_model")}
    of_device = ("device", "vendor", "model", "uuid", "compute_units", "memory_bytes")
    told = {key: device.get(key) for key in of_device} if device else processor
    return {
        "backend": [manifest["backend"]],
        "host": [machine.get("host")],
        **{key: [value] for key, value in told.items()},
        "software": [json.dumps(manifest["versions"], sort_keys=True)],
    }


def _links(manifest: dict[str, Any], rank: int, ranks: list[int]) -> dict[str, Any]:
    """Links that say where writes went; the memory of one host or one GPU is no truth for rates."""
    kinds = {"host": "host_memory", "virtual": "local_memory", "timesliced": "local_memory"}
    peers = [peer for peer in ranks if peer != rank]
    kind = kinds.get(manifest["backend"], manifest.get("link_kind"))
    return {"peer": peers, "kind": [kind] * len(peers)} if kind else {}


def _clock(manifest: dict[str, Any], entry: dict[str, Any], step_ns: int) -> dict[str, Any]:
    """Ranks of one host or one GPU share a clock; GPUs' clocks are apart unless they were measured."""
    measured = entry.get("alignment")
    if measured:
        found = ("offset_ns", "drift_ppb", "residual_ns", "anchors")
        return {"method": ["ping_pong"], **{name: [measured[name]] for name in found}}
    shared = manifest["backend"] != "gpu" or len(manifest["ranks"]) == 1
    method = "reference" if shared or entry["rank"] == manifest["ranks"][0]["rank"] else "none"
    residual = step_ns if method == "reference" else None
    columns = {"method": method, "offset_ns": 0, "drift_ppb": 0, "residual_ns": residual, "anchors": 0}
    return {name: [value] for name, value in columns.items()}


def _spans(records: Records, phases: list[str]) -> dict[str, Any]:
    begins, ends = records.phases
    rows = records.rows[begins]
    return {
        "span": np.arange(len(begins)),
        "lane": [f"workgroup {w}" for w in records.workgroup[begins]],
        "workgroup": records.workgroup[begins],
        "kind": ["phase"] * len(begins),
        "name": [phases[name] for name in rows["name"]],
        "start_ns": records.time_ns[begins],
        "end_ns": records.time_ns[ends],
    }


def _writes(records: Records, regions: list[str], flag_bytes: int) -> dict[str, Any]:
    indices = records.where("data_write", "flag_write")
    rows = records.rows[indices]
    is_flag = rows["kind"] == records.kinds["flag_write"]
    return {
        "peer": rows["peer"],
        "workgroup": records.workgroup[indices],
        "span": records.enclosing(indices),
        "issue_ns": records.time_ns[indices],
        "size_bytes": np.where(is_flag, flag_bytes, rows["value"].astype(np.int64)),
        "region": [None if flag else regions[name] for flag, name in zip(is_flag, rows["name"], strict=True)],
        "offset_bytes": pa.array(rows["extra"].astype(np.int64), mask=is_flag),
        "kind": np.where(is_flag, "flag", "data"),
        "flag": pa.array(rows["flag"].astype(np.int64), mask=~is_flag),
        "value": pa.array(rows["value"].astype(np.int64), mask=~is_flag),
        "origin": ["measured"] * len(rows),
    }


def _waits(records: Records) -> dict[str, Any]:
    begins, ends = records.waits
    rows, done = records.rows[begins], records.rows[ends]
    never = ends < 0
    return {
        "workgroup": records.workgroup[begins],
        "span": records.enclosing(begins),
        "flag": rows["flag"],
        "expected": rows["value"],
        "start_ns": records.time_ns[begins],
        "end_ns": pa.array(records.time_ns[ends], mask=never),
        "polls": pa.array(done["extra"].astype(np.int64), mask=never),
    }


def _notes(manifest: dict[str, Any], units: dict[int, list[int]]) -> dict[str, Any]:
    truncated = [
        {"rank": entry["rank"], **workgroup}
        for entry in manifest["ranks"]
        for workgroup in entry["workgroups"]
        if workgroup["emitted"] > workgroup["kept"]
    ]
    copied = (
        *("kernel", "backend", "command", "date", "parameters", "oversubscribed", "warm_up_iterations"),
        "flags",
    )
    own = ("file", "workgroups", "device", "alignment", "idle_ns")
    return {
        "source": "eidola capture kernel",
        **{key: manifest[key] for key in copied},
        **({} if manifest["backend"] == "gpu" else {"truth": HOST_TRUTH}),
        "record_cost_ns": manifest["record_cost_ns"],
        "ranks": [{k: v for k, v in entry.items() if k not in own} for entry in manifest["ranks"]],
        **({"compute_units": {str(rank): used for rank, used in units.items()}} if units else {}),
        "truncated": truncated,
    }
