"""Exact probabilities of integer noise, as Python integers with bounded error.

Both laws are symmetric, so a law is the list of weights of 0, 1, ..., K. What is cut off beyond
K and what integer arithmetic rounds away stay below 2^-104 in total variation; the argument is
in docs/privacy.md, "Samplers". No float enters a weight: floats only choose K, with margin.
"""

import math
from fractions import Fraction

_BITS = 320  # fixed-point precision of weights
_TAIL_BITS = 112  # mass beyond K is below 2^-_TAIL_BITS
_START_BITS = 280  # where the backward recurrence for Bessel functions starts


def discrete_gaussian_weights(variance: Fraction) -> list[int]:
    """Weights of 0..K proportional to exp(-k^2 / (2 variance)), scaled by 2^320.

    Neighbouring weights differ by r_k = exp(-(2k + 1) / (2 variance)), and r_{k+1} = g r_k with
    g = exp(-1 / variance). Each product is rounded down by less than one unit, so weight k is
    off by less than 2 (k + 1)^2 units.
    """
    # 2 exp(-K^2 / (2 variance)) <= 2^-_TAIL_BITS (sub-Gaussian tail)
    last = math.ceil(math.sqrt(2.0 * float(variance) * math.log(2.0) * (_TAIL_BITS + 2))) + 1
    ratio = exp_fixed(-1 / (2 * variance), _BITS)
    shrink = exp_fixed(-1 / variance, _BITS)
    weight = 1 << _BITS
    weights = [weight]
    for _ in range(last):
        weight = weight * ratio >> _BITS
        ratio = ratio * shrink >> _BITS
        weights.append(weight)
    return weights


def discrete_gaussian_variance(sigma: float) -> float:
    """Variance of N_Z(0, sigma^2), at most sigma^2.

    By Poisson's summation it is sigma^2 less a relative 8 pi^2 sigma^2 exp(-2 pi^2 sigma^2), which
    is below 2^-52 from sigma 2 on.
    """
    if sigma >= 2.0:
        return sigma * sigma
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(1, 26)]
    second = math.fsum(k * k * w for k, w in enumerate(weights, 1))
    return 2.0 * second / (1.0 + 2.0 * math.fsum(weights))


def discrete_laplace_weights(scale: Fraction) -> list[int]:
    """Weights of 0..K proportional to exp(-k / scale), scaled by 2^320; mass beyond K 2^-112.

    Weight k is off by less than k + 1 units.
    """
    last = math.ceil(float(scale) * math.log(2.0) * (_TAIL_BITS + 2)) + 1
    return _powers(scale, last)


def laplace_digit_weights(scale: Fraction, base: int) -> list[int]:
    """Weights of 0..base - 1 of the lowest digit in base `base` of discrete Laplace noise.

    Discrete Laplace noise is the difference of two geometric variables with ratio
    q = exp(-1 / scale), whose digits are independent; the difference k of two lowest digits has
    weight q^k (1 - q^(2 (base - k))) (docs/privacy.md, "Samplers").
    """
    powers = _powers(scale, 2 * base)
    one = 1 << _BITS
    return [powers[k] * (one - powers[2 * (base - k)]) >> _BITS for k in range(base)]


def _powers(scale: Fraction, last: int) -> list[int]:
    """exp(-k / scale) 2^320 for k = 0..last, each rounded down by less than k + 1 units."""
    ratio = exp_fixed(-1 / scale, _BITS)
    powers = [1 << _BITS]
    for _ in range(last):
        powers.append(powers[-1] * ratio >> _BITS)
    return powers


def exp_fixed(exponent: Fraction, bits: int) -> int:
    """floor-like exp(exponent) 2^bits for exponent <= 0, off by less than one unit.

    exp(x) = 2^-m exp(y / 2^s)^(2^s) with small y, by its Taylor series, on 64 guard bits.
    """
    working = bits + 64
    if -exponent > bits:  # exp(-bits) < 2^-bits: less than one unit
        return 0
    halvings = max(0, math.ceil(-exponent)).bit_length() + 8
    step = (exponent.numerator << working) // (exponent.denominator << halvings)
    term = total = 1 << working
    index = 1
    while term:
        term = -(-term * step >> working) // index if step < 0 else 0
        total += term
        index += 1
    for _ in range(halvings):
        total = total * total >> working
    return total >> (working - bits)


