"""Special functions that NumPy lacks, vectorised; relative error below 1e-13.

Every function takes and returns float64 arrays of any shape. Accuracy is tested against frozen
values of arbitrary-precision arithmetic over the ranges that the docstrings name; arguments count
as exact. What a docstring says about a zero is the function's own condition there.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# Chebyshev coefficients of (1 + 2x) erfcx(x) in t = (x - c) / (x + c), c = 15/4, x >= 0: the
# expansion of Shepherd, Laframboise 1981. The next one is below 1e-18.
_ERFCX_CENTRE = 3.75
_ERFCX = (
    1.1775789345674017,
    -0.004590054580646478,
    -0.08424913336651792,
    0.05920993999819189,
    -0.026658668435305753,
    0.009074997670705265,
    -0.002413163540417608,
    0.0004907758365258086,
    -6.916973302501207e-05,
    4.13902798607301e-06,
    7.74038306619849e-07,
    -2.1886401049234397e-07,
    1.076499946567091e-08,
    4.521959811218287e-09,
    -7.754400208831351e-10,
    -6.318088340886684e-11,
    2.86879501093067e-11,
    1.9455868545777347e-13,
    -9.65469674843344e-13,
    3.25254814814874e-14,
    3.3478119482868056e-14,
    -1.864562880419313e-15,
    -1.2507950530688648e-15,
    7.418235256624044e-17,
    5.068148904796111e-17,
    -2.2370566594359995e-18,
)
_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_ROOT_HALF = math.sqrt(0.5)
_TINY = 1e-300


def erfcx(x: ArrayLike) -> FloatArray:
    """exp(x^2) erfc(x) for x >= -25 (below, it overflows); relative error below 1e-14."""
    values = np.asarray(x, dtype=np.float64)
    size = np.abs(values)
    positive = _erfcx_positive(size)
    if not np.any(values < 0.0):
        return positive
    low = np.minimum(values, 0.0)
    return np.asarray(np.where(values < 0.0, 2.0 / _exp_minus_square(low) - positive, positive))


def _erfcx_positive(x: FloatArray) -> FloatArray:
    """Erfcx for x >= 0 by Clenshaw's recurrence; 0 at infinity."""
    with np.errstate(invalid="ignore"):
        t = np.where(np.isinf(x), 1.0, (x - _ERFCX_CENTRE) / (x + _ERFCX_CENTRE))
    above = np.zeros_like(t)
    here = np.full_like(t, _ERFCX[-1])
    twice = 2.0 * t
    for coefficient in _ERFCX[-2:0:-1]:
        above, here = here, twice * here - above + coefficient
    result: FloatArray = (t * here - above + _ERFCX[0]) / (1.0 + 2.0 * x)
    return result


def _exp_minus_square(x: FloatArray, factor: float = 1.0) -> FloatArray:
    """exp(-factor x^2), factor 1 or 1/2, to a few units in the last place.

    x is split so that the large part of its square is exact.
    """
    size = np.minimum(np.abs(x), 60.0)
    head = np.round(size * 16.0) * 0.0625
    rest = (size - head) * (size + head)
    result: FloatArray = np.exp(-factor * head * head) * np.exp(-factor * rest)
    return result


def erfc(x: ArrayLike) -> FloatArray:
    """Complementary error function; relative error below 1e-14 for x <= 26, 0 beyond 27."""
    values = np.asarray(x, dtype=np.float64)
    size = np.abs(values)
    positive = _erfcx_positive(size) * _exp_minus_square(size)
    return np.asarray(np.where(values < 0.0, 2.0 - positive, positive))


def erf_small(x: ArrayLike) -> FloatArray:
    """Error function for |x| <= 1 by a series of positive terms; relative error below 1e-15."""
    values = np.asarray(x, dtype=np.float64)
    square = 2.0 * values * values
    term = values
    total = values
    for n in range(1, 30):
        term = term * square / (2 * n + 1)
        total = total + term
    result: FloatArray = (2.0 / math.sqrt(math.pi)) * np.exp(-values * values) * total
    return result


def ndtr(z: ArrayLike) -> FloatArray:
    """Standard normal distribution function, z >= -37."""
    values = np.asarray(z, dtype=np.float64)
    tail = _half_erfcx(values) * _exp_minus_square(values, 0.5)
    return np.asarray(np.where(values > 0.0, 1.0 - tail, tail))


def log_ndtr(z: ArrayLike) -> FloatArray:
    """Logarithm of the standard normal distribution function, z <= 37."""
    values = np.asarray(z, dtype=np.float64)
    scaled = _half_erfcx(values)
    # Not erfc(z / sqrt 2): the rounding of that argument would be multiplied by z^2.
    small = scaled * _exp_minus_square(values, 0.5)  # the smaller of the two tails
    with np.errstate(divide="ignore"):
        low = np.log(scaled) - 0.5 * values * values
    return np.asarray(np.where(values > 0.0, np.log1p(-small), low))


def _half_erfcx(z: FloatArray) -> FloatArray:
    """Mass of the standard normal law beyond |z|, times exp(z^2 / 2)."""
    return 0.5 * _erfcx_positive(np.abs(z) * _ROOT_HALF)


