"""Probe records of a captured fused kernel -> spans, writes and waits.

`capture.json` describes the record (fields and kinds), the phases, the regions and the flags; a rank's file
holds its workgroups' kept records, one workgroup after the other, each in program order.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..schemas import InputError, TraceWriter

Rows = npt.NDArray[np.int64]

# What a host capture can be trusted for; reports quote it.
HOST_TRUTH = "order, sizes, counts and protocol; never link rates, latencies or flag delays"


def convert(folder: Path, manifest: dict[str, Any], writer: TraceWriter) -> None:
    """Write every rank of the kernel capture in `folder`.

    Raises InputError for a rank's file whose size is not what `capture.json` says.
    """
    kinds, dtype = manifest["record"]["kinds"], np.dtype([tuple(f) for f in manifest["record"]["fields"]])
    ranks = [entry["rank"] for entry in manifest["ranks"]]
    for entry in manifest["ranks"]:
        rank = entry["rank"]
        records = Records(
            _read(folder / entry["file"], dtype, entry["workgroups"]), entry["workgroups"], kinds
        )
        writer.write("ranks", rank, _rank_row(manifest))
        writer.write("links", rank, _links(manifest, rank, ranks))
        writer.write("clocks", rank, _clock())
        writer.write("spans", rank, _spans(records, manifest["phases"]))
        writer.write("writes", rank, _writes(records, manifest["regions"], manifest["flags"]["size_bytes"]))
        writer.write("waits", rank, _waits(records))
    writer.notes.update(_notes(manifest))


class Records:
    """One rank's records, with the workgroup of each, and what belongs together paired.

    `phases` and `waits` are pairs (indices of begins, indices of their ends; -1: the buffer was full before).
    """

    def __init__(
        self, rows: npt.NDArray[np.void], workgroups: list[dict[str, int]], kinds: dict[str, int]
    ) -> None:
        self.rows = rows
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


def _rank_row(manifest: dict[str, Any]) -> dict[str, Any]:
    machine = manifest["machine"]
    return {
        "backend": [manifest["backend"]],
        "host": [machine.get("host")],
        "vendor": [machine.get("cpu_vendor")],
        "model": [machine.get("cpu_model")],
        "software": [json.dumps(manifest["versions"], sort_keys=True)],
    }


def _links(manifest: dict[str, Any], rank: int, ranks: list[int]) -> dict[str, Any]:
    """Links that say where writes went; the memory of one host or one GPU is no truth for rates."""
    peers = [peer for peer in ranks if peer != rank]
    kind = "host_memory" if manifest["backend"] == "host" else "local_memory"
    return {"peer": peers, "kind": [kind] * len(peers)}


def _clock() -> dict[str, Any]:
    return {"method": ["reference"], "offset_ns": [0], "drift_ppb": [0], "residual_ns": [0], "anchors": [0]}


def _spans(records: Records, phases: list[str]) -> dict[str, Any]:
    begins, ends = records.phases
    rows = records.rows[begins]
    return {
        "span": np.arange(len(begins)),
        "lane": [f"workgroup {w}" for w in records.workgroup[begins]],
        "workgroup": records.workgroup[begins],
        "kind": ["phase"] * len(begins),
        "name": [phases[name] for name in rows["name"]],
        "start_ns": rows["time_ns"],
        "end_ns": records.rows["time_ns"][ends],
    }


def _writes(records: Records, regions: list[str], flag_bytes: int) -> dict[str, Any]:
    indices = records.where("data_write", "flag_write")
    rows = records.rows[indices]
    is_flag = rows["kind"] == records.kinds["flag_write"]
    return {
        "peer": rows["peer"],
        "workgroup": records.workgroup[indices],
        "span": records.enclosing(indices),
        "issue_ns": rows["time_ns"],
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
        "start_ns": rows["time_ns"],
        "end_ns": pa.array(done["time_ns"].astype(np.int64), mask=never),
        "polls": pa.array(done["extra"].astype(np.int64), mask=never),
    }


def _notes(manifest: dict[str, Any]) -> dict[str, Any]:
    truncated = [
        {"rank": entry["rank"], **workgroup}
        for entry in manifest["ranks"]
        for workgroup in entry["workgroups"]
        if workgroup["emitted"] > workgroup["kept"]
    ]
    copied = (
        "kernel",
        "backend",
        "command",
        "date",
        "parameters",
        "oversubscribed",
        "warm_up_iterations",
        "flags",
    )
    per_rank = ("rank", "start_ns", "end_ns", "cpu_ns", "idle_rounds", "poll_round_ns")
    return {
        "source": "eidola capture kernel",
        **{key: manifest[key] for key in copied},
        "truth": HOST_TRUTH,
        "record_cost_ns": manifest["record_cost_ns"],
        "ranks": [{key: entry[key] for key in per_rank} for entry in manifest["ranks"]],
        "truncated": truncated,
    }
