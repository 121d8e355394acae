"""Lower bounds on epsilon from attacks: what a mechanism leaks at least, with a confidence.

An auditor lets each of m canaries take part or not by a fair coin of its own, gives every canary a
score that reads nothing but the output, and guesses. `audit_one_run` turns the number of correct
guesses of one run into a bound, `audit_many_runs` the scores of many independent runs.
Why each holds: docs/privacy.md, "Auditing".
"""

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import _validate
from dp._special import binom_tail
from dp.errors import ParameterError

FloatArray = NDArray[np.float64]
Inverse = Callable[[float], float]  # y -> the smallest x with F(x) >= y, F = 1 - trade-off function

_LARGEST = 64.0  # no bound above this epsilon is asked for
_LARGEST_MU = 16.0
_STEPS = 36  # of a bisection: bounds are low by 1e-9 at most
_NORMAL = statistics.NormalDist()
_TABLED = 4096  # Clopper-Pearson bounds of fewer trials are computed once
_MASS_ROUNDING = 1e-9  # what the mass of a law may exceed 1 by, through rounding


@dataclass(frozen=True)
class OneRunAudit:
    """What the guesses of one run say.

    Attributes:
        num_canaries: m.
        num_guesses: r, fixed before the run; the other canaries were abstained from.
        correct: v.
        delta: of the bound.
        significance: chance that a bound exceeds the truth.
        epsilon: the larger of the next two: the mechanism is not (e, delta)-DP for any e below.
        epsilon_counting: by Steinke, Nasr, Jagielski 2023.
        epsilon_trade_off: by the recursion of Mahloujifar, Melis, Chaudhuri 2024 on the trade-off
            function of (e, delta)-DP.
        mu: the mechanism is not Gaussian-DP with any smaller parameter; by the same recursion.
    """

    num_canaries: int
    num_guesses: int
    correct: int
    delta: float
    significance: float
    epsilon: float
    epsilon_counting: float
    epsilon_trade_off: float
    mu: float


@dataclass(frozen=True)
class ManyRunAudit:
    """What the scores of many runs say.

    Attributes:
        epsilon: the mechanism is not (e, delta)-DP for any e below.
        delta, significance: as in OneRunAudit.
        threshold: where the bound was reached.
        thresholds: how many shared the significance.
    """

    epsilon: float
    delta: float
    significance: float
    threshold: float
    thresholds: int


def audit_one_run(
    scores: ArrayLike, present: ArrayLike, *, num_guesses: int, delta: float, significance: float
) -> OneRunAudit:
    """Guesses "present" above a middle and "absent" below it, furthest scores first, and counts.

    The middle is that of the means of the two clusters into which the scores fall best; it reads
    no coin.

    Args:
        scores: float[m], one per canary, from the output and from what is independent of the
            coins, such as the canaries' directions.
        present: bool[m], the coins: fair and independent of each other and of all else.
        num_guesses: r, chosen before the scores are seen.
        delta: in [0, 1).
        significance: chance that the bound exceeds the truth, in (0, 1).

    Raises:
        ParameterError: an argument out of range, or scores that are not finite.
    """
    found = finite_scores("scores", scores)
    coins = np.asarray(present)
    if coins.shape != found.shape or coins.dtype != np.bool_:
        raise ParameterError("present", f"{coins.dtype}{list(coins.shape)}", f"bool[{found.size}]")
    num_guesses = _validate.integer("num_guesses", num_guesses, 1, found.size)
    distances = found - _middle(found)
    guessed = np.argsort(-np.abs(distances), kind="stable")[:num_guesses]
    correct = int((coins[guessed] == (distances[guessed] > 0.0)).sum())
    return one_run_bound(found.size, num_guesses, correct, delta=delta, significance=significance)


def _middle(scores: FloatArray) -> float:
    """Midpoint of the means of the two clusters with the least sum of squares within."""
    ordered = np.sort(scores)
    count = np.arange(1, ordered.size)
    if not count.size:
        return 0.0
    low = np.cumsum(ordered)[:-1] / count
    high = np.cumsum(ordered[::-1])[:-1][::-1] / (ordered.size - count)
    between = count * (ordered.size - count) * (high - low) ** 2  # what the split explains
    best = int(np.argmax(between))
    return 0.5 * float(low[best] + high[best])


