"""Align two clocks on flag ping-pongs: the leader sends, the peer answers with its time, the leader sees it.

A round trip bounds the error: the peer read its clock somewhere between sending and receiving, so the middle is off
by half of the round trip at most. Round trips that were delayed say little; the shortest of each short window are
the anchors, and a line through them that a minority of bad ones cannot bend (weighted Theil-Sen) gives offset and
drift. That delays are the same both ways can be assumed, never seen: the bound stays part of the residual.
"""

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..schemas.errors import CaptureError
from ..schemas.theil_sen import slope
from .host.build import library

Samples = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

WINDOW = 50
"""Round trips of which the shortest becomes an anchor."""

_SLOWEST = 2.0  # an anchor with more than this times the shortest round trip of all is left out


@dataclass(frozen=True)
class Alignment:
    """A peer's clock: the leader's time = own + `offset_ns` + `drift_ppb` * (own - `at_ns`) / 10**9.

    At no anchor is the line further from the truth than `residual_ns`; `anchors` were used.
    """

    offset_ns: int
    drift_ppb: int
    at_ns: int
    residual_ns: int
    anchors: int


def align(sessions: Sequence[Samples], window: int = WINDOW) -> Alignment | None:
    """Return the alignment of the peer from sessions of samples, each (rounds, 3): sent, peer's time, received.

    All in ns; a round that was not completed is 0 throughout. Two sessions at the ends of a run give the drift, one
    leaves it 0. None where there is no complete round.
    """
    found = [anchor for session in sessions for anchor in _shortest(session[session[:, 2] != 0], window)]
    if not found:
        return None
    sent, peer, received = np.array(found, np.int64).T
    trip = received - sent
    kept = trip <= _SLOWEST * trip.min()
    sent, peer, trip = sent[kept], peer[kept], trip[kept]
    at_ns = int(np.median(peer))
    since = (peer - at_ns).astype(np.float64)
    behind = sent - peer + trip / 2  # how far the leader is ahead of the peer
    base = int(behind[0])  # a line through small numbers: Unix times would lose their nanoseconds as floats
    apart = behind - base
    drift_ppb = round(slope(since, apart) * 1e9) if len(sessions) > 1 else 0
    level = apart - since * (drift_ppb / 1e9)
    offset = round(float(np.median(level)))
    residual = int(np.ceil((np.abs(level - offset) + trip / 2).max()))
    return Alignment(base + offset, drift_ppb, at_ns, residual, len(peer))


def _shortest(samples: Samples, window: int) -> list[Samples]:
    """Return of every `window` round trips, in their order, the one that took least."""
    parts = (samples[i : i + window] for i in range(0, len(samples), window))
    return [part[np.argmin(part[:, 2] - part[:, 0])] for part in parts]


def between_threads(
    rounds: int = 1000,
    clocks: tuple[int, int] = (time.CLOCK_MONOTONIC, time.CLOCK_MONOTONIC),
    deadline_s: float = 5.0,
) -> Samples:
    """Play `rounds` between two CPU threads, leader and peer each with its clock, and return (rounds, 3) samples.

    With one clock for both the offset is 0, and what `align` finds says how well cores agree. Raises CaptureError
    where the deadline passes first, MissingError without a C compiler.
    """
    samples = np.zeros((rounds, 3), np.int64)
    play = library(Path(__file__).parent / "host" / "ping_pong.c").eidola_ping_pong_threads
    play.argtypes = (ctypes.c_int64, ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p)
    done = play(rounds, clocks[0], clocks[1], int(deadline_s * 1e9), samples.ctypes.data)
    if done != rounds:
        raise CaptureError(
            f"two threads played {done} of {rounds} rounds in {deadline_s} s: the machine is busy, try again or "
            "ask for fewer rounds"
        )
    return samples
