"""Tests that find bugs in released noise and cohorts; each null law holds for every sample size.

A test takes what an auditor holds, noise in grid units or cohorts, and what was claimed, and
returns a p-value: an honest run gives one of at most p with probability at most p. The laws are
proven in docs/privacy.md, "Detectors"; none is an approximation.

The noise is a sum of independent symmetric integers with E X^4 <= 3 V^2 + V at variance V, and
log E exp(s X) <= V (cosh(s) - 1): Skellam, discrete Gaussians, fair coins, their sums, and
combinations of them with coefficients within [-1, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import _validate
from dp._special import binom_tail
from dp.errors import ParameterError

FloatArray = NDArray[np.float64]

_BLOCK = 4096  # coordinates multiplied at a time


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
        ParameterError: shapes that do not belong together, noise that is not finite, or a variance
            that is not positive.
    """
    rows, claimed, moved = _rows("noise", noise, variances, slack)
    return Detection(
        "too little noise", _lower_tail(rows, claimed, moved),
        "sum of squares, Bernstein's inequality for sums of nonnegative variables",
    )  # fmt: skip


def dependent_noise(
    noise: FloatArray,
    variances: Sequence[float],
    name: str,
    slack: Sequence[float] | None = None,
) -> Detection:
    """Whether two of k noise vectors are correlated: used twice, negated, copied in part, mixed in.

    A correlation of rho alarms about where d rho^2 / 2 exceeds log(k (k - 1) / significance).

    Args:
        noise: float64[k, d], claimed to be independent; k >= 2.
        variances: k claimed variances of one coordinate.
        name: whose vectors they are.
        slack: as `too_little_noise`.

    Raises:
        ParameterError: as `too_little_noise`, or fewer than two vectors.
    """
    rows, claimed, moved = _rows("noise", noise, variances, slack)
    if len(rows) < 2:
        raise ParameterError("noise", f"{len(rows)} vectors", "two or more")
    exponent = float(np.triu(_product_exponents(rows, claimed, moved), 1).max())
    tails = len(rows) * (len(rows) - 1)  # two of each pair
    return Detection(
        f"dependent noise of {name}", min(1.0, tails * math.exp(-exponent)),
        "inner product given one of two, Chernoff's bound with V (cosh(s) - 1), all pairs",
    )  # fmt: skip


def _product_exponents(rows: FloatArray, variances: FloatArray, slack: FloatArray) -> FloatArray:
    """float64[k, k]: [i, j] bounds -log P[|<f_i, f_j>| >= the observed one | f_i] + log 2.

    Given f_i = g the log moment is sum_c V_j (cosh(s g_c) - 1), at most V_j (|g| / m)^2
    (cosh(s m) - 1) with m = max |g_c|. Slack is resolved for the smallest product and the largest
    |g| and m that rows before rounding can have had.
    """
    products, sizes, largest = _products(rows)
    hidden = np.outer(sizes, slack)
    hidden += hidden.T + rows.shape[1] * np.outer(slack, slack)
    norms = np.sqrt(np.diag(products)) + slack * math.sqrt(rows.shape[1])
    most = np.maximum(largest + slack, np.finfo(np.float64).tiny)  # a row of zeros has no product
    excess = (np.abs(products) - hidden) / most[:, None]
    return _upper_exponent(excess, np.outer((norms / most) ** 2, variances))


def _products(rows: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(inner products of all pairs, l1 norms, linf norms); no copy of all rows is made."""
    count = len(rows)
    products, sizes, largest = np.zeros((count, count)), np.zeros(count), np.zeros(count)
    for start in range(0, rows.shape[1], _BLOCK):
        part = rows[:, start : start + _BLOCK]
        products += part @ part.T
        size = np.abs(part)
        sizes += size.sum(axis=1)
        np.maximum(largest, size.max(axis=1), out=largest)
    return products, sizes, largest


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
        "inputs beyond the clip", math.exp(-float(_upper_exponent(excess, variance))),
        "projection onto a unit vector, Chernoff's bound with V (cosh(s) - 1)",
    )  # fmt: skip


def _upper_exponent(excess: ArrayLike, variance: ArrayLike) -> FloatArray:
    """sup_s s x - V (cosh(s) - 1), at sinh(s) = x / V, for each x; 0 for x <= 0.

    Weights of a unit vector in place of one X only raise it.
    """
    x, v = np.broadcast_arrays(np.asarray(excess), np.asarray(variance))
    u = np.divide(x, v, out=np.zeros(x.shape), where=x > 0.0)
    result: FloatArray = v * (u * np.arcsinh(u) - u * u / (1.0 + np.sqrt(1.0 + u * u)))
    return result


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
    if not np.isfinite(rows).all():  # nothing follows from them: they would pass every test
        raise ParameterError(field, "values that are not finite", "finite numbers")
    if slack is None:
        return rows, claimed, np.zeros(claimed.size)
    moved = np.array([_validate.real("slack", value, 0.0, math.inf) for value in slack])
    if moved.size != claimed.size:
        raise ParameterError("slack", f"{moved.size} bounds", f"one for each of {claimed.size}")
    return rows, claimed, moved
