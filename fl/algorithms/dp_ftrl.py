"""DP-FTRL: the server steps from where it began along the noised prefix sums.

Kairouz, McMahan, Song, Thakkar, Thakurta, Xu 2021, "Practical and Private (Deep) Learning Without
Sampling or Shuffling" (Algorithm 1, and DP-FTRLM with momentum). With S_t the sum of all rounds'
mean updates so far, which is what correlated noise is accurate on,

    V_t = momentum V_{t-1} + S_t
    params = initial - learning_rate V_t        (Nesterov: momentum V_t + S_t in place of V_t)

so that nothing but S_t and V_t carries noise from round to round. Clients do what they do in
federated averaging. In exact arithmetic this is SGD with momentum on the noised updates; it takes
any mechanism, and is meant for "tree", "banded" and "blt".
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fl._validate import flag_fault, number_fault
from fl.algorithms.base import Algorithm, Schedule, ServerState
from fl.algorithms.fedavg import fedavg
from fl.errors import PlanError
from fl.types import Batch, PyTree


class FtrlState(NamedTuple):
    """What DP-FTRL keeps beside the parameters.

    Attributes:
        initial: the parameters before the first round.
        prefix: S, the sum of the mean updates, shaped like the parameters.
        velocity: V, likewise.
    """

    initial: PyTree
    prefix: PyTree
    velocity: PyTree


def dp_ftrl(
    loss: Callable[[PyTree, Batch, jax.Array], jax.Array],
    *,
    client_optimizer: optax.GradientTransformation | Schedule,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    batch_size: int | None,
    local_epochs: int,
) -> Algorithm:
    """Returns DP-FTRL of `loss`.

    Args:
        loss: as `fedavg`.
        client_optimizer: as `fedavg`.
        learning_rate: of the server, above 0.
        momentum: of the server, 0 up to below 1.
        nesterov: look one step ahead along the momentum.
        batch_size: as `fedavg`.
        local_epochs: as `fedavg`.

    Raises:
        PlanError: a number is out of range.
    """
    found = (
        *number_fault("learning_rate", learning_rate, "a number above 0", lambda v: v > 0),
        *number_fault("momentum", momentum, "0 up to below 1", lambda v: 0 <= v < 1),
        *flag_fault("nesterov", nesterov),
    )
    if found:
        raise PlanError(found)

    def init(params: PyTree) -> ServerState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return ServerState(params, (), FtrlState(params, zeros, zeros))

    def server_update(state: ServerState, mean_delta: PyTree) -> ServerState:
        kept: FtrlState = state.extra
        prefix = jax.tree.map(jnp.add, kept.prefix, mean_delta)
        velocity = jax.tree.map(lambda v, s: momentum * v + s, kept.velocity, prefix)
        step = velocity
        if nesterov:
            step = jax.tree.map(lambda v, s: momentum * v + s, velocity, prefix)
        params = jax.tree.map(lambda start, s: start - learning_rate * s, kept.initial, step)
        return state._replace(params=params, extra=FtrlState(kept.initial, prefix, velocity))

    averaging = fedavg(
        loss, client_optimizer=client_optimizer, server_optimizer=optax.identity(),
        batch_size=batch_size, local_epochs=local_epochs,
    )  # fmt: skip
    return averaging._replace(init=init, server_update=server_update, name="dp_ftrl")
