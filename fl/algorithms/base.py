"""The contract of a federated algorithm: a tuple of pure functions.

One round, for server state s and the clients of the cohort:

    b = broadcast(s)
    each client: x = client_init(b, client_state, key)
                 for each local batch: x = client_step(x, batch, key)
                 message, client_state, metrics = client_final(x)
    s = server_update(s, mean of the messages)

`message` is one pytree; it is flattened, clipped, noised and masked as one vector, so a new
algorithm is private without knowing it. Nothing but `message` leaves the client. A new algorithm
is a changed copy: `mine = fedavg(...)._replace(client_step=my_step)`.

An algorithm that sends several vectors sends one tree of them, so that one clip norm bounds them
all together (joint sensitivity). A client's state stays with the client. It moves on only where
the client's message is in a released sum: whoever drops out, whose round aborts, or whose message
is not finite and hence replaced by zero keeps the state it had, as if it had not taken part.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fl._validate import integer_fault
from fl.types import Batch, MetricSums, PyTree


class Batching(NamedTuple):
    """How a client cuts its examples into local steps.

    Attributes:
        batch_size: examples per step, or None for all of them in every step.
        local_epochs: passes over the client's examples; each in a fresh order.
    """

    batch_size: int | None
    local_epochs: int

    def faults(self) -> tuple[str, ...]:
        """Returns what is wrong with the numbers."""
        size = () if self.batch_size is None else integer_fault("batch_size", self.batch_size, 1)
        return (*size, *integer_fault("local_epochs", self.local_epochs, 1))


class ServerState(NamedTuple):
    """What the server keeps between rounds.

    Attributes:
        params: the global model.
        optimizer_state: the server optimizer's.
        extra: what an algorithm adds, such as control variates.
        round_index: i32[], the round that is run or comes next, from 0; the loop sets it, so
            that schedules follow the round number also where rounds abort.
    """

    params: PyTree
    optimizer_state: PyTree
    extra: PyTree = ()
    round_index: Any = np.int32(0)


class Broadcast(NamedTuple):
    """What the algorithms here send to every client of a round.

    Attributes:
        params: the global model.
        round_index: i32[].
        extra: what an algorithm adds, such as the server's control variate.
    """

    params: PyTree
    round_index: Any
    extra: PyTree = ()


class Algorithm(NamedTuple):
    """A federated algorithm.

    Attributes:
        init: params -> ServerState.
        broadcast: ServerState -> what every client of the round receives.
        client_init: (broadcast, client_state, key) -> step state.
        client_step: (step state, batch, key) -> step state.
        client_final: step state -> (message, client_state, metrics); the client state is () for an
            algorithm that keeps none, else shaped like that of client_state; metrics maps names
            to (sum, count).
        server_update: (ServerState, mean message) -> ServerState.
        batching: how client_step is fed.
        params_init: key -> params, where the loss it was built from knows them; else None.
        client_state: params -> the state of a client that has not taken part yet; None for an
            algorithm that keeps none.
        participation: the fraction of clients in a cohort that server_update was built for, in
            an algorithm that averages over clients; None where it does not matter.
        name: what summaries call it.
    """

    init: Callable[[PyTree], ServerState]
    broadcast: Callable[[ServerState], PyTree]
    client_init: Callable[[PyTree, PyTree, jax.Array], Any]
    client_step: Callable[[Any, Batch, jax.Array], Any]
    client_final: Callable[[Any], tuple[PyTree, PyTree, MetricSums]]
    server_update: Callable[[ServerState, PyTree], ServerState]
    batching: Batching
    params_init: Callable[[jax.Array], PyTree] | None = None
    client_state: Callable[[PyTree], PyTree] | None = None
    participation: float | None = None
    name: str = "custom"

    def fresh_client_state(self, params: PyTree) -> PyTree:
        """Returns the state of a client that has not taken part yet."""
        return () if self.client_state is None else self.client_state(params)


Schedule = Callable[[jax.Array], Any]  # round number i32[] -> value; known before training


def at_round(value: Any, round_index: jax.Array) -> Any:
    """Returns value(round_index) for a Schedule, and the value itself otherwise."""
    return value(round_index) if callable(value) else value
