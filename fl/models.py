"""Models as plain functions of their parameters.

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
    """Returns the mean of values[B] where mask[B] is 1; 0 where nothing is unmasked."""
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


def logistic(num_features: int, num_classes: int) -> Model:
    """Multinomial logistic regression from zero: num_features * num_classes + num_classes."""

    def init(key: jax.Array) -> PyTree:
        del key  # convex: zero is as good a start as any, and the same for everybody
        return {"b": jnp.zeros(num_classes), "w": jnp.zeros((num_features, num_classes))}

    return classifier(init, lambda params, x: x @ params["w"] + params["b"])


def two_nn(num_features: int, num_classes: int, hidden: int = 200) -> Model:
    """The 2NN of McMahan et al. 2017: two hidden ReLU layers (199,210 parameters for MNIST)."""
    sizes = (num_features, hidden, hidden, num_classes)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, len(sizes) - 1)
        glorot = jax.nn.initializers.glorot_uniform()
        return [
            {"b": jnp.zeros(fan_out), "w": glorot(k, (fan_in, fan_out))}
            for k, fan_in, fan_out in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]

    def apply(params: PyTree, x: jax.Array) -> jax.Array:
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        logits: jax.Array = x @ params[-1]["w"] + params[-1]["b"]
        return logits

    return classifier(init, apply)
