"""Bounds from attacks: published figures, exact laws as oracles, and false alarms that are rare."""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import dp
from dp.auditing import (
    _middle,
    approximate_inverse,
    binomial_lower,
    gaussian_inverse,
    one_run_bound,
    one_run_p_value,
    refutes,
)

REPEATS = 2_000


def exact_tail(least: int, trials: int, prob: float) -> float:
    """P[Binomial >= least] by summation."""
    return math.fsum(
        math.comb(trials, k) * prob**k * (1 - prob) ** (trials - k)
        for k in range(least, trials + 1)
    )


def gaussian_epsilon(mu: float, delta: float) -> float:
    found = dp.epsilon(
        dp.GaussianEvent(1 / mu), delta, neighboring=dp.NeighboringRelation.ZERO_OUT,
        accountant="pld",
    )  # fmt: skip
    return found.upper


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "counting", "gaussian"),
    [  # of the authors' code, measured in another project
        (1000, 200, 180, 1e-5, 1.80, 2.90),
        (1000, 200, 180, 1e-3, 1.13, None),
        (5000, 500, 450, 1e-5, 1.94, 2.78),
        (5000, 500, 450, 1e-3, 0.21, None),
        (1000, 1000, 1000, 1e-5, 5.78, None),
    ],
)
def test_the_bounds_are_those_published(canaries, guesses, correct, delta, counting, gaussian):
    found = one_run_bound(canaries, guesses, correct, delta=delta, significance=0.05)
    assert found.epsilon_counting == pytest.approx(counting, abs=0.006)
    assert found.epsilon == max(found.epsilon_counting, found.epsilon_trade_off)
    if gaussian is not None:
        assert gaussian_epsilon(found.mu, delta) == pytest.approx(gaussian, abs=0.006)


@pytest.mark.parametrize(("m", "r", "v"), [(12, 12, 9), (12, 8, 7), (30, 10, 10), (5, 5, 0)])
def test_the_counting_bound_is_its_formula(m, r, v):
    epsilon, delta = 0.7, 1e-3
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    first = exact_tail(v, r, q)
    slope = max(((exact_tail(v - i, r, q) - first) / i for i in range(1, v + 1)), default=0.0)
    expected = min(1.0, first + 2 * m * delta * slope)
    found = one_run_p_value(m, r, v, epsilon=epsilon, delta=delta)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("trials", [6, 20])
@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 0.0), (1.0, 0.0), (1.0, 0.01), (0.0, 0.1)])
def test_no_mechanism_that_keeps_its_claim_is_refuted(trials, epsilon, delta):
    """Each coin shown with delta, else randomised response: exactly (epsilon, delta)-DP."""
    q = delta + (1 - delta) * math.exp(epsilon) / (1 + math.exp(epsilon))
    for correct in range(1, trials + 1):
        tail = exact_tail(correct, trials, q)
        claim = approximate_inverse(epsilon, delta)
        assert not refutes(trials, trials, correct, inverse=claim, significance=tail)
        p_value = one_run_p_value(trials, trials, correct, epsilon=epsilon, delta=delta)
        assert p_value >= tail * (1 - 1e-12)


def test_a_pure_claim_that_is_tight_is_refuted_just_above_its_tail():
    q = math.e / (1 + math.e)
    tail = exact_tail(18, 20, q)
    p_value = one_run_p_value(20, 20, 18, epsilon=1.0, delta=0.0)
    assert p_value == pytest.approx(tail, rel=1e-12)
    assert refutes(20, 20, 18, inverse=approximate_inverse(1.0, 0.0), significance=3 * tail)


def feasible(
    law: NDArray[np.float64], canaries: int, guesses: int, inverse: Callable[[float], float]
) -> bool:
    """Whether a law of correct guesses keeps every inequality of the claim, one by one."""
    counts = np.arange(guesses + 1)
    right, wrong = counts * law / canaries, (guesses - counts) * law / canaries
    return all(
        inverse(right[c:].sum()) <= wrong[c - 1 :].sum() + 1e-12 for c in range(1, guesses + 1)
    )


@pytest.mark.parametrize("inverse", [approximate_inverse(0.8, 0.02), gaussian_inverse(0.7)])
def test_no_law_that_keeps_the_inequalities_is_refuted(inverse):
    """Laws on a grid: the recursion's claim is about all of them at once."""
    canaries, guesses, steps = 6, 4, 12
    kept = 0
    for cuts in itertools.combinations_with_replacement(range(steps + 1), guesses):
        law = np.diff([0, *cuts, steps]) / steps
        if not feasible(law, canaries, guesses, inverse):
            continue
        kept += 1
        for correct in range(1, guesses + 1):
            tail = law[correct:].sum()
            if 0.0 < tail < 1.0:
                assert not refutes(canaries, guesses, correct, inverse=inverse, significance=tail)
    assert kept > 50


