"""CNN, LSTM and regression: by hand in numpy, masked, and sized as published."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

import fl
from fl.models import MODELS, cnn, named
from fl.models.convolution import Form
from fl.types import PyTree
from tests.fl import helpers

FORMS: tuple[Form, ...] = ("im2col", "lax")
CNNS = {form: cnn(64, 3, form=form, channels=(2, 3), hidden=5) for form in FORMS}
LSTM = fl.models.char_lstm(7, embedding=3, hidden=4)
LINEAR = fl.models.linear(4)


def some_params(model: fl.Model, seed: int = 1) -> PyTree:
    """Parameters with no zeros in them."""
    leaves, structure = jax.tree.flatten(model.init(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    filled = [jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, filled)


def size(model: fl.Model) -> int:
    shapes = jax.eval_shape(model.init, helpers.KEY)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def images(count: int, seed: int = 3) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "x": jnp.asarray(rng.normal(size=(count, 64)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 3, count), jnp.int32),
        "mask": jnp.ones(count),
    }


def by_hand(params: PyTree, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits of one image [64], by the definition: loops, zero padding, maxima of four."""
    image = x.reshape(8, 8, 1)
    for name in ("conv1", "conv2"):
        w, b = np.asarray(params[name]["w"]), np.asarray(params[name]["b"])
        side = len(image)
        out = np.tile(b.astype(np.float64), (side, side, 1))
        for r, c, i, j in itertools.product(range(side), range(side), range(5), range(5)):
            if 0 <= r + i - 2 < side and 0 <= c + j - 2 < side:
                out[r, c] += image[r + i - 2, c + j - 2] @ w[i, j]
        out = np.maximum(out, 0)
        image = np.array([[out[r : r + 2, c : c + 2].max(axis=(0, 1)) for c in range(0, side, 2)]
                          for r in range(0, side, 2)])  # fmt: skip
    units = np.maximum(image.ravel() @ np.asarray(params["dense"]["w"]) + params["dense"]["b"], 0)
    logits: NDArray[np.float64] = units @ np.asarray(params["out"]["w"]) + params["out"]["b"]
    return logits


@pytest.mark.parametrize("form", FORMS)
def test_the_cnn_by_hand(form: Form) -> None:
    params, x = some_params(CNNS[form]), images(3)["x"]
    expected = [by_hand(params, row) for row in np.asarray(x, np.float64)]
    np.testing.assert_allclose(CNNS[form].apply(params, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_both_forms_of_the_cnn_have_the_same_start_outputs_and_gradients() -> None:
    ours, other = (CNNS[form].init(helpers.KEY) for form in FORMS)
    assert helpers.params_bytes(ours) == helpers.params_bytes(other)
    params, batch = some_params(CNNS["lax"]), images(6)
    found = [jax.value_and_grad(CNNS[form].loss)(params, batch, helpers.KEY) for form in FORMS]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)
    assert float(found[0][0]) > 0.1


@pytest.mark.slow
def test_both_forms_agree_at_the_published_size() -> None:
    models = [cnn(784, 10, form=form) for form in FORMS]
    params = models[0].init(helpers.KEY)
    rng = np.random.default_rng(0)
    batch = {
        "x": jnp.asarray(rng.random((10, 784)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 10, 10), jnp.int32),
        "mask": jnp.ones(10),
    }
    found = [jax.value_and_grad(model.loss)(params, batch, helpers.KEY) for model in models]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *found)


def test_the_published_sizes() -> None:
    assert size(cnn(784, 10)) == size(cnn(784, 10, form="lax")) == 1_663_370  # McMahan et al. 2017
    # By hand for 90 symbols: 90 * 8 embedded; 4 * 256 * (8 + 256 + 1) and 4 * 256 * (256 + 256 + 1)
    # in the cells; 256 * 90 + 90 out.
    assert size(fl.models.char_lstm(90)) == 720 + 271_360 + 525_312 + 23_130 == 820_522
    plays = data_of(WINDOWS.fields["x"], WINDOWS.fields["y"], fl.datasets.text.NUM_SYMBOLS)
    assert size(named("char-lstm-small", plays)) == 8 * 80 + 4 * 32 * 41 + 33 * 80 == 8_528
    assert size(fl.models.linear(21)) == 22


