"""Tests that find bugs in released noise and cohorts; each null law holds for every sample size.

A test takes what an auditor holds, noise in grid units or cohorts, and what was claimed, and
returns a p-value: an honest run gives one of at most p with probability at most p. The laws are
proven in docs/privacy.md, "Detectors"; none is an approximation.

The noise is a sum of independent symmetric integers with E X^4 <= 3 V^2 + V at variance V, and
log E exp(s X) <= V (cosh(s) - 1): Skellam, discrete Gaussians, fair coins, their sums, and
combinations of them with coefficients within [-1, 1].
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp import _validate
from dp._special import binom_tail
from dp.errors import ParameterError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Detection:
    """What one test says of one run.

    Attributes:
        name: what it looks for.
        p_value: bound on the chance that an honest run looks as bad.
        law: the null law, in words.
    """

    name: str
    p_value: float
    law: str


def too_little_noise(
    noise: FloatArray, variances: Sequence[float], slack: Sequence[float] | None = None
) -> Detection:
    """Whether noise is smaller than claimed.

    Args:
        noise: float64[k, d], the noise of k releases.
        variances: k claimed variances of one coordinate.
        slack: k bounds on what rounding moved a coordinate by; None where it moved none.

    Raises:
        ParameterError: shapes that do not belong together, or a variance that is not positive.
    """
    rows, claimed, moved = _rows("noise", noise, variances, slack)
    return Detection(
        "too little noise", _lower_tail(rows, claimed, moved),
        "sum of squares, Bernstein's inequality for sums of nonnegative variables",
    )  # fmt: skip


def repeated_noise(
    shares: FloatArray,
    variances: Sequence[float],
    name: str,
    slack: Sequence[float] | None = None,
) -> Detection:
    """Whether two of k vectors share noise: their difference then has too little variance.

    Args:
        shares: float64[k, d], claimed to be independent; k >= 2.
        variances: k claimed variances of one coordinate.
        name: whose vectors they are.
        slack: as `too_little_noise`.

    Raises:
        ParameterError: as `too_little_noise`, or fewer than two vectors.
    """
    rows, claimed, moved = _rows("shares", shares, variances, slack)
    if len(rows) < 2:
        raise ParameterError("shares", f"{len(rows)} vectors", "two or more")
    least = min(
        _lower_tail(rows[[i]] - rows[[j]], claimed[[i]] + claimed[[j]], moved[[i]] + moved[[j]])
        for i, j in itertools.combinations(range(len(rows)), 2)
    )
    pairs = math.comb(len(rows), 2)
    return Detection(
        f"noise shared between {name}", min(1.0, pairs * least),
        "differences of two, the sum of their squares as under too little noise, all pairs",
    )  # fmt: skip


def _lower_tail(rows: FloatArray, variances: FloatArray, slack: FloatArray) -> float:
    """Bound on P[sum of squares <= the observed one].

    For independent Y >= 0: P[sum Y <= E - t] <= exp(-t^2 / (2 sum E Y^2)). By the triangle
    inequality the noise before rounding has at most the norm observed plus that of the slack.
    """
    dim = rows.shape[1]
    norm = math.sqrt(float(np.square(rows).sum())) + math.sqrt(dim * float(slack @ slack))
    missing = dim * float(variances.sum()) - norm**2
    fourth = dim * float((3.0 * variances**2 + variances).sum())
    return math.exp(-(missing**2) / (2.0 * fourth)) if missing > 0.0 else 1.0


def beyond_bound(projection: float, bound: float, variance: float) -> Detection:
    """Whether inputs reach further along a unit vector than their norm bound allows.

    Args:
        projection: of the released sum, grid units.
        bound: the largest that the inputs may add up to along it.
        variance: of the noise in one coordinate, all releases together.

    Raises:
        ParameterError: numbers that are not finite, or a variance that is not positive.
    """
    variance = _validate.positive("variance", variance)
    if not math.isfinite(projection - bound):
        raise ParameterError("projection", projection, "finite numbers")
    excess = float(projection) - float(bound)
    return Detection(
        "inputs beyond the clip", math.exp(-_upper_exponent(excess, variance)),
        "projection onto a unit vector, Chernoff's bound with V (cosh(s) - 1)",
    )  # fmt: skip


def _upper_exponent(excess: float, variance: float) -> float:
    """sup_s s x - V (cosh(s) - 1), at sinh(s) = x / V; weights of a unit vector only lower it."""
    if excess <= 0.0:
        return 0.0
    u = excess / variance
    return variance * (u * math.asinh(u) - u * u / (1.0 + math.sqrt(1.0 + u * u)))


def regular_sizes(sizes: Sequence[int], num_clients: int, prob: float) -> Detection:
    """Whether cohorts that should be Poisson samples are too even in size.

    Exact: the chance that every one of the binomial sizes is as close to its mean as the furthest.

    Args:
        sizes: of the cohorts.
        num_clients: that join each independently.
        prob: of joining.

    Raises:
        ParameterError: no sizes, or an argument out of range.
    """
    count = _validate.integer("num_clients", num_clients, 1, 10**6)
    prob = _validate.open_unit("prob", prob)
    found = [_validate.integer("sizes", size, 0, count) for size in sizes]
    if not found:
        raise ParameterError("sizes", sizes, "at least one")
    furthest = max(abs(size - prob * count) for size in found)
    return Detection(
        "cohorts of fixed size", _within(furthest, count, prob) ** len(found),
        "largest distance from the mean of binomial sizes, exact",
    )  # fmt: skip


def _within(distance: float, count: int, prob: float) -> float:
    """P[|Binomial - mean| <= distance]."""
    low = max(0, math.ceil(prob * count - distance - 1e-9))
    high = min(count, math.floor(prob * count + distance + 1e-9))
    tails = binom_tail(np.array([low, high + 1]), count, prob)
    return min(1.0, float(tails[0] - tails[1]))


def repeated_cohorts(members: NDArray[np.bool_], prob: float) -> Detection:
    """Whether cohorts that should be independent hold the same clients, or avoid each other.

    Exact for each pair of rounds: with independent coins the number of clients in both is
    Binomial(n, prob^2); both tails, all pairs.

    Args:
        members: bool[k, n], who was in each of k >= 2 rounds.
        prob: of joining.

    Raises:
        ParameterError: fewer than two rounds, or an argument out of range.
    """
    prob = _validate.open_unit("prob", prob)
    if members.ndim != 2 or len(members) < 2 or members.dtype != np.bool_:
        raise ParameterError("members", f"{members.dtype}{list(members.shape)}", "bool[2 or more]")
    k, n = members.shape
    held = members.astype(np.int64)
    both = (held @ held.T)[np.triu_indices(k, 1)]
    above = binom_tail(both, n, prob * prob)
    below = 1.0 - binom_tail(both + 1, n, prob * prob)
    least = float(np.minimum(above, below).min())
    return Detection(
        "cohorts that repeat or avoid each other", min(1.0, 2 * both.size * least),
        "clients in both of two rounds, binomial tails, exact, all pairs",
    )  # fmt: skip


def _rows(
    field: str,
    values: FloatArray,
    variances: Sequence[float],
    slack: Sequence[float] | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(values, variances, slack) as arrays that belong together."""
    rows = np.asarray(values, dtype=np.float64)
    claimed = np.array([_validate.positive("variances", value) for value in variances])
    if rows.ndim != 2 or rows.shape[0] != claimed.size or rows.size == 0:
        raise ParameterError(field, f"shape {rows.shape}", f"[{claimed.size}, d]")
    if slack is None:
        return rows, claimed, np.zeros(claimed.size)
    moved = np.array([_validate.real("slack", value, 0.0, math.inf) for value in slack])
    if moved.size != claimed.size:
        raise ParameterError("slack", f"{moved.size} bounds", f"one for each of {claimed.size}")
    return rows, claimed, moved
