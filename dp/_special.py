"""Special functions that NumPy lacks, vectorised; 1e-13 relative unless a docstring says more.

Every function takes and returns float64 arrays of any shape. Accuracy is tested against
arbitrary-precision arithmetic over the ranges that the docstrings name.
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


def _exp_minus_square(x: FloatArray) -> FloatArray:
    """exp(-x^2) to a few units in the last place: x is split so that its square is exact."""
    size = np.minimum(np.abs(x), 40.0)
    head = np.round(size * 16.0) * 0.0625
    result: FloatArray = np.exp(-head * head) * np.exp(-(size - head) * (size + head))
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
    """Standard normal distribution function; relative error below 3e-13 for z >= -37."""
    return np.asarray(0.5 * erfc(-np.asarray(z, dtype=np.float64) * _ROOT_HALF))


def log_ndtr(z: ArrayLike) -> FloatArray:
    """Logarithm of the standard normal distribution function, for any z."""
    values = np.asarray(z, dtype=np.float64)
    size = np.abs(values)
    scaled = 0.5 * _erfcx_positive(size * _ROOT_HALF)
    small = scaled * _exp_minus_square(size * _ROOT_HALF)  # the smaller of the two tails
    with np.errstate(divide="ignore"):
        low = np.log(scaled) - 0.5 * values * values
    return np.asarray(np.where(values > 0.0, np.log1p(-small), low))


def ndtri(p: ArrayLike) -> FloatArray:
    """Quantile of the standard normal law, p in (0, 1), down to p = 1e-300."""
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


def gammaln(x: ArrayLike) -> FloatArray:
    """Log |Gamma(x)|, x > 0: the C library's, element by element."""
    values = np.asarray(x, dtype=np.float64)
    flat = [math.lgamma(value) for value in values.ravel().tolist()]
    return np.array(flat, dtype=np.float64).reshape(values.shape)


def stirling_error(x: FloatArray) -> FloatArray:
    """Log Gamma(x + 1) - (x + 1/2) log x + x - log(2 pi) / 2, x > 0; absolute error 1e-15."""
    large = np.maximum(x, 10.0)
    inverse = 1.0 / (large * large)
    series = 0.0 * inverse
    for coefficient in (1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12):
        series = series * inverse + coefficient
    small = np.minimum(x, 10.0)
    direct = gammaln(small + 1.0) - (small + 0.5) * np.log(small) + small - _HALF_LOG_TWO_PI
    return np.asarray(np.where(x > 10.0, series / large, direct))


def deviance(x: FloatArray, mean: FloatArray) -> FloatArray:
    """X log(x / mean) + mean - x without cancellation (Loader 2000), x and mean > 0."""
    ratio = (x - mean) / (x + mean)
    square = ratio * ratio
    total = 1.0 / 41.0 + 0.0 * square
    for odd in range(39, 1, -2):
        total = total * square + 1.0 / odd
    near = (x - mean) * ratio + 2.0 * x * ratio * square * total
    far = x * np.log(x / mean) + mean - x
    return np.asarray(np.where(np.abs(ratio) < 0.1, near, far))


def log_beta_kernel(a: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """Log of x^a (1 - x)^b / B(a, b), a, b > 0, by Loader's saddle-point form."""
    n = a + b
    correction = stirling_error(n) - stirling_error(a) - stirling_error(b)
    exponent = deviance(a, n * x) + deviance(b, n * (1.0 - x))
    result: FloatArray = correction - exponent + 0.5 * np.log(a * b / (2.0 * math.pi * n))
    return result


def betainc(a: ArrayLike, b: ArrayLike, x: ArrayLike) -> FloatArray:
    """Regularized incomplete beta function I_x(a, b), a, b > 0, 0 <= x <= 1.

    The continued fraction of Lentz on the side where it converges fast.
    """
    first, second, point = np.broadcast_arrays(
        np.asarray(a, dtype=np.float64),
        np.asarray(b, dtype=np.float64),
        np.asarray(x, dtype=np.float64),
    )
    swap = point > (first + 1.0) / (first + second + 2.0)
    inside = np.clip(point, _TINY, 1.0 - 2.0**-53)
    p = np.where(swap, second, first)
    q = np.where(swap, first, second)
    y = np.where(swap, 1.0 - inside, inside)
    part = np.exp(log_beta_kernel(first, second, inside)) * _beta_fraction(p, q, y) / p
    result = np.where(swap, 1.0 - part, part)
    return np.asarray(np.where(point <= 0.0, 0.0, np.where(point >= 1.0, 1.0, result)))


def _beta_fraction(a: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """Value of the continued fraction of the incomplete beta function (modified Lentz).

    Every element stops where it has converged: the fraction's later terms only add rounding.
    """
    shape = np.shape(x)
    a, b, x = (np.ravel(v).astype(np.float64) for v in (a, b, x))
    result, index = np.empty_like(x), np.arange(x.size)
    c = np.ones_like(x)
    d = 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, 200_000):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / _away(1.0 + even * d)
        c = _away(1.0 + even / c)
        first = d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / _away(1.0 + odd * d)
        c = _away(1.0 + odd / c)
        second = d * c
        value = value * first * second
        done = (np.abs(first - 1.0) < 2.0**-51) & (np.abs(second - 1.0) < 2.0**-51)
        if np.any(done):
            result[index[done]] = value[done]
            index = index[~done]
            if index.size == 0:
                break
            a, b, x, c, d, value = (v[~done] for v in (a, b, x, c, d, value))
    else:
        result[index] = value
    return result.reshape(shape)


def _away(x: FloatArray) -> FloatArray:
    """x, moved away from zero where it vanishes."""
    return np.asarray(np.where(np.abs(x) < _TINY, _TINY, x))


def binom_tail(k: ArrayLike, n: ArrayLike, p: ArrayLike) -> FloatArray:
    """P[Binomial(n, p) >= k] for integers 0 <= k <= n + 1, relative error below 1e-12."""
    count, trials, prob = np.broadcast_arrays(
        np.asarray(k, dtype=np.float64),
        np.asarray(n, dtype=np.float64),
        np.asarray(p, dtype=np.float64),
    )
    inside = betainc(np.clip(count, 1.0, trials), trials - np.clip(count, 1.0, trials) + 1.0, prob)
    return np.asarray(np.where(count <= 0.0, 1.0, np.where(count > trials, 0.0, inside)))


def log_bessel_i(last: int, x: float) -> FloatArray:
    """Log I_k(x) of the modified Bessel functions, k = 0 .. last, x > 0; float64[last + 1].

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
    log_zero = x - math.log1p(2.0 * float(np.exp(logs[1:]).sum()))
    result: FloatArray = log_zero + logs[: last + 1]
    return result