def test_inverses_undo_their_trade_off_functions():
    for epsilon, delta in [(0.0, 0.0), (0.5, 0.01), (3.0, 1e-5)]:
        inverse = approximate_inverse(epsilon, delta)
        for x in np.linspace(0, 1, 41):
            grown = min(
                1.0, delta + math.exp(epsilon) * x, 1 - math.exp(-epsilon) * (1 - delta - x)
            )
            assert inverse(grown) <= x + 1e-12
    # Phi(Phi^-1(0.2) - 1) and Phi(Phi^-1(0.999) - 2), to 30 digits.
    assert gaussian_inverse(1.0)(0.2) == pytest.approx(0.03276528645272375, rel=1e-11)
    assert gaussian_inverse(2.0)(0.999) == pytest.approx(0.8621945871016998, rel=1e-11)
    assert gaussian_inverse(1.0)(0.0) == 0.0
    assert gaussian_inverse(1.0)(1.0) == 1.0


def bounds_of(
    scores: NDArray[np.float64],
    coins: NDArray[np.bool_],
    guesses: int,
    delta: float,
    significance: float,
) -> Iterator[dp.OneRunAudit]:
    """The audits of many runs; runs with as many correct guesses share one."""
    known: dict[int, dp.OneRunAudit] = {}
    for row, present in zip(scores, coins, strict=True):
        count = correct_guesses(row, present, guesses)
        if count not in known:
            known[count] = dp.audit_one_run(
                row, present, num_guesses=guesses, delta=delta, significance=significance
            )
            assert known[count].correct == count
        yield known[count]


def correct_guesses(row: NDArray[np.float64], present: NDArray[np.bool_], guesses: int) -> int:
    distances = row - _middle(row)
    furthest = np.argsort(-np.abs(distances), kind="stable")[:guesses]
    return int((present[furthest] == (distances[furthest] > 0)).sum())


def test_the_middle_is_that_of_the_best_two_clusters():
    rng = np.random.default_rng(8)
    for _ in range(20):
        row = rng.normal(size=30) + 3 * (rng.random(30) < 0.5)
        ordered = np.sort(row)
        splits = [(ordered[:k], ordered[k:]) for k in range(1, 30)]
        low, high = min(
            splits, key=lambda two: two[0].size * two[0].var() + two[1].size * two[1].var()
        )
        assert _middle(row) == pytest.approx((low.mean() + high.mean()) / 2, rel=1e-12)
    assert _middle(np.array([3.0])) == 0.0


@pytest.mark.parametrize("guesses", [pytest.param(60, marks=pytest.mark.slow), 24])
def test_null_scores_give_no_bound(guesses):
    rng = np.random.default_rng(1)
    scores, coins = rng.normal(size=(REPEATS, 60)), rng.random((REPEATS, 60)) < 0.5
    for significance in (0.05, 0.01):
        found = list(bounds_of(scores, coins, guesses, 1e-5, significance))
        alarms = sum(audit.epsilon > 0 or audit.mu > 0 for audit in found)
        assert alarms <= significance * REPEATS


@pytest.mark.parametrize("guesses", [pytest.param(60, marks=pytest.mark.slow), 30])
def test_bounds_stay_below_what_randomised_response_leaks(guesses):
    rng = np.random.default_rng(2)
    coins = rng.random((REPEATS, 60)) < 0.5
    shown = coins ^ (rng.random(coins.shape) < 1 / (1 + math.e))  # exactly epsilon 1
    scores = shown + 1e-6 * rng.random(coins.shape)
    found = list(bounds_of(scores, coins, guesses, 1e-5, 0.05))
    assert sum(audit.epsilon > 1 for audit in found) <= 0.05 * REPEATS
    assert np.mean([audit.epsilon for audit in found]) > 0.2  # and are no constant zero


@pytest.mark.parametrize("guesses", [pytest.param(60, marks=pytest.mark.slow), 24])
def test_bounds_stay_below_what_gaussian_noise_leaks(guesses):
    rng, mu, delta = np.random.default_rng(3), 1.0, 1e-3
    coins = rng.random((REPEATS, 60)) < 0.5
    scores = mu * coins + rng.normal(size=coins.shape)
    found = list(bounds_of(scores, coins, guesses, delta, 0.05))
    truth = gaussian_epsilon(mu, delta)
    assert sum(audit.epsilon > truth for audit in found) <= 0.05 * REPEATS
    assert sum(audit.mu > mu for audit in found) <= 0.05 * REPEATS
    assert np.mean([audit.mu for audit in found]) > 0.1


def test_scores_that_stand_apart_are_all_guessed_right_however_the_coins_fell():
    present = np.arange(50) < 41
    found = dp.audit_one_run(
        10.0 * present + np.linspace(0, 1, 50),
        present,
        num_guesses=50,
        delta=0.0,
        significance=0.05,
    )
    assert found.correct == 50
    rate = 0.05 ** (1 / 50)
    assert found.epsilon == pytest.approx(math.log(rate / (1 - rate)), rel=1e-6)


