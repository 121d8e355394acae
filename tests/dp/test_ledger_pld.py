"""Realised epsilon of a ledger by privacy loss distributions."""

# Helpers are untyped like the tests.
# mypy: allow-untyped-calls

import pytest

import dp

ZERO_OUT = dp.NeighboringRelation.ZERO_OUT


def make(max_releases=2, min_survivors=3):
    return dp.Ledger(
        5, max_releases=max_releases, min_survivors=min_survivors, neighboring=ZERO_OUT
    )


def spent(event):
    return dp.epsilon(event, 1e-5, neighboring=ZERO_OUT).upper


def test_realised_by_loss_distributions_is_the_largest_of_the_clients():
    ledger = make(max_releases=5, min_survivors=1)
    one, two = dp.SkellamEvent(40.0, 16, 4, 4, 1), dp.DiscreteGaussianEvent(9.0, 16, 4, 4, 1)
    for t, (survivors, event) in enumerate([([0, 1], one), ([1, 2], two), ([2, 3], two)]):
        ledger.charge(t, 0, range(5))
        ledger.release(t, 0, survivors, event)
    parts = [(one,), (one, two), (two, two), (two,)]
    want = max(spent(dp.ComposedEvent(p)) for p in parts)
    got = ledger.realised(1e-5, "pld").upper
    assert got == pytest.approx(want, rel=2e-3)
    assert got < ledger.realised(1e-5, "rdp").upper
    assert make().realised(1e-5, "pld").upper == 0.0
    failing = ledger.realised(1e-5, "pld", failure_prob=5e-6)
    assert failing.upper > got


def test_laplace_on_a_grid_is_pure_to_its_epsilon():
    mechanism = dp.grid_laplace(dim=1, l1_sensitivity=1.0, scale=0.5)
    interval = dp.epsilon(mechanism.event(), 1e-9, neighboring=ZERO_OUT)
    assert interval.upper <= mechanism.pure_epsilon * (1 + 1e-9)
    assert interval.lower > 0.99 * mechanism.pure_epsilon
