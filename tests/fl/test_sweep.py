"""Seed sweeps: intervals, and one statement for all runs."""

from pathlib import Path

import numpy as np
import pytest

import dp
import fl
from fl.sweep import interval
from tests.fl import helpers


def test_the_interval_is_students() -> None:
    """The textbook example of five values: t = 2.776, s / sqrt(5)."""
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    found = interval(values)
    half = 2.776 * np.std(values, ddof=1) / np.sqrt(5)
    assert found.mean == pytest.approx(4.0)
    assert (found.low, found.high) == pytest.approx((4 - half, 4 + half))
    assert interval([2.0] * 40).low == 2.0


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    """2,000 samples of five normals: five standard errors of 0.95 are 0.024."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        found = interval(rng.normal(3.0, 2.0, size=5).tolist())
        hits += found.low <= 3.0 <= found.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.025)


def test_a_sweep_runs_every_seed_and_adds_up_what_they_cost(tmp_path: Path) -> None:
    data, plan = helpers.small_data(), helpers.plan(rounds=2)
    found = fl.sweep(plan, helpers.MODEL, data, seeds=[3, 4, 9], out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed-3", "seed-4", "seed-9"]
    assert len(set(found.metrics["loss"].values)) == 3
    one = fl.resolve(plan, data)
    mechanism = one.exposure.mechanism
    assert isinstance(mechanism, dp.DistributedMechanism)
    event = dp.SelfComposedEvent(mechanism.event(8), 3 * 2)  # 12 less 3 dropped and 1 corrupt
    independent = dp.epsilon(
        event, 1e-3, neighboring=dp.NeighboringRelation.ZERO_OUT, accountant="rdp"
    )
    (server, *_) = found.privacy.rows
    (alone, *_) = one.privacy.rows
    assert server.worst_case is not None
    assert alone.worst_case is not None
    assert server.worst_case.upper == pytest.approx(independent.upper, rel=1e-6)
    assert server.worst_case.upper > alone.worst_case.upper
    assert any("3 runs together" in note for note in found.privacy.assumptions)
    assert "over 3 seeds" in str(found)
    assert found.to_dict()["metrics"]["accuracy"]["values"]


@pytest.mark.parametrize("seeds", [[], [1], [1, 1], [1, -2], [0.5, 2]])
def test_seeds_that_make_no_sweep_are_refused(seeds: list[int]) -> None:
    with pytest.raises(fl.PlanError, match="seeds"):
        fl.sweep(helpers.plan(), helpers.MODEL, helpers.small_data(), seeds=seeds)
