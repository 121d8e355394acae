"""Laws on grids under the intervals: sides they lie on, transforms, windows, what is beyond."""

# Helpers are untyped like the tests.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import itertools
import math

import numpy as np
import pytest

import dp
from dp.accountants import fourier, grid, knots, pairs

ADD_REMOVE = dp.NeighboringRelation.ADD_REMOVE


def potential(law, losses):
    """delta(l) of a discrete law, straight from its definition; what is beyond is one point."""
    gains = np.maximum(-np.expm1(losses[:, None] - law.losses[None, :]), 0.0)
    return gains @ law.masses + np.maximum(law.infinite - np.exp(losses) * law.other, 0.0)


def cells(pair, step, growth):
    """Cells over the pair's losses, wider by the factor `growth` per two cells from its middle."""
    loss, weight = pair.points(1e-9)
    order = np.argsort(loss)
    loss, weight = loss[order], weight[order]
    middle = np.array([knots.densest(loss, weight, step)])
    offset = float(knots.placed([pair], middle, step)[0]) - 1e-9 * step
    wanted = step * growth ** (np.abs(loss - offset) / (2 * step))
    return knots.graded(loss, np.minimum(wanted, 50 * step), step, offset)


@pytest.mark.parametrize("way", ["remove", "add"])
@pytest.mark.parametrize(("q", "mu"), [(0.01, 1.0), (1.0, 0.5), (1e-4, 2.0), (0.3, 3.0)])
@pytest.mark.parametrize("count", [7, 60, 400])
@pytest.mark.parametrize("growth", [1.0, 1.3, 3.0])
def test_grid_laws_lie_on_their_sides_of_the_curve(way, q, mu, count, growth):
    """The property that carries the certificate, at points on and off the grid."""
    pair = pairs.SampledPair(pairs.GaussianShift(mu), q, way)
    loss, _ = pair.points(1e-9)
    low, high = float(loss.min()), float(loss.max())
    made = cells(pair, (high - low) / count, growth)
    assert np.all(np.diff(made.edges) % 2 == 1)
    assert np.diff(made.edges).min() > 0
    check = np.linspace(low - (high - low) / 4, high + (high - low) / 4, 3001)
    exact = pair.curve(check)
    slack = 1e-13 * (exact.delta + 1e-3)
    assert np.all(potential(grid.upper_law(pair, made, 1), check) >= exact.delta - slack)
    lower = grid.lower_law(pair, made, 1)
    assert np.all(potential(lower, check) <= exact.delta + slack)
    assert lower.masses.min() >= 0.0
    assert lower.masses.sum() > 0.9 * (1.0 - exact.tail[-1]) - 1e-3


@pytest.mark.parametrize("shift", [0.3, -0.4, 0.6])
def test_lower_laws_are_valid_wherever_the_borders_are(shift):
    """Cells that miss the mass, and a grid whose origin is beside it, cost tightness only."""
    pair = pairs.SampledPair(pairs.GaussianShift(2.0), 1e-3, "remove")
    made = cells(pair, 0.01, 1.2)
    moved = knots.Knots(made.step, made.offset + shift * made.step, made.edges)
    check = np.linspace(-0.5, 9.0, 4001)
    exact = pair.curve(check)
    law = grid.lower_law(pair, moved, 1)
    assert np.all(potential(law, check) <= exact.delta * (1 + 1e-12) + 1e-17)
    assert law.masses.sum() > 0.99


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("way", ["remove", "add"])
def test_laws_that_end_early_keep_both_masses_of_what_is_beyond(way, share):
    """Cells over part of the losses only: the rest is a point (lower) or split (upper)."""
    pair = pairs.SampledPair(pairs.GaussianShift(1.7), 1e-3, way)
    made = cells(pair, 0.002, 1.1)
    kept = made.edges[made.at(made.edges) <= share]
    cut = knots.Knots(made.step, made.offset, kept)
    check = np.linspace(-0.2, 12.0, 4001)
    exact = pair.curve(check).delta
    lower, upper = grid.lower_law(pair, cut, 1), grid.upper_law(pair, cut, 1)
    assert np.all(potential(lower, check) <= exact * (1 + 1e-12) + 1e-17)
    assert np.all(potential(upper, check) >= exact * (1 - 1e-12) - 1e-17)
    if way == "remove":
        assert lower.infinite > 1e-6
        near = check[check < cut.at(kept[-1:])[0]]
        assert potential(lower, near)[-1] > 0.99 * pair.curve(near).delta[-1]


