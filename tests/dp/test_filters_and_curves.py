"""Filters for adaptive stopping, merged ledgers, groups, trade-offs, colluders, conversions."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import dataclasses
import itertools
import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dp

ZERO_OUT = dp.NeighboringRelation.ZERO_OUT
REPLACE_ONE = dp.NeighboringRelation.REPLACE_ONE
PLAN = dp.SelfComposedEvent(dp.GaussianEvent(4.0), 20)


def spent(event, delta=1e-5, relation=ZERO_OUT):
    return dp.epsilon(event, delta, neighboring=relation, accountant="rdp").upper


def make(epsilon=6.0, plan=PLAN, **changes):
    given = {"epsilon": epsilon, "delta": 1e-5, "neighboring": ZERO_OUT, **changes}
    return dp.privacy_filter(plan, **given)


# ---- filters


def test_filter_admits_the_plan_it_was_made_for_and_not_much_more():
    budget = spent(PLAN) * (1 + 1e-4)
    filled = make(budget)
    for _ in range(20):
        filled = filled.charge(dp.GaussianEvent(4.0))
    assert not filled.admits(dp.GaussianEvent(40.0))
    with pytest.raises(dp.BudgetError) as caught:
        filled.charge(dp.GaussianEvent(4.0))
    assert caught.value.needed > caught.value.budget == filled.budget


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([ZERO_OUT, REPLACE_ONE]))
def test_whatever_is_admitted_stays_within_epsilon(seed, relation):
    rng = np.random.default_rng(seed)
    budget = make(4.0, neighboring=relation)
    events: list[dp.Event] = []
    while len(events) < 200:
        event = dp.GaussianEvent(float(np.exp(rng.normal(1.5, 0.7))))
        if not budget.admits(event):
            break
        budget = budget.charge(event)
        events.append(event)
    if events:
        assert spent(dp.ComposedEvent(tuple(events)), relation=relation) <= 4.0
    assert len(events) < 200


def test_adaptive_choice_cannot_beat_the_filter():
    # Two outcomes, after each of which different noise is chosen: the divergence of the whole
    # tree at the filter's order is within the budget though neither branch is fixed in advance.
    budget = make(3.0)
    first = dp.GaussianEvent(3.0)
    rest = budget.charge(first)
    left = rest.budget - rest.spent
    branch = math.sqrt((1 + budget.order) / (2 * left)) * (1 + 1e-6)
    other = dp.GaussianEvent(branch * 1.5)
    a = budget.order
    assert rest.admits(dp.GaussianEvent(branch))
    x = np.linspace(-300, 300, 1_000_001)
    losses = -((1 + a) * (x - 1.0) ** 2 - a * x**2) / 18 - 0.5 * math.log(18 * math.pi)
    bends = np.where(x > 0, 1 / branch**2, 1 / (1.5 * branch) ** 2)
    exponents = losses + a * (1 + a) / 2 * bends
    top = float(exponents.max())
    log_moment = top + math.log(float(np.trapezoid(np.exp(exponents - top), x)))
    assert 0.5 * budget.budget < log_moment / a <= budget.budget
    assert rest.charge(other).spent < budget.budget


def test_zcdp_filter_agrees_on_gaussians():
    assert make(accountant="zcdp").cost(PLAN) == pytest.approx(make().cost(PLAN), rel=1e-9)


def test_filter_survives_text():
    budget = make().charge(dp.GaussianEvent(5.0))
    assert dp.PrivacyFilter.from_json(budget.to_json()) == budget
    data = json.loads(budget.to_json())
    for changes in ({"version": 2}, {"neighboring": "none"}, {"extra": 1}):
        with pytest.raises(dp.LedgerMismatchError):
            dp.PrivacyFilter.from_json(json.dumps({**data, **changes}))
    for text in ("no json", "[]"):
        with pytest.raises(dp.LedgerMismatchError):
            dp.PrivacyFilter.from_json(text)
    with pytest.raises(dp.ParameterError, match="spent"):
        dp.PrivacyFilter.from_json(json.dumps({**data, "spent": 1e9}))


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 0.0},
        {"epsilon": math.nan},
        {"delta": 0.0},
        {"accountant": "pld"},
        {"neighboring": "zero_out"},
    ],
    ids=str,
)
def test_filters_out_of_range_are_refused(changes):
    with pytest.raises(dp.ParameterError):
        make(**changes)
    with pytest.raises(dp.ParameterError):
        dataclasses.replace(make(), **changes)


def test_filter_at_an_order_without_budget_is_refused():
    with pytest.raises(dp.ParameterError, match="order"):
        dataclasses.replace(make(1.0), order=0.5)


# ---- ledgers together

EVENT = dp.SkellamEvent(400.0, 100, 60, 10, 9)


def ledger(**changes):
    given = {"max_releases": 2, "min_survivors": 3, "neighboring": ZERO_OUT, **changes}
    return dp.Ledger(given.pop("num_clients", 6), **given)


def test_merged_ledgers_hold_what_one_would():
    whole, first, second = ledger(), ledger(), ledger()
    for book in (whole, first):
        book.charge(0, 0, [0, 1, 2])
        book.release(0, 0, [0, 1, 2], EVENT)
        book.charge(1, 0, [0, 1])
    for book in (whole, second):
        book.charge(1, 0, [3, 4])
        book.release(1, 0, [3, 4], EVENT, num_survivors=4)
    merged = first.merged(second)
    assert merged.to_json() == whole.to_json()
    assert second.merged(first).to_json() == whole.to_json()
    assert merged.merged(first).to_json() == whole.to_json()  # counted once
    assert merged.realised(1e-5, "rdp") == whole.realised(1e-5, "rdp")
    assert first.releases == second.releases == 1


def test_ledgers_that_contradict_each_other_are_refused():
    first, second = ledger(), ledger()
    for book, event in ((first, EVENT), (second, dp.SkellamEvent(401.0, 100, 60, 10, 9))):
        book.charge(0, 0, [0, 1, 2])
        book.release(0, 0, [0, 1, 2], event)
    with pytest.raises(dp.LedgerMismatchError, match="events"):
        first.merged(second)
    third = ledger()
    third.charge(0, 0, [3, 4, 5])
    third.release(0, 0, [3, 4, 5], EVENT, num_survivors=4)
    with pytest.raises(dp.LedgerMismatchError, match="survivor"):
        first.merged(third)
    for changes in ({"num_clients": 7}, {"max_releases": 3}, {"min_survivors": 2}):
        with pytest.raises(dp.LedgerMismatchError):
            first.merged(ledger(**changes))
    with pytest.raises(dp.LedgerMismatchError):
        first.merged(ledger(neighboring=REPLACE_ONE))


def test_merged_ledgers_keep_the_release_limit():
    first, second = ledger(), ledger()
    first.charge(0, 0, [0])
    first.charge(1, 0, [0])
    second.charge(2, 0, [0])
    with pytest.raises(dp.ReleaseLimitError):
        first.merged(second)


def test_release_of_another_relation_is_refused():
    book = ledger()
    book.charge(0, 0, [0, 1, 2])
    before = book.to_json()
    with pytest.raises(dp.LedgerMismatchError, match="neighboring"):
        book.release(0, 0, [0, 1, 2], EVENT, neighboring=REPLACE_ONE)
    assert book.to_json() == before
    book.release(0, 0, [0, 1, 2], EVENT, neighboring=ZERO_OUT)


def test_worst_case_is_all_releases_of_the_event():
    book = ledger(max_releases=5)
    want = spent(dp.SelfComposedEvent(EVENT, 5))
    assert book.worst_case(EVENT, 1e-5, "rdp").upper == want
    assert book.worst_case(EVENT, 1e-5, "rdp", failure_prob=5e-6).upper > want


# ---- groups


def test_group_of_two_is_replace_one_and_beats_the_generic_rule():
    for event in (dp.GaussianEvent(3.0), EVENT, dp.DiscreteGaussianEvent(30.0, 100, 60, 10, 9)):
        assert spent(dp.group_event(event, 2)) == spent(event, relation=REPLACE_ONE)
    one = spent(dp.GaussianEvent(3.0), 1e-5)
    generic = 3 * one, 3 * math.exp(2 * one) * 1e-5
    assert spent(dp.group_event(dp.GaussianEvent(3.0), 3), generic[1]) < generic[0]


def test_group_of_a_composition_is_the_composition_of_groups():
    event = dp.ComposedEvent((dp.SelfComposedEvent(EVENT, 3), dp.GaussianEvent(2.0)))
    parts = dp.SelfComposedEvent(dp.group_event(EVENT, 4), 3), dp.GaussianEvent(0.5)
    assert dp.group_event(event, 4) == dp.ComposedEvent(parts)
    assert dp.group_event(event, 1) == event
    with pytest.raises(dp.ParameterError, match="size"):
        dp.group_event(event, 0)
    with pytest.raises(dp.UnsupportedEventError):
        dp.group_event("event", 2)


# ---- curves


def test_trade_off_is_below_that_of_the_gaussian_and_close():
    normal = NormalDist()
    errors = [0.001, 0.01, 0.05, 0.2, 0.5, 0.9]
    got = dp.trade_off(
        dp.GaussianEvent(1.0), errors, neighboring=ZERO_OUT, accountant="rdp",
        epsilons=np.linspace(0.0, 8.0, 81),
    )  # fmt: skip
    exact = np.array([normal.cdf(normal.inv_cdf(1 - e) - 1.0) for e in errors])
    assert np.all(got <= exact)
    assert np.all(got >= exact - 0.18)
    assert np.all(np.diff(got) <= 0)


def test_trade_off_edges():
    given = {"neighboring": ZERO_OUT, "accountant": "rdp"}
    ends = dp.trade_off(dp.GaussianEvent(1.0), [0.0, 1.0], epsilons=[3.0, 5.0], **given)
    assert 0.99 < ends[0] < 1.0
    assert ends[1] == 0.0
    for errors, epsilons in (([-0.1], [1.0]), ([0.5], []), ([0.5], [-1.0]), ([0.5], [math.inf])):
        with pytest.raises(dp.ParameterError):
            dp.trade_off(dp.GaussianEvent(1.0), errors, epsilons=epsilons, **given)


def test_curves_are_the_points():
    given = {"neighboring": ZERO_OUT, "accountant": "rdp"}
    deltas = [1e-3, 1e-6]
    assert dp.epsilon_curve(EVENT, deltas, **given) == [
        dp.epsilon(EVENT, d, **given) for d in deltas
    ]
    points = [0.5, 2.0]
    assert dp.delta_curve(EVENT, points, **given) == [dp.delta(EVENT, e, **given) for e in points]


def test_epsilon_grows_with_colluders_up_to_the_local_one():
    mechanism = dp.distributed(
        "skellam", dim=50, clip_norm=1.0, noise_multiplier=2.0, num_clients=30, shares=20
    )
    given = {"neighboring": ZERO_OUT, "accountant": "rdp"}
    curve = dp.epsilon_by_colluders(mechanism.event, 24, 1e-5, releases=3, **given)
    assert list(curve) == list(range(24))
    values = [interval.upper for interval in curve.values()]
    assert all(x < y for x, y in itertools.pairwise(values))
    local = dp.epsilon(dp.SelfComposedEvent(mechanism.event(1), 3), 1e-5, **given)
    assert curve[23] == local
    some = dp.epsilon_by_colluders(mechanism.event, 24, 1e-5, colluders=[4], releases=3, **given)
    assert some == {4: curve[4]}
    for bad in ([24], [-1], [0.5]):
        with pytest.raises(dp.ParameterError, match="colluders"):
            dp.epsilon_by_colluders(mechanism.event, 24, 1e-5, colluders=bad, **given)


def test_conversions():
    event = dp.ComposedEvent((dp.SelfComposedEvent(dp.GaussianEvent(3.0), 16), dp.GaussianEvent(1)))
    mu = dp.gdp_parameter(event)
    assert mu == pytest.approx(math.sqrt(16 / 9 + 1), rel=1e-11)
    assert mu >= math.sqrt(16 / 9 + 1)
    line = dp.zcdp_bound(event)
    assert dp.zcdp_of_gdp(mu).rho == pytest.approx(line.rho, rel=1e-9)
    assert dp.zcdp_of_pure(0.6).rho == pytest.approx(0.18, rel=1e-12)
    for other in (EVENT, dp.SelfComposedEvent(EVENT, 2)):
        with pytest.raises(dp.UnsupportedEventError, match="mu"):
            dp.gdp_parameter(other)
    for convert in (dp.zcdp_of_gdp, dp.zcdp_of_pure):
        with pytest.raises(dp.ParameterError):
            convert(0.0)


def test_zcdp_of_pure_is_above_randomised_response():
    # D_alpha of the pair (p, 1-p), (1-p, p) with log(p / (1-p)) = epsilon.
    for eps in (0.1, 1.0, 3.0):
        p = 1 / (1 + math.exp(-eps))
        rho = dp.zcdp_of_pure(eps).rho
        for alpha in (1.01, 1.5, 2.0, 8.0):
            moment = p**alpha * (1 - p) ** (1 - alpha) + (1 - p) ** alpha * p ** (1 - alpha)
            assert math.log(moment) / (alpha - 1) <= alpha * rho