def skellam_weights(variance: Fraction) -> list[int]:
    """Weights of 0..K proportional to the modified Bessel functions I_k(variance).

    Miller's algorithm: I_{k-1} = (2k / variance) I_k + I_{k+1}, run downwards from I_{N+1} = 0,
    I_N = 1 (times 2^320). All terms are positive, so each step adds a relative error below
    2^-319; what the start value is worth is checked by `_converged`.
    """
    mu = float(variance)
    last = skellam_tail(mu, _TAIL_BITS)
    start = max(skellam_tail(mu, _START_BITS), last + 8)
    while True:
        values = _bessel_downwards(variance, start)
        if _converged(values, last):
            return values[: last + 1]
        start += start // 4 + 8


def _bessel_downwards(variance: Fraction, start: int) -> list[int]:
    """Values proportional to I_0 .. I_start by backward recurrence; the last is 2^320."""
    numerator, denominator = variance.numerator, variance.denominator
    values = [0] * (start + 1)
    above, here = 0, 1 << _BITS
    for k in range(start, 0, -1):
        values[k] = here
        above, here = here, (2 * k * denominator * here) // numerator + above
    values[0] = here
    return values


def _converged(values: list[int], last: int) -> bool:
    """Whether the start of the recurrence moved no weight up to `last` by more than 2^-120.

    The ratio r_k = f_{k+1} / f_k obeys r_{k-1} = 1 / (2k/mu + r_k); two solutions differ by
    |dr_{k-1}| = r_{k-1} r'_{k-1} |dr_k|. With r' < 1 and |dr_N| < 1 the difference at k is at
    most the product of the r above, f_N / f_k <= f_N / f_last. Weights are products of ratios,
    each at least r_last, so their relative error is at most about
    (last + 1) f_N / (f_last r_last) = (last + 1) f_N / f_{last+1}.
    """
    return (last + 1) * values[-1] << 120 <= values[last + 1]


def skellam_tail(mu: float, bits: int) -> int:
    """Smallest t (about) with 2 P[X >= t] <= 2^-bits, by the Chernoff bound; never too small."""
    target = (bits + 2) * math.log(2.0)
    high = 1.0
    while skellam_rate(mu, high) < target:
        high *= 2.0
    low = 0.0
    while high - low > 0.5:
        middle = (low + high) / 2.0
        low, high = (middle, high) if skellam_rate(mu, middle) < target else (low, middle)
    return math.ceil(high) + 1


def skellam_rate(mu: float, t: float) -> float:
    """Chernoff exponent: P[X >= t] <= exp(-rate) for Skellam noise X of variance mu, t >= 0.

    The moment generating function is exp(mu (cosh s - 1)); the best s is asinh(t / mu). With
    x = t / mu the exponent is mu (x asinh(x) - (sqrt(1 + x^2) - 1)), written without
    cancellation.
    """
    x = t / mu
    return mu * (x * math.asinh(x) - x * x / (math.sqrt(1.0 + x * x) + 1.0))


def skellam_log_law(variance: Fraction, last: int) -> list[float]:
    """Log P[X = k] for k = 0..last, each within 2^-46 + 2^-50 |log P|; last beyond the bulk.

    Quotients are taken in integers, so nothing cancels: log(w / sum) = log(q) - s log 2 with
    q = (w 2^s) / sum, at least 2^62.

    Args:
        variance: mu.
        last: at least `skellam_tail(mu, 112)`, so that the sum is that of the whole law.
    """
    start = last + 8
    while True:
        values = _bessel_downwards(variance, start)
        if _converged(values, last):
            break
        start += start // 4 + 8
    total = 2 * sum(values) - values[0]
    size = total.bit_length() + 63
    logs = []
    for value in values[: last + 1]:
        shift = size - value.bit_length()
        logs.append(math.log((value << shift) // total) - shift * math.log(2.0))
    return logs


def bessel_quotient_complement(variance: Fraction) -> Fraction:
    """An upper bound on 1 - I_1(mu) / I_0(mu), tight to 2^-100; for mu up to 1e6.

    r_{k-1} = 1 / (2k / mu + r_k) falls as r_k grows, so interval ends swap at each step; from
    0 <= r_N <= 1 the interval shrinks by the product of the r_k^2. All roundings go outwards.
    """
    numerator, denominator = variance.numerator, variance.denominator
    one = 1 << _BITS
    steps = 16 + 14 * math.isqrt(math.ceil(variance) + 1)
    low, high = 0, one
    for k in range(steps, 0, -1):
        base = 2 * k * denominator * one // numerator
        low, high = one * one // (base + 1 + high), -(-one * one // (base + low))
    return Fraction(one - low, one)