def ndtri(p: ArrayLike) -> FloatArray:
    """Quantile of the standard normal law, 1e-300 <= p < 1."""
    values = np.asarray(p, dtype=np.float64)
    lower = np.minimum(values, 1.0 - values)  # exact: 1 - p is, for p >= 1/2
    return np.asarray(np.where(values > 0.5, -_ndtri_lower(lower), _ndtri_lower(lower)))


def _ndtri_lower(p: FloatArray) -> FloatArray:
    """Ndtri for p in (0, 1/2] by Newton's method on a concave function."""
    target = np.log(np.maximum(p, _TINY))
    # Left of the solution, since log Phi(x) <= log(1/2) - x^2/2; from there Newton's steps on
    # the concave log Phi stay left and converge.
    x = -np.sqrt(np.maximum(0.0, -2.0 * (target + math.log(2.0))))
    for _ in range(12):
        value = log_ndtr(x)
        x = x - (value - target) * np.exp(value + 0.5 * x * x + _HALF_LOG_TWO_PI)
    near = p > 0.3  # close to 0 relative precision needs the distance to 1/2
    offset = np.where(near, 0.5 - p, 0.0)
    y = np.where(near, -x, 0.0)
    for _ in range(3):
        slope = np.exp(-0.5 * y * y - _HALF_LOG_TWO_PI)
        y = y - (0.5 * erf_small(y * _ROOT_HALF) - offset) / slope
    return np.asarray(np.where(near, -y, x))


def stirling_error(x: FloatArray) -> FloatArray:
    """Log Gamma(x + 1) - (x + 1/2) log x + x - log(2 pi) / 2, x >= 1e-3.

    Up to 10 from its value at x + 10, by terms that are all positive.
    """
    small = np.minimum(x, 10.0)
    steps = 0.0 * small
    for j in range(10):
        steps = steps + _stirling_step(small + j)
    large = np.where(x > 10.0, x, small + 10.0)
    inverse = (1.0 / large) ** 2
    series = 0.0 * inverse
    for coefficient in (1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12):
        series = series * inverse + coefficient
    return np.asarray(series / large + np.where(x > 10.0, 0.0, steps))


def _stirling_step(x: FloatArray) -> FloatArray:
    """stirling_error(x) - stirling_error(x + 1) = (x + 1/2) log(1 + 1/x) - 1."""
    square = 1.0 / (2.0 * x + 1.0) ** 2  # atanh(r) / r - 1 at r = 1 / (2x + 1)
    total = 0.0 * square
    for odd in range(49, 1, -2):
        total = (total + 1.0 / odd) * square
    with np.errstate(divide="ignore"):
        direct = (x + 0.5) * np.log1p(1.0 / x) - 1.0
    return np.asarray(np.where(x < 0.5, direct, total))


def deviance(x: FloatArray, mean: FloatArray) -> FloatArray:
    """X log(x / mean) + mean - x without cancellation (Loader 2000), x and mean > 0."""
    ratio = (x - mean) / (x + mean)
    square = ratio * ratio
    total = 1.0 / 41.0 + 0.0 * square
    for odd in range(39, 1, -2):
        total = total * square + 1.0 / odd
    near = (x - mean) * ratio + 2.0 * x * ratio * square * total
    far = x * np.log(x / mean) + mean - x
    return np.asarray(np.where(np.abs(ratio) < 0.3, near, far))


