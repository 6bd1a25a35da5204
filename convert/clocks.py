"""Align ranks' clocks on the ends of synchronising collectives, never on their starts.

All ranks of such an operation end within microseconds of each other, while they may start milliseconds apart.
Clocks of two hosts also run at different rates, by parts in a million: where the ends tell, that is taken out too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..schemas.theil_sen import slope
from .columns import drifted
from .matching import SYNCHRONISING, Matching

FEWEST_ANCHORS = 8
"""Ends from which a drift is believed at all."""
SCATTERS = 6
"""Median absolute deviations of the ends (4 standard deviations) that a drift must move them by to be told."""
MOST_DRIFT_PPB = 500_000
"""What is more is no drift but an error: Linux corrects clocks up to this (MAXFREQ, include/linux/timex.h)."""


@dataclass
class Clock:
    """How one rank's clock was aligned: aligned = own + `offset_ns` + `drift_ppb` * (own - `at_ns`) / 10**9."""

    method: str
    offset_ns: int
    residual_ns: int | None
    anchors: int
    drift_ppb: int = 0
    at_ns: int = 0

    def correction(self, own_ns: int) -> int:
        """Return what is added to a time of the rank's own."""
        return self.offset_ns + drifted(own_ns - self.at_ns, self.drift_ppb)


def align(
    ranks: Sequence[int],
    matching: Matching,
    shared: Mapping[int, str | None] | None = None,
    *,
    drift: bool = True,
) -> dict[int, Clock]:
    """Return each rank's clock; the lowest rank's is the reference.

    Ranks for which `shared` names the same clock are moved together, by all their operations. Clocks that share no
    operation with the reference are aligned through others; where there is none, the method is `none` and the
    offset 0. The offset is the median difference of ends after a drift (Theil-Sen), which is 0 unless it is asked
    for and moves the ends further apart over the window than they scatter about it. The residual is what is left
    at worst, at any end.
    """
    ends = _ends(matching)
    owners: dict[str | int, list[int]] = {}
    for rank in sorted(ranks):
        name = (shared or {}).get(rank)
        owners.setdefault(rank if name is None else name, []).append(rank)
    own, *waiting = owners.values()
    clocks = {own[0]: Clock("reference", 0, 0, 0)}
    clocks |= {rank: _same(_anchors([rank], ends, clocks)) for rank in own[1:]}
    while waiting:
        anchors = [_anchors(group, ends, clocks) for group in waiting]
        best = max(range(len(waiting)), key=lambda i: (len(anchors[i]), -waiting[i][0]))
        if not anchors[best]:
            break
        clock = _clock(np.array(sorted(anchors[best]), np.int64), drift)
        clocks |= dict.fromkeys(waiting.pop(best), clock)
    return clocks | {rank: Clock("none", 0, None, 0) for group in waiting for rank in group}


def _same(anchors: Sequence[tuple[int, int]]) -> Clock:
    """Return the clock of a rank that has the reference's: only how far apart ends are is measured."""
    return Clock("reference", 0, max((abs(apart) for _, apart in anchors), default=0), len(anchors))


def _clock(anchors: npt.NDArray[np.int64], drift: bool) -> Clock:
    """Return the clock that (n, 2) anchors tell: own time, and how far ahead the aligned ranks are; by time."""
    own, apart = anchors.T
    at_ns, base = int(np.median(own)), int(apart[0])
    since, ahead = (own - at_ns).astype(np.float64), (apart - base).astype(np.float64)
    ppb = _drift_ppb(since, ahead) if drift else 0
    level = ahead - since * (ppb / 1e9)
    offset = int(np.median(level))
    residual = int(np.ceil(np.abs(level - offset).max()))
    return Clock("collective_ends", base + offset, residual, len(own), ppb, at_ns)


def _drift_ppb(since: npt.NDArray[np.float64], ahead: npt.NDArray[np.float64]) -> int:
    """Return the drift; 0 where the anchors are too few, too near each other or too scattered to tell of one."""
    if len(since) < FEWEST_ANCHORS:
        return 0
    rate = slope(since, ahead)
    left = ahead - since * rate
    scatter = float(np.median(np.abs(left - np.median(left))))
    moved = abs(rate) * (since[-1] - since[0])
    return round(rate * 1e9) if moved > SCATTERS * scatter and abs(rate) * 1e9 <= MOST_DRIFT_PPB else 0


def _ends(matching: Matching) -> list[dict[int, int]]:
    """Return the end on each rank of every operation that synchronises."""
    return [
        {rank: parts[0].end_ns for rank, parts in operation.items()}
        for operation in matching.operations.values()
        if all(len(p) == 1 and p[0].operation in SYNCHRONISING for p in operation.values())
    ]


def _anchors(
    group: Sequence[int], ends: Sequence[Mapping[int, int]], clocks: Mapping[int, Clock]
) -> list[tuple[int, int]]:
    """Return for every operation of a rank of `group` and an aligned one its end, and how far others are ahead."""
    anchors = []
    for operation in ends:
        own = [operation[rank] for rank in group if rank in operation]
        aligned = (
            [end + clocks[r].correction(end) for r, end in operation.items() if r in clocks] if own else []
        )
        if aligned:
            anchors += [(end, int(np.median(np.array(aligned) - end))) for end in own]
    return anchors
