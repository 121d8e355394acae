"""Algorithms against their papers, by hand in numpy; and every one of them on every path."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
from numpy.typing import NDArray

import fl
from fl.algorithms.named import ALGORITHMS, Recipe
from fl.group import alone
from fl.prepare import prepare
from tests.fl import helpers
from tests.fl.helpers import flat

Floats = NDArray[np.float64]
LOSS = helpers.MODEL.loss


def recipe(name: str, **overrides: Any) -> Recipe:
    settings: dict[str, Any] = {
        "client_lr": 0.2, "client_lr_decay": 1.0, "server_lr": 0.5, "server_momentum": 0.0,
        "batch_size": None, "local_epochs": 2, "mu": 0.1 if name == "fedprox" else 0.0,
        "control_scale": 1.0,
    }  # fmt: skip
    return Recipe(name=name, **{**settings, **overrides})


# On the client these are federated averaging, so that one of them stands for the others.
_ALIKE = ("fedavgm", "fedadagrad", "fedyogi")
EVERY = [
    pytest.param(name, marks=[pytest.mark.slow] if name in _ALIKE else []) for name in ALGORITHMS
]
MADE = {name: recipe(name).build(LOSS, participation=1.0) for name in ALGORITHMS}


def gradient(params: Floats, rows: Any) -> Floats:
    """Of the mean cross-entropy of softmax regression; params are b[3], then w[4, 3]."""
    x, y = np.asarray(rows["x"], np.float64), np.asarray(rows["y"])
    logits = x @ params[3:].reshape(4, 3) + params[:3]
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (softmax - np.eye(3)[y]) / len(y)
    return np.concatenate([error.sum(0), (x.T @ error).ravel()])


def adagrad(v: Floats, squared: Floats) -> Floats:
    return v + squared


def adam(v: Floats, squared: Floats) -> Floats:
    return 0.99 * v + 0.01 * squared


def yogi(v: Floats, squared: Floats) -> Floats:
    return v - 0.01 * squared * np.sign(v - squared)


@pytest.mark.parametrize(
    ("make", "second", "beta1"),
    [(fl.fedadagrad, adagrad, 0.0), (fl.fedadam, adam, 0.9), (fl.fedyogi, yogi, 0.9)],
)
def test_adaptive_server_optimizers_are_the_papers(make: Any, second: Any, beta1: float) -> None:
    """Algorithm 2 of Reddi et al.: no bias correction, tau outside the root, v from tau^2."""
    rng, rate, tau = np.random.default_rng(0), 0.3, 1e-3
    x, m, v = np.zeros(5), np.zeros(5), np.full(5, tau**2)
    optimizer = make(rate)
    params, state = np.zeros(5, np.float32), optimizer.init(np.zeros(5, np.float32))
    for _ in range(12):
        delta = rng.normal(size=5) * rng.choice([1e-3, 0.1, 3.0], size=5)
        m = beta1 * m + (1 - beta1) * delta
        v = second(v, delta**2)
        x = x + rate * m / (np.sqrt(v) + tau)
        updates, state = optimizer.update((-delta).astype(np.float32), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params, x, rtol=2e-4, atol=1e-6)


def test_optax_own_adam_is_another_algorithm() -> None:
    """The check above would tell bias correction: first steps differ by a tenth."""
    delta = np.array([0.1], np.float32)
    ours, theirs = fl.fedadam(0.3), optax.adam(0.3, b1=0.9, b2=0.99, eps=1e-3)
    steps = [float(o.update(-delta, o.init(delta))[0][0]) for o in (ours, theirs)]
    assert abs(steps[0] - steps[1]) > 0.02


def test_fedavgm_is_momentum_on_the_mean_update() -> None:
    optimizer = fl.fedavgm(0.5)
    x, m = np.zeros(3), np.zeros(3)
    params, state = np.zeros(3, np.float32), optimizer.init(np.zeros(3, np.float32))
    for k in range(5):
        delta = np.array([1.0, -2.0, 0.5]) * (k + 1)
        m = 0.9 * m + delta
        x = x + 0.5 * m
        updates, state = optimizer.update((-delta).astype(np.float32), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, x, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "overrides"),
    [
        (fl.fedadam, {"beta1": 1.0}), (fl.fedadam, {"beta2": -0.1}), (fl.fedyogi, {"tau": 0.0}),
        (fl.fedadagrad, {"initial": -1.0}), (fl.fedadagrad, {"learning_rate": 0.0}),
    ],
)  # fmt: skip
def test_numbers_of_server_optimizers_are_checked(make: Any, overrides: dict[str, float]) -> None:
    (name,) = overrides
    with pytest.raises(fl.PlanError, match=name):
        make(**{"learning_rate": 0.1, **overrides})


def plain(algorithm: fl.Algorithm, data: fl.FederatedDataset, **overrides: Any) -> list[Floats]:
    settings: dict[str, Any] = {"privacy": fl.NotPrivate(), "aggregation": fl.Plain()}
    plan = helpers.plan(algorithm=algorithm, **{**settings, **overrides})
    return [flat(r.params) for r in fl.rounds(plan, helpers.MODEL, data)]


def test_fedprox_is_descent_on_the_proximal_loss() -> None:
    data, mu, eta = helpers.small_data(4), 0.7, 0.2
    prox = fl.fedprox(
        LOSS, mu=mu, client_optimizer=optax.sgd(eta), server_optimizer=optax.sgd(1.0),
        batch_size=None, local_epochs=4,
    )  # fmt: skip
    x, models = np.zeros(15), []
    for _ in range(3):
        ends = []
        for i in range(4):
            w = x.copy()
            for _ in range(4):
                w = w - eta * (gradient(w, data.client(i)) + mu * (w - x))
            ends.append(w)
        x = np.mean(ends, axis=0)
        models.append(x)
    np.testing.assert_allclose(plain(prox, data), models, atol=1e-5)
    averaged = plain(prox._replace(client_step=MADE["fedavg"].client_step), data)
    assert np.abs(averaged[-1] - models[-1]).max() > 0.01


def test_fedprox_without_its_term_is_federated_averaging() -> None:
    data = helpers.small_data()
    kwargs: dict[str, Any] = {
        "client_optimizer": optax.sgd(0.2), "server_optimizer": optax.sgd(1.0),
        "batch_size": 2, "local_epochs": 2,
    }  # fmt: skip
    with_term, without = fl.fedprox(LOSS, mu=0.0, **kwargs), fl.fedavg(LOSS, **kwargs)
    np.testing.assert_allclose(plain(with_term, data), plain(without, data), atol=1e-6)
    with pytest.raises(fl.PlanError, match="mu"):
        fl.fedprox(LOSS, mu=-1.0, **kwargs)


def test_fedsgd_is_gradient_descent_on_all_examples() -> None:
    """Weighted by examples, so that it is the gradient over everybody's."""
    rng = np.random.default_rng(2)
    ids = np.repeat(np.arange(3), [1, 7, 4])
    rows = {
        "x": rng.normal(size=(12, 4)).astype(np.float32),
        "y": rng.integers(0, 3, 12).astype(np.int32),
    }
    data = fl.FederatedDataset.from_arrays(rows, ids, num_classes=3)
    algorithm = fl.fedsgd(LOSS, server_optimizer=optax.sgd(0.4))
    x, models = np.zeros(15), []
    for _ in range(3):
        x = x - 0.4 * gradient(x, rows)
        models.append(x)
    got = plain(algorithm, data, privacy=fl.NotPrivate(weights="examples"))
    np.testing.assert_allclose(got, models, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_every_algorithm_gives_the_same_bits_by_ideal_and_secure(name: str) -> None:
    data, algorithm = helpers.small_data(), MADE[name]
    models = []
    for make in (helpers.ideal, helpers.secure):
        plan = helpers.plan(
            algorithm=algorithm, aggregation=make(simulate_dropout={"mask_input": 0.1}),
            seeded_secrets=True,
        )  # fmt: skip
        models.append(helpers.params_bytes(fl.train(plan, helpers.MODEL, data).params))
    assert models[0] == models[1]


def odd_clients() -> fl.FederatedDataset:
    """Three ordinary clients, one without data, one with one example, one with NaN, one huge."""
    rng = np.random.default_rng(1)
    ids = np.repeat(np.arange(7), [5, 5, 5, 0, 1, 5, 5])
    x = rng.normal(size=(len(ids), 4)).astype(np.float32)
    x[ids == 5] = np.nan
    x[ids == 6] = 3e38
    return fl.FederatedDataset.from_arrays(
        {"x": x, "y": rng.integers(0, 3, len(ids)).astype(np.int32)}, ids, num_clients=7,
        num_classes=3,
    )  # fmt: skip


UNITS = [("client", name) for name in ("fedavg", "fedprox", "scaffold", "fedsgd")]
UNITS += [("record", name) for name in ("fedavg", "fedprox", "fedsgd")]


@pytest.mark.parametrize(("unit", "name"), UNITS)
def test_odd_clients_take_part_like_everyone_else(unit: str, name: str) -> None:
    sampling = {"record_sampling": 0.5} if unit == "record" else {}
    plan = helpers.plan(
        algorithm=MADE[name], privacy=helpers.privacy(unit=unit, **sampling),
        aggregation=helpers.ideal(corrupt=0.0, dropout=0.0),
    )  # fmt: skip
    for r in fl.rounds(plan, helpers.MODEL, odd_clients()):
        assert r.survivors == tuple(range(7))
        assert np.isfinite(flat(r.params)).all()


@pytest.mark.parametrize("name", EVERY)
def test_odd_clients_are_left_out_without_privacy(name: str) -> None:
    for aggregation in (fl.Plain(), helpers.ideal(corrupt=0.0, dropout=0.0)):
        got = plain(MADE[name], odd_clients(), aggregation=aggregation, privacy=fl.NotPrivate(10.0))
        assert np.isfinite(got).all()
        assert np.abs(got[-1]).max() > 0


def test_a_message_of_two_vectors_is_clipped_as_one() -> None:
    """SCAFFOLD's two together stay within the norm that each alone would use up."""
    from_seed = helpers.plan(
        algorithm=MADE["scaffold"], privacy=fl.NotPrivate(0.05), aggregation=fl.Plain(), rounds=1
    )
    resolved = fl.resolve(from_seed, helpers.small_data())
    assert resolved.messages.dim == 2 * 15
    ready = prepare(from_seed, helpers.MODEL, helpers.small_data(), fl.Execution(), alone())
    sent = MADE["scaffold"].broadcast(ready.state)
    for trained in ready.runner.train(sent, 0, range(12), lambda client: ready.fresh):
        np.testing.assert_allclose(np.linalg.norm(trained.vectors, axis=1), 0.05, rtol=1e-5)
        assert trained.clipped.all()


def test_a_client_rate_that_decays_follows_the_round_number() -> None:
    """Two rounds of one full-batch step: the second with half the rate, also after an abort."""
    data, rate = helpers.small_data(3), 0.4
    decaying = recipe("fedavg", client_lr=rate, client_lr_decay=0.5, local_epochs=1, server_lr=1.0)
    got = plain(decaying.build(LOSS, participation=1.0), data)
    x, models = np.zeros(15), []
    for t in range(3):
        mean = np.mean([gradient(x, data.client(i)) for i in range(3)], axis=0)
        x = x - rate * 0.5**t * mean
        models.append(x)
    np.testing.assert_allclose(got, models, atol=1e-5)


def test_a_schedule_counts_rounds_that_abort() -> None:
    seen = []

    def watched(round_index: Any) -> optax.GradientTransformation:
        jax.debug.callback(lambda t: seen.append(int(t)), round_index)
        return optax.sgd(0.1)

    algorithm = fl.fedavg(
        LOSS, client_optimizer=watched, server_optimizer=optax.sgd(1.0), batch_size=None,
        local_epochs=1,
    )  # fmt: skip
    plan = helpers.plan(
        algorithm=algorithm, privacy=fl.NotPrivate(1.0),
        aggregation=helpers.secure(simulate_dropout={"unmask": 0.6}, beyond=True),
    )  # fmt: skip
    finished = list(fl.rounds(plan, helpers.MODEL, helpers.small_data()))
    assert all(r.reason is not None for r in finished)
    assert sorted(set(seen)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "fedmax"), ("client_lr", 0.0), ("client_lr_decay", 0.0),
        ("client_lr_decay", 1.1), ("server_lr", -1.0), ("server_momentum", 1.0), ("mu", -0.1),
        ("control_scale", 0.0),
    ],
)  # fmt: skip
def test_each_number_of_a_recipe_is_checked(field: str, value: Any) -> None:
    base = {"name": {"mu": "fedprox", "control_scale": "scaffold"}.get(field, "fedavg")}
    (line,) = recipe(**{**base, field: value}).faults()
    assert line.startswith("algorithm: " if field == "name" else f"{field}: ")
    assert not recipe("fedavg").faults()


def test_momentum_of_ones_own_is_not_taken_twice() -> None:
    (line,) = recipe("fedadam", server_momentum=0.9).faults()
    assert line.startswith("server_momentum: ")
