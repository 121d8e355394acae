"""From a curve of Rényi divergences to (epsilon, delta); docs/privacy.md, "Conversion".

Canonne, Kamath, Steinke 2020, Proposition 12: a mechanism whose Rényi divergence of order
alpha is at most D for neighbouring inputs is (epsilon, delta)-DP for every epsilon with

    delta >= exp((alpha - 1)(D - epsilon)) / (alpha - 1) * (1 - 1/alpha)^alpha.

Any order gives a valid bound, so the search below can only be loose, never wrong.
Everything is written in a = alpha - 1, which keeps its precision near order 1.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Curve = Callable[[FloatArray], FloatArray]  # a = alpha - 1 -> divergence bound of order alpha

_OCTAVES = (-6, 12)  # a in [2^-6, 2^12] first; the grid grows while the optimum is at an edge
_FURTHEST = (-40, 40)
_PER_OCTAVE = 8
_ROUNDING = 2.0**-45  # of the summed magnitudes: covers 2^8 roundings of 2^-53 each
_CURVE_ROUNDING = 2.0**-33  # of a divergence: covers a sum of 2^20 positive terms


def base_grid() -> FloatArray:
    """float64[grid]: the orders minus one that every search starts from, ascending."""
    return _grid(*_OCTAVES)


def _grid(low: int, high: int) -> FloatArray:
    octaves = np.arange(low * _PER_OCTAVE, high * _PER_OCTAVE + 1) / _PER_OCTAVE
    integers = np.arange(1.0, 64.0)  # orders 2..64, where integer-order theorems are tight
    inside = integers[(integers >= 2.0**low) & (integers <= 2.0**high)]
    return np.unique(np.concatenate([np.exp2(octaves), inside]))


def conversion_term(a: FloatArray, delta: float) -> FloatArray:
    """What delta adds to the divergence at each order, rounding error included (upwards)."""
    tail = (-math.log(delta) - np.log1p(a)) / a
    gain = -np.log1p(1.0 / a)  # ln(1 - 1/alpha) without cancellation
    slack = _ROUNDING * (np.abs(tail) + np.abs(gain))
    result: FloatArray = tail + gain + slack
    return result


def epsilon_from_curve(curve: Curve, delta: float) -> float:
    """Smallest epsilon that Proposition 12 gives over the orders searched, at least 0."""

    def objective(a: FloatArray) -> FloatArray:
        values: FloatArray = curve(a) * (1.0 + _CURVE_ROUNDING) + conversion_term(a, delta)
        return values

    found = minimum_over_orders(objective)
    return math.inf if math.isnan(found) else max(0.0, found)  # nothing proven, not nothing spent


def delta_from_curve(curve: Curve, epsilon: float) -> float:
    """Smallest delta that Proposition 12 gives over the orders searched, at most 1."""

    def objective(a: FloatArray) -> FloatArray:
        divergence = curve(a) * (1.0 + _CURVE_ROUNDING)
        gain = -(a * np.log1p(1.0 / a) + np.log1p(a))  # ln of (1 - 1/alpha)^alpha / (alpha - 1)
        slack = _ROUNDING * (a * (divergence + epsilon) + np.abs(gain) + np.abs(np.log(a)))
        values: FloatArray = a * (divergence - epsilon) + gain + slack
        return values

    found = minimum_over_orders(objective)
    return 1.0 if math.isnan(found) else math.exp(min(0.0, found))


def minimum_over_orders(objective: Curve) -> float:
    """Minimum of `objective` over a grid that grows at its edges, then refined inside."""
    low, high = _OCTAVES
    while True:
        grid = _grid(low, high)
        values = objective(grid)
        best = int(np.argmin(values))
        if best == 0 and low > _FURTHEST[0]:
            low = max(low - 8, _FURTHEST[0])
        elif best == len(grid) - 1 and high < _FURTHEST[1]:
            high = min(high + 8, _FURTHEST[1])
        else:
            break
    left = grid[max(best - 1, 0)]
    right = grid[min(best + 1, len(grid) - 1)]
    refined = objective(np.linspace(left, right, 129))
    return float(min(values[best], refined.min()))
