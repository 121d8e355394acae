"""Divergence bounds against independent sums."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import math

import mpmath
import numpy as np
import pytest

import dp
from dp.accountants import conversion
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
