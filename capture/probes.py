"""Write the probe records of a kernel, of ours or of a user's own, as a raw capture.

The kernel includes `eidola_probe.h` (`include_folder()` says where it is) or uses `eidola.capture.triton`; its
host code gives every workgroup a buffer and a count, cleared, and hands both to `write_probes` afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas.errors import UsageError
from . import raw, records

_BACKENDS = ("gpu", "virtual", "timesliced", "host")


@dataclass(frozen=True)
class RankProbes:
    """One rank's probes: `buffers`, (workgroups, capacity) records or their bytes; `counts`, (workgroups, 2) words.

    `anchor_hz` is the rate of the anchors' clock: 10**9 on NVIDIA; on AMD what the device says
    (hipDeviceAttributeWallClockRate, in kHz, times 1000). None: `time` already counts nanoseconds. `device`
    describes the GPU (vendor, model, uuid, device, compute_units, memory_bytes), `details` anything else.
    """

    buffers: npt.NDArray[Any]
    counts: npt.NDArray[Any]
    anchor_hz: int | None = None
    device: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def include_folder() -> Path:
    """Return the folder of `eidola_probe.h`, for the compiler's -I."""
    return Path(__file__).with_name("include")


def write_probes(
    path: str | Path,
    ranks: Sequence[RankProbes],
    *,
    phases: Sequence[str],
    regions: Sequence[str] = (),
    backend: str = "gpu",
    kernel: str = "own",
    flag_bytes: int = 8,
    overwrite: bool = False,
    anonymous: bool = False,
    **details: Any,
) -> Path:
    """Write the raw capture at `path`; `eidola convert captured` makes a trace of it.

    `phases` and `regions` name what the records number. `backend` says what ran the ranks: `gpu` (a GPU each),
    `virtual` (parts of one launch on one GPU), `timesliced` (processes sharing a GPU) or `host`. `details` go to
    `capture.json` as they are. `anonymous` leaves the host's name out. Raises UsageError where `path` is taken
    or the arguments do not fit together.
    """
    if backend not in _BACKENDS:
        raise UsageError(f"backend is {backend!r}; it must be one of {', '.join(_BACKENDS)}")
    folder = Path(path)
    raw.refuse_existing(folder, overwrite=overwrite)
    kept = [_kept(rank, probes) for rank, probes in enumerate(ranks)]
    content: dict[str, Any] = {
        "kind": "kernel",
        "kernel": kernel,
        "backend": backend,
        "command": None,
        "parameters": {"gpus": len(ranks)},
        "machine": raw.machine(anonymous=anonymous),
        "oversubscribed": False,
        "warm_up_iterations": 0,
        "record_cost_ns": None,
        "record": records.description(),
        "phases": list(phases),
        "regions": list(regions),
        "flags": {"numbering": "the kernel's own", "value": "the kernel's own", "size_bytes": flag_bytes},
        **details,
        "versions": {**raw.versions("numpy"), **details.get("versions", {})},
        "ranks": [_entry(rank, probes, kept[rank]) for rank, probes in enumerate(ranks)],
    }
    with raw.raw_folder(folder, overwrite=overwrite) as partial:
        for entry, buffers in zip(content["ranks"], kept, strict=True):
            (partial / entry["file"]).write_bytes(b"".join(buffer.tobytes() for buffer in buffers))
        raw.write_manifest(partial, content)
    return folder


def _kept(rank: int, probes: RankProbes) -> list[npt.NDArray[np.void]]:
    """Return the kept records of each workgroup."""
    counts, buffers = _counts(probes), np.ascontiguousarray(probes.buffers)
    size = len(counts) * records.RECORD.itemsize
    if not len(counts) or buffers.nbytes % size:
        raise UsageError(
            f"rank {rank} has {buffers.nbytes} bytes of records for {len(counts)} workgroups: buffers must be "
            f"of one size each, in records of {records.RECORD.itemsize} bytes"
        )
    rows = buffers.reshape(-1).view(records.RECORD).reshape(len(counts), -1)
    if counts["kept"].max() > rows.shape[1]:
        raise UsageError(
            f"rank {rank} counts {counts['kept'].max()} kept records in buffers of {rows.shape[1]}: clear the "
            "counts before the first launch, and give eidola_begin the buffer's capacity"
        )
    return [row[: int(n)] for row, n in zip(rows, counts["kept"], strict=True)]


def _counts(probes: RankProbes) -> npt.NDArray[np.void]:
    return np.ascontiguousarray(probes.counts).reshape(-1).view(records.COUNTS)


def _entry(rank: int, probes: RankProbes, kept: list[npt.NDArray[np.void]]) -> dict[str, Any]:
    clock = {} if probes.anchor_hz is None else {"anchor_hz": probes.anchor_hz}
    device = {"device": dict(probes.device)} if probes.device else {}
    return {
        "rank": rank,
        "file": f"rank{rank:05d}.probes.bin",
        **probes.details,
        **clock,
        **device,
        "workgroups": [
            {"workgroup": i, "kept": len(buffer), "emitted": int(emitted)}
            for i, (buffer, emitted) in enumerate(zip(kept, _counts(probes)["emitted"], strict=True))
        ],
    }
