"""Federated averaging with any optax optimizer on either side.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017, "Communication-Efficient Learning of Deep
Networks from Decentralized Data" (Algorithm 1); the server optimizer is that of Reddi et al. 2021,
"Adaptive Federated Optimization" (Algorithm 1).

The message is before - after, the negative of Reddi's delta, so that it feeds optax as a gradient.
`fedavg(..., server_optimizer=optax.sgd(1.0))` is the algorithm of McMahan et al.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from fl.algorithms.base import Algorithm, Batching, ServerState
from fl.models import ModelLoss
from fl.types import Batch, MetricSums, PyTree


class FedAvgStep(NamedTuple):
    """A client in the middle of local training.

    Attributes:
        initial: the global parameters it started from.
        params: its own, so far.
        optimizer_state: the client optimizer's.
    """

    initial: PyTree
    params: PyTree
    optimizer_state: PyTree


def fedavg(
    loss: Callable[[PyTree, Batch, jax.Array], jax.Array],
    *,
    client_optimizer: optax.GradientTransformation,
    server_optimizer: optax.GradientTransformation,
    batch_size: int | None,
    local_epochs: int,
) -> Algorithm:
    """Returns federated averaging of `loss`.

    Args:
        loss: (params, batch, key) -> scalar; a Model's own `loss` tells the parameters' shapes too.
        client_optimizer: takes the local steps; its state starts afresh every round.
        server_optimizer: takes one step a round on the mean of before - after.
        batch_size: examples per local step, or None for full batches.
        local_epochs: passes over the client's data.
    """
    gradient = jax.grad(loss)

    def init(params: PyTree) -> ServerState:
        return ServerState(params, server_optimizer.init(params))

    def broadcast(state: ServerState) -> PyTree:
        return state.params

    def client_init(params: PyTree, client_state: PyTree, key: jax.Array) -> FedAvgStep:
        del client_state, key
        return FedAvgStep(params, params, client_optimizer.init(params))

    def client_step(step: FedAvgStep, batch: Batch, key: jax.Array) -> FedAvgStep:
        gradients = gradient(step.params, batch, key)
        updates, optimizer_state = client_optimizer.update(
            gradients, step.optimizer_state, step.params
        )
        params = optax.apply_updates(step.params, updates)
        return FedAvgStep(step.initial, params, optimizer_state)

    def client_final(step: FedAvgStep) -> tuple[PyTree, PyTree, MetricSums]:
        delta = jax.tree.map(lambda before, after: before - after, step.initial, step.params)
        return delta, (), {}

    def server_update(state: ServerState, mean_delta: PyTree) -> ServerState:
        updates, optimizer_state = server_optimizer.update(
            mean_delta, state.optimizer_state, state.params
        )
        return ServerState(optax.apply_updates(state.params, updates), optimizer_state, state.extra)

    return Algorithm(
        init=init,
        broadcast=broadcast,
        client_init=client_init,
        client_step=client_step,
        client_final=client_final,
        server_update=server_update,
        batching=Batching(batch_size, local_epochs),
        params_init=loss.init if isinstance(loss, ModelLoss) else None,
    )
