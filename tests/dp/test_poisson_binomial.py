"""Poisson binomial: exact coins, bounds that no input exceeds, and what is refused.

The oracles here share nothing with the library: laws are convolved in exact integers and
divergences summed in 60 digits.
"""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import dataclasses
import functools
import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dp
from dp.accountants import poisson_binomial as bounds
from tests.dp.coins import UNIT, bias, event

ZERO_OUT = dp.NeighboringRelation.ZERO_OUT
REPLACE_ONE = dp.NeighboringRelation.REPLACE_ONE


def convolved(first, second):
    return np.convolve(first, second)  # of Python integers: exact


@functools.cache
def coins(*biases):
    """Law of the number of successes of coins with these biases, times 2^(24 coins): integers."""
    law = np.array([1], dtype=object)
    for k in biases:
        law = np.convolve(law, np.array([2**23 - k, 2**23 + k], dtype=object))
    return law


def divergence(order, p, q):
    """D_order(p | q) of two laws in the same units, in 60 digits; a float."""
    with mpmath.workdps(60):
        total = mpmath.fsum(
            mpmath.mpf(b) * (mpmath.mpf(a) / mpmath.mpf(b)) ** order
            for a, b in zip(p, q, strict=True)
        )
        return float(mpmath.log(total / mpmath.mpf(int(q.sum()))) / (order - 1))


def exact(order, mine, other, trials, biases):
    """Larger of both directions when one client's bias is `mine` or `other`, the rest `biases`."""
    noise = coins(*sorted(biases))
    p = convolved(coins(*[mine] * trials), noise)
    q = convolved(coins(*[other] * trials), noise)
    return max(divergence(order, p, q), divergence(order, q, p))


def worst(order, trials, shares, k, *, mine=None, other=0):
    """Over the numbers of others' coins at + k and at - k."""
    others = trials * (shares - 1)
    mine = k if mine is None else mine
    return max(
        exact(order, mine, other, trials, (k,) * i + (-k,) * (others - i))
        for i in range(others + 1)
    )


def bound(made, order, relation=ZERO_OUT):
    return float(dp.rdp_curve(_moved(made, relation), np.array([order - 1.0]))[0])


def _moved(made, relation):
    return dataclasses.replace(made, replaced=True) if relation is REPLACE_ONE else made


# ---- the figures that the mechanism is known by


def test_row_of_the_worst_case():
    made = event(trials=4, shares=10, theta=0.2)
    assert worst(8, 4, 10, bias(0.2)) == pytest.approx(0.444, abs=5e-4)
    assert bound(made, 8.0) == pytest.approx(0.444, abs=5e-4)


def test_row_with_the_others_at_one_half_is_no_bound():
    k = bias(0.2)
    p = convolved(coins(*[k] * 4), coins(*[0] * 36))
    q = coins(*[0] * 40)
    assert divergence(8, p, q) == pytest.approx(0.231, abs=5e-4)
    assert divergence(8, q, p) == pytest.approx(0.289, abs=5e-4)  # the other way round is larger
    assert bound(event(), 8.0) > 1.5 * divergence(8, q, p)


# ---- the bound of one coordinate is the exact worst case


@pytest.mark.parametrize("order", [1.25, 1.5, 2, 3, 8, 16])
@pytest.mark.parametrize(
    ("trials", "shares", "theta"), [(1, 1, 0.3), (1, 6, 0.2), (2, 4, 0.45), (3, 3, 0.05)]
)
def test_one_coordinate_agrees_with_exact_laws(order, trials, shares, theta):
    k = bias(theta)
    want = worst(order, trials, shares, k)
    assert want <= bound(event(trials, shares, theta), order) <= want * (1 + 1e-8)
    want = worst(order, trials, shares, k, mine=-k, other=k)
    got = bound(event(trials, shares, theta), order, REPLACE_ONE)
    assert want <= got <= want * (1 + 1e-8)


