"""Models of matrix products alone: linear, logistic, and the 2NN of McMahan et al. 2017."""

import jax
import jax.numpy as jnp

from fl.models.base import Model, classifier, regression
from fl.types import PyTree


def linear(num_features: int) -> Model:
    """Linear regression of one number from zero: num_features + 1 parameters."""

    def init(key: jax.Array) -> PyTree:
        del key  # convex, as for `logistic`
        return {"b": jnp.zeros(()), "w": jnp.zeros(num_features)}

    return regression(init, lambda params, x: x @ params["w"] + params["b"])


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
