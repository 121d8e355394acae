"""Divergence bounds against independent sums, conversion against its definition, failures."""

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
from dp.accountants.rdp import published_curve, sum_distance

ZERO_OUT = dp.NeighboringRelation.ZERO_OUT
REPLACE_ONE = dp.NeighboringRelation.REPLACE_ONE
ADD_REMOVE = dp.NeighboringRelation.ADD_REMOVE


def skellam(variance, shift):
    """The event of a one-dimensional shift."""
    return dp.SkellamEvent(variance, shift**2, shift, shift, 1)


def renyi(law, shift, order):
    """Divergence of order `order` between an integer law (dict) and its shift, both directions."""
    values = []
    for sign in (1, -1):
        terms = [
            p**order * law[k + sign * shift] ** (1 - order)
            for k, p in law.items()
            if k + sign * shift in law
        ]
        values.append(mpmath.log(mpmath.fsum(terms)) / (order - 1))
    return float(max(values))


def gaussian_law(sigma, last):
    weights = {
        k: mpmath.exp(-(mpmath.mpf(k) ** 2) / (2 * sigma**2)) for k in range(-last, last + 1)
    }
    total = mpmath.fsum(weights.values())
    return {k: w / total for k, w in weights.items()}


def skellam_law(variance, last):
    positive = [mpmath.besseli(k, variance) * mpmath.exp(-variance) for k in range(last + 1)]
    return {k: positive[abs(k)] for k in range(-last, last + 1)}


def convolve(first, second):
    total: dict[int, mpmath.mpf] = {}
    for i, p in first.items():
        for j, q in second.items():
            total[i + j] = total.get(i + j, mpmath.mpf(0)) + p * q
    return total


def bound(event, order):
    return float(dp.rdp_curve(event, np.array([order - 1.0]))[0])


