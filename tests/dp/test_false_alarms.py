"""How often detectors alarm in honest runs, from the exact law of their statistics.

P-values are bounds; here is what they bound, by convolution, with nothing of the bounds in it.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dp import detectors

Floats = NDArray[np.float64]

# What a probe of `tests/fl/planted.py` tests: two loud rounds, two silent ones, 130 parameters.
DIM, ROUNDS, VARIANCE, LEVEL = 130, 2, 297_911.0, 0.01 / 4


def skellam_law(variance: float) -> tuple[NDArray[np.int64], Floats]:
    """(integers, their probabilities): the characteristic function on a circle, inverted."""
    size = 1 << math.ceil(math.log2(64 + 40 * math.sqrt(variance)))
    circle = np.exp(variance * (np.cos(2 * np.pi * np.arange(size // 2 + 1) / size) - 1.0))
    mass = np.fft.fftshift(np.fft.irfft(circle, size))
    return np.arange(size) - size // 2, np.maximum(mass, 0.0)


def squares_law(variance: float, count: int) -> Floats:
    """Probabilities of 0, 1, 2, ... as the sum of `count` squares of Skellam variables."""
    x, mass = skellam_law(variance)
    kept = mass > 1e-17
    one = np.zeros(int((x[kept] ** 2).max()) + 1)
    np.add.at(one, x[kept] ** 2, mass[kept])
    size = 1 << math.ceil(math.log2(len(one) * count))
    return np.fft.irfft(np.fft.rfft(one, size) ** count, size)


def last(holds: Callable[[int], bool], high: int) -> int:
    """The largest integer in [0, high) with `holds`, which is true up to there; -1 for none."""
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def projection_chance(variance: float, dim: int, level: float) -> float:
    """P[p-value <= level], the direction being (1, ..., 1) / sqrt(dim): a Skellam sum."""
    x, mass = skellam_law(dim * variance)

    def silent(total: int) -> bool:
        projection = total / math.sqrt(dim)
        return detectors.beyond_bound(projection, 0.0, variance).p_value > level

    return float(mass[x > last(silent, int(x[-1]))].sum())


@pytest.mark.parametrize("variance", [0.05, 0.5, 3.0, 100.0, ROUNDS * VARIANCE])
@pytest.mark.parametrize("dim", [1, DIM])
@pytest.mark.parametrize("level", [0.05, LEVEL])
def test_projections_alarm_no_more_often_than_they_say(
    variance: float, dim: int, level: float
) -> None:
    chance = projection_chance(variance, dim, level)
    assert chance <= level
    if variance >= 100:
        assert chance >= level / 30  # and the bound is not idle


@pytest.mark.parametrize("variance", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("count", [20, 100])
@pytest.mark.parametrize("level", [0.05, LEVEL])
def test_sums_of_squares_alarm_no_more_often_than_they_say(
    variance: float, count: int, level: float
) -> None:
    mass = squares_law(variance, count)
    assert mass.sum() == pytest.approx(1.0)

    def alarms(total: int) -> bool:
        noise = np.zeros((1, count))
        noise[0, 0] = math.sqrt(total)
        return detectors.too_little_noise(noise, [variance]).p_value <= level

    assert mass[: last(alarms, int(count * variance) + 1) + 1].sum() <= level


def product_law(row: Floats, variance: float) -> tuple[NDArray[np.int64], Floats]:
    """(integers, their probabilities): of the inner product of integers and Skellam variables."""
    deviation = math.sqrt(variance * float(row @ row))
    size = 1 << math.ceil(math.log2(64 * max(1.0, float(np.abs(row).max())) + 40 * deviation))
    angles = 2 * np.pi * np.arange(size // 2 + 1) / size
    exponent = sum((np.cos(value * angles) - 1.0 for value in row), np.zeros(len(angles)))
    mass = np.fft.fftshift(np.fft.irfft(np.exp(variance * exponent), size))
    return np.arange(size) - size // 2, np.maximum(mass, 0.0)


@pytest.mark.parametrize("variance", [0.05, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("dim", [3, 40])
@pytest.mark.parametrize("level", [0.05, LEVEL])
def test_products_alarm_no_more_often_than_they_say(
    variance: float, dim: int, level: float
) -> None:
    """For every first row by itself: the second one's law, both tails."""
    rng, chances = np.random.default_rng(14), []
    for _ in range(8):
        counts = rng.poisson(variance / 2, (2, dim))
        row = (counts[0] - counts[1]).astype(np.float64)
        row[0] = row[0] or 1.0
        x, mass = product_law(row, variance)
        assert mass.sum() == pytest.approx(1.0)

        def silent(total: int, row: Floats = row) -> bool:
            rows = np.stack([row, total * row / (row @ row)])
            return detectors.dependent_noise(rows, [variance] * 2, "rounds").p_value > level

        chances.append(2.0 * float(mass[x > last(silent, int(x[-1]))].sum()))
    assert max(chances) <= level
    if variance >= 100:
        assert min(chances) >= level / 30  # and the bound is not idle


def test_an_honest_probe_alarms_with_less_than_8_in_10000() -> None:
    """What `tests/fl/test_probes.py` counts.

    Squares of that variance are those of normal variables; with 2 m of them the chance of a sum
    below x is that of m Poisson(x / 2) events or more. Products given one row are normal.
    """
    clip = projection_chance(ROUNDS * VARIANCE, DIM, LEVEL)
    assert LEVEL / 12 <= clip <= LEVEL / 8  # docs/privacy.md: about 10

    def much(percent: int) -> bool:
        noise = np.full((ROUNDS, DIM), math.sqrt(percent / 1000 * VARIANCE))
        return detectors.too_little_noise(noise, [VARIANCE] * ROUNDS).p_value <= LEVEL

    edge = (last(much, 1000) + 1) / 1000 * ROUNDS * DIM
    count = ROUNDS * DIM // 2
    term = math.exp(-edge / 2 + count * math.log(edge / 2) - math.lgamma(count + 1))
    little = term / (1 - edge / (2 * count))  # a geometric series above the tail
    assert little <= LEVEL / 1000  # docs/privacy.md: by more than
    dependent = 0.0
    for rows in (ROUNDS, 48):  # rounds, clients

        def silent(percent: int, rows: int = rows) -> bool:
            noise = np.zeros((rows, DIM))
            noise[:2] = math.sqrt(VARIANCE)
            noise[1] *= percent / 1000 / math.sqrt(DIM)
            return detectors.dependent_noise(noise, [VARIANCE] * rows, "x").p_value > LEVEL

        chance = math.comb(rows, 2) * math.erfc(last(silent, 10_000) / 1000 / math.sqrt(2))
        assert LEVEL / 15 <= chance <= LEVEL / 8  # docs/privacy.md: about 10
        dependent += chance
    assert clip + little + dependent <= 8e-4
