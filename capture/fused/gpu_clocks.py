"""What a GPU's real-time clock counts, and ping-pongs of flags that align two GPUs' clocks."""

from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int64]

ROUNDS = 1000  # of a session
_WALL_CLOCK_RATE = 10017  # hipDeviceAttributeWallClockRate, kHz (hip_runtime_api.h, ROCm 5.3 to 7.1)


def clock_hz(cupy: Any, device: int) -> int:
    """Return the rate of what eidola_real_time reads: %globaltimer counts ns; AMD's device says its own."""
    runtime = cupy.cuda.runtime
    return int(runtime.deviceGetAttribute(_WALL_CLOCK_RATE, device)) * 1000 if runtime.is_hip else 10**9


def ping_pongs(
    cupy: Any, module: Any, jobs: list[Any], devices: list[int], hz: list[int], *, first: int
) -> list[Samples]:
    """Return the samples, in ns, of a session between rank 0 and each other rank: (ROUNDS, 3) each, rank 0's empty.

    `first` is the number of the first round: rounds are numbered on through all sessions of a job, since the words
    that they wait for are never cleared.
    """
    sessions = [np.zeros((0, 3), np.int64)]
    for peer in range(1, len(devices)):
        number = first + ROUNDS * (peer - 1)
        samples = _session(cupy, module, jobs, devices, peer, number)
        sessions.append(_ns(samples, np.array([hz[0], hz[peer], hz[0]], np.uint64)))
    return sessions


def _session(
    cupy: Any, module: Any, jobs: list[Any], devices: list[int], peer: int, first: int
) -> npt.NDArray[np.uint64]:
    """Play ROUNDS between rank 0 and `peer`, in a stream each: two ranks of one GPU must run side by side."""
    with cupy.cuda.Device(devices[0]):
        samples = cupy.zeros((ROUNDS, 3), np.uint64)
    for rank in (0, peer):
        cupy.cuda.Device(
            devices[rank]
        ).synchronize()  # all copies are there: streams of their own do not wait
    streams = []
    for rank in (0, peer):
        with cupy.cuda.Device(devices[rank]):
            play = module.get_function("eidola_ping_pong").kernel
            numbers = (np.int64(rank), np.int64(peer), np.uint64(first), np.int64(ROUNDS))
            streams.append(cupy.cuda.Stream(non_blocking=True))
            play((1,), (1,), (jobs[rank], *numbers, samples), stream=streams[-1])
    for stream in streams:
        stream.synchronize()
    found: npt.NDArray[np.uint64] = samples.get()
    return found


def _ns(ticks: npt.NDArray[np.uint64], hz: npt.NDArray[np.uint64]) -> Samples:
    """Return ticks of clocks of `hz` as ns."""
    second = np.uint64(10**9)
    whole: Samples = (ticks // hz * second + ticks % hz * second // hz).astype(np.int64)
    return whole
