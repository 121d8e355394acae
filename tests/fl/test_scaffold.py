"""SCAFFOLD against the paper, recomputed by hand; known wrong implementations fail the check."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.typing import NDArray

import fl
from fl.algorithms.scaffold import ScaffoldMessage, ScaffoldStep
from fl.arrays import leaves_from_npz
from fl.train import start
from fl.types import Batch, MetricSums, PyTree
from tests.fl import helpers

Floats = NDArray[np.float64]
CLIENTS, COHORT, ROUNDS, EPOCHS, ETA, SERVER_ETA = 6, 3, 7, 3, 0.3, 0.8
SIZES = (6, 1, 6, 1, 0, 6)  # two shapes, so that few programs are compiled


def uneven() -> fl.FederatedDataset:
    rng = np.random.default_rng(3)
    ids = np.repeat(np.arange(CLIENTS), SIZES)
    y = rng.integers(0, 3, len(ids)).astype(np.int32)
    fields = {"x": (rng.normal(size=(len(ids), 4)) + y[:, None]).astype(np.float32), "y": y}
    return fl.FederatedDataset.from_arrays(
        fields, ids, test=fields, num_clients=CLIENTS, num_classes=3, name="uneven"
    )


DATA = uneven()


def algorithm(**overrides: Any) -> fl.Algorithm:
    settings: dict[str, Any] = {
        "client_lr": ETA,
        "server_optimizer": optax.sgd(SERVER_ETA),
        "batch_size": None,
        "local_epochs": EPOCHS,
        "participation": COHORT / CLIENTS,
    }
    return fl.scaffold(helpers.MODEL.loss, **{**settings, **overrides})


def scaffold_plan(algorithm: fl.Algorithm, **overrides: Any) -> fl.Plan:
    settings: dict[str, Any] = {
        "algorithm": algorithm,
        "rounds": ROUNDS,
        "cohort": fl.cohort.cyclic(COHORT),
        "privacy": fl.NotPrivate(),
        "aggregation": fl.Plain(),
    }
    return helpers.plan(**{**settings, **overrides})


def gradient(flat: Floats, client: int) -> Floats:
    """Of the mean cross-entropy of softmax regression; flat is b[3], then w[4, 3]."""
    rows = DATA.client(client)
    x, y = np.asarray(rows["x"], np.float64), np.asarray(rows["y"])
    logits = x @ flat[3:].reshape(4, 3) + flat[:3]
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (softmax - np.eye(3)[y]) / len(y)
    return np.concatenate([error.sum(0), (x.T @ error).ravel()])


def by_hand(plan: fl.Plan) -> list[Floats]:
    """Algorithm 1 of the paper with option II, line by line; the models after each round."""
    x, c, c_i, models = np.zeros(15), np.zeros(15), np.zeros((CLIENTS, 15)), []
    for t in range(plan.rounds):
        cohort = plan.cohort.members(t, CLIENTS, plan.seed).tolist()
        deltas, changes = np.zeros((len(cohort), 15)), np.zeros((len(cohort), 15))
        averaged = []
        for k, i in enumerate(cohort):
            if SIZES[i] == 0:
                continue  # has no gradient, weighs nothing without privacy
            averaged.append(k)
            y = x.copy()
            for _ in range(EPOCHS):
                y = y - ETA * (gradient(y, i) - c_i[i] + c)
            new = c_i[i] - c + (x - y) / (EPOCHS * ETA)
            deltas[k], changes[k] = y - x, new - c_i[i]
            c_i[i] = new
        x = x + SERVER_ETA * deltas[averaged].mean(0)
        c = c + COHORT / CLIENTS * changes[averaged].mean(0)
        models.append(x.copy())
    return models


def trained(plan: fl.Plan) -> list[Floats]:
    return [
        np.concatenate([np.asarray(r.params["b"]), np.asarray(r.params["w"]).ravel()])
        for r in fl.rounds(plan, helpers.MODEL, DATA)
    ]


def check(plan: fl.Plan, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(trained(plan), by_hand(plan), atol=atol)


def test_scaffold_is_the_papers_algorithm() -> None:
    check(scaffold_plan(algorithm()))


@pytest.mark.parametrize("aggregation", [helpers.ideal(dropout=0), helpers.secure(dropout=0)])
def test_through_masked_integers_it_is_the_same(aggregation: fl.Ideal | fl.Secure) -> None:
    check(scaffold_plan(algorithm(), aggregation=aggregation, privacy=fl.NotPrivate(50.0)), 2e-3)


def test_the_scale_of_the_control_cancels_where_nothing_is_clipped() -> None:
    check(scaffold_plan(algorithm(control_scale=EPOCHS * ETA)))


GOOD = algorithm()


def wrong_sign(step: ScaffoldStep, batch: Batch, key: jax.Array) -> ScaffoldStep:
    swapped = step._replace(control=step.server_control, server_control=step.control)
    taken = GOOD.client_step(swapped, batch, key)
    return step._replace(params=taken.params, steps=taken.steps)


def uncorrected(step: ScaffoldStep, batch: Batch, key: jax.Array) -> ScaffoldStep:
    none = jax.tree.map(jnp.zeros_like, step.control)
    taken = GOOD.client_step(step._replace(control=none, server_control=none), batch, key)
    return step._replace(params=taken.params, steps=taken.steps)


def final(change: Any) -> Any:
    """A client_final whose c_i+ is change(step, c_i, c, x - y)."""

    def client_final(step: ScaffoldStep) -> tuple[ScaffoldMessage, PyTree, MetricSums]:
        message, _, metrics = GOOD.client_final(step)
        new = jax.tree.map(
            lambda c_i, c, delta: change(step, c_i, c, delta),
            step.control, step.server_control, message.delta,
        )  # fmt: skip
        sent = jax.tree.map(lambda new, old: new - old, new, step.control)
        return ScaffoldMessage(sent, message.delta), new, metrics

    return client_final


def sends_control(step: ScaffoldStep) -> tuple[ScaffoldMessage, PyTree, MetricSums]:
    message, new, metrics = GOOD.client_final(step)
    return message._replace(control=new), new, metrics


def forgets(step: ScaffoldStep) -> tuple[ScaffoldMessage, PyTree, MetricSums]:
    message, new, metrics = GOOD.client_final(step)
    return message, jax.tree.map(jnp.zeros_like, new), metrics


def ignores_the_fraction(state: fl.ServerState, mean: ScaffoldMessage) -> fl.ServerState:
    whole = jax.tree.map(lambda leaf: leaf * CLIENTS / COHORT, mean.control)
    return GOOD.server_update(state, mean._replace(control=whole))


def replaces_the_control(state: fl.ServerState, mean: ScaffoldMessage) -> fl.ServerState:
    return GOOD.server_update(state, mean)._replace(extra=mean.control)


def per_step(step: ScaffoldStep) -> Any:
    return jnp.maximum(step.steps, 1) * step.learning_rate


WRONG = {
    "the correction has the wrong sign": {"client_step": wrong_sign},
    "the correction is left out": {"client_step": uncorrected},
    "c is not subtracted": {
        "client_final": final(lambda s, c_i, c, delta: c_i + delta / per_step(s))
    },
    "K is left out": {
        "client_final": final(lambda s, c_i, c, delta: c_i - c + delta / s.learning_rate)
    },
    "the learning rate is left out": {
        "client_final": final(lambda s, c_i, c, delta: c_i - c + delta / jnp.maximum(s.steps, 1))
    },
    "y - x for x - y": {
        "client_final": final(lambda s, c_i, c, delta: c_i - c - delta / per_step(s))
    },
    "c_i+ is sent in place of its change": {"client_final": sends_control},
    "c_i is forgotten between rounds": {"client_final": forgets},
    "|S| / N is left out": {"server_update": ignores_the_fraction},
    "c is replaced in place of moved": {"server_update": replaces_the_control},
}


@pytest.mark.parametrize("name", WRONG)
def test_known_wrong_implementations_fail_the_check(name: str) -> None:
    wrong: Any = WRONG[name]
    with pytest.raises(AssertionError):
        check(scaffold_plan(GOOD._replace(**wrong)))


def states(training: Any) -> dict[int, bytes]:
    rows = training.store._db.execute("select client, state from client_states").fetchall()
    return {client: state for client, state in rows}


def test_whoever_drops_out_keeps_its_state() -> None:
    """Before masking: as if it had not taken part. After: its message is in, its state moves."""
    data = helpers.small_data()
    leaving = {"advertise_keys": 0.1, "mask_input": 0.1, "unmask": 0.2}
    plan = helpers.plan(
        algorithm=algorithm(participation=1.0), rounds=8, privacy=fl.NotPrivate(50.0),
        aggregation=helpers.secure(simulate_dropout=leaving), seeded_secrets=True,
    )  # fmt: skip
    training, dropped = start(plan, helpers.MODEL, data), 0
    for _ in range(8):
        before = states(training)
        finished = training.step()
        assert finished is not None
        after = states(training)
        changed = {client for client in after if after[client] != before.get(client)}
        assert changed == set(finished.survivors)
        dropped += 12 - len(changed)
    assert dropped > 0


def test_a_round_that_releases_nothing_changes_no_state() -> None:
    plan = helpers.plan(
        algorithm=algorithm(participation=1.0), privacy=fl.NotPrivate(50.0),
        aggregation=helpers.ideal(simulate_dropout={"mask_input": 0.9}, beyond=True),
    )  # fmt: skip
    training = start(plan, helpers.MODEL, helpers.small_data())
    finished = training.step()
    assert finished is not None
    assert finished.reason is not None
    assert states(training) == {}


def test_a_client_whose_message_is_not_finite_keeps_its_state() -> None:
    x = np.array(helpers.small_data().fields["x"], np.float32)
    x[helpers.small_data().client_slice(4)] = np.nan
    plan = helpers.plan(
        algorithm=algorithm(participation=1.0), aggregation=helpers.ideal(), rounds=2
    )
    training = start(plan, helpers.MODEL, helpers.small_data(x=x))
    while training.step() is not None:
        pass
    kept = training.store.client_state(4)
    assert kept is not None
    assert not any(leaf.any() for leaf in leaves_from_npz(kept))
    other = training.store.client_state(3)
    assert other is not None
    assert any(leaf.any() for leaf in leaves_from_npz(other))


def test_resuming_brings_back_every_clients_state(tmp_path: Path) -> None:
    data = helpers.small_data()
    plan = helpers.plan(
        algorithm=algorithm(participation=0.5), cohort=fl.cohort.cyclic(6), rounds=5,
        aggregation=helpers.ideal(), seeded_secrets=True,
    )  # fmt: skip
    whole = fl.train(plan, helpers.MODEL, data)
    training = start(plan, helpers.MODEL, data, out=tmp_path)
    for _ in range(3):
        training.step()
    training.store.close()
    *_, last = fl.rounds(plan, helpers.MODEL, data, out=tmp_path, resume=True)
    assert helpers.params_bytes(last.params) == helpers.params_bytes(whole.params)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"cohort": fl.cohort.full()}, "participation"),
        ({"privacy": fl.NotPrivate(weights="examples")}, "weights"),
    ],
)
def test_a_plan_that_scaffold_was_not_built_for_is_refused(
    overrides: dict[str, Any], field: str
) -> None:
    with pytest.raises(fl.PlanError) as caught:
        fl.resolve(scaffold_plan(algorithm(), **overrides), DATA)
    (line,) = caught.value.faults
    assert line.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [("participation", 0.0), ("participation", 1.5), ("control_scale", 0.0), ("client_lr", -1.0)],
)
def test_each_number_is_checked(field: str, value: float) -> None:
    with pytest.raises(fl.PlanError, match=field):
        algorithm(**{field: value})
