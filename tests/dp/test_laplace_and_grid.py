"""Discrete Laplace noise, the exact rational samplers as oracle, central noise on a grid."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import dp
from dp import _alias, _laws

LIMIT = mpmath.mpf(2) ** -100


def laplace_law(scale, last):
    """Exact probabilities of 0..last."""
    q = mpmath.exp(-1 / (mpmath.mpf(scale.numerator) / scale.denominator))
    return [(1 - q) / (1 + q) * q**k for k in range(last + 1)]


@pytest.mark.parametrize("scale", [1e-3, 0.05, 0.7, 1.0, 13.7, 256.0])
def test_laplace_table_is_the_law_to_two_to_the_minus_100(scale):
    with mpmath.workprec(420):
        exact = Fraction(scale)
        table = _alias.build(_laws.discrete_laplace_weights(exact))
        law = laplace_law(exact, table.offset)
        masses = table.probabilities()
        unit = mpmath.mpf(2) ** -_alias.PRECISION
        gap = mpmath.fsum(
            abs(masses[table.offset + k] * unit - law[abs(k)])
            for k in range(-table.offset, table.offset + 1)
        )
        cut = 1 - (2 * mpmath.fsum(law) - law[0])
        assert (gap + abs(cut)) / 2 < LIMIT


@pytest.mark.parametrize(("scale", "base"), [(Fraction(7, 2), 4), (Fraction(31, 3), 8)])
def test_digits_of_laplace_noise_add_up_to_the_law(scale, base):
    with mpmath.workprec(400):
        digit = _laws.laplace_digit_weights(scale, base)
        total = 2 * sum(digit) - digit[0]
        rest = laplace_law(scale / base, 400)
        want = laplace_law(scale, 20)
        for x in range(20):
            got = mpmath.fsum(
                mpmath.mpf(digit[abs(low)]) / total * rest[abs((x - low) // base)]
                for low in range(1 - base, base)
                if (x - low) % base == 0
            )
            assert abs(got / want[x] - 1) < mpmath.mpf(2) ** -290


# ---- the samplers of Canonne, Kamath, Steinke 2020 in exact rationals: the oracle


def bernoulli_exp(gamma, draw):
    """True with probability exp(-gamma), for a fraction gamma >= 0 (their Algorithm 1)."""
    while gamma > 1:
        if not bernoulli_exp(Fraction(1), draw):
            return False
        gamma -= 1
    k = 1
    while draw(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1


def oracle_laplace(scale, draw):
    """exp(-|x| / scale) for a fraction scale = t / s (their Algorithm 2)."""
    t, s = scale.numerator, scale.denominator
    while True:
        u = draw(t)
        if not bernoulli_exp(Fraction(u, t), draw):
            continue
        v = 0
        while bernoulli_exp(Fraction(1), draw):
            v += 1
        y = (u + t * v) // s
        negative = draw(2) == 1
        if not (negative and y == 0):
            return -y if negative else y


def oracle_gaussian(variance, draw):
    """N_Z(0, variance) (their Algorithm 3)."""
    t = math.isqrt(math.floor(variance)) + 1
    while True:
        y = oracle_laplace(Fraction(t), draw)
        if bernoulli_exp((abs(y) - variance / t) ** 2 / (2 * variance), draw):
            return y


def same_law_p(first, second):
    """p-value of a two-sample chi-square test over outcomes with at least 20 draws in all."""
    edges = np.arange(min(first.min(), second.min()) - 0.5, max(first.max(), second.max()) + 1)
    a, b = np.histogram(first, edges)[0], np.histogram(second, edges)[0]
    keep = a + b >= 20
    a, b = (np.append(c[keep], c[~keep].sum()) for c in (a, b))
    table = np.array([a, b])[:, a + b > 0]
    return float(stats.chi2_contingency(table)[1])


# False-alarm rate of each two-sample test: 1e-6, with fixed seeds.
@pytest.mark.parametrize("sigma", [0.75, 2.5])
def test_discrete_gaussian_agrees_with_the_rational_sampler(stream, sigma):
    generator = np.random.default_rng(5)
    draw = lambda n: int(generator.integers(n))  # noqa: E731  a name for the oracle's source
    oracle = np.array([oracle_gaussian(Fraction(sigma) ** 2, draw) for _ in range(6000)])
    assert same_law_p(oracle, dp.discrete_gaussian(stream(3), sigma, 60_000)) > 1e-6
    assert same_law_p(oracle, dp.discrete_gaussian(stream(3), 1.2 * sigma, 60_000)) < 1e-6


@pytest.mark.parametrize("scale", [0.8, 3.5])
def test_discrete_laplace_agrees_with_the_rational_sampler(stream, scale):
    generator = np.random.default_rng(6)
    draw = lambda n: int(generator.integers(n))  # noqa: E731  a name for the oracle's source
    exact = Fraction(scale).limit_denominator(100)
    oracle = np.array([oracle_laplace(exact, draw) for _ in range(6000)])
    assert same_law_p(oracle, dp.discrete_laplace(stream(4), scale, 60_000)) > 1e-6
    assert same_law_p(oracle, dp.discrete_laplace(stream(4), 1.3 * scale, 60_000)) < 1e-6


@pytest.mark.parametrize("scale", [300.0, 1e4, 2.0**25, 2.0**40])
def test_quantiles_of_wide_laplace_noise(stream, scale):
    size = 200_000
    values = dp.discrete_laplace(stream(7), scale, size)
    for multiple in (0.1, 0.5, 1.0, 2.0, 5.0):
        want = math.exp(-multiple)  # P[|x| > m scale], up to 1 / scale
        got = float((np.abs(values) > multiple * scale).mean())
        # 5 standard errors: false alarm 6e-7 each
        assert abs(got - want) < 5 * math.sqrt(want * (1 - want) / size) + 2 / scale
    assert abs(float(np.sign(values).mean())) < 5 / math.sqrt(size)
    low = values % 4096  # the lowest digit is there: a uniform remainder
    assert stats.chisquare(np.bincount(low % 16, minlength=16)).pvalue > 1e-6 or scale < 1e3


@pytest.mark.parametrize(
    ("scale", "per_value"), [(3.0, 8), (1e5, 16), (2.0**30, 24), (2.0**40, 32)]
)
def test_draws_per_laplace_value_are_fixed(stream, scale, per_value):
    source, asked = stream(1), []

    def rng(count):
        asked.append(count)
        return source(count)

    dp.discrete_laplace(rng, scale, 5000)
    assert sum(asked) == per_value * 5000


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 2.0**41, True])
def test_laplace_scales_out_of_range_are_refused(stream, scale):
    with pytest.raises(dp.ParameterError) as caught:
        dp.discrete_laplace(stream(0), scale, 1)
    assert caught.value.field == "scale"


# ---- grid


def mechanisms(dim):
    return [
        dp.grid_gaussian(dim=dim, l2_sensitivity=1.5, noise_multiplier=2.0),
        dp.grid_laplace(dim=dim, l1_sensitivity=1.5, scale=0.75),
        dp.grid_gaussian(dim=dim, l2_sensitivity=1.5, noise_multiplier=2.0, grid_exponent=-3),
        dp.grid_laplace(dim=dim, l1_sensitivity=1.5, scale=3.0, grid_exponent=1),
    ]


@pytest.mark.parametrize("value", [0.0, 1.0, 1 / 3, 1.5, 1e300, -5e-324])
def test_every_output_is_a_multiple_of_the_grid(stream, value):
    for mechanism in mechanisms(50):
        out = mechanism.release(np.full(50, value), stream(2))
        units = np.ldexp(out, -mechanism.grid_exponent)
        np.testing.assert_array_equal(units, np.rint(units))


@settings(max_examples=60)
@given(st.integers(1, 30), st.integers(0, 2**32), st.integers(-6, 3), st.floats(0.01, 20.0))
def test_rounded_neighbours_are_within_the_stated_bounds(dim, seed, exponent, sensitivity):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=dim) * 10
    move = generator.normal(size=dim) * generator.integers(0, 2, size=dim)
    gaussian = dp.grid_gaussian(
        dim=dim, l2_sensitivity=sensitivity, noise_multiplier=1.0, grid_exponent=exponent
    )
    laplace = dp.grid_laplace(
        dim=dim, l1_sensitivity=sensitivity, scale=1.0, grid_exponent=exponent
    )
    for norm, bound in ((2, gaussian.l2_sq), (1, laplace.l1)):
        size = float(np.linalg.norm(move, norm)) or 1.0
        y = x + move * (sensitivity / size) * (1 - 1e-12)
        distance = np.abs(np.rint(np.ldexp(x, -exponent)) - np.rint(np.ldexp(y, -exponent)))
        assert int((distance**norm).sum()) <= bound


def test_noise_has_the_scale_that_was_asked_for(stream):
    zero = np.zeros(100_000)
    gaussian = dp.grid_gaussian(dim=zero.size, l2_sensitivity=3.0, noise_multiplier=2.0)
    # 5 standard errors of a variance, false alarm 6e-7 each
    spread = gaussian.release(zero, stream(5)).var()
    assert abs(spread / 36.0 - 1) < 5 * math.sqrt(2 / zero.size)
    laplace = dp.grid_laplace(dim=zero.size, l1_sensitivity=3.0, scale=1.5)
    spread = laplace.release(zero, stream(6)).var()
    assert abs(spread / (2 * 1.5**2) - 1) < 5 * math.sqrt(5 / zero.size)


def test_rounding_is_paid_for_and_small_by_default(zero_out):
    fine = dp.grid_gaussian(dim=100, l2_sensitivity=1.0, noise_multiplier=1.0)
    ideal = dp.epsilon(dp.GaussianEvent(1.0), 1e-5, neighboring=zero_out, accountant="rdp").upper
    got = dp.epsilon(fine.event(), 1e-5, neighboring=zero_out, accountant="rdp").upper
    assert ideal < got < 1.003 * ideal
    coarse = dp.grid_gaussian(dim=100, l2_sensitivity=1.0, noise_multiplier=1.0, grid_exponent=-2)
    assert dp.epsilon(coarse.event(), 1e-5, neighboring=zero_out, accountant="rdp").upper > 2 * got
    laplace = dp.grid_laplace(dim=100, l1_sensitivity=1.0, scale=0.5)
    assert 2.0 < laplace.pure_epsilon < 2.005


def test_pure_epsilon_is_the_largest_log_ratio():
    mechanism = dp.grid_laplace(dim=1, l1_sensitivity=1.0, scale=2.0, grid_exponent=0)
    assert mechanism.l1 == 2
    law = laplace_law(Fraction(2), 40)
    ratio = max(mpmath.log(law[abs(x)] / law[abs(x - 2)]) for x in range(-30, 30))
    assert float(ratio) <= mechanism.pure_epsilon <= float(ratio) * (1 + 1e-15)


def test_laplace_event_is_that_of_the_grid():
    mechanism = dp.grid_laplace(dim=3, l1_sensitivity=1.0, scale=0.5)
    event = mechanism.event()
    assert (event.scale, event.l1, event.dim) == (mechanism.scale, mechanism.l1, 3)
    assert (event.l2_sq, event.linf) == (event.l1**2, event.l1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"dim": 0}, "dim"),
        ({"l2_sensitivity": 0.0}, "l2_sensitivity"),
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"grid_exponent": -40}, "grid_exponent"),
        ({"grid_exponent": 20}, "grid_exponent"),
        ({"grid_exponent": -52, "noise_multiplier": 1e-11}, "grid_exponent"),
        ({"grid_exponent": 1.0}, "grid_exponent"),
    ],
    ids=str,
)
def test_gaussian_grids_that_cannot_be_are_refused(changes, field):
    given = {"dim": 1, "l2_sensitivity": 1.0, "noise_multiplier": 1.0, **changes}
    with pytest.raises(dp.ParameterError) as caught:
        dp.grid_gaussian(**given)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"dim": 1.5}, "dim"),
        ({"scale": math.nan}, "scale"),
        ({"l1_sensitivity": math.inf}, "l1_sensitivity"),
        ({"grid_exponent": -50}, "grid_exponent"),
        ({"grid_exponent": 11}, "grid_exponent"),
        ({"grid_exponent": -22, "l1_sensitivity": 1e9, "scale": 1e-3}, "grid_exponent"),
    ],
    ids=str,
)
def test_laplace_grids_that_cannot_be_are_refused(changes, field):
    given = {"dim": 1, "l1_sensitivity": 1.0, "scale": 1.0, **changes}
    with pytest.raises(dp.ParameterError) as caught:
        dp.grid_laplace(**given)
    assert caught.value.field == field


def test_release_refuses_what_is_no_finite_vector(stream):
    for mechanism in mechanisms(3):
        with pytest.raises(dp.NonFiniteError):
            mechanism.release([0.0, math.nan, 0.0], stream(0))
        with pytest.raises(dp.ParameterError):
            mechanism.release([0.0, 0.0], stream(0))
        assert mechanism.total_variation() == 3 * 2.0**-100