def one_run_bound(
    num_canaries: int, num_guesses: int, correct: int, *, delta: float, significance: float
) -> OneRunAudit:
    """`audit_one_run` from counts.

    Raises:
        ParameterError: an argument out of range.
    """
    m, r, v, delta, tau = _counts(num_canaries, num_guesses, correct, delta, significance)
    counting = _largest(lambda e: one_run_p_value(m, r, v, epsilon=e, delta=delta) <= tau, _LARGEST)
    trade_off = _largest(lambda e: _refuted(m, r, v, tau, approximate_inverse(e, delta)), _LARGEST)
    mu = _largest(lambda e: _refuted(m, r, v, tau, gaussian_inverse(e)), _LARGEST_MU)
    best = max(counting, trade_off)
    return OneRunAudit(m, r, v, delta, tau, best, counting, trade_off, mu)


def one_run_p_value(
    num_canaries: int, num_guesses: int, correct: int, *, epsilon: float, delta: float
) -> float:
    """Bound on the chance of so many correct guesses under (epsilon, delta)-DP.

    The main theorem of Steinke, Nasr, Jagielski 2023: with W ~ Binomial(num_guesses, e^eps / (1 +
    e^eps)), P[W >= v] + 2 m delta max_i P[v - i <= W < v] / i.

    Raises:
        ParameterError: an argument out of range.
    """
    m, r, v, delta, _ = _counts(num_canaries, num_guesses, correct, delta, 0.5)
    epsilon = _validate.real("epsilon", epsilon, 0.0, _LARGEST)
    counts = np.arange(v, -1, -1)
    tails = binom_tail(counts, r, 1.0 / (1.0 + math.exp(-epsilon)))
    if delta == 0.0 or v == 0:
        return float(tails[0])
    slope = float(np.max((tails[1:] - tails[0]) / np.arange(1, v + 1)))
    return min(1.0, float(tails[0]) + 2.0 * m * delta * slope)


def refutes(
    num_canaries: int, num_guesses: int, correct: int, *, inverse: Inverse, significance: float
) -> bool:
    """Whether so many correct guesses refute a trade-off function, at the significance.

    Args:
        num_canaries: m.
        num_guesses: r.
        correct: v.
        inverse: y -> the smallest x with 1 - f(x) >= y, f the trade-off function that is claimed;
            `approximate_inverse` and `gaussian_inverse` make two.
        significance: chance of refuting a claim that holds.

    Raises:
        ParameterError: an argument out of range.
    """
    m, r, v, _, tau = _counts(num_canaries, num_guesses, correct, 0.0, significance)
    return _refuted(m, r, v, tau, inverse)


def approximate_inverse(epsilon: float, delta: float) -> Inverse:
    """The claim of (epsilon, delta)-DP, for `refutes`."""
    grown = math.exp(epsilon)
    return lambda y: max(0.0, (y - delta) / grown, 1.0 - delta - grown * (1.0 - y))


def gaussian_inverse(mu: float) -> Inverse:
    """The claim of mu-Gaussian differential privacy, for `refutes`."""

    def inverse(y: float) -> float:
        if y <= 0.0 or y >= 1.0:
            return min(max(y, 0.0), 1.0)
        return 0.5 * math.erfc((mu - _NORMAL.inv_cdf(y)) / math.sqrt(2.0))

    return inverse


def _refuted(m: int, r: int, v: int, significance: float, inverse: Inverse) -> bool:
    """Whether no law of the number of correct guesses has P[>= v] = significance.

    docs/privacy.md, "Auditing": from v downwards the least mass that the claim forces onto fewer
    correct guesses; a law has 1 in total.
    """
    right, wrong = significance * v / m, significance * (r - v) / m
    for count in range(v - 1, -1, -1):
        needed = max(wrong, inverse(min(right, 1.0)))
        if needed == wrong:
            break  # nothing is forced, here or below
        right += (needed - wrong) * count / (r - count)
        wrong = needed
        if right + wrong > r / m * (1.0 + _MASS_ROUNDING):
            return True
    return right + wrong > r / m * (1.0 + _MASS_ROUNDING)


