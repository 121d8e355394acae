"""From released errors back to independent noise: what whitening is, and what tests make of it."""

# mypy: allow-untyped-calls, disable-error-code="arg-type, union-attr"

import math

import numpy as np
import pytest

from dp import _laws, detectors, matrix
from tests.dp.strategies import ALL, N, draws, each, streamed


def fresh_of(strategy):
    """float64[n, m]: whitened errors as combinations of draws, from large units one by one."""
    units = 10**12 * np.eye(strategy.measurements, dtype=np.int64)
    errors, _ = streamed(strategy, units)
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
    noise = draws(strategy, 200)
    errors, _ = streamed(strategy, noise)
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
    errors, _ = streamed(strategy, draws(strategy, 3))
    whole, part = strategy.whitening(errors), strategy.whitening(errors[:9])
    np.testing.assert_array_equal(part.matrix, whole.matrix[:9, :9])
    np.testing.assert_array_equal(part.variances, whole.variances[:9])


@each
def test_honest_noise_passes_and_half_of_it_does_not(strategy):
    for sigma, honest in ((1e6, True), (0.5e6, False)):
        errors, _ = streamed(strategy, draws(strategy, 50, sigma, seed=2))
        whitening = strategy.whitening(errors)
        found = detectors.too_little_noise(
            whitening.matrix @ errors, (1e12 * whitening.variances).tolist(),
            whitening.slack.tolist(),
        )  # fmt: skip
        assert (found.p_value > 0.01) is honest


def test_noise_that_rounding_could_hide_is_not_held_against_it():
    """Rounding to a scale far above sigma may leave nothing: no alarm, with the slack; else one."""
    strategy = ALL["toeplitz"]
    errors, _ = streamed(strategy, draws(strategy, 50, sigma=100.0, seed=3))
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
