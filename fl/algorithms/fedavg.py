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

from fl.algorithms.base import (
    Algorithm,
    Batching,
    Broadcast,
    Schedule,
    ServerState,
    at_round,
)
from fl.models import ModelLoss
from fl.types import Batch, MetricSums, PyTree


class FedAvgStep(NamedTuple):
    """A client in the middle of local training.

    Attributes:
        initial: the global parameters it started from.
        params: its own, so far.
        optimizer_state: the client optimizer's.
        round_index: i32[], what a schedule follows.
    """

    initial: PyTree
    params: PyTree
    optimizer_state: PyTree
    round_index: jax.Array


def descend(
    client_optimizer: optax.GradientTransformation | Schedule, step: FedAvgStep, gradients: PyTree
) -> FedAvgStep:
    """Returns the step state after one local update with `gradients`."""
    optimizer = at_round(client_optimizer, step.round_index)
    updates, optimizer_state = optimizer.update(gradients, step.optimizer_state, step.params)
    params = optax.apply_updates(step.params, updates)
    return step._replace(params=params, optimizer_state=optimizer_state)


def server_step(
    server_optimizer: optax.GradientTransformation, state: ServerState, gradients: PyTree
) -> ServerState:
    """Returns the server state after one optimizer step; `extra` is as it was."""
    updates, optimizer_state = server_optimizer.update(
        gradients, state.optimizer_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, optimizer_state=optimizer_state)


def fedavg(
    loss: Callable[[PyTree, Batch, jax.Array], jax.Array],
    *,
    client_optimizer: optax.GradientTransformation | Schedule,
    server_optimizer: optax.GradientTransformation,
    batch_size: int | None,
    local_epochs: int,
) -> Algorithm:
    """Returns federated averaging of `loss`.

    Args:
        loss: (params, batch, key) -> scalar; a Model's own `loss` tells the parameters' shapes too.
        client_optimizer: takes the local steps; its state starts afresh every round. A function
            of the round number may give it, as in `lambda t: optax.sgd(0.1 * 0.99**t)`.
        server_optimizer: takes one step a round on the mean of before - after.
        batch_size: examples per local step, or None for full batches.
        local_epochs: passes over the client's data.
    """
    gradient = jax.grad(loss)

    def init(params: PyTree) -> ServerState:
        return ServerState(params, server_optimizer.init(params))

    def broadcast(state: ServerState) -> Broadcast:
        return Broadcast(state.params, state.round_index)

    def client_init(sent: Broadcast, client_state: PyTree, key: jax.Array) -> FedAvgStep:
        del client_state, key
        optimizer = at_round(client_optimizer, sent.round_index)
        return FedAvgStep(sent.params, sent.params, optimizer.init(sent.params), sent.round_index)

    def client_step(step: FedAvgStep, batch: Batch, key: jax.Array) -> FedAvgStep:
        gradients = gradient(step.params, batch, key)
        return descend(client_optimizer, step, gradients)

    def client_final(step: FedAvgStep) -> tuple[PyTree, PyTree, MetricSums]:
        delta = jax.tree.map(lambda before, after: before - after, step.initial, step.params)
        return delta, (), {}

    def server_update(state: ServerState, mean_delta: PyTree) -> ServerState:
        return server_step(server_optimizer, state, mean_delta)

    return Algorithm(
        init=init,
        broadcast=broadcast,
        client_init=client_init,
        client_step=client_step,
        client_final=client_final,
        server_update=server_update,
        batching=Batching(batch_size, local_epochs),
        params_init=loss.init if isinstance(loss, ModelLoss) else None,
        name="fedavg",
    )
