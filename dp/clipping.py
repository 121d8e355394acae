"""Clipping one client's vector to an l2 ball; docs/privacy.md, "Clipping"."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import _validate
from dp.errors import NonFiniteError

# Outside this range squares of coordinates could overflow, or underflow enough to matter.
_SMALLEST_NORM, _LARGEST_NORM = 1e-100, 1e100
_SLACK = 2.0**-46  # more than the rounding of a folded sum of up to 2^60 squares and its root


def fold_sum(values: NDArray[np.float64]) -> float:
    """Sum of a vector by halving it, elementwise: the same bits on every machine.

    A reduction's order of additions is the library's choice; this one is ours. The relative
    error for nonnegative terms is at most ceil(log2 n) 2^-53 (Higham 1993, pairwise summation).
    """
    while values.size > 1:
        half = values.size // 2
        folded = values[:half] + values[half : 2 * half]
        if values.size % 2:
            folded[0] += values[-1]
        values = folded
    return float(values[0]) if values.size else 0.0


def clip_l2(x: ArrayLike, clip_norm: float) -> NDArray[np.float64]:
    """`x` scaled down, if need be, so that its l2 norm is at most `clip_norm`.

    Guarantees, in exact real arithmetic on the returned doubles:
        the norm is at most clip_norm;
        a vector whose norm is below clip_norm (1 - 2^-45) comes back unchanged;
        the result is the same bits on every machine.

    | x | result |
    | --- | --- |
    | zero, subnormal | unchanged |
    | coordinates up to the largest double | scaled, no overflow |
    | NaN or an infinity | NonFiniteError: the caller sends the zero vector |

    Args:
        x: real vector [dim], any integer or float dtype; computed in float64.
        clip_norm: in [1e-100, 1e100].

    Returns:
        float64[dim], a new array.

    Raises:
        NonFiniteError: x holds NaN or an infinity.
        ParameterError: x is no real vector, or clip_norm is out of range.
    """
    clip_norm = _validate.real("clip_norm", clip_norm, _SMALLEST_NORM, _LARGEST_NORM)
    values = _validate.vector("x", x)
    largest = float(np.abs(values).max())  # NaN propagates through max
    if not math.isfinite(largest):
        raise NonFiniteError("x")
    if largest > _LARGEST_NORM:  # far outside any ball: bring it where squares are finite
        values = values * (1.0 / largest)
        factor_norm = math.sqrt(fold_sum(values * values)) * (1.0 + _SLACK)
        return values * (clip_norm / factor_norm * (1.0 - _SLACK))
    norm = math.sqrt(fold_sum(values * values)) * (1.0 + _SLACK)
    if norm <= clip_norm:
        return values
    return values * (clip_norm / norm * (1.0 - _SLACK))
