"""Cohorts: who takes part, and the bound on participations that noise is sized for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl import cohort


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_no_client_exceeds_the_promised_participations(
    num_clients: int, size: int, rounds: int, seed: int
) -> None:
    schedule = cohort.cyclic(min(size, num_clients))
    counts = np.zeros(num_clients, dtype=int)
    for t in range(rounds):
        members = schedule.members(t, num_clients, seed)
        assert len(members) == schedule.count(num_clients) == len(set(members.tolist()))
        assert (np.diff(members) > 0).all()
        counts[members] += 1
    assert counts.max() == schedule.max_participations(rounds, num_clients)
    assert counts.max() - counts.min() <= 1


def test_full_invites_everybody() -> None:
    assert cohort.full().members(3, 5, 0).tolist() == [0, 1, 2, 3, 4]
    assert cohort.full().max_participations(7, 5) == 7


def test_cyclic_order_depends_on_the_seed_alone() -> None:
    first = [cohort.cyclic(4).members(t, 20, 1).tolist() for t in range(5)]
    again = [cohort.cyclic(4).members(t, 20, 1).tolist() for t in range(5)]
    other = [cohort.cyclic(4).members(t, 20, 2).tolist() for t in range(5)]
    assert first == again != other
    assert sorted(np.concatenate(first).tolist()) == list(range(20))


@pytest.mark.parametrize("size", [0, -1, 6])
def test_sizes_outside_the_population_are_faults(size: int) -> None:
    (line,) = cohort.cyclic(size).faults(5, 1)
    assert line == f"cohort: got {size}; takes an integer, 1 to 5"
    assert not cohort.cyclic(5).faults(5, 1)


@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 6), st.integers(0, 2**63 - 1))
def test_fixed_cohorts_fill_every_round_that_the_participations_allow(
    num_clients: int, size: int, limit: int, seed: int
) -> None:
    size = min(size, num_clients)
    schedule, rounds = cohort.fixed(size, limit), num_clients * limit // size
    assert not schedule.faults(num_clients, rounds)
    assert schedule.faults(num_clients, num_clients * limit // size + 1)
    counts = np.zeros(num_clients, dtype=int)
    for t in range(rounds):
        members = schedule.members(t, num_clients, seed)
        assert len(members) == size == len(set(members.tolist()))
        counts[members] += 1
    assert counts.max() <= min(limit, schedule.max_participations(rounds, num_clients))


def test_fixed_draws_are_uniform_while_nobody_is_short_of_participations() -> None:
    """4,000 cohorts of 5 of 20: five standard errors of 0.25 are 0.034."""
    seen = np.zeros(20)
    for seed in range(4000):
        seen[cohort.fixed(5, 100).members(0, 20, seed)] += 1
    np.testing.assert_allclose(seen / 4000, 0.25, atol=0.035)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 6), st.integers(0, 2**63 - 1))
def test_separated_clients_sit_out(num_clients: int, size: int, separation: int, seed: int) -> None:
    schedule = cohort.separated(size, separation)
    if size * separation > num_clients:
        assert schedule.faults(num_clients, 20)
        return
    last = np.full(num_clients, -separation)
    counts = np.zeros(num_clients, dtype=int)
    for t in range(20):
        members = schedule.members(t, num_clients, seed)
        assert len(members) == size == len(set(members.tolist()))
        assert (t - last[members] >= separation).all()
        last[members] = t
        counts[members] += 1
    assert counts.max() <= schedule.max_participations(20, num_clients) <= -(-20 // separation)


def test_public_draws_repeat_by_seed_and_in_any_order() -> None:
    for schedule in (cohort.fixed(4, 3), cohort.separated(4, 3)):
        forward = [schedule.members(t, 20, 5).tolist() for t in range(10)]
        cohort._history.cache_clear()
        assert schedule.members(7, 20, 5).tolist() == forward[7]
        assert schedule.members(2, 20, 5).tolist() == forward[2]
        assert [schedule.members(t, 20, 6).tolist() for t in range(10)] != forward


def test_poisson_members_follow_secret_coins() -> None:
    schedule = cohort.poisson(0.3)
    coins = np.random.default_rng(0).bytes
    first, second = (schedule.members(0, 1000, 1, coins) for _ in range(2))
    assert first.tolist() != second.tolist()
    assert (np.diff(first) > 0).all()
    assert 200 < len(first) < 400
    with pytest.raises(AssertionError):
        schedule.members(0, 1000, 1)


def test_poisson_inclusions_are_independent_of_each_other() -> None:
    """Pairs of clients are drawn together as often as independent coins say, unlike in batches.

    The sum over all pairs is the variance of the cohort's size; a batch of fixed size has 0, and
    shuffling has negative covariances. 5 standard errors, 190 pairs: false alarm 1e-4.
    """
    schedule, coins = cohort.poisson(0.3), np.random.default_rng(4).bytes
    drawn = np.zeros((4000, 20))
    for t in range(4000):
        drawn[t, schedule.members(t, 20, 1, coins)] = 1.0
    variance = 0.3 * 0.7
    covariance = np.cov(drawn.T) - variance * np.eye(20)
    off = covariance[np.triu_indices(20, 1)]
    assert np.abs(off).max() < 5 * variance / math.sqrt(4000)
    assert abs(drawn.sum(1).var() / (20 * variance) - 1) < 5 * math.sqrt(2 / 4000)


@pytest.mark.parametrize(("trials", "prob"), [(50, 0.3), (200, 0.05), (1000, 0.5)])
@pytest.mark.parametrize("failure", [0.2, 1e-3, 1e-9])
def test_likely_counts_are_missed_less_often_than_said(
    trials: int, prob: float, failure: float
) -> None:
    low, high = cohort.likely_counts(trials, prob, failure)
    mass = [
        math.comb(trials, k) * prob**k * (1 - prob) ** (trials - k)
        for k in range(trials + 1)
        if not low <= k <= high
    ]
    assert math.fsum(mass) <= failure
    assert low > 0.3 * trials * prob - 25
    assert high < 3 * trials * prob + 25


@pytest.mark.parametrize("prob", [0.0, 1.0, -0.5, float("nan")])
def test_probabilities_are_checked(prob: float) -> None:
    (line,) = cohort.poisson(prob).faults(1000, 5)
    assert line.startswith("cohort: ")


def test_cohorts_that_might_be_empty_are_refused() -> None:
    (line,) = cohort.poisson(0.1).faults(50, 5)
    assert "more" in line
    assert not cohort.poisson(0.5).faults(200, 5)


def test_only_secret_coins_count_and_only_for_outsiders() -> None:
    public = [cohort.full(), cohort.cyclic(3), cohort.fixed(3, 2), cohort.separated(3, 2)]
    for adversary in ("server", "participants", "outsider"):
        assert not any(schedule.amplifies(adversary) for schedule in public)
        assert cohort.poisson(0.5).amplifies(adversary) == (adversary == "outsider")
