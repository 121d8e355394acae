"""How many bits a coordinate takes, and the grid that they leave."""

import dataclasses
from typing import Any

import numpy as np
import optax
import pytest

import dp
import fl
from tests.fl import helpers

CENTRAL = {"mechanism": "gaussian", "against": "participants"}
DATA = helpers.small_data(num_clients=40)


def resolved(**overrides: Any) -> fl.Resolved:
    return fl.resolve(helpers.plan(privacy=helpers.privacy(**overrides)), DATA)


def mechanism(**overrides: Any) -> dp.DistributedMechanism | dp.CentralMechanism:
    found = resolved(**overrides).exposure.mechanism
    assert isinstance(found, dp.DistributedMechanism | dp.CentralMechanism)
    return found


@pytest.mark.parametrize("asked", [{}, {"mechanism": "discrete_gaussian"}, CENTRAL])
@pytest.mark.parametrize("bits", [10, 12, 20])
def test_bits_asked_for_are_used_and_the_target_is_met(asked: dict[str, Any], bits: int) -> None:
    found = resolved(**asked, modulus_bits=bits)
    assert found.encoding is not None
    assert found.encoding.segments["update"][1] == bits
    against = next(
        row for row in found.privacy.rows if row.adversary == asked.get("against", "server")
    )
    assert against.worst_case is not None
    assert 7.9 < against.worst_case.upper <= 8.0


@pytest.mark.parametrize("wrap", [None, 1e-6])
def test_the_grid_is_the_finest_that_fits(wrap: float | None) -> None:
    found = resolved(modulus_bits=12, wrap_probability=wrap)
    mechanism, sigma = found.exposure.mechanism, found.noise_multiplier
    assert isinstance(mechanism, dp.DistributedMechanism)
    assert sigma is not None

    def on(granularity: float) -> dp.DistributedMechanism:
        return dp.distributed(
            "skellam", dim=mechanism.discretizer.dim, clip_norm=0.5, noise_multiplier=sigma,
            num_clients=40, shares=mechanism.shares, granularity=granularity, modulus_bits=12,
            wrap_probability=wrap,
        )  # fmt: skip

    assert on(mechanism.discretizer.granularity) == mechanism
    with pytest.raises(dp.ModulusError):
        on(mechanism.discretizer.granularity / 1.0001)


@pytest.mark.parametrize("asked", [{}, CENTRAL])
def test_a_chance_to_wrap_makes_the_grid_finer(asked: dict[str, Any]) -> None:
    data = helpers.small_data(num_clients=40)
    wide = fl.models.logistic(400, 3)  # where a rotated coordinate is far below the norm
    fields = {"x": data.fields["x"].repeat(100, axis=1), "y": data.fields["y"]}
    owners = np.repeat(np.arange(40), 5)
    many = fl.FederatedDataset.from_arrays(fields, owners, num_classes=3)
    algorithm = fl.fedavg(
        wide.loss, client_optimizer=optax.sgd(0.5),
        server_optimizer=optax.sgd(1.0), batch_size=None, local_epochs=1,
    )  # fmt: skip

    def grid(wrap: float | None) -> float:
        privacy = helpers.privacy(**asked, modulus_bits=12, wrap_probability=wrap)
        plan = helpers.plan(privacy=privacy, algorithm=algorithm)
        found = fl.resolve(plan, many, model=wide).exposure.mechanism
        assert isinstance(found, dp.DistributedMechanism | dp.CentralMechanism)
        return found.discretizer.granularity

    assert grid(1e-6) < 0.7 * grid(None)


def test_too_few_bits_are_refused() -> None:
    with pytest.raises(fl.PlanError, match="modulus_bits: got 4: ") as caught:
        resolved(modulus_bits=4)
    assert len(caught.value.faults) == 1


def test_coarse_integers_are_one_sum_too() -> None:
    privacy = helpers.privacy(modulus_bits=9, wrap_probability=1e-3)
    plan = helpers.plan(privacy=privacy, seeded_secrets=True)
    masked = dataclasses.replace(plan, aggregation=helpers.secure())
    ours, theirs = (fl.train(p, helpers.MODEL, DATA) for p in (plan, masked))
    assert helpers.params_bytes(ours.params) == helpers.params_bytes(theirs.params)