def _largest(refuted: Callable[[float], bool], most: float) -> float:
    """The largest parameter known to be refuted, in [0, most]; 0 where none is."""
    if not refuted(0.0):
        return 0.0
    if refuted(most):
        return most
    low, high = 0.0, most
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def audit_many_runs(
    present: ArrayLike,
    absent: ArrayLike,
    *,
    thresholds: Sequence[float],
    delta: float,
    significance: float,
) -> ManyRunAudit:
    """The bound from scores of independent runs, by Clopper and Pearson 1934.

    Args:
        present: float[a], scores of runs with the canary; high where it is suspected.
        absent: float[b], of runs without it.
        thresholds: fixed without these scores, such as by `choose_thresholds` on others; the
            significance is shared among them.
        delta: in [0, 1).
        significance: chance that the bound exceeds the truth.

    Raises:
        ParameterError: an argument out of range, no scores or no thresholds.
    """
    inside, outside = finite_scores("present", present), finite_scores("absent", absent)
    places = finite_scores("thresholds", np.asarray(thresholds, dtype=np.float64))
    delta = _validate.probability("delta", delta)
    significance = _validate.open_unit("significance", significance)
    bounds = _rate_bounds(inside, outside, places, delta, significance / (2 * places.size))
    best = int(np.argmax(bounds))
    return ManyRunAudit(
        max(0.0, float(bounds[best])), delta, significance, float(places[best]), places.size
    )


def choose_thresholds(
    present: ArrayLike, absent: ArrayLike, *, delta: float, significance: float
) -> tuple[float, ...]:
    """The threshold that would give the largest bound on these scores; audit with others.

    Raises:
        ParameterError: an argument out of range, or no scores.
    """
    inside, outside = finite_scores("present", present), finite_scores("absent", absent)
    places = np.unique(np.concatenate([inside, outside]))
    delta = _validate.probability("delta", delta)
    significance = _validate.open_unit("significance", significance)
    bounds = _rate_bounds(inside, outside, places, delta, significance / 2)
    return (float(places[int(np.argmax(bounds))]),)


def _rate_bounds(
    inside: FloatArray, outside: FloatArray, places: FloatArray, delta: float, significance: float
) -> FloatArray:
    """The bound at every threshold: of true over false positives, and of the negatives."""
    hits = inside.size - np.searchsorted(np.sort(inside), places, side="left")
    alarms = outside.size - np.searchsorted(np.sort(outside), places, side="left")
    hit_rate = binomial_lower(hits, inside.size, significance)
    alarm_rate = 1.0 - binomial_lower(outside.size - alarms, outside.size, significance)
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = np.log(np.maximum(hit_rate - delta, 0.0) / alarm_rate)
        negative = np.log(np.maximum(1.0 - alarm_rate - delta, 0.0) / (1.0 - hit_rate))
    return np.asarray(np.maximum(positive, negative))


def binomial_lower(successes: ArrayLike, trials: int, significance: float) -> FloatArray:
    """Clopper-Pearson lower bounds: the probabilities at which P[>= successes] = significance.

    Args:
        successes: integers in [0, trials], any shape.
        trials: at most 1e6.
        significance: chance that a bound exceeds the probability.
    """
    trials = _validate.integer("trials", trials, 1, 10**6)
    counts = np.asarray(successes)
    if trials < _TABLED:
        return np.asarray(_lower_table(trials, significance)[counts])
    return _lower(counts, trials, significance)


@functools.lru_cache(maxsize=16)
def _lower_table(trials: int, significance: float) -> FloatArray:
    """The bounds of all counts: audits of one size ask for them again and again."""
    return _lower(np.arange(trials + 1), trials, significance)


def _lower(counts: NDArray[np.int64], trials: int, significance: float) -> FloatArray:
    low, high = np.zeros(counts.shape), np.ones(counts.shape)
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        below = binom_tail(counts, trials, middle) <= significance
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(np.where(counts <= 0, 0.0, low))


def finite_scores(field: str, values: ArrayLike) -> FloatArray:
    """`values` as float64[n], n >= 1.

    Raises:
        ParameterError: another shape or kind, or numbers that are not finite.
    """
    found = _validate.vector(field, values)
    if not np.isfinite(found).all():
        raise ParameterError(field, "NaN or an infinity", "finite numbers")
    return found


def _counts(
    num_canaries: int, num_guesses: int, correct: int, delta: float, significance: float
) -> tuple[int, int, int, float, float]:
    m = _validate.integer("num_canaries", num_canaries, 1, 10**6)
    r = _validate.integer("num_guesses", num_guesses, 1, m)
    v = _validate.integer("correct", correct, 0, r)
    return (
        m, r, v, _validate.probability("delta", delta),
        _validate.open_unit("significance", significance),
    )  # fmt: skip
