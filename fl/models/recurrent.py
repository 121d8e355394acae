"""The character LSTM of McMahan et al. 2017 and LEAF (Caldas et al. 2018)."""

import jax
import jax.numpy as jnp

from fl.models.base import Model, sequence_classifier
from fl.types import PyTree


def char_lstm(
    num_symbols: int, *, embedding: int = 8, hidden: int = 256, layers: int = 2, padding: int = 0
) -> Model:
    """Next-character prediction at every position of a window, from a zero state.

    Each symbol becomes `embedding` numbers, which pass through `layers` LSTM layers of `hidden`
    units to a softmax over the symbols. 820,522 parameters with 90 symbols. McMahan et al. 2017,
    section 3; the cell is that of Gers, Schmidhuber, Cummins 2000, without peepholes.

    "x" and "y" are integers [B, T]: symbols, and the symbol that follows each.

    Args:
        num_symbols: of the alphabet, padding included.
        embedding: numbers per symbol.
        hidden: units per layer.
        layers: how many.
        padding: the symbol that is no character; nothing is predicted there.
    """
    fan_ins = (embedding, *(hidden,) * (layers - 1))

    def init(key: jax.Array) -> PyTree:
        kernel, recurrent = jax.nn.initializers.glorot_uniform(), jax.nn.initializers.orthogonal()
        spread = jax.nn.initializers.normal(embedding**-0.5)
        keys = jax.random.split(key, 2 * layers + 2)
        forget = jnp.zeros((4, hidden)).at[1].set(1.0)  # remember at first: Jozefowicz et al. 2015
        return {
            "embedding": spread(keys[0], (num_symbols, embedding)),
            "lstm": [
                {
                    "b": forget.ravel(),
                    "u": recurrent(keys[2 * layer + 1], (hidden, 4 * hidden)),
                    "w": kernel(keys[2 * layer + 2], (fan_in, 4 * hidden)),
                }
                for layer, fan_in in enumerate(fan_ins)
            ],
            "out": {"b": jnp.zeros(num_symbols), "w": kernel(keys[-1], (hidden, num_symbols))},
        }

    def apply(params: PyTree, x: jax.Array) -> jax.Array:
        values = params["embedding"][x.astype(jnp.int32)]  # [B, T, embedding]
        sequence = jnp.swapaxes(values, 0, 1)  # time first, as scan takes it
        for layer in params["lstm"]:
            sequence = _layer(layer, sequence, hidden)
        logits: jax.Array = jnp.swapaxes(sequence, 0, 1) @ params["out"]["w"] + params["out"]["b"]
        return logits

    return sequence_classifier(init, apply, padding)


def _layer(params: PyTree, sequence: jax.Array, hidden: int) -> jax.Array:
    """One LSTM layer over [T, B, fan_in] -> [T, B, hidden]."""
    # The inputs' share of the gates needs no state: one large product before the loop.
    inputs = sequence @ params["w"] + params["b"]

    def step(
        state: tuple[jax.Array, jax.Array], gates: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        output, cell = state
        i, f, g, o = jnp.split(gates + output @ params["u"], 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        output = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (output, cell), output

    start = jnp.zeros((sequence.shape[1], hidden), sequence.dtype)
    _, outputs = jax.lax.scan(step, (start, start), inputs)
    return outputs
