"""Detectors: honest noise rarely alarms, each bug does, and each null law's premise is true."""

# mypy: allow-untyped-calls

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
    for s in (0.01, 0.3, 1.0, 2.0, 5.0, 12.0):
        far = np.arange(-x[-1], math.ceil(sigma**2 * s) + x[-1] + 1)  # e^(sx) moves the mean there
        tilted, plain = (s * far - 0.5 * (far / sigma) ** 2, -0.5 * (x / sigma) ** 2)
        log_moment = np.logaddexp.reduce(tilted) - np.logaddexp.reduce(plain)
        assert log_moment <= second * (math.cosh(s) - 1) * (1 + 1e-9) + 1e-15


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 3.0])
def test_discrete_gaussians_are_sums_of_differences_of_coins(sigma):
    """Jacobi's triple product, which docs/privacy.md rests on: 400 factors, convolved."""
    odds = np.exp(-(2 * np.arange(1, 401) - 1) / (2 * sigma**2))
    step = odds / (1 + odds) ** 2  # P[1] = P[-1] of the difference of two coins
    size = 512
    circle = np.cos(2 * np.pi * np.arange(size // 2 + 1) / size)
    law = np.fft.fftshift(np.fft.irfft(np.prod(1 + 2 * np.outer(step, circle - 1), axis=0), size))
    x, mass = gaussian_law(sigma)
    np.testing.assert_allclose(law[size // 2 + x.astype(int)], mass, atol=1e-15)


def test_honest_noise_rarely_alarms():
    """Skellam noise of small variance, the heaviest tails: each test keeps its significance."""
    rng, variance, alarms = np.random.default_rng(1), 0.5, np.zeros(3)
    for _ in range(REPEATS):
        noise = rng.poisson(variance / 2, (3, 40)) - 1.0 * rng.poisson(variance / 2, (3, 40))
        direction = np.eye(40)[0]
        p_values = [
            detectors.too_little_noise(noise, [variance] * 3).p_value,
            detectors.dependent_noise(noise, [variance] * 3, "rounds").p_value,
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


LAWS = {  # name -> (variance, draws of a shape)
    "skellam 0.1": (0.1, lambda rng, shape: rng.poisson(0.05, shape) - rng.poisson(0.05, shape)),
    "skellam 200": (200.0, lambda rng, shape: rng.poisson(100, shape) - rng.poisson(100, shape)),
    "gaussian": (
        moments(gaussian_law(0.7))[0],
        lambda rng, shape: rng.choice(gaussian_law(0.7)[0], shape, p=gaussian_law(0.7)[1]),
    ),
    "coins": (7.0, lambda rng, shape: 2 * rng.binomial(7, 0.5, shape) - 7),
}


@pytest.mark.parametrize("law", LAWS)
def test_independent_rows_rarely_alarm(law):
    """Each of 2,000 sets of four rows at 5 %; the bound is a bound, not idle."""
    variance, draw = LAWS[law]
    rng = np.random.default_rng(6)
    noise = draw(rng, (REPEATS, 4, 60)).astype(np.float64)
    found = [detectors.dependent_noise(rows, [variance] * 4, "rounds").p_value for rows in noise]
    assert sum(p <= 0.05 for p in found) <= 0.05 * REPEATS
    assert min(found) <= 0.05


@pytest.mark.parametrize("share", [-1.0, -0.75, -0.5, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("part", ["all", "half"])
@pytest.mark.parametrize("law", ["skellam 200", "coins"])
def test_rows_that_depend_on_each_other_alarm(share, part, law):
    """Repeated, negated, mixed a z_1 + sqrt(1 - a^2) z_4, or that in every second coordinate.

    A correlation of 1/4 in 800 coordinates has an exponent of 25, of 7 deviations.
    """
    variance, draw = LAWS[law]
    rng = np.random.default_rng(3)
    noise = draw(rng, (5, 800)).astype(np.float64)
    variances = [variance] * 5
    assert detectors.dependent_noise(noise, variances, "rounds").p_value > 0.01
    there = slice(None, None, 1 if part == "all" else 2)
    fresh = math.sqrt(1 - share**2) * noise[4, there]
    noise[4, there] = np.rint(share * noise[1, there] + fresh)
    found = detectors.dependent_noise(noise, variances, "rounds")
    assert found.p_value < 1e-4
    assert found.name == "dependent noise of rounds"


def test_what_rounding_adds_is_not_held_against_rows():
    """Rounding may push rows together or apart; p-values are at least those of what was drawn."""
    rng = np.random.default_rng(7)
    drawn = rng.poisson(100, (3, 500)) - 1.0 * rng.poisson(100, (3, 500))
    drawn[2] += 0.5 * drawn[0]
    slack, variances = [1.0, 0.0, 3.0], [200.0] * 3
    honest = detectors.dependent_noise(drawn, variances, "rounds").p_value
    signs = np.array([[a, 0.0, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    rounded = [drawn + np.array(slack)[:, None] * s[:, None] * np.sign(drawn[::-1]) for s in signs]
    told = [detectors.dependent_noise(rows, variances, "rounds", slack).p_value for rows in rounded]
    untold = [detectors.dependent_noise(rows, variances, "rounds").p_value for rows in rounded]
    assert min(told) >= honest > 1e3 * min(untold)
    assert min(told) < 1e-6


def test_the_bound_of_products_is_the_best_of_its_kind():
    """Against the formula, its Chernoff parameter on a grid: all pairs, two tails."""
    rng = np.random.default_rng(9)
    rows = rng.poisson(3, (3, 30)) - 1.0 * rng.poisson(3, (3, 30))
    rows[2] += rows[0]
    variances, slack, least = [6.0, 8.0, 13.0], [0.2, 0.1, 0.3], math.inf
    s = np.linspace(0, 3, 300_001)
    for i, j in itertools.combinations(range(3), 2):
        product = abs(rows[i] @ rows[j]) - 30 * slack[i] * slack[j]
        product -= slack[i] * np.abs(rows[j]).sum() + slack[j] * np.abs(rows[i]).sum()
        most = np.abs(rows[i]).max() + slack[i]
        norm = math.sqrt(rows[i] @ rows[i]) + slack[i] * math.sqrt(30)
        log_moment = variances[j] * (norm / most) ** 2 * (np.cosh(s * most) - 1)
        least = min(least, math.exp(float((log_moment - s * product).min())))
    found = detectors.dependent_noise(rows, variances, "rounds", slack).p_value
    assert found == pytest.approx(2 * 3 * least, rel=1e-5)
    assert found < 0.1


def test_rows_of_zeros_depend_on_nothing():
    assert detectors.dependent_noise(np.zeros((2, 5)), [1.0, 1.0], "rounds").p_value == 1.0


def test_all_pairs_are_compared_across_blocks(monkeypatch):
    """Products, l1 and linf norms against the plain formula."""
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(6, 100))
    monkeypatch.setattr(detectors, "_BLOCK", 7)
    products, sizes, largest = detectors._products(rows)
    np.testing.assert_allclose(products, rows @ rows.T)
    np.testing.assert_allclose(sizes, np.abs(rows).sum(axis=1))
    np.testing.assert_array_equal(largest, np.abs(rows).max(axis=1))


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
        ("noise", lambda: detectors.too_little_noise(np.array([[0.0, math.nan]]), [1.0])),
        ("noise", lambda: detectors.dependent_noise(np.full((2, 3), math.inf), [1.0] * 2, "x")),
        ("noise", lambda: detectors.dependent_noise(np.zeros((1, 3)), [1.0], "x")),
        ("slack", lambda: detectors.dependent_noise(np.zeros((2, 3)), [1.0] * 2, "x", [1.0])),
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
