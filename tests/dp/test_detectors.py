"""Detectors: honest noise rarely alarms, each bug does, and each null law's premise is true."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

import dp
from dp import detectors

REPEATS = 2_000
Floats = NDArray[np.float64]


def moments(law: tuple[Floats, Floats]) -> tuple[float, ...]:
    x, mass = law
    return tuple(float((mass * x**k).sum()) for k in (2, 4))


def gaussian_law(sigma: float) -> tuple[Floats, Floats]:
    x = np.arange(-math.ceil(12 * sigma), math.ceil(12 * sigma) + 1).astype(np.float64)
    mass = np.exp(-0.5 * (x / sigma) ** 2)
    return x, mass / mass.sum()


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 3.0, 20.0])
def test_discrete_gaussians_keep_what_the_laws_assume(sigma):
    x, mass = gaussian_law(sigma)
    second, fourth = moments((x, mass))
    assert fourth <= 3 * second**2 + second * (1 + 1e-9)
    for s in (0.01, 0.3, 1.0, 2.0):
        log_moment = math.log(float((mass * np.cosh(s * x)).sum()))
        assert log_moment <= sigma**2 * (math.cosh(s) - 1) * (1 + 1e-9) + 1e-15
        assert log_moment <= second * (math.cosh(s) - 1) * (1 + 1e-9) + 1e-15


def test_honest_noise_rarely_alarms():
    """Skellam noise of small variance, the heaviest tails: each test keeps its significance."""
    rng, variance, alarms = np.random.default_rng(1), 0.5, np.zeros(3)
    for _ in range(REPEATS):
        noise = rng.poisson(variance / 2, (3, 40)) - 1.0 * rng.poisson(variance / 2, (3, 40))
        direction = np.eye(40)[0]
        p_values = [
            detectors.too_little_noise(noise, [variance] * 3).p_value,
            detectors.repeated_noise(noise, [variance] * 3, "rounds").p_value,
            detectors.beyond_bound(float((noise @ direction).sum()), 0.0, 3 * variance).p_value,
        ]
        alarms += [p <= 0.05 for p in p_values]
    assert (alarms <= 0.05 * REPEATS).all()
    assert alarms.any()  # the laws are bounds, and no test is so blunt that nothing could alarm


def test_noise_that_is_too_small_alarms():
    rng = np.random.default_rng(2)
    noise = np.rint(rng.normal(scale=50.0, size=(2, 100)))
    assert detectors.too_little_noise(noise, [2500.0, 2500.0]).p_value > 0.01
    assert detectors.too_little_noise(noise, [10_000.0, 10_000.0]).p_value < 1e-6
    assert detectors.too_little_noise(0 * noise, [1.0, 1.0]).p_value < 1e-6


def test_noise_that_is_used_twice_alarms():
    rng = np.random.default_rng(3)
    noise = np.rint(rng.normal(scale=50.0, size=(5, 100)))
    assert detectors.repeated_noise(noise, [2500.0] * 5, "rounds").p_value > 0.01
    noise[4] = noise[1]
    found = detectors.repeated_noise(noise, [2500.0] * 5, "rounds")
    assert found.p_value < 1e-4
    assert "rounds" in found.name


def test_the_chernoff_exponent_is_the_best_one():
    for excess, variance in [(1.0, 0.5), (30.0, 100.0), (40.0, 2.0)]:
        s = np.linspace(0, 8, 200_001)
        best = float((s * excess - variance * (np.cosh(s) - 1)).max())
        assert -math.log(
            detectors.beyond_bound(excess, 0.0, variance).p_value
        ) == pytest.approx(best, rel=1e-6)  # fmt: skip
    assert detectors.beyond_bound(-1.0, 0.0, 1.0).p_value == 1.0


@pytest.mark.slow
def test_sizes_of_poisson_cohorts_pass_and_fixed_ones_alarm():
    rng, alarms = np.random.default_rng(4), 0
    for _ in range(400):
        sizes = rng.binomial(40, 0.3, size=6).tolist()
        alarms += detectors.regular_sizes(sizes, 40, 0.3).p_value <= 0.05
    assert 0 < alarms <= 0.05 * 400
    assert detectors.regular_sizes([12] * 6, 40, 0.3).p_value < 1e-4


def test_the_chance_of_even_sizes_is_exact():
    inside = sum(math.comb(10, k) * 0.3**k * 0.7 ** (10 - k) for k in (2, 3, 4))
    found = detectors.regular_sizes([2, 4, 3], 10, 0.3).p_value
    assert found == pytest.approx(inside**3, rel=1e-12)


def test_cohorts_that_are_drawn_anew_pass_and_others_alarm():
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(200):
        alarms += detectors.repeated_cohorts(rng.random((5, 40)) < 0.3, 0.3).p_value <= 0.05
    assert 0 < alarms <= 0.05 * 200
    same = np.repeat(rng.random((1, 80)) < 0.3, 5, axis=0)
    assert detectors.repeated_cohorts(same, 0.3).p_value < 0.01
    turns = np.arange(200) // 40 == np.arange(5)[:, None]
    assert detectors.repeated_cohorts(turns, 0.2).p_value < 0.01


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("noise", lambda: detectors.too_little_noise(np.zeros(3), [1.0])),
        ("noise", lambda: detectors.too_little_noise(np.zeros((2, 3)), [1.0])),
        ("variances", lambda: detectors.too_little_noise(np.zeros((1, 3)), [0.0])),
        ("shares", lambda: detectors.repeated_noise(np.zeros((1, 3)), [1.0], "x")),
        ("projection", lambda: detectors.beyond_bound(math.nan, 0.0, 1.0)),
        ("variance", lambda: detectors.beyond_bound(0.0, 0.0, 0.0)),
        ("sizes", lambda: detectors.regular_sizes([], 10, 0.5)),
        ("sizes", lambda: detectors.regular_sizes([11], 10, 0.5)),
        ("members", lambda: detectors.repeated_cohorts(np.zeros((1, 4), dtype=bool), 0.5)),
        ("prob", lambda: detectors.repeated_cohorts(np.zeros((2, 4), dtype=bool), 1.0)),
    ],
    ids=itertools.count(),
)
def test_what_cannot_be_tested_is_refused(field, call):
    with pytest.raises(dp.ParameterError) as caught:
        call()
    assert caught.value.field == field