def test_many_runs_stay_below_what_gaussian_noise_leaks():
    rng, mu, delta = np.random.default_rng(4), 1.0, 1e-3
    truth, over, total = gaussian_epsilon(mu, delta), 0, 0.0
    for _ in range(REPEATS):
        scores = rng.normal(size=(4, 100))
        scores[::2] += mu
        chosen = dp.choose_thresholds(scores[0], scores[1], delta=delta, significance=0.05)
        found = dp.audit_many_runs(
            scores[2], scores[3], thresholds=chosen, delta=delta, significance=0.05
        )
        over += found.epsilon > truth
        total += found.epsilon
    assert over <= 0.05 * REPEATS
    assert total / REPEATS > 0.3


def test_thresholds_share_the_significance():
    rng, places = np.random.default_rng(5), np.linspace(-2, 2, 41).tolist()
    alarms = 0
    for _ in range(REPEATS):
        scores = rng.normal(size=(2, 60))
        found = dp.audit_many_runs(
            scores[0], scores[1], thresholds=places, delta=0.0, significance=0.05
        )
        alarms += found.epsilon > 0
    assert alarms <= 0.05 * REPEATS
    one = dp.audit_many_runs([2.0] * 50, [0.0] * 50, thresholds=[1.0], delta=0.0, significance=0.05)
    two = dp.audit_many_runs(
        [2.0] * 50, [0.0] * 50, thresholds=[1.0, 1.5], delta=0.0, significance=0.05
    )
    assert two.epsilon < one.epsilon
    # All 50 of 50 on each side: each rate is at least 0.025^(1/50).
    rate = 0.025 ** (1 / 50)
    assert one.epsilon == pytest.approx(math.log(rate / (1 - rate)), rel=1e-8)


def test_clopper_pearson_bounds_have_the_tail_they_are_named_by():
    for successes, trials in [(1, 5), (3, 5), (5, 5), (40, 100)]:
        bound = float(binomial_lower(successes, trials, 0.05))
        assert exact_tail(successes, trials, bound) == pytest.approx(0.05, rel=1e-8)
    assert float(binomial_lower(0, 5, 0.05)) == 0.0


def test_the_estimate_is_near_the_truth_and_says_that_it_is_no_bound():
    rng, mu, delta = np.random.default_rng(6), 1.0, 1e-3
    found = [
        dp.estimate_one_shot(
            mu + rng.normal(size=5_000), rng.normal(size=5_000), delta=delta
        ).epsilon
        for _ in range(20)
    ]
    assert np.mean(found) == pytest.approx(gaussian_epsilon(mu, delta), rel=0.1)
    label = dp.estimate_one_shot([1.0, 2.0], [0.0, 1.0], delta=delta).label
    assert label == "estimate, not a bound"


@pytest.mark.parametrize(
    ("one", "two"), [((1.0, 1.0), (0.0, 1.0)), ((0.5, 2.0), (0.0, 1.0)), ((0.0, 1.0), (0.5, 2.0))]
)
def test_the_divergence_of_two_normal_laws_is_its_integral(one, two):
    x = np.linspace(-60, 60, 2_400_001)
    first, second = (
        np.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi)) for m, s in (one, two)
    )
    for epsilon in (0.0, 0.3, 1.5):
        integral = np.maximum(first - math.exp(epsilon) * second, 0).sum() * (x[1] - x[0])
        assert dp.estimates._normal_delta(one, two, epsilon) == pytest.approx(integral, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("scores", {"scores": [1.0, np.nan]}),
        ("present", {"present": [1, 0]}),
        ("present", {"present": [True]}),
        ("num_guesses", {"num_guesses": 3}),
        ("num_guesses", {"num_guesses": 0}),
        ("delta", {"delta": 1.0}),
        ("significance", {"significance": 0.0}),
    ],
)
def test_what_cannot_be_audited_is_refused(field, arguments):
    settings = {
        "scores": [1.0, 2.0], "present": [True, False], "num_guesses": 2, "delta": 0.0,
        "significance": 0.05,
    }  # fmt: skip
    with pytest.raises(dp.ParameterError) as caught:
        dp.audit_one_run(**{**settings, **arguments})
    assert caught.value.field == field


def test_many_runs_and_estimates_refuse_too_few_scores():
    with pytest.raises(dp.ParameterError):
        dp.audit_many_runs([], [1.0], thresholds=[0.0], delta=0.0, significance=0.05)
    with pytest.raises(dp.ParameterError):
        dp.audit_many_runs([1.0], [1.0], thresholds=[], delta=0.0, significance=0.05)
    with pytest.raises(dp.ParameterError):
        dp.estimate_one_shot([1.0, 1.0], [0.0, 1.0], delta=1e-3)
