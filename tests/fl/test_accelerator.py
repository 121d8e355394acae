"""Training on an accelerator: the same bits twice, resumed and masked; near to the CPU's."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fl
from fl import programs
from fl.runners import Execution, runner_for
from fl.train import start
from tests.fl import helpers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.default_backend() == "cpu", reason="JAX finds no accelerator"),
]


def images(clients: int = 10, examples: int = 20) -> fl.FederatedDataset:
    rng = np.random.default_rng(0)
    x = rng.random((clients * examples, 784), dtype=np.float32)
    fields = {"x": x, "y": rng.integers(0, 10, len(x)).astype(np.int32)}
    ids = np.repeat(np.arange(clients), examples)
    return fl.FederatedDataset.from_arrays(fields, ids, test=fields, num_classes=10)


def windows(clients: int = 6, examples: int = 4) -> fl.FederatedDataset:
    text = np.random.default_rng(0).integers(1, 20, (clients * examples, 13)).astype(np.int32)
    fields = {"x": text[:, :-1].copy(), "y": text[:, 1:].copy()}
    ids = np.repeat(np.arange(clients), examples)
    return fl.FederatedDataset.from_arrays(fields, ids, test=fields)


KINDS: dict[str, tuple[fl.Model, fl.FederatedDataset]] = {
    "2nn": (fl.models.two_nn(784, 10, hidden=32), images()),
    "cnn": (fl.models.cnn(784, 10), images()),
    "cnn-lax": (fl.models.cnn(784, 10, form="lax"), images()),
    "lstm": (fl.models.char_lstm(20, hidden=16), windows()),
}


def algorithm(model: fl.Model) -> fl.Algorithm:
    return fl.fedavg(
        model.loss, client_optimizer=optax.sgd(0.1), server_optimizer=optax.sgd(1.0),
        batch_size=5, local_epochs=1,
    )  # fmt: skip


def plan(model: fl.Model, **overrides: Any) -> fl.Plan:
    return helpers.plan(algorithm=algorithm(model), seeded_secrets=True, **overrides)


@pytest.mark.parametrize("kind", KINDS)
def test_clients_train_side_by_side_and_as_one_by_one(kind: str) -> None:
    model, data = KINDS[kind]
    made = algorithm(model)
    state, fresh = programs.initial_state(made, model.init, programs.seed_words(3))
    sent, found = made.broadcast(state), {}
    with jax.default_matmul_precision("highest"):  # else products are in TensorFloat-32
        for execution in (Execution(), Execution("scan", 4), Execution("steps")):
            runner = runner_for(execution, made, data, 3, None, sent, fresh)
            assert execution.strategy != "auto" or runner.strategy == "vmap"
            chunks = list(runner.train(sent, 0, range(data.num_clients), lambda client: fresh))
            found[runner.strategy] = np.concatenate([chunk.vectors for chunk in chunks])
    assert np.abs(found["vmap"]).max() > 1e-3
    for other in ("scan", "steps"):
        np.testing.assert_allclose(found[other], found["vmap"], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_repeats_bit_for_bit(kind: str) -> None:
    model, data = KINDS[kind]
    first, second = (fl.train(plan(model), model, data) for _ in range(2))
    assert helpers.params_bytes(first.params) == helpers.params_bytes(second.params)


def test_a_masked_run_is_the_ideal_one_bit_for_bit() -> None:
    model, data = KINDS["2nn"]
    masked = fl.train(plan(model, aggregation=helpers.secure()), model, data)
    ideal = fl.train(plan(model), model, data)
    assert helpers.params_bytes(masked.params) == helpers.params_bytes(ideal.params)


def test_a_resumed_run_is_the_whole_one_bit_for_bit(tmp_path: Path) -> None:
    model, data = KINDS["2nn"]
    whole = fl.train(plan(model), model, data)
    training = start(plan(model), model, data, out=tmp_path)
    training.step()
    training.store.close()
    *_, last = fl.rounds(plan(model), model, data, out=tmp_path, resume=True)
    assert helpers.params_bytes(last.params) == helpers.params_bytes(whole.params)