@pytest.mark.parametrize("order", [2, 5])
@pytest.mark.parametrize("relation", [ZERO_OUT, REPLACE_ONE])
def test_no_pattern_of_biases_exceeds_the_bound(order, relation):
    """Every pair of the client's biases against every pattern of the others', on a lattice."""
    trials, shares, k = 2, 3, bias(0.3)
    lattice = [-k, -k // 2, 0, k // 3, k]
    most = bound(event(trials, shares, 0.3), order, relation)
    others = [0] if relation is ZERO_OUT else lattice
    found = 0.0
    for first, second in itertools.combinations_with_replacement(lattice, 2):
        rest = (first,) * trials + (second,) * trials
        for mine, other in itertools.product(lattice, others):
            found = max(found, exact(order, mine, other, trials, rest))
    assert 0.999 * most < found <= most


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 6), st.floats(0.01, 0.49), st.integers(2, 12),
    st.booleans(), st.data(),
)  # fmt: skip
def test_no_vector_within_the_norm_exceeds_the_bound(trials, shares, theta, order, replace, data):
    """Random vectors over a few coordinates, each coordinate against its own random others."""
    k, dim = bias(theta), data.draw(st.integers(1, 4))
    signed = st.integers(-k, k)
    mine = data.draw(st.lists(signed, min_size=dim, max_size=dim))
    other = data.draw(st.lists(signed, min_size=dim, max_size=dim)) if replace else [0] * dim
    total = 0.0
    forward = backward = 0.0
    for a, b in zip(mine, other, strict=True):
        ends = data.draw(
            st.lists(st.sampled_from([-k, k]), min_size=shares - 1, max_size=shares - 1)
        )
        noise = coins(*sorted(e for e in ends for _ in range(trials)))
        p, q = convolved(coins(*[a] * trials), noise), convolved(coins(*[b] * trials), noise)
        forward += divergence(order, p, q)
        backward += divergence(order, q, p)
    total = max(forward, backward)
    norm = max(1, *(sum(v * v for v in one) for one in (mine, other)))
    made = dp.PoissonBinomialEvent(trials, shares, k, norm, dim)
    assert total <= bound(made, order, REPLACE_ONE if replace else ZERO_OUT) * (1 + 1e-9)


@pytest.mark.parametrize("mean", [0.9, 0.3, 0.05])
@pytest.mark.parametrize("order", [1.5, 2, 4, 8])
def test_a_norm_below_that_of_the_corners_is_nearly_tight(order, mean):
    """Equal coordinates, or full and empty ones, come close to the bound of the vector."""
    k, dim = bias(0.2), 1000
    level = math.floor(k * math.sqrt(mean))
    reached = max(dim * worst(order, 1, 20, k, mine=level), mean * dim * worst(order, 1, 20, k))
    got = bound(event(1, 20, 0.2, dim, mean), order)
    assert reached * (1 - 1e-5) <= got <= 1.2 * reached  # cutting `level` loses 1e-7
    assert got < 1.01 * mean * bound(event(1, 20, 0.2, dim), order) or order > 3


