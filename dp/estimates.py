"""An estimate of epsilon from the scores of one run; no bound, and labelled so.

Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar 2023, "One-shot empirical privacy estimation for
federated learning".
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dp import _validate
from dp._special import ndtr
from dp.auditing import finite_scores
from dp.errors import ParameterError

NOT_A_BOUND = "estimate, not a bound"
_STEPS = 48  # of a bisection


@dataclass(frozen=True)
class OneShotEstimate:
    """Epsilon between normal laws fitted to scores.

    Attributes:
        epsilon: the estimate; it may lie on either side of the truth.
        delta: of it.
        label: what must stand beside it.
    """

    epsilon: float
    delta: float
    label: str = NOT_A_BOUND


def estimate_one_shot(present: ArrayLike, absent: ArrayLike, *, delta: float) -> OneShotEstimate:
    """Epsilon between normal laws fitted to the scores: an estimate, not a bound.

    Andrew et al. 2023: cosines of random directions with the output are close to normal. Here the
    canaries that were absent give the other law.

    Args:
        present: float[a], scores of canaries that took part, at least 2 that differ.
        absent: float[b], of those that did not; likewise.
        delta: in (0, 1).

    Raises:
        ParameterError: too few scores, or all alike.
    """
    delta = _validate.open_unit("delta", delta)
    laws = []
    for field, values in (("present", present), ("absent", absent)):
        found = finite_scores(field, values)
        if found.size < 2 or not np.ptp(found) > 0.0:
            raise ParameterError(field, f"{found.size} scores", "two different scores or more")
        laws.append((float(found.mean()), float(found.std(ddof=1))))
    first, second = laws
    return OneShotEstimate(
        max(_normal_epsilon(first, second, delta), _normal_epsilon(second, first, delta)), delta
    )


def _normal_epsilon(one: tuple[float, float], two: tuple[float, float], delta: float) -> float:
    """Smallest epsilon at which P <= e^eps Q + delta, for normal laws (mean, deviation)."""
    low, high = 0.0, 4096.0
    if _normal_delta(one, two, low) <= delta:
        return 0.0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _normal_delta(one, two, middle) > delta else (low, middle)
    return high


def _normal_delta(one: tuple[float, float], two: tuple[float, float], epsilon: float) -> float:
    """P[L > epsilon] - e^epsilon Q[L > epsilon], L the log ratio of two normal densities."""
    (m, s), (n, t) = one, two
    a = 0.5 / t**2 - 0.5 / s**2
    b = m / s**2 - n / t**2
    c = 0.5 * (n / t) ** 2 - 0.5 * (m / s) ** 2 + math.log(t / s) - epsilon
    if abs(a) < 1e-12 / (s * t):
        edges = [] if b == 0.0 else [-c / b]
    else:
        square = b * b - 4.0 * a * c
        edges = [] if square < 0.0 else sorted((-b + sign * math.sqrt(square)) / (2 * a)
                                               for sign in (-1.0, 1.0))  # fmt: skip
    places = [-math.inf, *edges, math.inf]
    total = 0.0
    for low, high in itertools.pairwise(places):
        x = 0.5 * (low + high) if math.isfinite(low + high) else _inside(low, high)
        if a * x * x + b * x + c > 0.0:
            total += _mass(one, low, high) - math.exp(min(epsilon, 700.0)) * _mass(two, low, high)
    return total


def _inside(low: float, high: float) -> float:
    if math.isfinite(high):
        return high - 1.0 - abs(high)
    return low + 1.0 + abs(low) if math.isfinite(low) else 0.0


def _mass(law: tuple[float, float], low: float, high: float) -> float:
    """Mass of a normal law between low and high, from the tail that is nearer."""
    mean, deviation = law
    z = np.clip(np.array([low - mean, high - mean]) / deviation, -37.0, 37.0)
    if z[0] > 0.0:
        z = -z[::-1]
    below, above = ndtr(z)
    return float(above - below)