@pytest.mark.parametrize("num_features", [0, 63, 36 * 36 + 1, 30 * 30])
def test_images_the_cnn_cannot_halve_twice_are_refused(num_features: int) -> None:
    with pytest.raises(fl.PlanError, match=f"num_features: got {num_features}; takes a square"):
        cnn(num_features, 10)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(fl.PlanError, match="form: got fft; takes im2col"):
        cnn(64, 10, form="fft")  # type: ignore[arg-type]


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_the_lstm_by_hand() -> None:
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), some_params(LSTM))
    symbols = np.array([[1, 4, 2, 6, 0], [3, 3, 5, 1, 2]])
    expected = np.zeros((2, 5, 7))
    for b, row in enumerate(symbols):
        states = [(np.zeros(4), np.zeros(4)) for _ in params["lstm"]]
        for t, symbol in enumerate(row):
            value = params["embedding"][symbol]
            for k, layer in enumerate(params["lstm"]):
                output, cell = states[k]
                gates = (value @ layer["w"] + output @ layer["u"] + layer["b"]).reshape(4, 4)
                cell = sigmoid(gates[1]) * cell + sigmoid(gates[0]) * np.tanh(gates[2])
                value = sigmoid(gates[3]) * np.tanh(cell)
                states[k] = (value, cell)
            expected[b, t] = value @ params["out"]["w"] + params["out"]["b"]
    found = LSTM.apply(some_params(LSTM), jnp.asarray(symbols, jnp.uint8))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_lstm_sees_no_later_symbol_and_starts_by_remembering() -> None:
    params, symbols = some_params(LSTM), jnp.asarray([[1, 4, 2, 6, 0]])
    before, after = (LSTM.apply(params, s)[0] for s in (symbols, symbols.at[0, 3].set(5)))
    np.testing.assert_array_equal(before[:3], after[:3])
    assert not np.allclose(before[3], after[3])
    bias = LSTM.init(helpers.KEY)["lstm"][0]["b"]
    assert np.asarray(bias).tolist() == [0] * 4 + [1] * 4 + [0] * 8


def test_padding_and_masked_windows_count_for_nothing() -> None:
    params = some_params(LSTM)
    x = jnp.asarray([[1, 2, 3], [4, 5, 0], [6, 6, 6]])
    y = jnp.asarray([[2, 3, 0], [5, 0, 0], [6, 6, 1]])
    batch = {"x": x, "y": y, "mask": jnp.asarray([1.0, 1.0, 0.0])}
    logits = np.asarray(LSTM.apply(params, x), np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    places = [(0, 0), (0, 1), (1, 0)]  # the first window ends in padding, the second begins it
    losses = [-log_probs[place][int(y[place])] for place in places]
    hits = sum(int(logits[place].argmax()) == int(y[place]) for place in places)
    assert float(LSTM.loss(params, batch, helpers.KEY)) == pytest.approx(np.mean(losses), rel=1e-4)
    found = LSTM.metrics(params, batch)
    assert float(found["loss"][0]) == pytest.approx(sum(losses), rel=1e-4)
    assert (float(found["accuracy"][0]), float(found["accuracy"][1])) == (hits, 3.0)


@pytest.mark.slow
def test_a_batch_of_padding_has_no_gradient() -> None:
    params = some_params(LSTM)
    batch = {"x": jnp.ones((2, 3), int), "y": jnp.zeros((2, 3), int), "mask": jnp.ones(2)}
    loss, gradient = jax.value_and_grad(LSTM.loss)(params, batch, helpers.KEY)
    assert float(loss) == 0.0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def test_linear_regression_by_hand() -> None:
    params = {"b": jnp.asarray(1.0), "w": jnp.asarray([1.0, -2.0, 0.0, 0.5])}
    batch = {
        "x": jnp.asarray([[1, 1, 5, 2], [0, 3, 0, 0], [9, 9, 9, 9]], jnp.float32),
        "y": jnp.asarray([3.0, -5.0, 7.0]),
        "mask": jnp.asarray([1.0, 1.0, 0.0]),
    }
    assert np.asarray(LINEAR.apply(params, batch["x"]))[:2].tolist() == [1.0, -5.0]
    assert float(LINEAR.loss(params, batch, helpers.KEY)) == 2.0  # errors -2 and 0
    found = LINEAR.metrics(params, batch)
    assert {name: (float(a), float(b)) for name, (a, b) in found.items()} == {
        "mae": (2.0, 2.0), "mse": (4.0, 2.0),
    }  # fmt: skip
    gradient = jax.grad(LINEAR.loss)(params, batch, helpers.KEY)
    assert np.asarray(gradient["w"]).tolist() == [-2.0, -2.0, -10.0, -4.0]


def data_of(x: Any, y: Any, num_classes: int | None) -> fl.FederatedDataset:
    ids = np.zeros(len(x), np.int64)
    return fl.FederatedDataset.from_arrays({"x": x, "y": y}, ids, num_classes=num_classes)


ROWS = data_of(np.zeros((3, 64), np.float32), np.zeros(3, np.int32), 5)
WINDOWS = data_of(np.zeros((3, 6), np.uint8), np.zeros((3, 6), np.uint8), 7)
NUMBERS = data_of(np.zeros((3, 4), np.float32), np.zeros(3, np.float32), None)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_by_name_fits_its_data_and_refuses_others(name: str) -> None:
    windows = {"char-lstm": WINDOWS, "char-lstm-small": WINDOWS}
    fitting = {**windows, "linear": NUMBERS}.get(name, ROWS)
    model = named(name, fitting)
    params = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(model.init, helpers.KEY)
    )
    batch = {key: jnp.asarray(field) for key, field in fitting.fields.items()}
    batch["mask"] = jnp.ones(3)
    assert np.isfinite(float(model.loss(params, batch, helpers.KEY)))
    for other in (ROWS, WINDOWS, NUMBERS):
        if other is not fitting:
            with pytest.raises(fl.PlanError, match=f"model {name}: got "):
                named(name, other)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(fl.PlanError, match="model: got resnet; takes logistic"):
        named("resnet", ROWS)
