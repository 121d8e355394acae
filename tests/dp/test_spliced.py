"""Sampled releases in which a client's vector is replaced: pairs against all inputs by force."""

# Helpers are untyped like the tests.
# mypy: allow-untyped-calls

import itertools
import math

import numpy as np
import pytest

import dp
from dp import _special
from dp.accountants import pairs, spliced

REPLACE_ONE = dp.NeighboringRelation.REPLACE_ONE
ZERO_OUT = dp.NeighboringRelation.ZERO_OUT
LOSSES = np.array([-3.0, -0.4, -0.01, 0.0, 0.002, 0.1, 1.0, 2.5])
K = 3
REACH = 120


def log_weights(law):
    k = np.arange(REACH + 1.0)
    return {
        "discrete gaussian": -((k / 1.7) ** 2) / 2,
        "discrete laplace": -k / 1.3,
        "skellam": _special.log_bessel_i(REACH, 4.0),
    }[law]


def shifted_law(logs, by):
    """Probabilities on -REACH - K .. REACH + K."""
    law = np.exp(np.concatenate([logs[:0:-1], logs]))
    row = np.zeros(law.size + 2 * K)
    row[K + by : K + by + law.size] = law / law.sum()
    return row


def by_force(logs, q, triples, loss):
    """Largest gain over inputs (a, b, c), each summed over all outcomes."""
    law = {place: shifted_law(logs, place) for place in range(-K, K + 1)}
    best = 0.0
    for a, b, c in triples:
        first = (1 - q) * law[c] + q * law[a]
        second = (1 - q) * law[c] + q * law[b]
        best = max(best, float(np.maximum(first - math.exp(loss) * second, 0.0).sum()))
    return best


def integer_pair(logs, q, kind):
    if kind == "replaced":
        half = spliced.Opposed(spliced.IntegerPlaces(logs, K, "opposite"))
        return spliced.SplicedPair(half, half, q)
    single = spliced.Single(pairs.IntegerShift(logs, 2 * K if kind == "fixed, replaced" else K))
    if kind == "fixed, replaced":
        return spliced.SplicedPair(single, single, q)
    aside = spliced.Opposed(spliced.IntegerPlaces(logs, K, "aside"))
    if kind == "fixed, zeroed":
        return spliced.SplicedPair(aside, single, q)
    return spliced.SplicedPair(single, aside, q)


def inputs(kind):
    places = range(-K, K + 1)
    if kind == "replaced":
        return [(a, b, 0) for a, b in itertools.product(places, places)]
    if kind == "fixed, replaced":
        return list(itertools.product(places, places, places))
    zeroed = itertools.product(places, places)
    return [(a, 0, c) if kind == "fixed, zeroed" else (0, a, c) for a, c in zeroed]


@pytest.mark.parametrize("law", ["discrete gaussian", "discrete laplace", "skellam"])
@pytest.mark.parametrize(
    "kind", ["replaced", "fixed, replaced", "fixed, zeroed", "fixed, zeroed, exchanged"]
)
def test_pairs_are_the_largest_over_all_integer_inputs(law, kind):
    logs = log_weights(law)
    for q in (0.003, 0.2, 0.7):
        curve = integer_pair(logs, q, kind).curve(LOSSES)
        for loss, value, error in zip(LOSSES, curve.delta, curve.delta_error, strict=True):
            want = by_force(logs, q, inputs(kind), loss)
            assert abs(value - want) <= 1e-12
            assert error < 1e-10


@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("law", ["discrete gaussian", "discrete laplace", "skellam"])
def test_half_lines_are_below_the_pair_that_they_stand_for(law, exchanged):
    logs = log_weights(law)
    for q in (0.003, 0.2, 0.7):
        pair = spliced.HalfLines(spliced.IntegerPlaces(logs, K, "aside"), q, exchanged)
        curve = pair.curve(LOSSES)
        triple = (0, K, -K) if exchanged else (K, 0, -K)
        tight = LOSSES <= 0 if exchanged else LOSSES >= 0
        want = np.array([by_force(logs, q, [triple], loss) for loss in LOSSES])
        assert np.all(curve.delta <= want + 1e-12)
        assert np.all(np.abs(curve.delta - want)[tight] <= 1e-12)


