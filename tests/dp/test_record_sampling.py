"""Sampled records against direct summation of the mixture, in both directions."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

import dp
from dp.accountants import rdp

Floats = NDArray[np.float64]
ZERO_OUT = dp.NeighboringRelation.ZERO_OUT
REACH = 60  # integers from -REACH to REACH carry all mass that counts


def gaussian_law(sigma: float) -> Floats:
    x = np.arange(-REACH, REACH + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    law: Floats = weights / weights.sum()
    return law


def summed(law: Floats, shares: int) -> Floats:
    total = law
    for _ in range(shares - 1):
        total = np.convolve(total, law)[REACH:-REACH]
    return total


def pair(law: Floats, shifts: tuple[int, ...]) -> tuple[Floats, Floats]:
    """(P, Q): the noise shifted by an integer vector, and the noise; flat over the coordinates."""
    q, p = np.ones(1), np.ones(1)
    for shift in shifts:
        q = np.outer(q, law).ravel()
        p = np.outer(p, np.roll(law, shift)).ravel()
    return p, q


def divergence(p: Floats, q: Floats, alpha: float) -> float:
    kept = (p > 1e-200) & (q > 1e-200)
    logs = alpha * np.log(p[kept]) + (1 - alpha) * np.log(q[kept])
    return float(np.logaddexp.reduce(logs)) / (alpha - 1)


def bound(event: dp.Event, alpha: float) -> float:
    return float(rdp.rdp_curve(event, np.array([alpha - 1]))[0])


CASES = [
    (dp.DiscreteGaussianEvent(2.5, 4, 2, 2, 1), gaussian_law(2.5), (2,)),
    (dp.DiscreteGaussianEvent(2.0, 5, 3, 2, 2), gaussian_law(2.0), (2, 1)),
    (dp.DiscreteGaussianSumEvent(1.2, 3, 2, 2, 1, 2), summed(gaussian_law(1.2), 3), (1, 1)),
]


@pytest.mark.parametrize("q", [1e-3, 0.05, 0.4, 0.9])
@pytest.mark.parametrize("alpha", [1.25, 2.0, 2.5, 3.0, 7.0, 16.5])
@pytest.mark.parametrize(("event", "law", "shifts"), CASES)
def test_the_curve_bounds_both_directions(
    event: dp.DiscreteGaussianEvent | dp.DiscreteGaussianSumEvent,
    law: Floats,
    shifts: tuple[int, ...],
    q: float,
    alpha: float,
) -> None:
    """At whole orders it is no looser than the curve of the event itself, 10 % here."""
    p_law, q_law = pair(law, shifts)
    mixture = (1 - q) * q_law + q * p_law
    remove, add = divergence(mixture, q_law, alpha), divergence(q_law, mixture, alpha)
    assert add <= remove * (1 + 1e-9)
    got = bound(dp.RecordSampledEvent(q, event), alpha)
    assert remove <= got * (1 + 1e-9)
    if alpha == math.floor(alpha):
        assert got <= 1.1 * remove


@pytest.mark.parametrize("q", [0.02, 0.3, 0.7])
def test_the_other_direction_is_smaller_for_any_symmetric_noise(q: float) -> None:
    rng = np.random.default_rng(int(100 * q))
    for _ in range(50):
        half = rng.gamma(0.5, size=30) + 1e-9
        law = np.concatenate([np.zeros(20), half[::-1], half[1:], np.zeros(20)])
        law += 1e-12
        law /= law.sum()
        shift, alpha = int(rng.integers(1, 8)), float(1.05 + rng.gamma(1.0) * 4)
        # Rolling keeps the supports equal, and the reflection that exchanges the two laws.
        p_law = np.roll(law, shift)
        mixture = (1 - q) * law + q * p_law
        assert divergence(law, mixture, alpha) <= divergence(mixture, law, alpha) * (1 + 1e-9)


def test_it_is_near_the_exact_curve_of_a_sampled_gaussian() -> None:
    """The best order at hand against certified loss distributions: RDP loses less than a half."""
    inner = dp.GaussianEvent(1.1)
    ours = dp.SelfComposedEvent(dp.RecordSampledEvent(0.05, inner), 300)
    exact = dp.SelfComposedEvent(dp.PoissonSampledEvent(0.05, inner), 300)
    upper = dp.epsilon(ours, 1e-5, neighboring=ZERO_OUT, accountant="rdp").upper
    truth = dp.epsilon(exact, 1e-5, neighboring=ZERO_OUT)
    assert truth.lower < upper < 1.5 * truth.upper


def test_sampling_everybody_or_nobody_and_growing_with_q() -> None:
    inner = dp.SkellamEvent(300.0, 100, 80, 9, 30)

    def spent(event: dp.Event) -> float:
        composed = dp.SelfComposedEvent(event, 50)
        return dp.epsilon(composed, 1e-5, neighboring=ZERO_OUT, accountant="rdp").upper

    found = [spent(dp.RecordSampledEvent(q, inner)) for q in (1e-6, 1e-3, 0.01, 0.1, 0.5, 1.0)]
    assert found == sorted(found)
    assert found[-1] == spent(inner)
    assert found[0] < 0.1


def test_what_has_no_proof_is_refused() -> None:
    event = dp.RecordSampledEvent(0.1, dp.SkellamEvent(300.0, 100, 80, 9, 30))
    with pytest.raises(dp.UnsupportedEventError):
        dp.epsilon(event, 1e-5, neighboring=ZERO_OUT, accountant="zcdp")
    for relation in (dp.NeighboringRelation.ADD_REMOVE, dp.NeighboringRelation.REPLACE_ONE):
        with pytest.raises(dp.UnsupportedEventError):
            dp.epsilon(event, 1e-5, neighboring=relation, accountant="rdp")
    for bad in (0.0, 1.5, math.nan):
        with pytest.raises(dp.ParameterError):
            dp.RecordSampledEvent(bad, dp.GaussianEvent(1.0))


def test_loss_distributions_fall_back_and_say_so() -> None:
    event = dp.SelfComposedEvent(
        dp.RecordSampledEvent(0.1, dp.SkellamEvent(300.0, 100, 80, 9, 30)), 20
    )
    found = dp.epsilon(event, 1e-5, neighboring=ZERO_OUT)
    orders = dp.epsilon(event, 1e-5, neighboring=ZERO_OUT, accountant="rdp")
    assert found.upper == pytest.approx(orders.upper)
    assert found.lower == 0.0
    assert found.note


def test_a_ledger_of_clients_takes_it_and_writes_it() -> None:
    ledger = dp.Ledger(3, max_releases=2, min_survivors=2, neighboring=ZERO_OUT)
    event = dp.RecordSampledEvent(0.1, dp.SkellamEvent(300.0, 100, 80, 9, 30))
    ledger.charge(0, 0, [0, 1, 2])
    ledger.release(0, 0, [0, 2], event)
    again = dp.Ledger.from_json(ledger.to_json())
    got = again.realised(1e-5, "rdp").upper
    assert got == dp.epsilon(event, 1e-5, neighboring=ZERO_OUT, accountant="rdp").upper
