"""Limited and secret participation against mixtures that are summed over all outcomes."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type"

import json
import math

import mpmath
import numpy as np
import pytest
from scipy import stats

import dp
from dp.accountants import participation

ADD_REMOVE = dp.NeighboringRelation.ADD_REMOVE
REPLACE_ONE = dp.NeighboringRelation.REPLACE_ONE
ZERO_OUT = dp.NeighboringRelation.ZERO_OUT
GAUSSIAN = dp.GaussianEvent(4.0)
VECTOR = dp.SkellamEvent(900.0, 900, 90, 30, 100)
REACH = 24


def secret(event, releases, q, most=None):
    return dp.SecretParticipationEvent(event, releases, q, releases if most is None else most)


def upper(event, delta=1e-5, relation=ZERO_OUT, **given):
    return dp.epsilon(event, delta, neighboring=relation, **given).upper


def skellam(variance, by=0):
    """Probabilities of by + noise on -REACH .. REACH."""
    row = [float(mpmath.besseli(abs(k - by), variance)) for k in range(-REACH, REACH + 1)]
    return np.array(row) * math.exp(-variance)


def true_delta(q, releases, absent, present, epsilon):
    """delta of T rounds whose noise has another variance where the client takes part."""
    first = (1 - q) * skellam(absent) + q * skellam(present, by=1)
    second = (1 - q) * skellam(absent) + q * skellam(present)
    whole = [np.ones(1), np.ones(1)]
    for _ in range(releases):
        whole = [
            np.outer(law, one).ravel() for law, one in zip(whole, (first, second), strict=True)
        ]
    gains = [p - math.exp(epsilon) * r for p, r in (whole, whole[::-1])]
    return max(float(gain[gain > 0].sum()) for gain in gains)


@pytest.mark.parametrize("q", [0.1, 0.5])
@pytest.mark.parametrize("epsilon", [0.1, 0.7, 2.0])
def test_true_mixtures_of_noise_shares_are_below(q, epsilon):
    # Two others always take part with a share of variance 1/2 each; the client brings a third.
    event = secret(dp.SkellamEvent(1.5, 1, 1, 1, 1), 3, q)
    truth = true_delta(q, 3, 1.0, 1.5, epsilon)
    found = dp.delta(event, epsilon, neighboring=ZERO_OUT)
    assert found.lower == 0.0
    assert truth <= found.upper
    assert "lower" in found.note
    at = dp.epsilon(event, found.upper, neighboring=ZERO_OUT).upper
    assert true_delta(q, 3, 1.0, 1.5, at) <= found.upper


def test_the_textbook_formula_fails_for_noise_that_grows():
    # Others add hardly any noise, so a value other than 0 shows that the client takes part.
    q, epsilon = 0.1, 0.5
    truth = true_delta(q, 1, 1e-4, 2.0, epsilon)
    event = dp.DiscreteGaussianEvent(math.sqrt(2.0), 1, 1, 1, 1)  # nearly the same law
    textbook = dp.delta(dp.PoissonSampledEvent(q, event), epsilon, neighboring=ZERO_OUT).upper
    assert truth > 1.5 * textbook
    bound = dp.delta(secret(dp.SkellamEvent(2.0, 1, 1, 1, 1), 1, q), epsilon, neighboring=ZERO_OUT)
    assert truth <= bound.upper <= 1.2 * truth


def exact_mixture(chances, sigma, epsilon):
    """sum_j P[j] delta_j of Gaussian releases, in 40 digits."""
    total = mpmath.mpf(0)
    with mpmath.workdps(40):
        for j, chance in enumerate(chances):
            if j and chance > 0:
                mu, e = mpmath.sqrt(j) / sigma, mpmath.mpf(epsilon)
                delta = mpmath.ncdf(mu / 2 - e / mu)
                delta -= mpmath.exp(e) * mpmath.ncdf(-mu / 2 - e / mu)
                total += mpmath.mpf(float(chance)) * delta
    return total


@pytest.mark.parametrize(
    ("releases", "q", "most"), [(20, 0.3, 20), (20, 0.3, 4), (400, 0.2, 400), (3, 1.0, 3)]
)
def test_mixtures_of_gaussians_are_close_to_their_sum_and_never_below(releases, q, most):
    law = stats.binom.pmf(np.arange(releases + 1), releases, q)
    chances = np.append(law[:most], law[most:].sum())
    event = secret(dp.GaussianEvent(5.0), releases, q, most)
    for epsilon in (0.3, 1.5, 4.0):
        want = exact_mixture(chances, 5.0, epsilon)
        got = dp.delta(event, epsilon, neighboring=ZERO_OUT).upper
        assert got >= want * (1 - mpmath.mpf(10) ** -9)
        assert got <= want * 1.2
    spent = upper(event)
    assert exact_mixture(chances, 5.0, spent) <= 1e-5 * (1 + 1e-9)
    assert exact_mixture(chances, 5.0, 0.97 * spent) > 1e-5
    listed = dp.ListedParticipationEvent(
        dp.GaussianEvent(5.0), tuple((chances / chances.sum()).tolist())
    )
    assert upper(listed) == pytest.approx(spent, rel=2e-2)


def test_what_lies_beyond_the_groups_is_charged(monkeypatch):
    # Hardly any noise: delta is the chance of taking part at all, whatever the groups.
    event = secret(dp.GaussianEvent(1e-3), 1000, 1e-3)
    want = 1 - (1 - 1e-3) ** 1000
    for groups in (2, 5, 64):
        monkeypatch.setattr(participation, "_GROUPS", groups)
        participation._groups.cache_clear()
        got = dp.delta(event, 3.0, neighboring=ZERO_OUT).upper
        assert got >= want * (1 - 1e-12)
    assert got == pytest.approx(want, rel=1e-9)
    participation._groups.cache_clear()
    short = dp.ListedParticipationEvent(dp.GaussianEvent(1e-3), (0.5, 0.5 - 9e-10))
    assert dp.delta(short, 3.0, neighboring=ZERO_OUT).upper >= 0.5


@pytest.mark.parametrize("event", [GAUSSIAN, VECTOR], ids=lambda e: type(e).__name__)
def test_limited_participation_costs_that_many_releases(event):
    for accountant in ("pld", "rdp", "zcdp"):
        want = upper(dp.SelfComposedEvent(event, 7), accountant=accountant)
        limited = dp.LimitedParticipationEvent(event, 50, 7)
        assert upper(limited, accountant=accountant) == pytest.approx(want, rel=1e-12)
        short = dp.LimitedParticipationEvent(event, 7, 50)
        assert upper(short, accountant=accountant) == pytest.approx(want, rel=1e-12)
    assert dp.epsilon(
        dp.LimitedParticipationEvent(GAUSSIAN, 9, 4), 1e-5, neighboring=ADD_REMOVE
    ) == (dp.epsilon(dp.SelfComposedEvent(GAUSSIAN, 4), 1e-5, neighboring=ADD_REMOVE))


@pytest.mark.parametrize("event", [GAUSSIAN, VECTOR], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_secrets_lie_between_their_counts_and_grow(event, accountant):
    def at(q, releases=60, most=None, relation=ZERO_OUT):
        return upper(secret(event, releases, q, most), relation=relation, accountant=accountant)

    mean, whole = (upper(dp.SelfComposedEvent(event, j), accountant=accountant) for j in (6, 60))
    assert mean < at(0.1) < whole
    assert at(0.1) < at(0.12) < at(1.0) <= whole * (1 + 1e-6)
    assert at(0.1, most=3) < upper(dp.SelfComposedEvent(event, 3), accountant=accountant) * (
        1 + 1e-6
    )
    assert at(0.1, releases=80) > at(0.1)
    assert at(0.1, relation=REPLACE_ONE) > at(0.1)
    capped = upper(secret(event, 60, 0.1, 12), accountant="zcdp")
    assert capped == pytest.approx(
        upper(dp.SelfComposedEvent(event, 12), accountant="zcdp"), rel=1e-12
    )


def test_orders_agree_with_the_sum_over_the_law():
    a = np.array([0.01, 1.0, 9.0])
    law = tuple(stats.binom.pmf(np.arange(31), 30, 0.2).tolist())
    law = tuple(p / math.fsum(law) for p in law)
    for event in (GAUSSIAN, dp.GaussianEvent(0.05), dp.GaussianEvent(1e6)):
        binomial = dp.rdp_curve(secret(event, 30, 0.2), a)
        listed = dp.rdp_curve(dp.ListedParticipationEvent(event, law), a)
        np.testing.assert_allclose(listed, binomial, rtol=1e-6)
        assert np.all(binomial > 0)


def test_a_secret_composes_with_other_releases_and_serialises():
    event = dp.ComposedEvent((secret(GAUSSIAN, 30, 0.2), dp.GaussianEvent(3.0)))
    alone, other = secret(GAUSSIAN, 30, 0.2), dp.GaussianEvent(3.0)
    assert max(upper(alone), upper(other)) < upper(event) < upper(alone) + upper(other)
    for one in (
        event,
        dp.LimitedParticipationEvent(dp.ComposedEvent((GAUSSIAN, VECTOR)), 9, 2),
        dp.ListedParticipationEvent(VECTOR, (0.25, 0.5, 0.25)),
    ):
        assert dp.event_from_dict(json.loads(json.dumps(dp.event_to_dict(one)))) == one


def test_noise_with_loss_distributions_alone_is_bounded_by_a_cut():
    event = dp.LaplaceEvent(30.0)
    assert upper(secret(event, 1, 0.1)) == pytest.approx(1 / 30, rel=1e-2)
    rare = dp.ListedParticipationEvent(event, (1 - 4e-6, 4e-6))
    assert upper(rare) == 0.0
    # Half of delta pays for participating at all: the rest leaves delta_1 the other half.
    half = dp.ListedParticipationEvent(event, (0.9, 0.1 - 5e-3, 5e-3))
    assert upper(half, 1e-2) <= upper(event, 5e-3 * (1 - 1e-9)) * (1 + 1e-6)


def test_million_releases_are_bounded_in_reasonable_work():
    event = secret(dp.GaussianEvent(30.0), 10**6, 1e-3)
    mean = upper(dp.SelfComposedEvent(dp.GaussianEvent(30.0), 1000))
    assert mean < upper(event) < 1.1 * mean


BAD = [
    lambda: secret(GAUSSIAN, 0, 0.1),
    lambda: secret(GAUSSIAN, 10, 0.0),
    lambda: secret(GAUSSIAN, 10, 1.5),
    lambda: secret(GAUSSIAN, 10, math.nan),
    lambda: secret(GAUSSIAN, 10, 0.1, 0),
    lambda: secret(dp.PoissonSampledEvent(0.1, GAUSSIAN), 10, 0.1),
    lambda: secret(secret(GAUSSIAN, 2, 0.5), 10, 0.1),
    lambda: secret(None, 10, 0.1),
    lambda: dp.LimitedParticipationEvent(GAUSSIAN, 3, 0),
    lambda: dp.LimitedParticipationEvent(GAUSSIAN, 3.5, 1),
    lambda: dp.ListedParticipationEvent(GAUSSIAN, ()),
    lambda: dp.ListedParticipationEvent(GAUSSIAN, [0.5, 0.5]),
    lambda: dp.ListedParticipationEvent(GAUSSIAN, (0.5, 0.4)),
    lambda: dp.ListedParticipationEvent(GAUSSIAN, (1.5, -0.5)),
    lambda: dp.ListedParticipationEvent(GAUSSIAN, (math.nan, 1.0)),
]


@pytest.mark.parametrize("make", BAD, ids=range(len(BAD)))
def test_bad_input_is_refused(make):
    with pytest.raises(dp.ParameterError):
        make()


def test_what_has_no_proof_is_refused():
    one = secret(GAUSSIAN, 10, 0.1)
    event: dp.Event
    for event in (
        dp.SelfComposedEvent(one, 2),
        dp.ComposedEvent((one, one)),
        dp.ComposedEvent((one, dp.ComposedEvent((one, GAUSSIAN)))),
    ):
        with pytest.raises(dp.UnsupportedEventError, match="once"):
            upper(event)
    for event in (one, dp.ListedParticipationEvent(GAUSSIAN, (0.5, 0.5))):
        for accountant in ("pld", "rdp", "zcdp"):
            with pytest.raises(dp.UnsupportedEventError, match="coins"):
                upper(event, relation=ADD_REMOVE, accountant=accountant)
        with pytest.raises(dp.UnsupportedEventError):
            dp.group_event(event, 2)
    ledger = dp.Ledger(3, max_releases=2, min_survivors=1, neighboring=ZERO_OUT)
    ledger.charge(0, 0, [0])
    for event in (one, dp.LimitedParticipationEvent(GAUSSIAN, 2, 1)):
        with pytest.raises(dp.LedgerMismatchError, match="known participants"):
            ledger.release(0, 0, [0], event)


def test_groups_of_clients_fill_more_releases():
    event = dp.LimitedParticipationEvent(GAUSSIAN, 10, 3)
    assert dp.group_event(event, 2) == dp.LimitedParticipationEvent(dp.GaussianEvent(2.0), 10, 6)
    assert dp.group_event(event, 5) == dp.LimitedParticipationEvent(dp.GaussianEvent(0.8), 10, 10)
    assert dp.gdp_parameter(event) == pytest.approx(math.sqrt(3) / 4)
