"""Random draws by index: the i-th word of a stream depends on the seed, the stream and i, on nothing else.

Philox is a counter-based generator (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), so
that no GPU's draws depend on how many others draw, or when. Only raw words are taken from NumPy, whose
distributions may change from version to version.
"""

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


LN_2 = 0.6931471805599453


class Purpose(IntEnum):
    """What a stream is for."""

    JITTER = 0
    GAP = 1
    PEER = 2
    SIZE = 3
    ORDER = 4
    STEP = 5
    SPLIT = 6
    DISPATCH = 7


def words(count: int, seed: int, purpose: Purpose, gpu: int = 0, pattern: int = 0) -> Words:
    """Return the first `count` 64-bit words of a GPU's stream."""
    key = np.array([seed, gpu], np.uint64)
    counter = np.array([0, 0, pattern, purpose], np.uint64)
    return np.asarray(np.random.Philox(key=key, counter=counter).random_raw(count), np.uint64)


def below(drawn: Words, limit: int) -> Ints:
    """Return each word as an integer of [0, limit), limit at most 2**32; a bias below limit / 2**32 is left."""
    return ((drawn >> np.uint64(32)) * np.uint64(limit) >> np.uint64(32)).astype(np.int64)


def exponential(drawn: Words) -> npt.NDArray[np.float64]:
    """Return -ln(u) of each word as a fraction u of (0, 1).

    Only correctly rounded operations are used (no library logarithm), so that every machine gives the same bits:
    u = m * 2**e with m in [1/2, 1), ln m = 2 artanh((m - 1) / (m + 1)), whose series is cut below 1e-15.
    """
    fraction = (drawn >> np.uint64(11)).astype(np.float64) + 0.5
    mantissa, exponent = np.frexp(fraction)
    z = (mantissa - 1) / (mantissa + 1)
    square, series = z * z, np.zeros_like(z)
    for power in range(31, 0, -2):
        series = series * square + 1.0 / power
    result: npt.NDArray[Any] = (53 - exponent) * LN_2 - 2 * z * series
    return result