def log_beta_kernel(a: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """Log of x^a (1 - x)^b / B(a, b), a, b > 0, by Loader's saddle-point form."""
    n = a + b
    correction = stirling_error(n) - stirling_error(a) - stirling_error(b)
    # The means carry their rounding errors: far from them the exponent is steep.
    first, first_error = _exact_product(n, x)
    upper, upper_error = _exact_product(n, 1.0 - x)
    difference = n - first
    exact = x >= 0.5  # then 1 - x is
    second = np.where(exact, upper, difference)
    second_error = np.where(exact, upper_error, ((n - difference) - first) - first_error)
    exponent = deviance(a, first) + first_error * (1.0 - a / first)
    exponent = exponent + (deviance(b, second) + second_error * (1.0 - b / second))
    result: FloatArray = correction - exponent + 0.5 * np.log(a * b / (2.0 * math.pi * n))
    return result


def betainc(a: ArrayLike, b: ArrayLike, x: ArrayLike) -> FloatArray:
    """Regularized incomplete beta function I_x(a, b), a, b >= 1e-2, 0 <= x <= 1.

    By a continued fraction on the side of the mean where x lies. To 1e-13 for a + b <= 1e6 and
    values above 1e-30: the error of a logarithm is relative to its size.
    """
    first, second, point = np.broadcast_arrays(
        np.asarray(a, dtype=np.float64),
        np.asarray(b, dtype=np.float64),
        np.asarray(x, dtype=np.float64),
    )
    inside = np.clip(point, _TINY, 1.0 - 2.0**-53)
    # Distance of the mean, which the fraction turns on; from x itself, as 1 - x is rounded.
    high, low = _exact_product(first + second, inside)
    distance = (first - high) - low
    swap = distance < 0.0
    p = np.where(swap, second, first)
    q = np.where(swap, first, second)
    y = np.where(swap, 1.0 - inside, inside)
    kernel = np.exp(log_beta_kernel(first, second, inside))
    part = kernel * _beta_fraction(p, q, y, np.abs(distance))
    result = np.where(swap, 1.0 - part, part)
    return np.asarray(np.where(point <= 0.0, 0.0, np.where(point >= 1.0, 1.0, result)))


def _exact_product(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The product and its rounding error (Dekker 1971)."""
    high_a, high_b = _upper_half(a), _upper_half(b)
    low_a, low_b = a - high_a, b - high_b
    product = a * b
    error = ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b
    return product, error


def _upper_half(a: FloatArray) -> FloatArray:
    """A double's upper 26 bits."""
    shifted = 134217729.0 * a
    result: FloatArray = shifted - (shifted - a)
    return result


def _beta_fraction(a: FloatArray, b: FloatArray, x: FloatArray, distance: FloatArray) -> FloatArray:
    """I_x(a, b) B(a, b) / (x^a (1 - x)^b), distance = a - (a + b) x >= 0.

    The continued fraction (9) of DiDonato, Morris 1992 by modified Lentz; its terms are positive
    up to the b-th. Every element stops where it has converged: later terms only add rounding.
    """
    shape = np.shape(x)
    a, b, x, distance = (np.ravel(v).astype(np.float64) for v in (a, b, x, distance))
    result, index = np.empty_like(x), np.arange(x.size)
    c = np.full_like(x, 1.0 / _TINY)
    d = 1.0 / (a / (a + 1.0) * (distance + 1.0))
    value = d
    for n in range(1, 200_000):
        odd = a + (2 * n - 1.0)
        over = (a + (n - 1.0)) * (a + b + (n - 1.0)) / odd * (n * (b - n) / odd) * x * x
        rest = (a + n) / (odd + 2.0) * (distance + 1.0 + n * (2.0 - x))
        under = n + n * (b - n) * x / odd + rest
        d = 1.0 / _away(under + over * d)
        c = _away(under + over / c)
        factor = c * d
        value = value * factor
        done = np.abs(factor - 1.0) < 2.0**-51
        if np.any(done):
            result[index[done]] = value[done]
            index = index[~done]
            if index.size == 0:
                break
            a, b, x, distance = (v[~done] for v in (a, b, x, distance))
            c, d, value = (v[~done] for v in (c, d, value))
    else:
        result[index] = value
    return result.reshape(shape)


def _away(x: FloatArray) -> FloatArray:
    """x, moved away from zero where it vanishes."""
    return np.asarray(np.where(np.abs(x) < _TINY, _TINY, x))


def binom_tail(k: ArrayLike, n: ArrayLike, p: ArrayLike) -> FloatArray:
    """P[Binomial(n, p) >= k] for integers 0 <= k <= n + 1, n <= 1e6; as accurate as `betainc`."""
    count, trials, prob = np.broadcast_arrays(
        np.asarray(k, dtype=np.float64),
        np.asarray(n, dtype=np.float64),
        np.asarray(p, dtype=np.float64),
    )
    inside = betainc(np.clip(count, 1.0, trials), trials - np.clip(count, 1.0, trials) + 1.0, prob)
    return np.asarray(np.where(count <= 0.0, 1.0, np.where(count > trials, 0.0, inside)))


def log_bessel_i(last: int, x: float) -> FloatArray:
    """Log I_k(x) of the modified Bessel functions, k = 0 .. last, 1e-9 <= x <= 1e5.

    float64[last + 1]. The error is relative, but absolute where k >= 1 and the value is below 1:
    it crosses 0 inside the range, where a relative error in x has no bounded effect.

    Backward recurrence of the ratios I_{k+1} / I_k, all positive, normalised by
    exp(x) = I_0 + 2 (I_1 + I_2 + ...).
    """
    # Ratios from an arbitrary start agree to within the product of those below it; beyond this
    # start that product is below 2^-60 (I_k falls like exp(-k^2 / 2x), then like (x / 2k)^k).
    start = last + 20 + math.ceil(10.0 * math.sqrt(x + last))
    ratio = 0.0
    ratios = np.empty(start)
    for k in range(start, 0, -1):
        ratio = 1.0 / (2.0 * k / x + ratio)
        ratios[k - 1] = ratio
    logs = np.concatenate([np.zeros(1), np.cumsum(np.log(ratios))])
    if x > 2.0:
        log_zero = x - math.log1p(2.0 * float(np.exp(logs[1:]).sum()))
    else:  # where those two would cancel
        log_zero = _log_bessel_zero(x)
    result: FloatArray = log_zero + logs[: last + 1]
    return result


def _log_bessel_zero(x: float) -> float:
    """Log I_0(x) for 0 < x <= 2 by the power series, whose terms are positive."""
    term, total = 1.0, 0.0
    for j in range(1, 20):
        term *= 0.25 * x * x / (j * j)
        total += term
    return math.log1p(total)
