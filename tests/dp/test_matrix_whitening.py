"""From released errors back to independent noise: what whitening is, and what tests make of it."""

# mypy: allow-untyped-calls, disable-error-code="arg-type, union-attr"

import math
from typing import Any

import numpy as np
import pytest

from dp import _laws, detectors, matrix

N = 21
TOLD = matrix.min_separation(N, 7)
ALL: dict[str, Any] = {
    "independent": matrix.banded(TOLD, 1),
    "toeplitz": matrix.banded(TOLD, 6),
    "wide": matrix.banded(TOLD, 15),
    "general": matrix.banded(TOLD, 5, toeplitz=False),
    "honaker": matrix.tree(TOLD),
    "plain": matrix.tree(TOLD, "plain"),
    "blt": matrix.blt(TOLD, 3),
}
each = pytest.mark.parametrize("strategy", ALL.values(), ids=ALL)


def streamed(strategy, noise):
    """The errors of all rounds, drawing `noise` row by row."""
    stream, rows = matrix.NoiseStream(strategy, noise.shape[1]), iter(noise)
    return np.stack([stream.advance(lambda: next(rows)) for _ in range(strategy.rounds)])


def drawn(strategy, dim, sigma=1e6, seed=0):
    rng = np.random.default_rng(seed)
    return np.rint(sigma * rng.normal(size=(strategy.measurements, dim))).astype(np.int64)


def fresh_of(strategy):
    """float64[n, m]: whitened errors as combinations of draws, from large units one by one."""
    units = 10**12 * np.eye(strategy.measurements, dtype=np.int64)
    errors = streamed(strategy, units)
    return strategy.whitening(errors).matrix @ errors / 1e12


@each
def test_whitened_errors_are_combinations_of_disjoint_draws(strategy):
    """So they are independent; coefficients are within 1 and give the variances."""
    fresh = fresh_of(strategy)
    fresh[np.abs(fresh) < 1e-6] = 0.0
    assert np.abs(fresh).max() <= 1.0 + 1e-8
    assert (np.count_nonzero(fresh, axis=0) <= 1).all()
    found = strategy.whitening(np.zeros((N, 1), np.int64)).variances
    np.testing.assert_allclose((fresh**2).sum(axis=1), found, rtol=1e-6)


@each
def test_rounding_stays_within_the_slack_and_comes_near_it(strategy):
    noise = drawn(strategy, 200)
    errors = streamed(strategy, noise)
    whitening = strategy.whitening(errors)
    fresh = fresh_of(strategy)
    fresh[np.abs(fresh) < 1e-6] = 0.0
    if not isinstance(strategy, matrix.TreeStrategy):
        np.testing.assert_allclose(fresh, np.eye(N), atol=1e-6)
        fresh = np.eye(N)
    off = np.abs(whitening.matrix @ errors - fresh @ noise).max(axis=1)
    assert (off <= whitening.slack + 1e-2).all()  # `fresh` of a tree is known to 1e-9
    if strategy is not ALL["plain"]:
        assert off.max() >= 0.3 * whitening.slack.max()


@each
def test_the_first_rounds_are_whitened_alike(strategy):
    errors = streamed(strategy, drawn(strategy, 3))
    whole, part = strategy.whitening(errors), strategy.whitening(errors[:9])
    np.testing.assert_array_equal(part.matrix, whole.matrix[:9, :9])
    np.testing.assert_array_equal(part.variances, whole.variances[:9])


@each
def test_honest_noise_passes_and_half_of_it_does_not(strategy):
    for sigma, honest in ((1e6, True), (0.5e6, False)):
        errors = streamed(strategy, drawn(strategy, 50, sigma, seed=2))
        whitening = strategy.whitening(errors)
        found = detectors.too_little_noise(
            whitening.matrix @ errors, (1e12 * whitening.variances).tolist(),
            whitening.slack.tolist(),
        )  # fmt: skip
        assert (found.p_value > 0.01) is honest


def test_noise_that_rounding_could_hide_is_not_held_against_it():
    """Rounding to a scale far above sigma may leave nothing: no alarm, with the slack; else one."""
    strategy = ALL["toeplitz"]
    errors = streamed(strategy, drawn(strategy, 50, sigma=100.0, seed=3))
    assert not errors.any()
    whitening = strategy.whitening(errors)
    noise, variances = whitening.matrix @ errors, (1e4 * whitening.variances).tolist()
    told = detectors.too_little_noise(noise, variances, whitening.slack.tolist())
    assert told.p_value == 1.0
    assert detectors.too_little_noise(noise, variances).p_value < 1e-9
    rounds = detectors.dependent_noise(noise, variances, "rounds", whitening.slack.tolist())
    assert rounds.p_value == 1.0


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 1.9, 2.0, 2.1, 50.0])
def test_the_variance_of_discrete_gaussians_is_that_of_their_law(sigma):
    x = np.arange(-math.ceil(40 * sigma + 9), math.ceil(40 * sigma + 10)).astype(np.float64)
    mass = np.exp(-0.5 * (x / sigma) ** 2)
    exact = float((x * x * mass).sum() / mass.sum())
    assert _laws.discrete_gaussian_variance(sigma) == pytest.approx(exact, rel=1e-12)
