"""Minimisation by limited-memory BFGS with a Wolfe line search; NumPy alone.

Nocedal, Wright 2006, "Numerical Optimization", Algorithms 7.4, 7.5 and, for the line search,
bisection between Armijo's condition and the weak curvature condition (Lewis, Overton 2013).
A value of infinity marks points that are not allowed.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Objective = Callable[[FloatArray], tuple[float, FloatArray]]

_KEPT = 12  # pairs of steps and gradient changes
_DECREASE, _CURVATURE = 1e-4, 0.9
_SEARCHES = 40


def minimize(
    objective: Objective, start: FloatArray, *, steps: int, gain: float = 1e-11
) -> tuple[FloatArray, float]:
    """(point, value) at which two steps in a row gain less than `gain`, or after `steps`.

    Args:
        objective: point -> (value, gradient); the gradient is not read where the value is infinite.
        start: float64[p], with a finite value.
        steps: at most.
        gain: relative to the value.
    """
    point = np.array(start, dtype=np.float64)
    value, gradient = objective(point)
    pairs: list[tuple[FloatArray, FloatArray]] = []
    stalled = 0
    for _ in range(steps):
        direction = _direction(gradient, pairs)
        slope = float(gradient @ direction)
        if slope >= 0.0:  # the model of curvature is stale
            if not pairs:
                break
            pairs.clear()
            continue
        found = _line_search(objective, point, value, direction, slope)
        if found is None:
            if not pairs:
                break
            pairs.clear()
            continue
        moved, lower, steeper = found
        step, change = moved - point, steeper - gradient
        if float(step @ change) > 0.0:
            pairs = [*pairs[-_KEPT + 1 :], (step, change)]
        stalled = stalled + 1 if value - lower <= gain * abs(value) else 0
        point, value, gradient = moved, lower, steeper
        if stalled == 2:
            break
    return point, value


def _direction(gradient: FloatArray, pairs: list[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Minus the inverse Hessian's model times the gradient (the two-loop recursion)."""
    result = -gradient
    if not pairs:
        return result / max(1.0, float(np.linalg.norm(gradient)))
    weights = []
    for step, change in reversed(pairs):
        weight = float(step @ result) / float(step @ change)
        result = result - weight * change
        weights.append(weight)
    step, change = pairs[-1]
    result = result * (float(step @ change) / float(change @ change))
    for (step, change), weight in zip(pairs, reversed(weights), strict=True):
        back = float(change @ result) / float(step @ change)
        result = result + (weight - back) * step
    return result


def _line_search(
    objective: Objective, point: FloatArray, value: float, direction: FloatArray, slope: float
) -> tuple[FloatArray, float, FloatArray] | None:
    """(point, value, gradient) along `direction`, or None where nothing lower is found."""
    low, high, length = 0.0, np.inf, 1.0
    best = None
    for _ in range(_SEARCHES):
        moved = point + length * direction
        there, gradient = objective(moved)
        if not there <= value + _DECREASE * length * slope:  # also refuses NaN and infinity
            high = length
        elif float(gradient @ direction) < _CURVATURE * slope:
            low, best = length, (moved, there, gradient)
        else:
            return moved, there, gradient
        length = 2.0 * low if np.isinf(high) else (low + high) / 2.0
    return best
