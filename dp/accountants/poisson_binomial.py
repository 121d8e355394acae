"""Rényi divergence of a Poisson binomial sum when one client's bias moves, worst over the others.

One coordinate: the accused client's `units` trials have success probability 1/2 + base in Q and
1/2 + base + shift in P; `others` further trials have 1/2 + theta or 1/2 - theta, i of them the
former, and every i is looked at. With u = P/Q - 1 and psi_g(u) = ((1 + u)^g - 1 - g u) / u^2,

    E_Q (P/Q)^g - 1 = E_Q[u^2 psi_g(u)],    g = order for D(P|Q), g = 1 - order for D(Q|P),

psi_g > 0 rises with u for g > 2 and falls for g < 2. So neighbouring i are covered together by the
measure whose tails are the largest that Q u^2 has for any of them. With one trial u is linear in
the shift, which gives all smaller shifts as well. Proofs: docs/privacy.md, "Poisson binomial".
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dp.events import PoissonBinomialEvent
from dp.samplers import BIAS_UNIT

FloatArray = NDArray[np.float64]

MAX_OTHERS = 2047  # trials of others whose laws are enumerated
# Orders minus one at which sums are taken; (order - 1) D is convex in the order between them.
_KNOTS = np.array([
    0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0,
    13.0, 15.0, 17.0, 20.0, 23.0, 27.0, 31.0, 39.0, 47.0, 55.0, 63.0, 79.0, 95.0, 127.0, 191.0,
    255.0, 383.0, 511.0, 767.0, 1023.0, 2047.0, 4095.0, 16383.0,
])  # fmt: skip
_PAD = 2.0**-38  # of what u is the difference of: more than the rounding of 2^12 trials
_LARGEST_RATIO = 20.0  # log likelihood ratio of a client's trials that are taken together
_FAINT = 1e-280  # outcomes less likely than this count with the largest u
_SMALL = 1e-3  # |g u| below which psi is bounded instead of evaluated
_LARGE = 500.0  # exponents above which exp is not taken
# Shifts as a fraction of the largest; between two of them psi is taken at the end that hurts.
_FRACTIONS = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0])
_WHOLE_POINTS, _VECTOR_POINTS = 1 << 13, 1 << 12  # of all envelopes; fewer are coarser, not wrong


@dataclass(frozen=True)
class Trials:
    """Which trials: probabilities are 1/2 plus these.

    Attributes:
        units: trials of the accused client that move together, m.
        others: trials of the other honest clients in the same sum.
        theta: bound on every other bias, below 1/2.
        base: the client's bias in Q.
        shift: what is added to it in P, > 0; base + shift <= theta.
    """

    units: int
    others: int
    theta: float
    base: float
    shift: float


@dataclass(frozen=True, eq=False)
class _Envelope:
    """Measures on u that bound Q u^2 for some i: `rising` for rising psi, `falling` for falling."""

    rising: tuple[FloatArray, FloatArray]  # points, log masses
    falling: tuple[FloatArray, FloatArray]


def divergence_bound(event: PoissonBinomialEvent, a: FloatArray) -> FloatArray:
    """Upper bound on the Rényi divergence of order 1 + a, both directions; float64[len(a)].

    More than MAX_OTHERS + 1 shares count as so many: further coins cost nothing.
    """
    event = replace(event, shares=min(event.shares, MAX_OTHERS + 1))
    orders = np.asarray(a, dtype=np.float64)
    cumulants = np.concatenate([[0.0], _cumulants(event)])
    chords = np.interp(orders, np.concatenate([[0.0], _KNOTS]), cumulants) / orders
    largest = event.dim * event.trials * _farthest(event) * (1.0 + 2.0**-40)  # of any order
    inside = orders <= _KNOTS[-1]
    result: FloatArray = np.where(inside, np.minimum(chords, largest), largest)
    return result


def _farthest(event: PoissonBinomialEvent) -> float:
    """Largest log likelihood ratio of one trial."""
    theta = event.linf * BIAS_UNIT
    return 2.0 * math.atanh(2.0 * theta) if event.replaced else -math.log1p(-2.0 * theta)


@functools.lru_cache(maxsize=256)
def _cumulants(event: PoissonBinomialEvent) -> FloatArray:
    """(order - 1) D at the knots, rounded up: the smaller of two bounds.

    The released sum is a function of `trials` sums, one for each trial's number, which are vectors
    with one trial a client: divergences of these add. Or all trials together at the largest shift.
    """
    theta = event.linf * BIAS_UNIT
    base, shift = (-theta, 2.0 * theta) if event.replaced else (0.0, theta)
    mean = min(1.0, event.l2_sq / (event.dim * event.linf**2) * (1.0 + 2.0**-50))
    others, orders = event.shares - 1, 1.0 + _KNOTS
    single = Trials(1, others, theta, base, shift)
    each = event.trials * vector_cumulants(single, orders, mean)
    together = (
        event.trials * others <= MAX_OTHERS and event.trials * _farthest(event) < _LARGEST_RATIO
    )
    if mean > 0.5 and together:
        joint = Trials(event.trials, event.trials * others, theta, base, shift)
        each = np.minimum(each, whole_cumulants(joint, orders))
    result: FloatArray = event.dim * each * (1.0 + 2.0**-30)
    result.setflags(write=False)
    return result


def whole_cumulants(trials: Trials, orders: FloatArray) -> FloatArray:
    """(order - 1) max(D(P|Q), D(Q|P)) over all i, rounded up; float64[orders]."""
    envelopes = _envelopes(trials, _WHOLE_POINTS)
    found = [_log_gain(envelopes, g, 1.0, 1.0) for g in (orders, 1.0 - orders)]
    result: FloatArray = np.logaddexp(0.0, np.maximum(*found))
    return result


def vector_cumulants(trials: Trials, orders: FloatArray, mean_square: float) -> FloatArray:
    """The same per coordinate of a vector of shifts with a bound on their mean square.

    Shifts are lambda_j `shift` with lambda_j in [0, 1] and mean lambda_j^2 <= mean_square; the
    largest average over coordinates of (order - 1) D, rounded up; float64[orders].

    Args:
        trials: with units = 1.
        orders: above 1.
        mean_square: in (0, 1].
    """
    envelopes = _envelopes(trials, _VECTOR_POINTS)

    def gain_of(low: float, high: float) -> FloatArray:
        both = [_log_gain(envelopes, g, low, high) for g in (orders, 1.0 - orders)]
        return np.maximum(*both)

    gain = np.stack([gain_of(a, b) for a, b in itertools.pairwise(_FRACTIONS)], axis=1)
    return _largest_mean(gain, gain_of(1.0, 1.0), mean_square)


def _largest_mean(gain: FloatArray, end: FloatArray, mean: float) -> FloatArray:
    """Largest average of h(t) over t = lambda^2 of this mean; float64[orders].

    On each piece of lambda h is at most log(1 + k t), and at most its value at the end, as it
    rises. Any line s (t - mean) + v above all pieces bounds the average by v; the best of the
    slopes that log(1 + k t) has at the mean, and of 0, is taken.

    Args:
        gain: log k by order and piece.
        end: log k of the whole shift alone, by order.
        mean: of t.
    """
    low, high = _FRACTIONS[:-1], _FRACTIONS[1:]
    last = high**2 * np.ones_like(gain)
    last[:, -1] = np.exp(np.minimum(end - gain[:, -1], 0.0))  # from here on the value at the end
    slopes = 1.0 / (np.exp(-gain) + mean)
    slopes = np.concatenate([np.zeros((len(end), 1)), slopes], axis=1)
    best = np.full(len(end), np.inf)
    for slope in slopes.T[:, :, None]:  # [orders, 1] against [orders, pieces]
        with np.errstate(divide="ignore"):
            t = np.clip(1.0 / slope - np.exp(-gain), low**2, np.maximum(last, low**2))
            value = np.logaddexp(0.0, np.log(t) + gain)
        best = np.minimum(best, (value - slope * (t - mean)).max(axis=1))
    return best


def _log_gain(
    envelopes: tuple[_Envelope, ...], powers: FloatArray, low: float, high: float
) -> FloatArray:
    """Logarithm of a bound on (E_Q (1 + lambda u)^g - 1) / lambda^2 for low <= lambda <= high.

    lambda u counts with the end of the interval at which psi_g is larger; float64[powers].
    """
    result = np.full(len(powers), -np.inf)
    for rising in (True, False):
        chosen = (powers > 2.0) == rising
        for envelope in envelopes:
            points, masses = envelope.rising if rising else envelope.falling
            scaled = points * np.where((points > 0.0) == rising, high, low)
            logs = masses + _log_psi(powers[chosen, None], scaled)
            result[chosen] = np.maximum(result[chosen], _log_sum(logs))
    return result


def _log_sum(logs: FloatArray) -> FloatArray:
    largest = logs.max(axis=1)
    result: FloatArray = largest + np.log(np.exp(logs - largest[:, None]).sum(axis=1))
    return result


def _log_psi(g: FloatArray, u: FloatArray) -> FloatArray:
    """Logarithm of psi_g(u), rounded up; g outside [0, 1], u > -1.

    Taylor with the remainder's integral: psi <= g (g - 1) / 2 max(1, (1 + u)^(g - 2)), used where
    the difference would cancel. For large exponents (1 + u)^g alone is above u^2 psi.
    """
    log1p = np.log1p(u)
    e = g * log1p
    gu = g * u
    flat = np.log(g * (g - 1.0) / 2.0) + np.maximum(0.0, (g - 2.0) * log1p)
    grown = np.expm1(np.minimum(e, _LARGE))
    square = grown - gu
    square += 2.0**-50 * (1.0 + np.abs(e)) * (grown + 2.0 + np.abs(gu))
    with np.errstate(divide="ignore", invalid="ignore"):
        small = np.abs(gu) + np.abs(u) < _SMALL
        exact = np.where(e < _LARGE, np.log(square), e) - 2.0 * np.log(np.abs(u))
    result: FloatArray = np.where(small, flat, exact)
    return result


@functools.lru_cache(maxsize=16)
def _envelopes(trials: Trials, points: int) -> tuple[_Envelope, ...]:
    """One envelope for each run of neighbouring i, as many as `points` allow."""
    count = trials.others + 1
    runs = max(1, min(count, points // (2 * (count + trials.units))))
    result = []
    for run in np.array_split(np.arange(count), runs):
        laws = [_law(trials, plus) for plus in run.tolist()]
        result.append(_Envelope(_largest_tails(laws, 1.0), _largest_tails(laws, -1.0)))
    return tuple(result)


def _largest_tails(
    laws: list[tuple[FloatArray, FloatArray, FloatArray]], sign: float
) -> tuple[FloatArray, FloatArray]:
    """(points, log masses): for every monotone psi >= 0 the sum is at least that of each law.

    Args:
        laws: (least, most, Q) of u by outcome.
        sign: 1 for rising psi, -1 for falling: then everything is mirrored.
    """
    moved = []
    for least, most, q in laws:
        raised = most if sign > 0.0 else -least
        order = np.argsort(raised)
        moved.append((raised[order], (q * np.maximum(least**2, most**2))[order]))
    points = np.unique(np.concatenate([moved[0][0], moved[-1][0]]))
    points[-1] = max(float(one[-1]) for one, _ in moved)
    above = np.zeros(len(points))  # mass beyond the point before
    before = np.concatenate([[-np.inf], points[:-1]])
    for raised, mass in moved:
        suffix = np.append(np.cumsum(mass[::-1])[::-1], 0.0)
        above = np.maximum(above, suffix[np.searchsorted(raised, before, side="right")])
    masses = above - np.append(above[1:], 0.0)
    kept = masses > 0.0
    return sign * points[kept], np.log(masses[kept]) + 2.0**-36


def _law(trials: Trials, plus: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(least u, most u, Q) over all outcomes with `plus` of the others at 1/2 + theta."""
    m, p, q = trials.units, 0.5 + trials.base + trials.shift, 0.5 + trials.base
    up, down = 0.5 + trials.theta, 0.5 - trials.theta
    rest = trials.others - plus
    noise = np.convolve(
        _binomials(trials.others, up, down)[plus], _binomials(trials.others, down, up)[rest]
    )
    before, after = _binomials(m, q, 1.0 - q), _binomials(m, p, 1.0 - p)
    law = np.convolve(before[m], noise)
    moved = np.zeros(m + 1)  # P - Q of the client's own trials, one trial after the other
    size = np.zeros(m + 1)  # the terms of which it is the difference, added
    for k in range(m):
        kept = trials.shift * np.convolve(after[k], before[m - 1 - k])
        moved += np.append(0.0, kept) - np.append(kept, 0.0)
        size += np.append(0.0, kept) + np.append(kept, 0.0)
    most = (1.0 + trials.shift / q) ** m - 1.0
    least = (1.0 - trials.shift / (1.0 - q)) ** m - 1.0
    faint = law < _FAINT
    divisor = np.where(faint, np.inf, law)
    u, error = np.convolve(moved, noise) / divisor, np.convolve(size, noise) / divisor * _PAD
    ends = np.array([least, most])  # faint outcomes count as both
    count = float(faint.sum() + 1) * _FAINT
    return (
        np.append(np.clip(u - error, least, most), ends),
        np.append(np.clip(u + error, least, most), ends),
        np.append(np.where(faint, 0.0, law), [count, count]),
    )


@functools.lru_cache(maxsize=8)
def _binomials(most: int, success: float, failure: float) -> tuple[FloatArray, ...]:
    """Binomial laws of 0..most trials, adding one after the other: positive terms alone."""
    laws = [np.ones(1)]
    for _ in range(most):
        laws.append(np.append(failure * laws[-1], 0.0))
        laws[-1][1:] += success * laws[-2]
    return tuple(laws)
