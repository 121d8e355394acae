"""Exact Rényi divergence of integer noise against mpmath, brute force over vectors, theorems."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import dataclasses
import functools
import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

import dp
from dp import _laws, _shifted, renyi
from dp.accountants import conversion
from dp.accountants.rdp import published_curve

ORDERS = (1.25, 2.0, 2.7, 6.5)


@functools.cache
def skellam_law(mu, last):
    with mpmath.workdps(60):
        half = [mpmath.besseli(k, mu) * mpmath.exp(-mpmath.mpf(mu)) for k in range(last + 1)]
    return {k: half[abs(k)] for k in range(-last, last + 1)}


@functools.cache
def sum_law(sigma, shares):
    """The convolution of `shares` discrete Gaussians, to 40 outcomes on each side."""
    with mpmath.workdps(160):
        part = {x: mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * mpmath.mpf(sigma) ** 2))
                for x in range(-45, 46)}  # fmt: skip
        law = part
        for _ in range(shares - 1):
            law = {
                z: mpmath.fsum(law[z - x] * part[x] for x in part if z - x in law)
                for z in range(-45, 46)
            }
        total = mpmath.fsum(law.values())
    return {z: p / total for z, p in law.items()}


def divergence(law, shift, order, last):
    """D_order(law shifted, law) by direct summation to `last`."""
    with mpmath.workdps(60):
        alpha = mpmath.mpf(order)
        total = mpmath.fsum(
            law[x - shift] ** alpha * law[x] ** (1 - alpha) for x in range(-last, last + 1)
        )
        return float(mpmath.log(total) / (alpha - 1))


@pytest.mark.parametrize("mu", [0.01, 0.3, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("order", ORDERS)
def test_skellam_divergences_are_the_sums(mu, order):
    law = skellam_law(mu, 240)
    got = renyi.shift_divergences(dp.SkellamEvent(mu, 9, 3, 3, 1), order - 1.0, 3)
    for shift in (1, 2, 3):
        exact = divergence(law, shift, order, 230)
        assert exact * (1 - 1e-14) <= got[shift - 1] <= exact + 1e-10


def test_skellam_divergence_of_a_known_case():
    got = renyi.shift_divergences(dp.SkellamEvent(1.0, 1, 1, 1, 1), 1.0, 1)[0]
    assert got == pytest.approx(0.8748818, abs=1e-6)
    assert published_curve(dp.SkellamEvent(1.0, 1, 1, 1, 1), np.ones(1))[0] == 2.5


@pytest.mark.parametrize(("sigma", "shares"), [(0.3, 1), (0.5, 1), (0.5, 2), (0.5, 4), (0.8, 3)])
@pytest.mark.parametrize("order", [1.25, 2.0, 4.5])
def test_divergences_of_sums_are_those_of_the_convolution(sigma, shares, order):
    law = sum_law(sigma, shares)
    event = dp.DiscreteGaussianSumEvent(sigma, shares, 9, 3, 3, 1)
    got = renyi.shift_divergences(event, order - 1.0, 3)
    for shift in (1, 2, 3):
        exact = divergence(law, shift, order, 30)
        assert exact * (1 - 1e-14) <= got[shift - 1] <= exact + 1e-9


@pytest.mark.parametrize(("sigma", "shares"), [(0.5, 2), (0.5, 5), (0.7, 4), (1.0, 3)])
def test_psi_is_periodic_and_right(sigma, shares):
    law = _shifted.gaussian_sum_law(sigma, shares)
    exact = sum_law(sigma, shares)
    with mpmath.workdps(60):
        logs = [
            float(mpmath.log(exact[z]) + z**2 / (2 * shares * mpmath.mpf(sigma) ** 2))
            for z in range(20)
        ]
    middle = (law.above + law.below) / 2
    for z in range(20):
        assert logs[z] - logs[0] == pytest.approx(middle[z % shares] - middle[0], abs=1e-12)
    assert np.all(law.below <= law.above)
    assert np.all(law.above - law.below < 1e-9)


def test_discrete_gaussian_peaks_beyond_shift_one_at_fractional_orders():
    f = renyi.shift_divergences(dp.DiscreteGaussianEvent(0.5, 64, 64, 8, 1), 0.25, 8)
    ratio = f / np.arange(1, 9) ** 2
    assert int(np.argmax(ratio)) + 1 in (4, 8)
    assert ratio[3] == pytest.approx(1.25 / (2 * 0.25), rel=1e-9)
    assert ratio[0] < 0.98 * ratio[3]


@pytest.mark.parametrize("mu", [0.1, 1.0, 7.5, 300.0])
def test_curvature_of_skellam_is_largest_at_zero(mu):
    with mpmath.workdps(50):
        logs = [mpmath.log(mpmath.besseli(k, mu)) for k in range(60)]
        bends = [2 * (logs[0] - logs[1])]
        bends += [2 * logs[k] - logs[k - 1] - logs[k + 1] for k in range(1, 59)]
    assert all(a >= b for a, b in itertools.pairwise(bends))
    got = _shifted.skellam_curvature(mu)
    assert float(bends[0]) <= got <= float(bends[0]) * (1 + 1e-8)


@pytest.mark.parametrize("mu", [1e-300, 1e-30, 1e300])
def test_curvature_at_the_ends_of_the_range(mu):
    got = _shifted.skellam_curvature(mu)
    want = 2 * math.log(2 / mu) if mu < 1 else 1 / mu
    assert want * (1 - 1e-12) <= got <= want * (1 + 1e-6)


@pytest.mark.parametrize("mu", [1e4 + 1, 1e6, 1e10])
def test_curvature_at_large_variance_is_above_the_expansion(mu):
    # 2 log(I_0 / I_1) = 1/mu + 1/(2 mu^2) + O(mu^-3)
    assert 1 / mu + 0.5 / mu**2 <= _shifted.skellam_curvature(mu) <= (1 / mu) * (1 + 3 / mu)


@pytest.mark.parametrize("mu", [0.05, 0.7, 3.0, 50.0])
@pytest.mark.parametrize("order", [2, 3, 7])
def test_curvature_bound_holds_for_every_shift_at_integer_orders(mu, order):
    law = skellam_law(mu, 240)
    for shift in (1, 2, 5, 9):
        event = dp.SkellamEvent(mu, shift**2, shift, shift, 1)
        bound = renyi.curvature_bound(event, np.array([order - 1.0]))[0]
        assert bound >= divergence(law, shift, order, 225)
        first = ((2 * order - 1) * shift**2 + 6 * shift) / (4 * mu**2)
        assert bound <= order * shift**2 / (2 * mu) + first


@pytest.mark.parametrize(("x", "nu"), [(0.3, 0), (5.0, 0), (5.0, 3), (80.0, 1), (80.0, 200)])
def test_bessel_quotients_lie_between_the_cited_bounds(x, nu):
    with mpmath.workdps(40):
        quotient = mpmath.besseli(nu + 1, x) / mpmath.besseli(nu, x)
        assert mpmath.exp(-mpmath.asinh((nu + 1) / mpmath.mpf(x))) <= quotient
        assert quotient <= mpmath.exp(-mpmath.asinh((nu + 0.5) / mpmath.mpf(x)))
        if nu == 0:
            complement = _laws.bessel_quotient_complement(Fraction(x))
            got = mpmath.mpf(complement.numerator) / complement.denominator
            assert 0 <= got - (1 - quotient) <= mpmath.mpf(10) ** -28


def worst_by_brute_force(event, a):
    """The largest sum of f over all integer vectors within the bounds (dim 2 or 3)."""
    law = {}
    largest = min(event.linf, math.isqrt(event.l2_sq))
    f = np.append(0.0, renyi.shift_divergences(event, a, largest))
    for z in itertools.combinations_with_replacement(range(largest + 1), event.dim):
        if sum(k * k for k in z) <= event.l2_sq:
            law[z] = sum(f[k] for k in z)
    return max(law.values())


@pytest.mark.parametrize(
    "event",
    [
        dp.SkellamEvent(0.4, 20, 9, 4, 3),
        dp.SkellamEvent(2.0, 12, 6, 3, 2),
        dp.SkellamEvent(0.1, 27, 9, 3, 3),
        dp.DiscreteGaussianEvent(0.4, 18, 8, 4, 2),
        dp.DiscreteGaussianSumEvent(0.5, 6, 18, 8, 4, 3),
    ],
)
@pytest.mark.parametrize("a", [0.25, 1.0, 4.3])
def test_bounds_of_a_vector_are_above_every_vector(event, a):
    bounds = renyi.renyi_bounds(event, np.array([a]))
    worst = worst_by_brute_force(event, a)
    assert worst <= bounds.concave[0] * (1 + 1e-12)
    assert bounds.concave[0] <= bounds.quadratic[0]


def test_concave_bound_is_met_where_the_mean_square_is_a_square():
    event = dp.SkellamEvent(0.1, 27, 9, 3, 3)  # (3, 3, 3) is within the bounds
    bounds = renyi.renyi_bounds(event, np.array([1.0]))
    three = renyi.shift_divergences(event, 1.0, 3)[2]
    assert bounds.concave[0] == pytest.approx(3 * three, rel=1e-9)
    assert bounds.quadratic[0] > 1.5 * bounds.concave[0]


def test_shifts_beyond_the_cutoff_are_bounded(monkeypatch):
    event = dp.SkellamEvent(0.5, 400, 40, 20, 2)
    a = np.array([0.5, 1.0, 2.5])
    whole = renyi.renyi_bounds(event, a)
    renyi._bounds_at.cache_clear()
    monkeypatch.setattr(_shifted, "_CELLS", 120)  # a handful of shifts only
    cut = renyi.renyi_bounds(event, a)
    renyi._bounds_at.cache_clear()
    assert np.all(cut.concave >= whole.concave * (1 - 1e-12))
    for x, bound in zip(a, cut.concave, strict=True):
        monkeypatch.setattr(_shifted, "_CELLS", 8000)
        assert bound >= renyi.shift_divergences(event, float(x), 20)[19]


@pytest.mark.parametrize(
    "event",
    [
        dp.SkellamEvent(3.0, 90, 60, 9, 20),
        dp.SkellamEvent(200.0, 90, 60, 9, 20),
        dp.DiscreteGaussianEvent(0.6, 90, 60, 9, 20),
        dp.DiscreteGaussianSumEvent(0.55, 300, 90, 60, 9, 20),
    ],
)
def test_rdp_uses_the_smaller_bound_at_every_order(event):
    a = np.concatenate([conversion.base_grid(), np.linspace(0.01, 9, 50)])
    published = published_curve(event, a)
    exact = renyi.renyi_bounds(event, a).concave
    np.testing.assert_array_equal(dp.rdp_curve(event, a), np.minimum(published, exact))
    assert np.any(exact < published * (1 - 1e-6))


def test_exact_divergence_turns_a_void_bound_into_a_useful_one():
    # 1,000 shares of sigma 1/2: the published bound pays tau per coordinate.
    event = dp.DiscreteGaussianSumEvent(0.5, 1000, 25, 25, 5, 100)
    line = published_curve(event, np.ones(1))[0]
    exact = dp.rdp_curve(event, np.ones(1))[0]
    assert exact < 1.2 * 2 * 25 / (2 * 250.0)
    assert line > 50 * exact


def test_orders_outside_the_sums():
    event = dp.SkellamEvent(3.0, 9, 9, 3, 9)
    bounds = renyi.renyi_bounds(event, np.array([2.0**-20, 2.0**-6, 600.0]))
    assert bounds.concave[0] == bounds.concave[1]  # monotone in the order
    line = renyi.curvature_bound(event, np.array([600.0]))[0]  # alone beyond order 513
    assert bounds.concave[2] == bounds.quadratic[2] == line


@pytest.mark.parametrize(
    "event",
    [
        dp.GaussianEvent(1.0),
        dp.DiscreteGaussianEvent(2.5, 1, 1, 1, 1),
        dp.DiscreteGaussianSumEvent(0.49, 2, 1, 1, 1, 1),
        dp.DiscreteGaussianSumEvent(1.0, 5000, 1, 1, 1, 1),
        dp.SkellamEvent(1e-7, 1, 1, 1, 1),
    ],
)
def test_noise_outside_the_range_is_refused(event):
    assert not renyi.has_exact_bounds(event)
    with pytest.raises(dp.UnsupportedEventError):
        renyi.renyi_bounds(event, np.ones(1))


def test_shifts_that_cannot_be_summed_are_refused():
    with pytest.raises(dp.UnsupportedEventError, match="not summed"):
        renyi.shift_divergences(dp.SkellamEvent(1.0, 1, 1, 1, 1), 500.0, 1000)
    with pytest.raises(dp.UnsupportedEventError):
        renyi.shift_divergences(dp.SkellamEvent(1e4, 1, 1, 1, 1), 1.0, 1)


@pytest.mark.parametrize("order", [1.25, 2.0, 6.5])
def test_what_windows_cut_is_paid_for(monkeypatch, order):
    # Windows far too narrow: the sums alone fall short, the bounds with their tails do not.
    law = skellam_law(4.0, 240)
    exact = divergence(law, 2, order, 230)
    narrow = dataclasses.replace(_shifted.skellam_law(4.0), left=1)
    monkeypatch.setattr(
        _shifted.SkellamLaw, "_right", lambda self, a, k: math.ceil((1 + a) * k) + 2
    )
    assert exact <= narrow.divergences(order - 1.0, 2)[1] < 6.0 * exact
    monkeypatch.setattr(_shifted, "_series", np.zeros_like)
    assert narrow.divergences(order - 1.0, 2)[1] < exact
    sums = sum_law(0.5, 4)
    exact = divergence(sums, 2, order, 30)
    monkeypatch.setattr(_shifted.PeriodicLaw, "_radius", lambda self, a: 2)
    assert exact <= _shifted.gaussian_sum_law(0.5, 4).divergences(order - 1.0, 2)[1]


def test_images_of_psi_are_subtracted_or_refused(monkeypatch):
    right = _shifted._log_psi(0.6, 40)
    monkeypatch.setattr(_shifted, "_points", lambda sigma, shares: 22)
    high, low = _shifted._log_psi(0.6, 40)
    assert np.all(high - high[0] >= right[1] - right[0][0] - 1e-6)
    assert np.any(high - low > 1e3 * (right[0] - right[1]))
    monkeypatch.setattr(_shifted, "_points", lambda sigma, shares: 8)
    with pytest.raises(ArithmeticError, match="images"):
        _shifted._log_psi(0.6, 40)
