"""Special functions against arbitrary-precision arithmetic (mpmath)."""

# Helpers are untyped like the tests.
# mypy: allow-untyped-calls

import mpmath
import numpy as np
import pytest

from dp import _special


def worst(got, wanted):
    """Largest relative error."""
    return max(float(abs((mpmath.mpf(float(g)) - w) / w)) for g, w in zip(got, wanted, strict=True))


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


RNG = np.random.default_rng(5)
SPREAD = np.concatenate([RNG.uniform(0, 26, 100), 10 ** RNG.uniform(-8, 3, 60)])


def test_erfcx():
    def exact(x):
        return mpmath.exp(mpmath.mpf(x) ** 2) * mpmath.erfc(mpmath.mpf(x))

    assert worst(_special.erfcx(SPREAD), [exact(x) for x in SPREAD]) < 1e-14
    negative = -RNG.uniform(0, 25, 60)
    assert worst(_special.erfcx(negative), [exact(x) for x in negative]) < 1e-14


def test_erfc():
    x = RNG.uniform(-6, 26, 200)
    assert worst(_special.erfc(x), [mpmath.erfc(mpmath.mpf(v)) for v in x]) < 1e-14


def test_erf_small():
    x = np.concatenate([RNG.uniform(-1, 1, 60), 10 ** RNG.uniform(-12, -1, 30)])
    assert worst(_special.erf_small(x), [mpmath.erf(mpmath.mpf(v)) for v in x]) < 1e-15 * 4


def test_log_ndtr():
    z = np.concatenate([RNG.uniform(-40, 8, 200), -(10 ** RNG.uniform(0, 6, 40))])
    exact = [mpmath.log(mpmath.erfc(-mpmath.mpf(v) / mpmath.sqrt(2)) / 2) for v in z]
    assert worst(_special.log_ndtr(z), exact) < 5e-14
    inside = np.flatnonzero(z > -37)
    got = _special.ndtr(z[inside])
    assert worst(got, [mpmath.exp(exact[i]) for i in inside]) < 3e-13


def test_ndtri():
    p = np.concatenate(
        [
            10 ** RNG.uniform(-300, -0.4, 60),
            RNG.uniform(0.3, 0.7, 40),
            0.5 + 2.0 ** -np.arange(2, 40),
        ]
    )
    for prob, x in zip(p, _special.ndtri(p), strict=True):
        value = mpmath.mpf(float(x))
        error = (mpmath.ncdf(value) - mpmath.mpf(float(prob))) / mpmath.npdf(value)
        assert abs(error) < 1e-13 * abs(value)


def test_gammaln_and_stirling():
    x = 10 ** RNG.uniform(-3, 8, 80)
    exact = [mpmath.loggamma(mpmath.mpf(v)) for v in x]
    got = _special.gammaln(x)
    assert all(abs(g - e) < 1e-13 * max(1, abs(e)) for g, e in zip(got, exact, strict=True))
    error = _special.stirling_error(x)
    for v, e in zip(x, error, strict=True):
        y = mpmath.mpf(v)
        wanted = (
            mpmath.loggamma(y + 1) - (y + 0.5) * mpmath.log(y) + y - mpmath.log(2 * mpmath.pi) / 2
        )
        assert abs(e - wanted) < 4e-15


@pytest.mark.parametrize("n", [1, 7, 60, 1000, 20_000])
@pytest.mark.parametrize("p", [1e-4, 0.01, 0.3, 0.5, 0.97])
def test_binomial_tails(n, p):
    spread = np.sqrt(n * p * (1 - p))
    k = np.unique(np.clip(np.round(n * p + spread * np.linspace(-6, 8, 9)), 0, n + 1)).astype(int)
    got = _special.binom_tail(k, n, p)
    prob = mpmath.mpf(p)
    for count, value in zip(k, got, strict=True):
        # Sum the shorter side of the exact distribution.
        if count > n * p:
            term = mpmath.binomial(n, count) * prob ** int(count) * (1 - prob) ** int(n - count)
            total, j = mpmath.mpf(0), int(count)
            while j <= n and term > total * mpmath.mpf(10) ** -30:
                total, term, j = total + term, term * (n - j) * prob / ((j + 1) * (1 - prob)), j + 1
        else:
            term, total = (1 - prob) ** n, mpmath.mpf(1)
            for j in range(int(count)):
                total, term = total - term, term * (n - j) * prob / ((j + 1) * (1 - prob))
        assert abs(value - total) <= 1e-12 * total


@pytest.mark.parametrize("x", [0.01, 1.0, 30.0, 1e3, 5e3])
def test_log_bessel(x):
    last = int(12 * np.sqrt(x) + 10)
    got = _special.log_bessel_i(last, x)
    for k in (0, 1, last // 2, last):
        exact = mpmath.log(mpmath.besseli(k, mpmath.mpf(x)))
        assert abs(got[k] - exact) < 1e-13 * max(1.0, abs(exact))