@pytest.mark.parametrize("variance", [0.1, 0.5, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
@pytest.mark.parametrize("order", [1.01, 1.5, 2, 2.5, 3, 7.3, 16])
def test_skellam_bound_is_above_the_exact_divergence(variance, shift, order):
    with mpmath.workdps(60):
        last = int(30 + 12 * math.sqrt(variance) + 3 * order * shift)
        exact = renyi(skellam_law(mpmath.mpf(variance), last), shift, order)
    assert bound(skellam(variance, shift), order) >= exact


def test_skellam_bound_is_the_published_one_at_integers_and_its_chord_between():
    def published(mu, l2_sq, l1, order):
        extra = min(((2 * order - 1) * l2_sq + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu))
        return order * l2_sq / (2 * mu) + extra

    def closed(event, order):
        return float(published_curve(event, np.array([order - 1.0]))[0])

    for mu in (0.8, 50.0):  # each branch of the minimum
        event = dp.SkellamEvent(mu, 30, 25, 5, 9)
        for order in (2, 3, 17):
            assert closed(event, order) == pytest.approx(published(mu, 30, 25, order), rel=1e-12)
        chord = 0.25 * 2 * published(mu, 30, 25, 3) + 0.75 * 3 * published(mu, 30, 25, 4)
        assert closed(event, 3.75) == pytest.approx(chord / 2.75, rel=1e-12)
        assert closed(event, 1.5) == pytest.approx(published(mu, 30, 25, 2), rel=1e-12)


def test_skellam_bound_is_close_where_noise_is_large():
    with mpmath.workdps(60):
        exact = renyi(skellam_law(mpmath.mpf(400), 400), 2, 3)
    assert exact <= bound(skellam(400.0, 2), 3) <= 1.02 * exact


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("order", [1.25, 2, 5.5])
def test_discrete_gaussian_bound_is_above_the_exact_divergence(sigma, order):
    with mpmath.workdps(60):
        for shift in (1, 2, 4):
            exact = renyi(gaussian_law(mpmath.mpf(sigma), 80), shift, order)
            event = dp.DiscreteGaussianEvent(sigma, shift**2, shift, shift, 1)
            assert bound(event, order) >= exact - 1e-12


@pytest.mark.parametrize("share_sigma", [0.5, 0.6, 0.8, 1.5])
@pytest.mark.parametrize("shares", [2, 3, 4])
@pytest.mark.parametrize("order", [1.2, 2, 6])
def test_sum_bound_is_above_the_exact_divergence_of_the_convolution(share_sigma, shares, order):
    with mpmath.workdps(50):
        share = gaussian_law(mpmath.mpf(share_sigma), 20)
        law = share
        for _ in range(shares - 1):
            law = convolve(law, share)
        # Far tails of the truncated convolution are wrong; keep the middle.
        law = {k: p for k, p in law.items() if abs(k) <= 20}
        for shift in (1, 2, 3):
            event = dp.DiscreteGaussianSumEvent(share_sigma, shares, shift**2, shift, shift, 1)
            assert bound(event, order) >= renyi(law, shift, order) - 1e-12


def test_sum_is_not_accounted_as_one_discrete_gaussian():
    # At share sigma 1/2 the sum's divergence exceeds that of N_Z(0, 2/4): tau must be there.
    with mpmath.workdps(50):
        share = gaussian_law(mpmath.mpf("0.5"), 20)
        law = {k: p for k, p in convolve(share, share).items() if abs(k) <= 20}
        exact = renyi(law, 1, 1.2)
    assert exact > bound(dp.DiscreteGaussianEvent(math.sqrt(0.5), 1, 1, 1, 1), 1.2)


def test_tau_is_the_published_sum():
    event = dp.DiscreteGaussianSumEvent(0.7, 5, 9, 3, 3, 4)
    with mpmath.workdps(40):
        want = 10 * sum(
            mpmath.exp(-2 * mpmath.pi**2 * mpmath.mpf("0.49") * k / (k + 1)) for k in range(1, 5)
        )
    assert float(want) <= sum_distance(event) <= float(want) * (1 + 1e-10)
    long = dp.DiscreteGaussianSumEvent(0.7, 300_000, 9, 3, 3, 4)
    k = np.arange(1.0, 300_000)
    tail = 10 * float(np.exp(-2 * math.pi**2 * 0.49 * k / (k + 1)).sum())
    assert tail <= sum_distance(long) <= tail * 1.001


def test_sum_of_one_share_is_the_discrete_gaussian():
    one = dp.DiscreteGaussianSumEvent(0.3, 1, 4, 4, 2, 3)
    a = conversion.base_grid()
    want = dp.rdp_curve(dp.DiscreteGaussianEvent(0.3, 4, 4, 2, 3), a)
    np.testing.assert_allclose(dp.rdp_curve(one, a), want, rtol=1e-12)


def test_sum_outside_its_theorem_is_refused():
    with pytest.raises(dp.UnsupportedEventError, match="1/2"):
        dp.rdp_curve(dp.DiscreteGaussianSumEvent(0.49, 2, 1, 1, 1, 1), np.ones(1))


@pytest.mark.parametrize(
    "event",
    [
        dp.GaussianEvent(1.3),
        dp.DiscreteGaussianEvent(7.0, 30, 25, 5, 9),
        dp.DiscreteGaussianSumEvent(0.9, 40, 30, 25, 5, 9),
        dp.SkellamEvent(55.0, 30, 25, 5, 9),
        dp.SkellamEvent(5.0, 30, 25, 5, 9),
        dp.SelfComposedEvent(dp.SkellamEvent(55.0, 30, 25, 5, 9), 3),
    ],
    ids=lambda event: f"{type(event).__name__}-{hash(event) & 0xFFFF}",
)
def test_zcdp_is_above_rdp_at_every_order(event):
    a = np.concatenate([conversion.base_grid(), np.linspace(0.001, 6, 500)])
    line = dp.zcdp_bound(event)
    curve = dp.rdp_curve(event, a)
    assert np.all(line.xi + (1 + a) * line.rho >= np.minimum(curve, math.inf) * (1 - 1e-12))


def test_compositions_add():
    parts = (dp.GaussianEvent(2.0), dp.SkellamEvent(100.0, 25, 25, 5, 4))
    a = conversion.base_grid()
    want = dp.rdp_curve(parts[0], a) + 7 * dp.rdp_curve(parts[1], a)
    whole = dp.ComposedEvent((parts[0], dp.SelfComposedEvent(parts[1], 7)))
    np.testing.assert_allclose(dp.rdp_curve(whole, a), want, rtol=1e-12)
    repeated = dp.ComposedEvent((parts[1],) * 7)
    spent = [
        dp.epsilon(event, 1e-5, neighboring=ZERO_OUT, accountant="rdp").upper
        for event in (repeated, dp.SelfComposedEvent(parts[1], 7))
    ]
    assert spent[0] == pytest.approx(spent[1], rel=1e-9)


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
