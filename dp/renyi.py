"""Rényi divergence of integer noise on vectors, exact per coordinate.

Noise is independent over coordinates, so a shift z costs D(z) = sum_j f(|z_j|) with f the exact
divergence of the law really added and its shift (`dp._shifted`). What is left is a maximum over
integer vectors within the event's bounds:

    quadratic   l2_sq max_k f(k) / k^2
    concave     dim Phi(l2_sq / dim), Phi the least concave majorant of the points (k^2, f(k))

over 1 <= k <= K = min(linf, floor(l2)). The second is never larger. Shifts that are too many to
sum are covered by a bound that holds for all of them: f(k) <= alpha curvature k^2 / 2 at integer
orders. Proofs: docs/privacy.md, "Exact Rényi divergence" and "Curvature".
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from dp import _shifted
from dp.errors import UnsupportedEventError
from dp.events import DiscreteGaussianEvent, DiscreteGaussianSumEvent, SkellamEvent

FloatArray = NDArray[np.float64]
VectorEvent = DiscreteGaussianEvent | DiscreteGaussianSumEvent | SkellamEvent
_Law = _shifted.SkellamLaw | _shifted.PeriodicLaw

_LOWEST, _HIGHEST = 2.0**-6, 2.0**9  # orders minus one at which divergences are summed
_MIN_SIGMA, _MIN_SHARE_SIGMA = 1e-2, 0.5
_UP = 1.0 + 2.0**-44  # rounding of the few products that make a bound


@dataclass(frozen=True, eq=False)
class RenyiBounds:
    """Two upper bounds on the divergence of a vector event, float64[orders] each.

    Attributes:
        quadratic: l2_sq max f(k) / k^2.
        concave: dim Phi(l2_sq / dim); at most `quadratic`.
    """

    quadratic: FloatArray
    concave: FloatArray


def has_exact_bounds(event: object) -> TypeGuard[VectorEvent]:
    """Whether `renyi_bounds` supports `event`."""
    if isinstance(event, SkellamEvent):
        return event.variance >= 1e-6
    if isinstance(event, DiscreteGaussianEvent):
        return _MIN_SIGMA <= event.sigma <= _shifted.MAX_SHARE_SIGMA
    if isinstance(event, DiscreteGaussianSumEvent):
        smallest = _MIN_SIGMA if event.shares == 1 else _MIN_SHARE_SIGMA
        fits = event.shares <= _shifted.MAX_SHARES
        return fits and smallest <= event.share_sigma <= _shifted.MAX_SHARE_SIGMA
    return False


def renyi_bounds(event: VectorEvent, a: FloatArray) -> RenyiBounds:
    """Bounds on D_{1+a} for an event whose bounds are those of the neighbouring relation.

    Above order 513 only the curvature is used. Below order 1 + 2^-6 the bound of that order, since
    divergences grow with the order.

    Args:
        event: with Skellam variance >= 1e-6; discrete Gaussian noise of sigma in [0.01, 2]; or
            sums of up to 4096 shares of sigma in [0.5, 2]. (Above sigma 2 the published bounds
            are tight to double precision.)
        a: orders minus one, > 0, float64[orders].

    Raises:
        UnsupportedEventError: noise outside these ranges.
    """
    if not has_exact_bounds(event):
        raise UnsupportedEventError(event, "noise outside the range of exact Rényi divergences")
    law = _law(event)
    orders = np.asarray(a, dtype=np.float64)
    line = _chord(orders) / orders * (law.curvature / 2.0 * event.l2_sq) * _UP
    if isinstance(law, _shifted.SkellamLaw) and law.above.size == 0:
        return RenyiBounds(line, line)
    quadratic, concave = line.copy(), line.copy()
    for i in np.flatnonzero(orders <= _HIGHEST):
        quadratic[i], concave[i] = _bounds_at(event, max(float(orders[i]), _LOWEST))
    return RenyiBounds(quadratic, concave)


def curvature_bound(event: SkellamEvent, a: FloatArray) -> FloatArray:
    """Skellam noise: alpha l2_sq log(I_0 / I_1) at integer orders alpha, chords between.

    Holds for every integer shift and needs no sum; docs/privacy.md, "Curvature".
    """
    orders = np.asarray(a, dtype=np.float64)
    slope = _shifted.skellam_curvature(event.variance) / 2.0
    result: FloatArray = _chord(orders) / orders * (slope * event.l2_sq) * _UP
    return result


def shift_divergences(event: VectorEvent, a: float, count: int) -> FloatArray:
    """f(1), ..., f(count) of the event's noise at order 1 + a, rounded up; float64[count].

    Raises:
        UnsupportedEventError: noise, order or shifts too large to sum.
    """
    law = _law(event) if has_exact_bounds(event) else None
    if law is None or not _LOWEST <= a <= _HIGHEST or law.shifts(a, count) < count:
        raise UnsupportedEventError(event, f"{count} shifts at order {1.0 + a:g} are not summed")
    return law.divergences(a, count)


def _law(event: VectorEvent) -> _Law:
    if isinstance(event, SkellamEvent):
        return _shifted.skellam_law(event.variance)
    if isinstance(event, DiscreteGaussianEvent):
        return _shifted.gaussian_sum_law(event.sigma, 1)
    return _shifted.gaussian_sum_law(event.share_sigma, event.shares)


def _chord(a: FloatArray) -> FloatArray:
    """The chords of a (a + 1) between integers: above it, and equal at integers."""
    below = np.floor(a)
    result: FloatArray = below * (below + 1.0) + (a - below) * 2.0 * (below + 1.0)
    return result


@functools.lru_cache(maxsize=1 << 15)
def _bounds_at(event: VectorEvent, a: float) -> tuple[float, float]:
    """(quadratic, concave) at one order."""
    law = _law(event)
    largest = min(event.linf, math.isqrt(event.l2_sq))
    count = law.shifts(a, largest)
    every = float(_chord(np.array([a]))[0]) / a * law.curvature / 2.0  # f(k) / k^2 at most
    squares = np.arange(1.0, count + 1.0) ** 2
    values = np.minimum(law.divergences(a, count), every * squares) if count else np.zeros(0)
    if count < largest:  # the line over all further shifts, by its two ends
        ends = np.array([(count + 1.0) ** 2, float(largest) ** 2])
        squares, values = np.append(squares, ends), np.append(values, every * ends)
    steepest = float((values / squares).max())
    quadratic = event.l2_sq * steepest * _UP
    mean = event.l2_sq / event.dim
    if mean <= 1.0:
        return quadratic, quadratic
    return quadratic, min(quadratic, event.dim * _majorant(squares, values, mean) * _UP)


def _majorant(squares: FloatArray, values: FloatArray, at: float) -> float:
    """Least nondecreasing concave majorant of (0, 0) and the points, at `at`.

    The largest chord over `at` between a point on its left and one on its right.
    """
    t = np.append(0.0, squares)
    v = np.maximum.accumulate(np.append(0.0, values))
    if at >= t[-1]:
        return float(v[-1])
    left, right = t <= at, t > at
    tl, vl = t[left][:, None], v[left][:, None]
    tr, vr = t[right][None, :], v[right][None, :]
    chords = vl + (vr - vl) * ((at - tl) / (tr - tl))
    return float(chords.max())