def test_what_is_beyond_the_points_of_three_laws_is_counted_in_all_their_outcomes():
    """Against all outcomes, one by one."""
    index = np.arange(3)
    laws = [
        grid.GridLaw(0.1, 0.0, index, np.array([0.5, 0.3, 0.1]), 0.1, 2, 0.04),
        grid.GridLaw(0.1, -0.1, index, np.array([0.2, 0.6, 0.15]), 0.05, 1, 0.02),
    ]
    points = [
        [(m, m * math.exp(-loss), False) for m, loss in zip(law.masses, law.losses, strict=True)]
        + [(law.infinite, law.other, True)]
        for law in (laws[0], *laws)
    ]
    mass = other = 0.0
    for outcome in itertools.product(*points):
        if any(beyond for _, _, beyond in outcome):
            mass += math.prod(p for p, _, _ in outcome)
            other += math.prod(q for _, q, _ in outcome)
    found = around(laws, 1.0, -0.5, 1.0).beyond
    assert found.mass == pytest.approx(mass, rel=1e-12)
    assert found.other == pytest.approx(other, rel=1e-12)
    assert mass - math.exp(0.3) * other >= found.least(0.3) > 0.99 * (mass - math.exp(0.3) * other)
    assert found.least(5.0) == 0.0


def test_transforms_keep_the_stated_error():
    rng = np.random.default_rng(1)
    for size in (16, 1024, 1 << 16):
        x = rng.exponential(size=size) ** 4
        exact = np.fft.rfft(x.astype(np.longdouble))
        error = np.abs(np.fft.rfft(x) - exact)
        norm = math.sqrt(size) * float(np.sqrt(x @ x))
        assert float(np.sqrt((error**2).sum() * 2)) <= 8 * 2.0**-53 * math.log2(size) * norm
        back = np.abs(np.fft.irfft(np.fft.rfft(x), size) - x)
        assert float(np.sqrt(back @ back)) <= 16 * 2.0**-53 * math.log2(size) * float(
            np.sqrt(x @ x)
        )


def around(law, theta, low, high):
    laws = law if isinstance(law, list) else [law]
    tails = fourier.Tails.of(lambda t: fourier.composed_moments(laws, t), theta, 2.0)
    return fourier.compose(laws, theta, tails, low, high)


def test_window_and_noise_are_charged():
    pair = pairs.SampledPair(pairs.GaussianShift(1.0), 1.0, "remove")
    law = grid.upper_law(pair, cells(pair, 0.05, 1.0), 4)
    wide = around(law, 1.5, -60.0, 80.0)
    for low, high in ((5.0, 9.0), (-10.0, 6.2), (4.0, 30.0)):
        narrow = around(law, 1.5, low, high)
        # A circle that is far too short gives worse ends, never a violated one.
        for epsilon in (5.5, 6.0, 7.0):
            truth = wide.delta(epsilon, upper=True)
            assert narrow.delta(epsilon, upper=True) >= truth * (1 - 1e-6)
            assert narrow.delta(epsilon, upper=False) <= truth


def test_sums_over_blocks_are_plain_sums():
    rng = np.random.default_rng(3)
    law = around(
        grid.GridLaw(0.01, 0.0, np.arange(1500), rng.dirichlet(np.ones(1500)), 0.0, 1),
        2.0,
        -1.0,
        40.0,
    )
    points = law.first + law.step * np.arange(law.tilted.size)
    for epsilon in (-0.505, 0.003, 1.234, 7.777, 14.983, 20.001):
        x = points[points > epsilon] - epsilon
        kept = law.tilted[points > epsilon] * np.exp(-2.0 * x)
        plain, gain = law._sums(epsilon)
        assert plain == pytest.approx(kept.sum(), rel=1e-12, abs=1e-300)
        assert gain == pytest.approx((kept * -np.expm1(-x)).sum(), rel=1e-12, abs=1e-300)
