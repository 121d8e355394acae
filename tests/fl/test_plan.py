"""Resolving a plan: everything derived, every fault at once, before anything is compiled."""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import optax
import pytest

import fl
from fl.algorithms.fedavg import FedAvgStep
from fl.types import Batch, MetricSums, PyTree
from tests.fl import helpers

DATA = helpers.small_data()


def faults_of(plan: fl.Plan) -> tuple[str, ...]:
    with pytest.raises(fl.PlanError) as caught:
        fl.resolve(plan, DATA)
    assert str(caught.value) == "\n".join(caught.value.faults)
    return caught.value.faults


def test_several_faults_are_listed_at_once() -> None:
    found = faults_of(
        helpers.plan(
            rounds=0,
            cohort=fl.cohort.cyclic(99),
            algorithm=helpers.algorithm(batch_size=0),
            privacy=helpers.privacy(epsilon=-1.0, delta=1.0, mechanism="laplace"),
            aggregation=helpers.ideal(corrupt=1.5, simulate_dropout={"lunch": 0.1}),
        )
    )
    fields = [line.partition(":")[0] for line in found]
    assert fields == [
        "rounds", "epsilon", "delta", "mechanism", "corrupt", "simulate_dropout", "batch_size",
        "cohort",
    ]  # fmt: skip
    assert "epsilon: got -1.0; takes a number above 0" in found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", 0.0), ("epsilon", math.nan), ("epsilon", math.inf), ("epsilon", "4"),
        ("epsilon", True), ("delta", 0.0), ("delta", 1.0), ("clip_norm", 0.0), ("unit", "patient"),
        ("against", "nobody"), ("mechanism", "laplace"), ("spare_releases", -1),
        ("spare_releases", 0.5), ("report_deltas", (2.0,)), ("accountant", "pld"),
        ("modulus_bits", 1), ("modulus_bits", 63), ("wrap_probability", 0.0),
        ("wrap_probability", 0.6),
    ],
)  # fmt: skip
def test_each_privacy_field_is_checked(field: str, value: object) -> None:
    (line,) = faults_of(helpers.plan(privacy=helpers.privacy(**{field: value})))
    assert line.startswith(f"{field}: got ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("corrupt", -0.1), ("corrupt", 1.0), ("dropout", math.nan), ("dropout", 1.0),
        ("expected_dropout", 0.5), ("graph", "star"), ("server", "honest"),
        ("security_bits", -1), ("correctness_bits", 1.5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [helpers.ideal, helpers.secure])
def test_each_aggregation_field_is_checked(
    make: Callable[..., fl.Ideal | fl.Secure], field: str, value: object
) -> None:
    assert faults_of(helpers.plan(aggregation=make(**{field: value})))[0].startswith(field)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rounds", 2.0), ("rounds", True), ("eval_every", 0), ("seed", -1), ("seed", 2**63)],
)
def test_each_plan_field_is_checked(field: str, value: object) -> None:
    assert faults_of(helpers.plan(**{field: value}))[0].startswith(f"{field}: got ")


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"aggregation": fl.Plain()}, "mechanism"),
        ({"privacy": helpers.privacy(mechanism="gaussian")}, "against"),
        ({"privacy": fl.NotPrivate()}, "max_norm"),
        ({"privacy": fl.NotPrivate(1.0, "examples")}, "max_weight"),
        ({"privacy": fl.NotPrivate(-1.0)}, "max_norm"),
        ({"privacy": fl.NotPrivate(1.0, "loss")}, "weights"),
        (
            {"aggregation": helpers.secure(corrupt=0.4, dropout=0.3, server="malicious")},
            "dropout",
        ),
        ({"aggregation": helpers.ideal(corrupt=0.6, dropout=0.5)}, "corrupt and dropout"),
    ],
)
def test_combinations_that_promise_nothing_are_refused(
    overrides: dict[str, Any], field: str
) -> None:
    assert faults_of(helpers.plan(**overrides))[0].startswith(f"{field}: ")


def test_what_a_malicious_server_rules_out_is_named() -> None:
    (line,) = faults_of(
        helpers.plan(aggregation=helpers.secure(corrupt=0.4, dropout=0.3, server="malicious"))
    )
    assert "corrupt" in line or "dropout" in line


def test_an_epsilon_out_of_reach_is_a_fault_that_says_why() -> None:
    (line,) = faults_of(helpers.plan(privacy=helpers.privacy(epsilon=1e-9)))
    assert "epsilon=1e-09" in line


def test_a_loss_that_is_not_a_models_needs_the_model() -> None:
    def loss(params: PyTree, batch: Batch, key: jax.Array) -> jax.Array:
        return helpers.MODEL.loss(params, batch, key)

    bare = fl.fedavg(
        loss, client_optimizer=optax.sgd(0.1), server_optimizer=optax.sgd(1.0),
        batch_size=None, local_epochs=1,
    )  # fmt: skip
    plan = helpers.plan(algorithm=bare)
    assert faults_of(plan)[0].startswith("model: ")
    with_model = fl.resolve(plan, DATA, model=helpers.MODEL)
    assert with_model.messages.dim == 15


def test_a_client_state_of_another_shape_than_it_began_with_is_refused() -> None:
    algorithm = helpers.algorithm()

    def keeping(step: FedAvgStep) -> tuple[PyTree, PyTree, MetricSums]:
        message, _, metrics = algorithm.client_final(step)
        return message, step.params, metrics

    (line,) = faults_of(helpers.plan(algorithm=algorithm._replace(client_final=keeping)))
    assert line.startswith("client_final")


def test_what_is_derived_fits_together() -> None:
    resolved = fl.resolve(helpers.plan(aggregation=helpers.secure()), DATA)
    bounds, params = resolved.exposure.bounds, resolved.params
    assert params is not None
    assert params.min_survivors == bounds.min_survivors == 9
    assert params.num_clients == resolved.invited == 12
    (segment,) = params.segments
    mechanism = helpers.mechanism_of(resolved)
    assert (segment.name, segment.length) == ("update", 15)
    assert segment.modulus_bits == mechanism.modulus_bits
    worst = 12 * mechanism.discretizer.linf
    assert 2 ** (segment.modulus_bits - 1) > worst
    assert resolved.max_norm == 0.5


def test_the_modulus_is_the_smallest_that_holds_the_cohort() -> None:
    few, many = (
        helpers.mechanism_of(fl.resolve(helpers.plan(), helpers.small_data(n, examples=1)))
        for n in (12, 200)
    )
    assert few.modulus_bits < many.modulus_bits


def test_secret_sessions_and_graphs_are_fresh_and_seeded_ones_repeat() -> None:
    def session(seeded: bool) -> tuple[bytes, bytes | None]:
        plan = helpers.plan(aggregation=helpers.secure(), seeded_secrets=seeded)
        params = fl.resolve(plan, DATA).params
        assert params is not None
        return params.session_id, params.graph_seed

    fresh, again = session(False), session(False)
    assert fresh[0] != again[0]
    assert fresh[1] != again[1]
    assert session(True) == session(True)


def test_validation_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("compiled before the plan was validated")

    monkeypatch.setattr(jax, "jit", refuse)
    with pytest.raises(fl.PlanError):
        fl.rounds(helpers.plan(rounds=0), helpers.MODEL, DATA)
