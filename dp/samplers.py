"""Exact samplers of integer noise, from random bytes; docs/privacy.md, "Samplers".

"Exact" is a contract: the law of each value is within 2^-100 of the named law in total
variation, and `total_variation` says what that costs. Parameters are doubles, hence exact
binary fractions, and are taken at face value. Each value costs a fixed number of random bytes
and the same work whatever its outcome; a tie in 44 bits (once in 2^44 values) costs more.
Tables are built once per parameter and kept; they are public.
"""

import functools
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dp import _alias, _laws, _validate
from dp.errors import ParameterError
from dp.events import MOST_BIAS
from dp.random import RandomBytes, random_halfwords

PER_VALUE_DISTANCE = 2.0**-100  # total variation per value, guaranteed
MAX_SIGMA = 2.0**40
MAX_VARIANCE = 1e8  # of Skellam noise: one table
_MIN_SCALE = 1e-3  # below this all mass is at 0 far beyond the precision that is promised
_MAX_TABLE_SIGMA = 1e4
_PART_SIGMA = 4096  # of the fine part when sigma exceeds one table
_MAX_FACTOR = 1024  # of the coarse part: the fine part fills its gaps
MAX_LAPLACE_SCALE = 2.0**40
_MAX_TABLE_LAPLACE = 256.0
_DIGIT = 1 << 12  # base of the digits of wider discrete Laplace noise
BIAS_UNIT = 2.0**-24  # of the coins of `binomial`
_COINS = 1 << 14  # coins tossed at a time: they stay in the cache
_KEPT = 16  # tables; about 30 MB each at the largest scale


def discrete_gaussian(rng: RandomBytes, sigma: float, size: int) -> NDArray[np.int64]:
    """Draws of N_Z(0, sigma^2), the law proportional to exp(-x^2 / (2 sigma^2)) on integers.

    Up to sigma 1e4 from one table. Above, x = x1 + k x2 with sigma^2 = s1^2 + k^2 s2^2 in exact
    fractions and s1 s2 / sigma >= 3, within 2^-250 of the law (Micciancio, Walter 2017, their
    convolution theorem; proof in docs/privacy.md); x2 likewise where it is wide itself.

    Args:
        rng: as os.urandom; 8 bytes per value, 16 above sigma 1e4, 8 more for every factor of
            1024 above sigma 4.2e6.
        sigma: in [1e-3, 2^40], grid units. (The law's standard deviation is at most this.)
        size: number of values, >= 0.

    Returns:
        int64[size].

    Raises:
        ParameterError: sigma or size out of range, or rng misbehaves.
    """
    sigma = _validate.real("sigma", sigma, _MIN_SCALE, MAX_SIGMA)
    size = _validate.integer("size", size, 0)
    return _discrete_gaussian(rng, Fraction(sigma) ** 2, size)


def _discrete_gaussian(rng: RandomBytes, variance: Fraction, size: int) -> NDArray[np.int64]:
    if variance <= Fraction(_MAX_TABLE_SIGMA) ** 2:
        return _alias.sample(_gaussian_table(variance), rng, size)
    factor, coarse = _split_variance(variance)
    values = _discrete_gaussian(rng, coarse, size)
    values *= factor
    values += _alias.sample(_gaussian_table(Fraction(_PART_SIGMA) ** 2), rng, size)
    return values


def _split_variance(variance: Fraction) -> tuple[int, Fraction]:
    """(k, s2^2) with variance = 4096^2 + k^2 s2^2 exactly; s2 at most 4096 where k < 1024.

    With k at most 1024, 4096 s2 / sigma is close to 4096 / k >= 4 where s2 is the larger part.
    """
    rest = variance - Fraction(_PART_SIGMA) ** 2
    factor = min(math.isqrt(math.ceil(rest / _PART_SIGMA**2)) + 1, _MAX_FACTOR)
    return factor, rest / factor**2


def skellam(rng: RandomBytes, variance: float, size: int) -> NDArray[np.int64]:
    """Draws of Skellam noise: the difference of two independent Poisson(variance / 2).

    Args:
        rng: as os.urandom; 8 bytes per value.
        variance: in [1e-6, 1e8], grid units squared.
        size: number of values, >= 0.

    Returns:
        int64[size].

    Raises:
        ParameterError: variance or size out of range, or rng misbehaves.
    """
    variance = _validate.real("variance", variance, _MIN_SCALE**2, MAX_VARIANCE)
    size = _validate.integer("size", size, 0)
    return _alias.sample(_skellam_table(Fraction(variance)), rng, size)


