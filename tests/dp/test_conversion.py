"""Epsilon and delta from curves of orders: conversion against its definition, failures."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

import dp
from dp.accountants import conversion
from dp.accountants.query import curve_of

ZERO_OUT = dp.NeighboringRelation.ZERO_OUT
REPLACE_ONE = dp.NeighboringRelation.REPLACE_ONE
ADD_REMOVE = dp.NeighboringRelation.ADD_REMOVE


def proposition_12(divergence, order, delta):
    return divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


@given(st.floats(0.05, 200), st.floats(1e-12, 0.1))
@pytest.mark.slow
def test_conversion_is_the_minimum_over_orders(sigma, delta):
    got = dp.epsilon(dp.GaussianEvent(sigma), delta, neighboring=ZERO_OUT, accountant="rdp").upper
    rho = 0.5 / sigma**2
    best = optimize.minimize_scalar(
        lambda t: proposition_12(rho * (1 + math.exp(t)), 1 + math.exp(t), delta),
        bounds=(-14, 14),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert got >= max(0.0, best.fun) * (1 - 1e-9)
    assert got <= max(0.0, best.fun) * (1 + 1e-3) + 1e-6


def exact_gaussian_delta(sigma, epsilon):
    """Balle, Wang 2018, Theorem 8."""
    # In logarithms: near 1e-308 the plain distribution function loses its digits.
    first = special.log_ndtr(0.5 / sigma - epsilon * sigma)
    second = epsilon + special.log_ndtr(-0.5 / sigma - epsilon * sigma)
    return math.exp(first) - math.exp(second)


@given(st.floats(0.3, 50), st.floats(1e-10, 0.1))
def test_upper_end_is_above_the_exact_gaussian(sigma, delta):
    upper = dp.epsilon(dp.GaussianEvent(sigma), delta, neighboring=ZERO_OUT, accountant="rdp").upper
    assert exact_gaussian_delta(sigma, upper) <= delta
    replaced = dp.epsilon(
        dp.GaussianEvent(sigma), delta, neighboring=REPLACE_ONE, accountant="rdp"
    ).upper
    assert exact_gaussian_delta(sigma / 2, replaced) <= delta


def test_known_figure_of_the_demo():
    event = dp.SelfComposedEvent(dp.GaussianEvent(4.04), 20)
    spent = dp.epsilon(event, 1e-3, neighboring=ZERO_OUT, accountant="rdp")
    assert spent.lower == 0.0
    assert spent.upper == pytest.approx(4.0035, abs=1e-3)


@pytest.mark.parametrize("accountant", ["rdp", "zcdp"])
def test_replace_one_is_add_remove_at_half_the_noise(accountant):
    def spent(event, neighboring):
        return dp.epsilon(event, 1e-5, neighboring=neighboring, accountant=accountant).upper

    pairs = [
        (dp.GaussianEvent(1.0), dp.GaussianEvent(0.5)),
        (dp.DiscreteGaussianEvent(10.0, 9, 5, 3, 4), dp.DiscreteGaussianEvent(5.0, 9, 5, 3, 4)),
        (dp.SkellamEvent(1e6, 9, 5, 3, 4), dp.SkellamEvent(1e6, 36, 10, 6, 4)),
        (
            dp.DiscreteGaussianSumEvent(6.0, 9, 9, 5, 3, 4),
            dp.DiscreteGaussianSumEvent(6.0, 9, 36, 10, 6, 4),
        ),
    ]
    for whole, half in pairs:
        for wrap in (lambda e: e, lambda e: dp.ComposedEvent((dp.SelfComposedEvent(e, 3),))):
            doubled = spent(wrap(whole), REPLACE_ONE)
            assert doubled == pytest.approx(spent(wrap(half), ZERO_OUT), rel=1e-9)
            if isinstance(half, (dp.SkellamEvent, dp.DiscreteGaussianSumEvent)):
                with pytest.raises(dp.UnsupportedEventError, match="noise share is absent"):
                    spent(wrap(half), ADD_REMOVE)
            else:
                assert spent(wrap(half), ZERO_OUT) == spent(wrap(half), ADD_REMOVE)
    # Exact value for Gaussian(1) replace-one at 1e-5 is 9.997; any upper bound is above it.
    assert spent(dp.GaussianEvent(1.0), REPLACE_ONE) >= 9.997


@settings(max_examples=60)
@given(
    st.floats(0.01, 1e3),
    st.integers(1, 10**6),
    st.floats(1e-15, 0.5),
    st.sampled_from(["rdp", "zcdp"]),
)
def test_epsilon_is_finite_and_monotone(sigma, count, delta, accountant):
    def spent(sigma, count, delta):
        event = dp.SelfComposedEvent(dp.GaussianEvent(sigma), count)
        return dp.epsilon(event, delta, neighboring=ZERO_OUT, accountant=accountant).upper

    here = spent(sigma, count, delta)
    slack = 1e-3 * here + 1e-6  # of the order search, which is no certified minimum
    assert math.isfinite(here)
    assert spent(sigma * 1.1, count, delta) <= here + slack
    assert spent(sigma, count + 1, delta) >= here - slack
    assert spent(sigma, count, delta / 2) >= here - slack


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 1e3, 1e6])
def test_optimal_order_is_never_at_an_edge(sigma):
    # Optimum near alpha = 1 + sqrt(2 ln(1/delta)) sigma: far outside the first grid.
    got = dp.epsilon(dp.GaussianEvent(sigma), 1e-9, neighboring=ZERO_OUT, accountant="rdp").upper
    root = math.sqrt(2 * math.log(1e9)) / sigma
    plain = 0.5 / sigma**2 + root  # rho + 2 sqrt(rho ln(1/delta)), a looser conversion
    assert got <= plain * (1 + 1e-9)
    assert got > 0.5 / sigma**2


def test_epsilon_is_continuous_towards_order_one():
    # Large divergence at all orders: the optimum is near 1 and epsilon does not collapse to 0.
    values = [
        dp.epsilon(dp.GaussianEvent(s), 1e-5, neighboring=ZERO_OUT, accountant="rdp").upper
        for s in np.geomspace(1e-4, 1e-2, 30)
    ]
    assert all(first > second > 0 for first, second in pairwise(values))


@given(st.floats(0.5, 20), st.floats(0.0, 20.0))
def test_delta_is_above_the_exact_one_and_inverts_epsilon(sigma, epsilon):
    event = dp.GaussianEvent(sigma)
    got = dp.delta(event, epsilon, neighboring=ZERO_OUT, accountant="rdp").upper
    assert exact_gaussian_delta(sigma, epsilon) <= got <= 1.0
    if 1e-12 < got < 0.3:
        back = dp.epsilon(event, got, neighboring=ZERO_OUT, accountant="rdp").upper
        assert back <= epsilon + 1e-3 * (1 + epsilon)


def test_queries_change_nothing():
    event = dp.SelfComposedEvent(dp.SkellamEvent(55.0, 30, 25, 5, 9), 3)
    first = dp.epsilon(event, 1e-5, neighboring=ZERO_OUT, accountant="rdp")
    assert dp.epsilon(event, 1e-5, neighboring=ZERO_OUT, accountant="rdp") == first


def test_failures_are_paid_from_delta():
    event = dp.SelfComposedEvent(dp.GaussianEvent(4.0), 20)
    delta, failure, distance = 1e-3, 2e-4, 1e-7
    plain = dp.epsilon(event, delta, neighboring=ZERO_OUT, accountant="rdp").upper
    spent = dp.epsilon_with_failures(
        event, delta, neighboring=ZERO_OUT, accountant="rdp",
        failure_prob=failure, total_variation=distance,
    ).upper  # fmt: skip
    assert spent > plain
    # Delta of the ideal mechanism at the epsilon printed, plus what failures cost, fits delta.
    ideal = dp.delta(event, spent, neighboring=ZERO_OUT, accountant="rdp").upper
    assert ideal * (1 - 1e-3) + failure + distance * (1 + math.exp(spent)) <= delta
    nothing = dp.epsilon_with_failures(event, delta, neighboring=ZERO_OUT, accountant="rdp").upper
    assert nothing == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize(
    ("failure", "distance", "sigma"), [(1e-3, 0.0, 4.0), (0.0, 6e-4, 4.0), (0.0, 2.0**-70, 0.01)]
)
def test_failures_beyond_delta_are_refused(failure, distance, sigma):
    with pytest.raises(dp.FailureBudgetError):
        dp.epsilon_with_failures(
            dp.GaussianEvent(sigma), 1e-3, neighboring=ZERO_OUT, accountant="rdp",
            failure_prob=failure, total_variation=distance,
        )  # fmt: skip


def test_pld_has_no_curve_of_orders():
    with pytest.raises(dp.UnsupportedEventError, match="pld"):
        curve_of(dp.GaussianEvent(1.0), ZERO_OUT, "pld")


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-9, math.nan, True, "1e-5"])
def test_delta_out_of_range_is_refused(delta):
    with pytest.raises(dp.ParameterError) as caught:
        dp.epsilon(dp.GaussianEvent(1.0), delta, neighboring=ZERO_OUT, accountant="rdp")
    assert caught.value.field == "delta"


def test_other_arguments_out_of_range_are_refused():
    event = dp.GaussianEvent(1.0)
    with pytest.raises(dp.ParameterError, match="accountant"):
        dp.epsilon(event, 1e-5, neighboring=ZERO_OUT, accountant="gdp")
    with pytest.raises(dp.ParameterError, match="neighboring"):
        dp.epsilon(event, 1e-5, neighboring="zero_out", accountant="rdp")
    with pytest.raises(dp.ParameterError, match="epsilon"):
        dp.delta(event, -1.0, neighboring=ZERO_OUT, accountant="rdp")
    with pytest.raises(dp.ParameterError, match="failure_prob"):
        dp.epsilon_with_failures(
            event, 1e-5, neighboring=ZERO_OUT, accountant="rdp", failure_prob=-0.1
        )
    for accountant in ("rdp", "zcdp"):
        with pytest.raises(dp.UnsupportedEventError):
            dp.epsilon("event", 1e-5, neighboring=ZERO_OUT, accountant=accountant)
        with pytest.raises(dp.UnsupportedEventError):
            dp.epsilon("event", 1e-5, neighboring=REPLACE_ONE, accountant=accountant)


TINY_NOISE = [
    dp.SkellamEvent(1e-100, 1, 1, 1, 1),
    dp.SkellamEvent(1e-100, 10**9, 10**9, 10**4, 10),
    dp.GaussianEvent(1e-100),
    dp.DiscreteGaussianEvent(1e-100, 1, 1, 1, 1),
]


@pytest.mark.parametrize("accountant", ["rdp", "zcdp"])
@pytest.mark.parametrize("event", TINY_NOISE, ids=range(len(TINY_NOISE)))
def test_almost_no_noise_is_never_almost_no_epsilon(event, accountant):
    for composed in (event, dp.SelfComposedEvent(event, 10**9)):
        found = dp.epsilon(composed, 1e-5, neighboring=ZERO_OUT, accountant=accountant)
        assert found.upper > 100  # one step of Skellam noise so small costs 230 already


def test_a_curve_that_is_no_number_proves_nothing():
    def undefined(a):
        return np.full_like(a, np.nan)

    assert conversion.epsilon_from_curve(undefined, 1e-5) == math.inf
    assert conversion.delta_from_curve(undefined, 1.0) == 1.0


def test_the_conversion_is_never_below_its_exact_value():
    """The slack covers cancellation at large orders; 40 digits in mpmath."""
    with mpmath.workdps(40):
        for a in np.concatenate([conversion.base_grid(), 2.0 ** np.arange(13, 40)]):
            for delta in (1e-3, 1e-9):
                order = 1 + mpmath.mpf(float(a))
                exact = mpmath.log1p(-1 / order) - (mpmath.log(delta) + mpmath.log(order)) / (
                    order - 1
                )
                (ours,) = conversion.conversion_term(np.array([a]), delta)
                assert mpmath.mpf(float(ours)) >= exact
