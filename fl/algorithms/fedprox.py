"""Federated averaging whose clients are drawn back to the global model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith 2020, "Federated Optimization in Heterogeneous
Networks" (Algorithm 2): every client minimises loss(w) + mu / 2 |w - w_t|^2, inexactly.
"""

from collections.abc import Callable

import jax
import optax

from fl._validate import number_fault
from fl.algorithms.base import Algorithm, Schedule
from fl.algorithms.fedavg import FedAvgStep, descend, fedavg
from fl.errors import PlanError
from fl.types import Batch, PyTree


def fedprox(
    loss: Callable[[PyTree, Batch, jax.Array], jax.Array],
    *,
    mu: float,
    client_optimizer: optax.GradientTransformation | Schedule,
    server_optimizer: optax.GradientTransformation,
    batch_size: int | None,
    local_epochs: int,
) -> Algorithm:
    """Returns `fedavg` with the proximal term; the other arguments are those of `fedavg`.

    Args:
        loss: (params, batch, key) -> scalar.
        mu: weight of the proximal term, at least 0; 0 is federated averaging. The paper tries
            0.001, 0.01, 0.1 and 1.
        client_optimizer: as in `fedavg`.
        server_optimizer: as in `fedavg`; the paper's is optax.sgd(1.0).
        batch_size: as in `fedavg`.
        local_epochs: as in `fedavg`.

    Raises:
        PlanError: mu is not a number, or below 0.
    """
    if found := number_fault("mu", mu, "a number, at least 0", lambda v: v >= 0):
        raise PlanError(found)
    gradient = jax.grad(loss)

    def client_step(step: FedAvgStep, batch: Batch, key: jax.Array) -> FedAvgStep:
        gradients = jax.tree.map(
            lambda g, here, start: g + mu * (here - start),
            gradient(step.params, batch, key), step.params, step.initial,
        )  # fmt: skip
        return descend(client_optimizer, step, gradients)

    averaging = fedavg(
        loss,
        client_optimizer=client_optimizer,
        server_optimizer=server_optimizer,
        batch_size=batch_size,
        local_epochs=local_epochs,
    )
    return averaging._replace(client_step=client_step, name="fedprox")
