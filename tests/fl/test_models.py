"""Models: masked examples count for nothing, values and gradients by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

import fl
from fl.models import ModelLoss, classifier, masked_mean
from fl.types import PyTree
from tests.fl import helpers

MODELS = {"logistic": fl.models.logistic(4, 3), "2nn": fl.models.two_nn(4, 3, hidden=5)}


def some_params(model: fl.Model, seed: int = 1) -> PyTree:
    """Parameters with no zeros in them."""
    leaves, structure = jax.tree.flatten(model.init(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    filled = [jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, filled)


def batch(size: int, mask: list[int], seed: int = 2) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "x": jnp.asarray(rng.normal(size=(size, 4)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 3, size), jnp.int32),
        "mask": jnp.asarray(mask, jnp.float32),
    }


def cross_entropy(logits: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_norm = np.log(np.exp(shifted).sum(axis=1))
    losses: NDArray[np.float64] = log_norm - shifted[np.arange(len(y)), y]
    return losses


def with_other_padding(fields: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The same batch with other values where the mask is 0."""
    keep = fields["mask"] == 1
    return {
        **fields,
        "x": jnp.where(keep[:, None], fields["x"], 1e3),
        "y": jnp.where(keep, fields["y"], 2),
    }


@pytest.mark.parametrize("name", sorted(MODELS))
def test_masked_examples_change_neither_loss_nor_gradient_nor_metrics(name: str) -> None:
    model = MODELS[name]
    params, fields = some_params(model), batch(5, [1, 0, 1, 1, 0])
    kept = {field: values[fields["mask"] == 1] for field, values in fields.items()}

    @jax.jit
    def everything(fields: dict[str, jax.Array]) -> PyTree:
        loss_and_gradient = jax.value_and_grad(model.loss)(params, fields, helpers.KEY)
        return loss_and_gradient, model.metrics(params, fields)

    ours = everything(fields)
    for other in (with_other_padding(fields), kept):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            ours,
            everything(other),
        )


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_loss_does_not_depend_on_masked_rows(name: str) -> None:
    model = MODELS[name]
    params, fields = some_params(model), batch(4, [1, 0, 0, 1])

    def loss(x: jax.Array) -> jax.Array:
        return model.loss(params, {**fields, "x": x}, helpers.KEY)

    by_row = np.abs(np.asarray(jax.grad(loss)(fields["x"]))).sum(axis=1)
    assert (by_row[[1, 2]] == 0).all()
    assert (by_row[[0, 3]] > 0).all()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_batch_of_padding_has_no_loss_and_no_gradient(name: str) -> None:
    model = MODELS[name]
    params, fields = some_params(model), batch(3, [0, 0, 0])
    loss, gradient = jax.value_and_grad(model.loss)(params, fields, helpers.KEY)
    assert float(loss) == 0.0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))
    for total, count in model.metrics(params, fields).values():
        assert float(total) == float(count) == 0.0


@pytest.mark.parametrize("name", sorted(MODELS))
def test_loss_and_metrics_are_those_of_the_logits(name: str) -> None:
    model = MODELS[name]
    params, fields = some_params(model), batch(6, [1, 1, 0, 1, 1, 1])
    keep = np.asarray(fields["mask"]) == 1
    logits = np.asarray(model.apply(params, fields["x"]), np.float64)[keep]
    y = np.asarray(fields["y"])[keep]
    losses = cross_entropy(logits, y)
    assert float(model.loss(params, fields, helpers.KEY)) == pytest.approx(losses.mean(), rel=1e-5)
    found = model.metrics(params, fields)
    assert set(found) == {"accuracy", "loss"}
    assert float(found["loss"][0]) == pytest.approx(losses.sum(), rel=1e-5)
    assert float(found["accuracy"][0]) == (logits.argmax(axis=1) == y).sum()
    assert float(found["accuracy"][1]) == float(found["loss"][1]) == 5


def test_logistic_regression_is_affine_and_starts_from_zero() -> None:
    model = MODELS["logistic"]
    start = model.init(helpers.KEY)
    assert {name: leaf.shape for name, leaf in start.items()} == {"b": (3,), "w": (4, 3)}
    assert not any(np.asarray(leaf).any() for leaf in start.values())
    params, x = some_params(model), batch(3, [1, 1, 1])["x"]
    by_hand = np.asarray(x) @ np.asarray(params["w"]) + np.asarray(params["b"])
    np.testing.assert_allclose(model.apply(params, x), by_hand, rtol=1e-5)


def test_the_two_layer_network_by_hand() -> None:
    model = MODELS["2nn"]
    params, x = some_params(model), batch(3, [1, 1, 1])["x"]
    hidden = np.asarray(x)
    for layer in params[:-1]:
        hidden = np.maximum(hidden @ np.asarray(layer["w"]) + np.asarray(layer["b"]), 0)
    by_hand = hidden @ np.asarray(params[-1]["w"]) + np.asarray(params[-1]["b"])
    np.testing.assert_allclose(model.apply(params, x), by_hand, rtol=1e-4)


def test_the_two_layer_network_has_the_published_size_and_a_keyed_start() -> None:
    model = fl.models.two_nn(784, 10)
    shapes = jax.eval_shape(model.init, helpers.KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 199_210  # McMahan et al. 2017
    small = MODELS["2nn"]
    first, again, other = (small.init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert helpers.params_bytes(first) == helpers.params_bytes(again)
    assert helpers.params_bytes(first) != helpers.params_bytes(other)
    assert not any(np.asarray(layer["b"]).any() for layer in first)
    assert not np.array_equal(first[0]["w"][:4, :3], first[1]["w"][:4, :3])


def test_the_masked_mean_of_nothing_is_zero() -> None:
    values, mask = jnp.asarray([2.0, 5.0, 11.0]), jnp.asarray([1.0, 1.0, 0.0])
    assert float(masked_mean(values, mask)) == 3.5
    assert float(masked_mean(values, jnp.zeros(3))) == 0.0


def test_a_models_loss_knows_its_parameters_however_the_model_is_made() -> None:
    made = classifier(MODELS["logistic"].init, MODELS["logistic"].apply)
    for model in (
        made,
        fl.Model(made.init, made.apply, lambda p, b, k: jnp.zeros(()), made.metrics),
    ):
        assert isinstance(model.loss, ModelLoss)
        assert model.loss.init is made.init
