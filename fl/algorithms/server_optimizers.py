"""Server optimizers of the literature as plain optax transformations of the mean update.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan 2021, "Adaptive Federated
Optimization" (Algorithm 2), without bias correction and with tau outside the square root, where
optax's own Adam, Yogi and Adagrad differ. Give one to any algorithm here as `server_optimizer`;
FedAdam is `fedavg(..., server_optimizer=fedadam(0.01))`.

With D the mean of after - before (the messages are its negative, as gradients are):

    m <- beta1 m + (1 - beta1) D
    v <- v + D^2                                  FedAdagrad
         v - (1 - beta2) D^2 sign(v - D^2)        FedYogi
         beta2 v + (1 - beta2) D^2                FedAdam
    x <- x + learning_rate m / (sqrt(v) + tau)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fl._validate import number_fault
from fl.errors import PlanError
from fl.types import PyTree


class AdaptiveState(NamedTuple):
    """What an adaptive server optimizer keeps.

    Attributes:
        momentum: m, shaped like the parameters.
        second_moment: v, shaped like the parameters.
    """

    momentum: PyTree
    second_moment: PyTree


def fedavgm(learning_rate: float, *, momentum: float = 0.9) -> optax.GradientTransformation:
    """Momentum SGD: m <- momentum m + D, x <- x + learning_rate m (Hsu, Qi, Brown 2019)."""
    return optax.sgd(learning_rate, momentum=momentum)


def fedadagrad(
    learning_rate: float, *, tau: float = 1e-3, initial: float | None = None
) -> optax.GradientTransformation:
    """FedAdagrad, without momentum as in the paper's experiments.

    Args:
        learning_rate: of the server.
        tau: degree of adaptivity; 1e-3 in the paper.
        initial: of v; None for tau^2, the least that the paper's Algorithm 2 admits.

    Raises:
        PlanError: a number is out of range.
    """
    return _adaptive(learning_rate, lambda v, squared: v + squared, 0.0, tau, initial)


def fedadam(
    learning_rate: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.99,
    tau: float = 1e-3,
    initial: float | None = None,
) -> optax.GradientTransformation:
    """FedAdam; defaults of the paper's experiments, arguments as in `fedadagrad`.

    Raises:
        PlanError: a number is out of range.
    """
    _check_beta("beta2", beta2)
    return _adaptive(
        learning_rate, lambda v, squared: beta2 * v + (1 - beta2) * squared, beta1, tau, initial
    )


def fedyogi(
    learning_rate: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.99,
    tau: float = 1e-3,
    initial: float | None = None,
) -> optax.GradientTransformation:
    """FedYogi; defaults of the paper's experiments, arguments as in `fedadagrad`.

    Raises:
        PlanError: a number is out of range.
    """
    _check_beta("beta2", beta2)
    return _adaptive(
        learning_rate,
        lambda v, squared: v - (1 - beta2) * squared * jnp.sign(v - squared),
        beta1,
        tau,
        initial,
    )


def _adaptive(
    learning_rate: float,
    second_moment: Callable[[jax.Array, jax.Array], jax.Array],
    beta1: float,
    tau: float,
    initial: float | None,
) -> optax.GradientTransformation:
    start = tau**2 if initial is None else initial
    positive = "a number above 0"
    found = (
        *number_fault("learning_rate", learning_rate, positive, lambda v: v > 0),
        *number_fault("tau", tau, positive, lambda v: v > 0),
        *number_fault("initial", start, "a number, at least 0", lambda v: v >= 0),
    )
    if found:
        raise PlanError(found)
    _check_beta("beta1", beta1)

    def init(params: PyTree) -> AdaptiveState:
        return AdaptiveState(
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(lambda leaf: jnp.full_like(leaf, start), params),
        )

    def update(
        gradients: PyTree, state: AdaptiveState, params: PyTree = None
    ) -> tuple[PyTree, AdaptiveState]:
        del params
        momentum = jax.tree.map(
            lambda m, g: beta1 * m + (1 - beta1) * g, state.momentum, gradients
        )  # fmt: skip
        moment = jax.tree.map(lambda v, g: second_moment(v, g * g), state.second_moment, gradients)
        steps: Any = jax.tree.map(
            lambda m, v: -learning_rate * m / (jnp.sqrt(v) + tau), momentum, moment
        )
        return steps, AdaptiveState(momentum, moment)

    return optax.GradientTransformation(init, update)


def _check_beta(name: str, beta: float) -> None:
    if found := number_fault(name, beta, "0 up to below 1", lambda v: 0 <= v < 1):
        raise PlanError(found)
