"""Sensitivity of strategies against all patterns of participation, by brute force."""

# mypy: allow-untyped-calls

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp import matrix
from dp.matrix import sensitivity
from dp.matrix.bandmf import SCALE, BandedStrategy


def patterns(told):
    """Every set of rounds that one client may be part of."""
    for size in range(1, told.most + 1):
        for rounds in itertools.combinations(range(told.rounds), size):
            gaps = np.diff(rounds)
            if (
                (gaps % told.separation == 0).all()
                if told.fixed
                else (gaps >= told.separation).all()
            ):
                yield list(rounds)


def by_force(measured, told):
    """(most that scalar clients of all signs move, most that sum |X| allows), squared."""
    gram = measured.T @ measured
    reached = allowed = 0.0
    for rounds in patterns(told):
        part = gram[np.ix_(rounds, rounds)]
        allowed = max(allowed, np.abs(part).sum())
        for signs in itertools.product([-1.0, 1.0], repeat=len(rounds) - 1):
            u = np.array([1.0, *signs])
            reached = max(reached, u @ part @ u)
    return reached, allowed


CASES = [
    matrix.single(9),
    matrix.min_separation(9, 3),
    matrix.min_separation(9, 4, 2),
    matrix.min_separation(9, 1, 3),
    matrix.min_separation(8, 1),
    matrix.min_separation(10, 3, 2),
    matrix.cyclic(9, 3),
    matrix.cyclic(10, 4),
    matrix.cyclic(10, 2).at_most(3),
]
IDS = [f"n{c.rounds}-b{c.separation}-k{c.most}{'-fixed' * c.fixed}" for c in CASES]


@pytest.mark.parametrize("told", CASES, ids=IDS)
@pytest.mark.parametrize("bands", [1, 2, 3, 5, 8])
def test_toeplitz_sensitivity_is_the_worst_of_all_patterns_and_signs(told, bands):
    strategy = matrix.banded(told, bands)
    reached, allowed = by_force(strategy.matrix(), told)
    found = strategy.sensitivity_sq(told)
    assert found == pytest.approx(reached, rel=1e-12)
    assert found == pytest.approx(allowed, rel=1e-12)


@pytest.mark.parametrize("told", CASES, ids=IDS)
def test_blt_sensitivity_is_the_worst_of_all_patterns_and_signs(told):
    strategy = matrix.blt(told, 2)
    reached, _ = by_force(strategy.matrix(), told)
    assert reached <= strategy.sensitivity_sq(told) <= reached * (1 + 1e-8) + 1


@pytest.mark.parametrize("told", CASES, ids=IDS)
def test_tree_sensitivity_is_never_below_the_worst_pattern(told):
    strategy = matrix.tree(told)
    reached, _ = by_force(strategy.matrix(), told)
    assert reached <= strategy.sensitivity_sq(told) <= 1.5 * reached
    if told.most == 1 or told.separation == 1:
        assert strategy.sensitivity_sq(told) <= 1.21 * reached


@pytest.mark.parametrize("told", CASES, ids=IDS)
@pytest.mark.parametrize("bands", [2, 3, 5])
def test_general_bands_are_exact_where_columns_are_apart_and_bounds_elsewhere(told, bands):
    rng = np.random.default_rng(bands)
    rows = rng.integers(-SCALE, SCALE, (told.rounds, bands))
    rows[:, 0] = rng.integers(1, SCALE, told.rounds)
    rows[np.arange(bands)[None, :] > np.arange(told.rounds)[:, None]] = 0
    strategy = BandedStrategy(told, rows)
    reached, allowed = by_force(strategy.matrix(), told)
    found = strategy.sensitivity_sq(told)
    assert found >= allowed * (1 - 1e-12) >= reached * (1 - 1e-9)
    if bands <= told.separation:
        assert found == pytest.approx(reached, rel=1e-12)
    assert found <= 3.0 * allowed


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.sampled_from(CASES))
def test_the_toeplitz_theorem_holds_for_every_column_that_does_not_increase(column, told):
    ordered = np.array(sorted([*column, 50], reverse=True), dtype=np.int64)
    strategy = BandedStrategy(told, ordered[None, :])
    reached, _ = by_force(strategy.matrix(), told)
    assert sensitivity.toeplitz_sq(ordered, told) == pytest.approx(reached, rel=1e-12)


def test_the_theorem_is_not_used_for_columns_that_increase_or_are_negative():
    """0, b, 2b, ... is then not the worst pattern: with (1, 0, 3) rounds 0 and 2 move more."""
    told = matrix.min_separation(4, 2)
    assert sensitivity.toeplitz_sq(np.array([1, 3]), told) is None
    assert sensitivity.toeplitz_sq(np.array([3, -1]), told) is None
    for column in ([1, 3, 3], [3, -1, 2], [2, 0, 0, 2]):
        strategy = BandedStrategy(told, np.array([column], dtype=np.int64))
        assert strategy.sensitivity_sq(told) >= by_force(strategy.matrix(), told)[1]
    told = matrix.min_separation(6, 1, 2)
    apart = BandedStrategy(told, np.array([[1, 0, 3]], dtype=np.int64))
    first = (apart.matrix()[:, [0, 1]].sum(axis=1) ** 2).sum()
    assert first == 20
    assert by_force(apart.matrix(), told)[0] == 26
    assert apart.sensitivity_sq(told) >= 26


def test_vectors_gain_nothing_over_scalars_of_the_best_signs():
    """Where X >= 0, equal vectors are the worst; random directions and lengths stay below."""
    told = matrix.min_separation(9, 2)
    rng = np.random.default_rng(3)
    for strategy in (matrix.banded(told, 5), matrix.blt(told, 2), matrix.tree(told)):
        bound = strategy.sensitivity_sq(told)
        for rounds in patterns(told):
            u = np.zeros((told.rounds, 3))
            u[rounds] = rng.normal(size=(len(rounds), 3))
            u[rounds] /= np.maximum(1.0, np.linalg.norm(u[rounds], axis=1, keepdims=True))
            assert ((strategy.matrix() @ u) ** 2).sum() <= bound * (1 + 1e-12)


@pytest.mark.parametrize("rounds", [257, 1024])
def test_more_participations_cost_more_and_one_costs_a_column(rounds):
    told = matrix.min_separation(rounds, rounds // 8, 8)
    for strategy in (
        matrix.banded(told, 16),
        matrix.banded(told, 200),
        matrix.blt(told, 4),
        matrix.tree(told),
    ):
        costs = [strategy.sensitivity_sq(told.at_most(k)) for k in range(1, 9)]
        assert costs == sorted(costs)
        column = (strategy.matrix() ** 2).sum(axis=0).max()
        assert costs[0] == pytest.approx(column, rel=1e-8)
    apart = matrix.banded(told, 16)
    assert apart.sensitivity_sq(told) == pytest.approx(8 * apart.sensitivity_sq(told.at_most(1)))
