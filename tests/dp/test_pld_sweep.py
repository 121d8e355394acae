"""Privacy loss distributions over the whole range of settings: order, bounds, memory.

The range is that of the documented claims: sampling probabilities 1e-6 to 1, noise multipliers
0.2 to 100, up to a million releases, delta 1e-12 to 1e-3.
"""

# Helpers are untyped like the tests.
# mypy: allow-untyped-calls

import itertools
import math
import tracemalloc

import numpy as np
import pytest

import dp
from dp.accountants import pairs, pld

ADD_REMOVE = dp.NeighboringRelation.ADD_REMOVE
MOST_BYTES = 256 << 20  # of one query, at its peak
SAMPLE = 300
PARTS = 10

# Ascending in epsilon along every axis.
AXES = (
    (1e-6, 1e-4, 1e-2, 0.3, 1.0),
    (100.0, 10.0, 2.0, 0.7, 0.2),
    (1, 100, 10_000, 1_000_000),
    (1e-3, 1e-6, 1e-12),
)
FEW = ((1e-4, 1e-2, 1.0), (10.0, 0.7), (1, 10_000), (1e-3, 1e-9))


def sampled(q, sigma, count=1):
    inner = dp.GaussianEvent(sigma)
    return dp.SelfComposedEvent(dp.PoissonSampledEvent(q, inner) if q < 1 else inner, count)


def spent(q, sigma, count, delta, accountant="pld"):
    event = sampled(q, sigma, count)
    return dp.epsilon(event, delta, neighboring=ADD_REMOVE, accountant=accountant)


def check(setting, found):
    """What holds of any interval by itself, and next to that of Rényi divergences."""
    assert 0.0 <= found.lower <= found.upper < math.inf, setting
    q, sigma, count, delta = setting
    above = spent(q, sigma, count, delta, "rdp").upper
    assert found.lower <= above * (1 + 1e-9), setting
    assert found.upper <= above * (1 + 1e-2) + 2e-5, setting
    width = found.upper - found.lower
    assert width <= max(1e-3 * found.upper, 1e-5) or found.note, setting


def in_order(axes):
    """Checks all settings of a grid, and neighbours on it against each other."""
    found = {setting: spent(*setting) for setting in itertools.product(*axes)}
    for setting, interval in found.items():
        check(setting, interval)
        for place, axis in enumerate(axes):
            at = axis.index(setting[place])
            if at + 1 < len(axis):
                worse = (*setting[:place], axis[at + 1], *setting[place + 1 :])
                assert interval.lower <= found[worse].upper * (1 + 1e-12), (setting, worse)
    return found


def test_a_small_grid_is_in_order():
    found = in_order(FEW)
    assert len({interval.upper for interval in found.values()}) > 20  # most spend something


@pytest.mark.slow
@pytest.mark.parametrize("delta", AXES[3])
def test_the_grid_is_in_order(delta):
    in_order((*AXES[:3], (delta,)))


@pytest.mark.slow
@pytest.mark.parametrize("delta", [1e-3, 1e-12])
def test_deltas_are_in_order(delta):
    in_order((*(axis[::2] for axis in AXES[:3]), (delta, delta / 2, delta / 1.001 / 2)))


def draw(rng):
    """A setting, even in the logarithms."""
    q, sigma, count, delta = np.exp(
        rng.uniform(np.log([1e-6, 0.2, 1.0, 1e-12]), np.log([1.0, 100.0, 1e6, 1e-3]))
    )
    return float(q), float(sigma), int(count), float(delta)


def compare(setting):
    """One setting, and four that are certainly worse by a little."""
    q, sigma, count, delta = setting
    here = spent(*setting)
    check(setting, here)
    for worse in (
        (min(1.0, q * 1.01), sigma, count, delta),
        (q, sigma / 1.01, count, delta),
        (q, sigma, count + 1, delta),
        (q, sigma, count, delta / 1.1),
    ):
        assert here.lower <= spent(*worse).upper * (1 + 1e-12), (setting, worse)


def test_a_few_random_settings():
    rng = np.random.default_rng(7)
    for _ in range(4):
        compare(draw(rng))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_random_settings(part):
    rng = np.random.default_rng([2026, part])
    for _ in range(SAMPLE // PARTS):
        compare(draw(rng))


@pytest.mark.parametrize(
    "setting",
    [
        (1e-2, 1.0, 1_000_000, 1e-5),
        (0.3, 0.2, 10_000, 1e-12),
        pytest.param((1e-6, 0.2, 1_000_000, 1e-5), marks=pytest.mark.slow),
        pytest.param((1e-3, 0.3, 1_000_000, 1e-12), marks=pytest.mark.slow),
    ],
)
def test_memory_is_bounded(setting):
    tracemalloc.start()
    try:
        spent(*setting)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 1 << 18 < peak < MOST_BYTES


def test_curves_together_are_those_one_by_one():
    some = [
        pairs.SampledPair(pairs.GaussianShift(0.7), 0.01, "remove"),
        pairs.SampledPair(pairs.LaplaceShift(2.0), 0.5, "remove"),
        pairs.SampledPair(pairs.GaussianShift(2.0), 0.3, "add"),
        pairs.SampledPair(pairs.GaussianShift(1.1), 1.0, "remove"),
    ]
    losses = [np.linspace(-1.0, 2.0 + i, 5 + i) for i in range(4)]
    for pair, loss, curve in zip(some, losses, pairs.curves(some, losses), strict=True):
        alone = pair.curve(loss)
        np.testing.assert_allclose(curve.delta, alone.delta, rtol=1e-13, atol=1e-300)
        np.testing.assert_allclose(curve.tail, alone.tail, rtol=1e-13, atol=1e-300)
        np.testing.assert_allclose(curve.delta_error, alone.delta_error, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("q", "sigma"), [(0.01, 1.0), (0.001, 2.0), (0.5, 3.0)])
def test_the_direction_that_is_rough_never_decides(q, sigma):
    shift = pairs.GaussianShift(1.0 / sigma)
    sides = [((pairs.SampledPair(shift, q, way), 1000),) for way in ("remove", "add")]
    alone = [pld.epsilon([side], 1e-6) for side in sides]
    for order in (sides, sides[::-1]):
        both = pld.epsilon(order, 1e-6)
        assert both.upper == max(one.upper for one in alone)
        assert both.lower <= max(one.lower for one in alone) * (1 + 1e-12)
        assert both == pld.epsilon(sides, 1e-6)


@pytest.mark.slow
def test_many_different_laws_contain_what_few_say():
    # 150 laws that differ in the tenth digit: as one law 150 times, but with as many transforms.
    mixed = dp.ComposedEvent(tuple(sampled(0.02, 1.0 + 1e-10 * i) for i in range(150)))
    found = dp.epsilon(mixed, 1e-5, neighboring=ADD_REMOVE)
    same = spent(0.02, 1.0, 150, 1e-5)
    assert found.upper - found.lower <= 1e-3 * found.upper
    assert found.lower <= same.upper
    assert found.upper >= same.lower * (1 - 1e-7)