def test_many_trials_are_bounded_by_as_many_single_ones():
    """Beyond what is enumerated, and where the norm counts; still above the exact worst case."""
    k = bias(0.1)
    for order in (2, 6):
        exact_one = worst(order, 3, 8, k, mine=k // 4)
        made = dp.PoissonBinomialEvent(3, 8, k, 50 * (k // 4) ** 2, 50)
        assert 50 * exact_one <= bound(made, order) <= 1.15 * 50 * exact_one


@pytest.mark.parametrize("theta", [1e-5, 0.02, 0.2, 0.49])
def test_more_honest_clients_or_smaller_biases_never_cost_more(theta):
    a = np.array([0.3, 1.0, 4.0, 20.0, 200.0])
    rows = [dp.rdp_curve(event(2, h, theta, 5, 0.3), a) for h in (1, 2, 3, 5, 9, 30, 90)]
    for more, less in itertools.pairwise(rows[::-1]):
        assert (more <= less * (1 + 1e-3)).all()  # envelopes of more clients are coarser
    less = dp.rdp_curve(event(2, 9, 0.9 * theta, 5, 0.3), a)
    assert (less <= dp.rdp_curve(event(2, 9, theta, 5, 0.3), a)).all()


def test_large_sums_approach_gaussian_noise_from_above():
    """At many clients and small biases the order times the shift over twice the variance."""
    theta, shares, trials, dim = 0.02, 400, 3, 2000
    made = event(trials, shares, theta, dim, mean=1 / 16)
    gauss = dim / 16 * (trials * theta) ** 2 / (trials * shares / 4) / 2
    for order in (2.0, 8.0, 32.0):
        assert 1.0 < bound(made, order) / (order * gauss) < 1.02


def test_curves_between_knots_and_beyond_them():
    made = event(2, 5, 0.3)
    a = np.concatenate([np.geomspace(1e-4, 1e6, 200), bounds._KNOTS])
    curve = dp.rdp_curve(made, np.sort(a))
    assert (np.diff(curve) >= -1e-12).all()
    largest = -2 * math.log1p(-2 * bias(0.3) * UNIT)
    assert curve[-1] == pytest.approx(largest)
    for order in (1.4, 2.7, 12.3):
        want = worst(order, 2, 5, bias(0.3))
        assert want <= bound(made, order) <= 1.1 * want


def test_clients_beyond_those_enumerated_count_for_nothing(monkeypatch):
    a = np.array([0.5, 3.0, 9.0])
    want = dp.rdp_curve(event(2, 7, 0.2, 3, 0.4), a)
    monkeypatch.setattr(bounds, "MAX_OTHERS", 6)
    for shares in (7, 8, 5000):
        np.testing.assert_array_equal(dp.rdp_curve(event(2, shares, 0.2, 3, 0.4), a), want)


def test_two_releases_of_two_coordinates_keep_epsilon_and_delta():
    """Outcome by outcome, with all others against the client: the exact delta is below."""
    trials, shares, k = 2, 4, bias(0.25)
    made = dp.SelfComposedEvent(event(trials, shares, 0.25, dim=2), 2)
    noise = coins(*[-k] * trials * (shares - 1))
    scale = float(2 ** (24 * trials * shares))
    p = np.array([int(v) / scale for v in convolved(coins(*[k] * trials), noise)])
    q = np.array([int(v) / scale for v in convolved(coins(*[0] * trials), noise)])
    four = [functools.reduce(np.multiply.outer, [one] * 4).ravel() for one in (p, q)]
    for delta in (0.1, 1e-2, 1e-4):
        spent = dp.epsilon(made, delta, neighboring=ZERO_OUT, accountant="rdp").upper
        for one, other in (four, four[::-1]):
            true = np.maximum(one - math.exp(spent) * other, 0.0).sum()
            assert true <= delta
            tighter = np.maximum(one - math.exp(0.5 * spent) * other, 0.0).sum()
            assert tighter > true
    assert np.maximum(four[1] - math.exp(0.7 * spent) * four[0], 0.0).sum() > delta  # not idle


def test_faint_outcomes_are_counted(monkeypatch):
    """Outcomes too unlikely for doubles count as the extremes, so the bound only grows."""
    a = np.array([1.0, 7.0, 31.0])
    made = event(2, 4, 0.3)
    sharp = dp.rdp_curve(made, a)
    monkeypatch.setattr(bounds, "_FAINT", 1e-3)
    bounds._cumulants.cache_clear()
    bounds._envelopes.cache_clear()
    try:
        blunt = dp.rdp_curve(made, a)
    finally:
        bounds._cumulants.cache_clear()
        bounds._envelopes.cache_clear()
    assert (blunt > sharp).all()


def test_coarser_envelopes_are_never_smaller(monkeypatch):
    orders = np.array([1.5, 2.0, 5.0, 20.0])
    trials = bounds.Trials(1, 30, 0.2, 0.0, 0.2)
    fine = bounds.vector_cumulants(trials, orders, 0.2)
    monkeypatch.setattr(bounds, "_VECTOR_POINTS", 1)
    coarse = bounds.vector_cumulants(trials, orders, 0.2)
    assert (fine <= coarse * (1 + 1e-9)).all()
    assert (coarse <= 1.3 * fine).all()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_largest_tails_bound_every_law_for_every_monotone_weight(data):
    """The least and most u of an outcome differ, as they do by rounding."""
    laws = []
    for _ in range(data.draw(st.integers(1, 4))):
        u = np.sort(data.draw(st.lists(st.floats(-0.9, 5.0), min_size=2, max_size=5, unique=True)))
        q = np.array(data.draw(st.lists(st.floats(0.01, 1.0), min_size=len(u), max_size=len(u))))
        laws.append((u - 0.05, u + 0.05, q))
    step = data.draw(st.floats(-0.9, 5.0))
    for sign, end in ((1.0, 1), (-1.0, 0)):
        points, masses = bounds._largest_tails(laws, sign)
        for weight in (np.exp, lambda u: np.where(u >= step, 2.0, 1.0)):
            most = max(
                (law[2] * np.maximum(law[0] ** 2, law[1] ** 2) * weight(sign * law[end])).sum()
                for law in laws
            )
            assert np.exp(masses) @ weight(sign * points) >= most * (1 - 1e-12)


@pytest.mark.parametrize("g", [-800.0, -3.0, -0.125, 1.125, 1.9, 2.0, 2.5, 7.0, 300.0, 16384.0])
def test_psi_is_rounded_up_and_hardly(g):
    u = np.concatenate([-np.geomspace(1e-12, 0.9, 60), np.geomspace(1e-12, 4.0, 60)])
    got = bounds._log_psi(np.array([[g]]), u)[0]
    with mpmath.workdps(60):
        for one, value in zip(u.tolist(), got.tolist(), strict=True):
            v = mpmath.mpf(one)
            want = mpmath.log(((1 + v) ** g - 1 - g * v) / v**2)
            assert want - 1e-12 * (1 + abs(want)) <= value <= want + 2e-3 + 1e-9 * abs(want)


@pytest.mark.parametrize("trials", [12, 60])
def test_ratios_beyond_doubles_are_bounded_too(trials):
    """One client's coins nearly give it away: the ratio of both laws spans 10^(2 trials)."""
    k = bias(0.495)
    made = event(trials, 2, 0.495)
    for order in (1.5, 2.0, 8.0):
        want = exact(order, k, -k, trials, (-k,) * trials)
        got = bound(made, order, REPLACE_ONE)
        assert want <= got <= 2 * trials * math.atanh(0.99) * (1 + 1e-9)


# ---- accountants and books
