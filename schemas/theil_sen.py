"""The slope of a line that a minority of bad points cannot bend; clocks are aligned with it."""

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

MOST_POINTS = 512
"""Points of which all pairs are looked at; of more, evenly spaced ones: pairs grow with the square."""


def slope(x: Reals, y: Reals) -> float:
    """Return the median slope of all pairs of points, each weighted by its distance in `x`; 0 without two `x`.

    Both are (n,), `x` ascending where there are more than MOST_POINTS. Sen, Estimates of the regression
    coefficient based on Kendall's tau, JASA 1968. The weights are there because slopes of points close in time are
    mostly noise.
    """
    if len(x) > MOST_POINTS:
        chosen = np.linspace(0, len(x) - 1, MOST_POINTS).astype(np.int64)
        x, y = x[chosen], y[chosen]
    first, second = np.triu_indices(len(x), 1)
    far = x[second] - x[first]
    first, second, far = first[far != 0], second[far != 0], far[far != 0]
    if not len(far):
        return 0.0
    slopes = (y[second] - y[first]) / far
    order = np.argsort(slopes, kind="stable")
    weights = np.cumsum(np.abs(far[order]))
    return float(slopes[order][np.searchsorted(weights, weights[-1] / 2)])