def density(kind, x):
    if kind == "gaussian":
        return np.exp(-0.5 * (x / 0.8) ** 2) / (0.8 * math.sqrt(2 * math.pi))
    return np.exp(-np.abs(x) / 0.8) / 1.6


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("arrangement", ["opposite", "aside"])
def test_continuous_noise_against_fine_sums(kind, arrangement):
    """Also over a lattice of inputs: none gains more."""
    x = np.linspace(-25, 25, 50_001)
    step = x[1] - x[0]
    made: dict[str, tuple[spliced.Places, pairs.Shift]] = {
        "gaussian": (spliced.GaussianPlaces(1 / 0.8, arrangement), pairs.GaussianShift(1 / 0.8)),
        "laplace": (spliced.LaplacePlaces(0.8, arrangement), pairs.LaplaceShift(0.8)),
    }
    places, shift = made[kind]
    single = spliced.Single(shift)
    half = spliced.Opposed(places)
    lattice = [-1.0, -0.5, 0.0, 0.5, 1.0]
    law = {p: density(kind, x - p) for p in lattice}
    for q in (0.01, 0.4):
        below = half if arrangement == "opposite" else single
        curve = spliced.SplicedPair(half, below, q).curve(LOSSES)
        for loss, value in zip(LOSSES, curve.delta, strict=True):
            best = 0.0
            for one, other in itertools.product(lattice, lattice):
                a, b, c = (one, other, 0.0) if arrangement == "opposite" else (one, 0.0, other)
                first, second = ((1 - q) * law[c] + q * law[p] for p in (a, b))
                gain = float(np.maximum(first - math.exp(loss) * second, 0).sum() * step)
                best = max(best, gain)
            assert value == pytest.approx(best, abs=1e-5)


EVENTS = [
    dp.LaplaceEvent(2.0),
    dp.DiscreteGaussianEvent(3.0, 4, 2, 2, 1),
    dp.DiscreteLaplaceEvent(3.0, 4, 2, 2, 1),
    dp.GaussianEvent(1.5),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_replace_one_under_sampling_lies_between_its_neighbours(event):
    """More than zero-out, less than with a larger cohort; both ends meet."""
    found, more = (
        dp.epsilon(
            dp.SelfComposedEvent(dp.PoissonSampledEvent(q, event), 20),
            1e-6,
            neighboring=REPLACE_ONE,
        )
        for q in (0.1, 0.12)
    )
    zeroed = dp.epsilon(
        dp.SelfComposedEvent(dp.PoissonSampledEvent(0.1, event), 20), 1e-6, neighboring=ZERO_OUT
    )
    assert zeroed.upper < found.lower < found.upper < more.lower
    assert found.upper - found.lower <= 2e-3 * found.upper


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("relation", [ZERO_OUT, REPLACE_ONE])
def test_fixed_size_both_ends_meet_for_one_release_and_bracket_more(event, relation):
    one = dp.FixedSizeSampledEvent(100, 10, event)
    found = dp.epsilon(one, 1e-4, neighboring=relation)
    assert found.upper - found.lower <= 1e-8
    poisson = dp.epsilon(dp.PoissonSampledEvent(0.1, event), 1e-4, neighboring=relation)
    assert found.lower > poisson.upper  # the others' vectors stand where the client's is missing
    many = dp.epsilon(dp.SelfComposedEvent(one, 50), 1e-4, neighboring=relation)
    assert 0.7 * many.upper < many.lower < many.upper


def test_zero_out_under_a_fixed_size_is_not_that_of_shifts_from_zero():
    """The others may hold -1 where the client held 1: 2.399, and not the 0.199 of Poisson sampling.

    By plain sums over the two laws that such inputs produce.
    """
    x = np.linspace(-40.0, 40.0, 800_001)
    noise = [np.exp(-0.5 * (x - place) ** 2) for place in (-1, 0, 1)]
    q = 0.01
    first, second = (1 - q) * noise[0] + q * noise[2], (1 - q) * noise[0] + q * noise[1]
    event = dp.FixedSizeSampledEvent(1000, 10, dp.GaussianEvent(1.0))
    found = dp.epsilon(event, 1e-5, neighboring=ZERO_OUT)
    scale = (x[1] - x[0]) / math.sqrt(2 * math.pi)
    at = [
        scale * np.maximum(first - math.exp(e) * second, 0).sum()
        for e in (found.upper - 1e-3, found.upper + 1e-3)
    ]
    assert at[0] > 1e-5 > at[1]
    assert found.upper == pytest.approx(2.399, abs=1e-3)