def discrete_laplace(rng: RandomBytes, scale: float, size: int) -> NDArray[np.int64]:
    """Draws of discrete Laplace noise, the law proportional to exp(-|x| / scale) on integers.

    Up to scale 256 from one table. Above, x = d_0 + 4096 d_1 + 4096^2 d_2 ... with independent
    digit differences, which is the law exactly (docs/privacy.md, "Samplers").

    Args:
        rng: as os.urandom; 8 bytes per value and digit: 8 up to scale 256, 16 up to 2^20,
            24 up to 2^32, else 32.
        scale: in [1e-3, 2^40], grid units; the standard deviation is about sqrt(2) of this.
        size: number of values, >= 0.

    Returns:
        int64[size].

    Raises:
        ParameterError: scale or size out of range, or rng misbehaves.
    """
    scale = _validate.real("scale", scale, _MIN_SCALE, MAX_LAPLACE_SCALE)
    size = _validate.integer("size", size, 0)
    values = np.zeros(size, dtype=np.int64)
    place, rest = 1, Fraction(scale)
    while rest > _MAX_TABLE_LAPLACE:
        values += place * _alias.sample(_laplace_digit(rest), rng, size)
        place *= _DIGIT
        rest /= _DIGIT
    values += place * _alias.sample(_laplace_table(rest), rng, size)
    return values


def binomial(rng: RandomBytes, trials: int, biases: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of successes among `trials` coins of probability 1/2 + biases 2^-24: exactly.

    A coin is a uniform 32-bit word below 2^31 + 2^8 bias. No float, no table, no rejection.

    Args:
        rng: as os.urandom; 4 bytes per coin.
        trials: coins per value, 1 to 2^16.
        biases: int64[size], each below 2^23 in absolute value.

    Returns:
        int64[size].

    Raises:
        ParameterError: trials or biases out of range, or rng misbehaves.
    """
    trials = _validate.integer("trials", trials, 1, 1 << 16)
    _validate.integer_vector("biases", biases, None)
    takes = f"a vector of integers from {-MOST_BIAS} to {MOST_BIAS}"
    if biases.ndim != 1:
        raise ParameterError("biases", f"shape {biases.shape}", takes)
    ends = (int(biases.min()), int(biases.max())) if biases.size else (0, 0)
    if max(-ends[0], ends[1]) > MOST_BIAS:
        raise ParameterError("biases", ends, takes)
    result = np.zeros(biases.size, dtype=np.int64)
    for start in range(0, biases.size, _COINS):
        part = biases[start : start + _COINS]
        bound = ((part + (MOST_BIAS + 1)) << 8).astype(np.uint32)
        successes = np.zeros(part.size, dtype=np.uint32)
        for _ in range(trials):
            successes += random_halfwords(rng, part.size) < bound
        result[start : start + _COINS] = successes
    return result


def total_variation(values: int) -> float:
    """Bound on the distance between `values` draws and their named laws: values 2^-100.

    Charged to delta times 1 + e^epsilon (docs/privacy.md, "Failures").
    """
    return _validate.integer("values", values, 0) * PER_VALUE_DISTANCE


@functools.lru_cache(maxsize=_KEPT)
def _gaussian_table(variance: Fraction) -> _alias.AliasTable:
    return _alias.build(_laws.discrete_gaussian_weights(variance))


@functools.lru_cache(maxsize=_KEPT)
def _skellam_table(variance: Fraction) -> _alias.AliasTable:
    return _alias.build(_laws.skellam_weights(variance))


@functools.lru_cache(maxsize=_KEPT)
def _laplace_table(scale: Fraction) -> _alias.AliasTable:
    return _alias.build(_laws.discrete_laplace_weights(scale))


@functools.lru_cache(maxsize=_KEPT)
def _laplace_digit(scale: Fraction) -> _alias.AliasTable:
    return _alias.build(_laws.laplace_digit_weights(scale, _DIGIT))
