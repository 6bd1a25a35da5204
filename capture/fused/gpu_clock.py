"""Align GPUs' clocks on flag ping-pongs: rank 0 sends, the peer answers with its time.

The round trip that took least tells most: the peer's time lay between sending and receiving, and half of the
round trip bounds the error. Two sessions, before and after the run, give the drift.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Alignment:
    """One rank's clock: aligned time = own + `offset_ns` + `drift_ppb` * (own - `at_ns`) / 10**9.

    `residual_ns` is the largest error left at the two sessions, `anchors` the round trips used.
    """

    offset_ns: int
    drift_ppb: int
    at_ns: int
    residual_ns: int
    anchors: int


def align(before: Samples, after: Samples) -> Alignment | None:
    """Return the alignment of the peer from two sessions' samples, (rounds, 3): sent, the peer's time, received.

    All in ns. None where a session has no complete round trip.
    """
    first, last = _shortest(before), _shortest(after)
    if first is None or last is None:
        return None
    apart = last[1] - first[1]
    drift_ppb = round((last[0] - first[0]) * 10**9 / apart) if apart > 0 else 0
    anchors = sum(int((session[:, 0] > 0).sum()) for session in (before, after))
    return Alignment(first[0], drift_ppb, first[1], max(first[2], last[2]), anchors)


def _shortest(samples: Samples) -> tuple[int, int, int] | None:
    """Return the offset, the peer's time, and half the round trip, of the shortest round trip."""
    complete = samples[samples[:, 0] > 0]
    if not len(complete):
        return None
    sent, peer, received = map(int, complete[np.argmin(complete[:, 2] - complete[:, 0])])
    return (sent + received) // 2 - peer, peer, -((sent - received) // 2)
