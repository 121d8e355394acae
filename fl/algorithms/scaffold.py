"""SCAFFOLD: local steps corrected by control variates.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh 2020, "SCAFFOLD: Stochastic Controlled Averaging for
Federated Learning" (Algorithm 1, option II). Client i keeps c_i, the server keeps c = the mean of
all c_i. With x the global model, y = x at the start, K local steps of learning rate eta:

    y <- y - eta (gradient(y) - c_i + c)          every local step
    c_i+ = c_i - c + (x - y) / (K eta)            after the last
    sends x - y and c_i+ - c_i
    x <- x + server step on the mean of x - y
    c <- c + |S| / N times the mean of c_i+ - c_i over the cohort S of N clients

Two vectors leave a client as one tree, so one clip norm and one noise cover both. c_i+ - c_i is
about 1 / (K eta) times x - y, so with eta K below 1 it would take up most of the norm:
`control_scale` multiplies it before clipping and divides the mean again. A clipped or noised
change moves the server's c by less, or by noise, while the client keeps its exact c_i+.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fl._validate import number_fault
from fl.algorithms.base import Algorithm, Batching, Broadcast, Schedule, ServerState, at_round
from fl.algorithms.fedavg import server_step
from fl.errors import PlanError
from fl.models import ModelLoss
from fl.types import Batch, MetricSums, PyTree


class ScaffoldStep(NamedTuple):
    """A client in the middle of local training.

    Attributes:
        initial: x, the global parameters it started from.
        params: y, its own, so far.
        server_control: c, shaped like the parameters.
        control: c_i, its own, from the round it last took part in.
        learning_rate: eta of this round.
        steps: K, i32[], so far.
    """

    initial: PyTree
    params: PyTree
    server_control: PyTree
    control: PyTree
    learning_rate: Any
    steps: Any


class ScaffoldMessage(NamedTuple):
    """What a client sends: one tree, hence one joint sensitivity.

    Attributes:
        control: control_scale (c_i+ - c_i).
        delta: x - y, a pseudo-gradient.
    """

    control: PyTree
    delta: PyTree


def corrected(step: ScaffoldStep, gradients: PyTree) -> PyTree:
    """Returns y after a local step along the gradient, less the client's control, plus c."""
    return jax.tree.map(
        lambda y, g, c_i, c: y - step.learning_rate * (g - c_i + c),
        step.params, gradients, step.control, step.server_control,
    )  # fmt: skip


def control_change(step: ScaffoldStep, delta: PyTree) -> PyTree:
    """Returns c_i+ - c_i after the last step, for x - y; 0 for a client that took no step."""
    length = jnp.maximum(step.steps, 1) * step.learning_rate
    return jax.tree.map(
        lambda c, moved: jnp.where(step.steps > 0, moved / length - c, 0.0),
        step.server_control, delta,
    )  # fmt: skip


def scaffold(
    loss: Callable[[PyTree, Batch, jax.Array], jax.Array],
    *,
    client_lr: float | Schedule,
    server_optimizer: optax.GradientTransformation,
    batch_size: int | None,
    local_epochs: int,
    participation: float,
    control_scale: float = 1.0,
) -> Algorithm:
    """Returns SCAFFOLD on `loss`.

    Args:
        loss: (params, batch, key) -> scalar; a Model's own `loss` tells the parameters' shapes too.
        client_lr: eta, or a function of the round number that gives it.
        server_optimizer: takes one step a round on the mean of x - y; optax.sgd(eta_g).
        batch_size: examples per local step, or None for full batches.
        local_epochs: passes over the client's data.
        participation: |S| / N, clients of a cohort over all clients; a plan checks it.
        control_scale: factor of c_i+ - c_i in the message. 1 is the paper; about K eta gives
            both vectors the same share of a clip norm.

    Raises:
        PlanError: a number is out of range.
    """
    if found := _faults(participation, control_scale, client_lr):
        raise PlanError(found)
    gradient = jax.grad(loss)

    def init(params: PyTree) -> ServerState:
        return ServerState(params, server_optimizer.init(params), _zeros(params))

    def broadcast(state: ServerState) -> Broadcast:
        return Broadcast(state.params, state.round_index, state.extra)

    def client_init(sent: Broadcast, client_state: PyTree, key: jax.Array) -> ScaffoldStep:
        del key
        eta, params = jnp.float32(at_round(client_lr, sent.round_index)), sent.params
        return ScaffoldStep(params, params, sent.extra, client_state, eta, jnp.int32(0))

    def client_step(step: ScaffoldStep, batch: Batch, key: jax.Array) -> ScaffoldStep:
        params = corrected(step, gradient(step.params, batch, key))
        return step._replace(params=params, steps=step.steps + 1)

    def client_final(step: ScaffoldStep) -> tuple[ScaffoldMessage, PyTree, MetricSums]:
        delta = optax.tree.sub(step.initial, step.params)
        change = control_change(step, delta)
        message = ScaffoldMessage(optax.tree.scale(control_scale, change), delta)
        return message, optax.tree.add(step.control, change), {}

    def server_update(state: ServerState, mean: ScaffoldMessage) -> ServerState:
        moved = optax.tree.scale(participation / control_scale, mean.control)
        control = optax.tree.add(state.extra, moved)
        return server_step(server_optimizer, state, mean.delta)._replace(extra=control)

    return Algorithm(
        init, broadcast, client_init, client_step, client_final, server_update,
        Batching(batch_size, local_epochs),
        params_init=loss.init if isinstance(loss, ModelLoss) else None,
        client_state=_zeros,
        participation=participation,
        name="scaffold",
    )  # fmt: skip


def _faults(participation: object, control_scale: object, client_lr: object) -> tuple[str, ...]:
    positive = "a number above 0"
    return (
        *number_fault("participation", participation, "above 0, at most 1", lambda v: 0 < v <= 1),
        *number_fault("control_scale", control_scale, positive, lambda v: v > 0),
        *(
            ()
            if callable(client_lr)
            else number_fault("client_lr", client_lr, positive, lambda v: v > 0)
        ),
    )


def _zeros(params: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, params)
