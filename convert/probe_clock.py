"""Cycle counters of a GPU's probe records -> nanoseconds, through the anchors of each workgroup.

A workgroup has an anchor at the start and one at the end of every launch: (cycles, real time, compute unit).
Cycle counters belong to a compute unit and change their rate with its clock, so that each launch of each
workgroup is mapped by its own two anchors, linearly.
"""

import numpy as np
import numpy.typing as npt

from ..schemas import InputError

Ints = npt.NDArray[np.int64]


def nanoseconds(
    file: str,
    cycles: Ints,
    rows: npt.NDArray[np.void],
    workgroup: Ints,
    anchor: int,
    hz: int,
) -> tuple[Ints, list[int], int]:
    """Return each record's time in ns, the compute unit of each workgroup's first launch, and the clock's step.

    `workgroup` (ascending) is the one of each record; `anchor` is the anchors' kind, `hz` their clock's rate. The
    step is the smallest difference between two anchors: what the clock is known to resolve, in ns. Raises
    InputError where a record lies between no two anchors, or `hz` makes no sense.
    """
    if not isinstance(hz, int) or hz < 1:
        raise InputError(
            f"{file}: capture.json gives anchor_hz {hz!r}; it must be the rate of the GPU's clock"
        )
    anchors = np.flatnonzero(rows["kind"] == anchor)
    first, last = _pairs(file, anchors, workgroup)
    real = _ns(rows["value"][anchors].astype(np.uint64), hz)
    if len(rows) == 0:
        return cycles, [], 0
    pair = np.searchsorted(first, np.arange(len(rows)), "right") - 1
    outside = (
        (pair < 0) | (np.arange(len(rows)) > last[np.maximum(pair, 0)]) if len(first) else np.ones(1, bool)
    )
    if outside.any():
        where = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{file}: record {where} (workgroup {workgroup[where]}) lies between no two anchors: its "
            "cycles cannot be told in nanoseconds; call eidola_begin and eidola_end in every launch"
        )
    ticks = (cycles[last] - cycles[first]).astype(np.float64)
    rate = np.divide(real[1::2] - real[::2], ticks, out=np.zeros(len(ticks)), where=ticks > 0)
    since = (cycles - cycles[first[pair]]) * rate[pair]
    steps = np.diff(np.unique(real))
    _, begins = np.unique(workgroup[first], return_index=True)
    units = rows["extra"][first[begins]].astype(int).tolist()
    return real[::2][pair] + np.rint(since).astype(np.int64), units, int(steps.min()) if len(steps) else 0


def aligned(own_ns: Ints, alignment: dict[str, int] | None) -> Ints:
    """Return times of a rank's own clock on rank 0's, by the offset and drift that ping-pongs gave."""
    if not alignment:
        return own_ns
    drift_ns = np.rint((own_ns - alignment["at_ns"]) * (alignment["drift_ppb"] / 10**9)).astype(np.int64)
    on_first: Ints = own_ns + drift_ns + alignment["offset_ns"]
    return on_first


def _pairs(file: str, anchors: Ints, workgroup: Ints) -> tuple[Ints, Ints]:
    """Return the first and the last record of each launch of each workgroup."""
    if len(anchors) % 2 or (workgroup[anchors[::2]] != workgroup[anchors[1::2]]).any():
        raise InputError(
            f"{file}: a workgroup has an anchor at its start and none at its end; call eidola_end before the "
            "kernel returns"
        )
    return anchors[::2], anchors[1::2]


def _ns(ticks: npt.NDArray[np.uint64], hz: int) -> Ints:
    """Return ticks of a clock of `hz` as ns, exactly (rounded down)."""
    rate = np.uint64(hz)
    seconds, rest = ticks // rate, ticks % rate
    return (seconds * np.uint64(10**9) + rest * np.uint64(10**9) // rate).astype(np.int64)
