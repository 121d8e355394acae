"""Federated SGD: every client sends one gradient at the global model.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017, "Communication-Efficient Learning of Deep
Networks from Decentralized Data": the baseline with B = infinity and E = 1. The paper's average is
weighted by examples: NotPrivate(weights="examples").
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fl.algorithms.base import Algorithm, Batching, Broadcast, ServerState
from fl.algorithms.fedavg import server_step
from fl.models import ModelLoss
from fl.types import Batch, MetricSums, PyTree


class FedSgdStep(NamedTuple):
    """A client before and after its one step.

    Attributes:
        params: the global parameters.
        gradient: of the loss over all of its examples; 0 before the step and without data.
    """

    params: PyTree
    gradient: PyTree


def fedsgd(
    loss: Callable[[PyTree, Batch, jax.Array], jax.Array],
    *,
    server_optimizer: optax.GradientTransformation,
) -> Algorithm:
    """Returns federated SGD on `loss`.

    Args:
        loss: (params, batch, key) -> scalar; a Model's own `loss` tells the parameters' shapes too.
        server_optimizer: takes one step a round on the mean gradient; its learning rate is the
            only one.
    """
    gradient = jax.grad(loss)

    def init(params: PyTree) -> ServerState:
        return ServerState(params, server_optimizer.init(params))

    def broadcast(state: ServerState) -> Broadcast:
        return Broadcast(state.params, state.round_index)

    def client_init(sent: Broadcast, client_state: PyTree, key: jax.Array) -> FedSgdStep:
        del client_state, key
        return FedSgdStep(sent.params, jax.tree.map(jnp.zeros_like, sent.params))

    def client_step(step: FedSgdStep, batch: Batch, key: jax.Array) -> FedSgdStep:
        return FedSgdStep(step.params, gradient(step.params, batch, key))

    def client_final(step: FedSgdStep) -> tuple[PyTree, PyTree, MetricSums]:
        return step.gradient, (), {}

    def server_update(state: ServerState, mean_gradient: PyTree) -> ServerState:
        return server_step(server_optimizer, state, mean_gradient)

    return Algorithm(
        init=init,
        broadcast=broadcast,
        client_init=client_init,
        client_step=client_step,
        client_final=client_final,
        server_update=server_update,
        batching=Batching(None, 1),
        params_init=loss.init if isinstance(loss, ModelLoss) else None,
        name="fedsgd",
    )
