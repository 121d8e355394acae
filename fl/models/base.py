"""A model is four pure functions of its parameters; here the last two are made from the first.

A batch is a mapping of fields [B, ...] with "x", "y" and "mask": f32[B], 1 for an example and 0
for padding. Losses and metrics must ignore masked examples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from fl.types import Batch, MetricSums, PyTree


@dataclass(frozen=True)
class ModelLoss:
    """A loss that knows the parameters it takes, so that a plan can be sized from it.

    Attributes:
        function: (params, batch, key) -> scalar, the mean over unmasked examples.
        init: key -> params.
    """

    function: Callable[[PyTree, Batch, jax.Array], jax.Array]
    init: Callable[[jax.Array], PyTree]

    def __call__(self, params: PyTree, batch: Batch, key: jax.Array) -> jax.Array:
        """Returns function(params, batch, key)."""
        return self.function(params, batch, key)


@dataclass(frozen=True)
class Model:
    """A model: four pure functions.

    Attributes:
        init: key -> params, a pytree of float32 arrays.
        apply: (params, x [B, ...]) -> outputs [B, ...].
        loss: (params, batch, key) -> scalar, the mean over unmasked examples.
        metrics: (params, batch) -> {name: (sum, count)} over unmasked examples.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[[PyTree, jax.Array], jax.Array]
    loss: Callable[[PyTree, Batch, jax.Array], jax.Array]
    metrics: Callable[[PyTree, Batch], MetricSums]

    def __post_init__(self) -> None:
        # An algorithm is built from the loss alone; this is how it learns the parameters' shapes.
        if not isinstance(self.loss, ModelLoss):
            object.__setattr__(self, "loss", ModelLoss(self.loss, self.init))


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean of values where the mask of that shape is 1; 0 where nothing is unmasked."""
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def classifier(
    init: Callable[[jax.Array], PyTree], apply: Callable[[PyTree, jax.Array], jax.Array]
) -> Model:
    """Returns the Model of logits apply(params, x) [B, classes] under softmax cross-entropy.

    Metrics: "accuracy" and "loss".
    """

    def per_example(params: PyTree, batch: Batch) -> tuple[jax.Array, jax.Array]:
        logits = apply(params, batch["x"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return logits, losses

    def loss(params: PyTree, batch: Batch, key: jax.Array) -> jax.Array:
        del key  # no dropout layers here
        return masked_mean(per_example(params, batch)[1], batch["mask"])

    def metrics(params: PyTree, batch: Batch) -> MetricSums:
        logits, losses = per_example(params, batch)
        mask = batch["mask"]
        hits = (jnp.argmax(logits, axis=-1) == batch["y"]).astype(jnp.float32)
        count = jnp.sum(mask)
        return {"accuracy": (jnp.sum(hits * mask), count), "loss": (jnp.sum(losses * mask), count)}

    return Model(init, apply, loss, metrics)


def regression(
    init: Callable[[jax.Array], PyTree], apply: Callable[[PyTree, jax.Array], jax.Array]
) -> Model:
    """Returns the Model of predictions apply(params, x) [B] under the squared error.

    "y" is f32[B]. Metrics, in units of "y" and of its square: "mae" and "mse", which is the loss.
    """

    def errors(params: PyTree, batch: Batch) -> jax.Array:
        return apply(params, batch["x"]) - batch["y"]

    def loss(params: PyTree, batch: Batch, key: jax.Array) -> jax.Array:
        del key  # no dropout layers here
        return masked_mean(errors(params, batch) ** 2, batch["mask"])

    def metrics(params: PyTree, batch: Batch) -> MetricSums:
        missed, mask = errors(params, batch), batch["mask"]
        count = jnp.sum(mask)
        return {
            "mae": (jnp.sum(jnp.abs(missed) * mask), count),
            "mse": (jnp.sum(missed**2 * mask), count),
        }

    return Model(init, apply, loss, metrics)


def sequence_classifier(
    init: Callable[[jax.Array], PyTree],
    apply: Callable[[PyTree, jax.Array], jax.Array],
    padding: int = 0,
) -> Model:
    """Returns the Model of logits apply(params, x) [B, T, classes] for one class per position.

    "y" is int[B, T]. Positions where it is `padding` count for nothing, as masked examples do; loss
    and metrics are means over the other positions of a batch, not over its examples.

    Metrics: "accuracy" and "loss", per position.
    """

    def positions(batch: Batch) -> jax.Array:
        return (batch["y"] != padding) * batch["mask"][:, None]

    def per_position(params: PyTree, batch: Batch) -> tuple[jax.Array, jax.Array]:
        logits = apply(params, batch["x"])
        labels = batch["y"].astype(jnp.int32)
        return logits, optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def loss(params: PyTree, batch: Batch, key: jax.Array) -> jax.Array:
        del key  # no dropout layers here
        return masked_mean(per_position(params, batch)[1], positions(batch))

    def metrics(params: PyTree, batch: Batch) -> MetricSums:
        logits, losses = per_position(params, batch)
        mask = positions(batch)
        hits = (jnp.argmax(logits, axis=-1) == batch["y"]).astype(jnp.float32)
        count = jnp.sum(mask)
        return {"accuracy": (jnp.sum(hits * mask), count), "loss": (jnp.sum(losses * mask), count)}

    return Model(init, apply, loss, metrics)
