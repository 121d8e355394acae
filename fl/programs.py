"""The compiled programs of a run but for evaluation: start, local training, server step.

Local training comes in three forms: a loop over clients, all clients at once, one step. Which one a
run uses is decided in `fl.runners`. All are compiled once per algorithm and shape, also across runs
of one process.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from fl.algorithms.base import Algorithm, ServerState
from fl.client import Update, finish_client, train_client
from fl.types import Batch, Purpose, PyTree

_STATIC = ("algorithm", "max_norm")


def client_key(seed: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the JAX key of one client in one round, as `fl.types.jax_key` does; traceable.

    Args:
        seed: uint32[2], the run seed's low and high word.
        labels: uint32[3], purpose, round and client id; or the first two.
    """
    key = jax.random.fold_in(jax.random.key(seed[0]), seed[1])
    for label in labels:
        key = jax.random.fold_in(key, label)
    return key


def seed_words(seed: int) -> NDArray[np.uint32]:
    """Returns uint32[2], the run seed's low and high word."""
    return np.array([seed % 2**32, seed >> 32], dtype=np.uint32)


@functools.partial(jax.jit, static_argnames=("algorithm", "init"))
def initial_state(
    algorithm: Algorithm, init: Callable[[jax.Array], PyTree], seed: jax.Array
) -> tuple[ServerState, PyTree]:
    """Returns the server's state before the first round, and what a fresh client keeps.

    Args:
        algorithm: the algorithm.
        init: key -> params.
        seed: uint32[2], the run seed's words.
    """
    labels = jnp.array([Purpose.PARAMS, 0], dtype=jnp.uint32)
    params = init(client_key(seed, labels))
    return algorithm.init(params), algorithm.fresh_client_state(params)


def _train_one(
    algorithm: Algorithm,
    max_norm: float | None,
    broadcast: PyTree,
    seed: jax.Array,
    mine: Mapping[str, Any],
) -> Update:
    return train_client(
        algorithm, max_norm, broadcast, mine["state"], mine["examples"], mine["index"],
        mine["mask"], mine["count"], client_key(seed, mine["labels"]),
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=_STATIC)
def scan_chunk(
    algorithm: Algorithm,
    max_norm: float | None,
    broadcast: PyTree,
    seed: jax.Array,
    chunk: Mapping[str, Any],
    num_clients: jax.Array,
) -> Update:
    """Trains the first `num_clients` of a chunk, one after the other.

    Args:
        algorithm: the algorithm.
        max_norm: bound on a message's l2 norm, or None.
        broadcast: what the server sent.
        seed: uint32[2], the run seed's words.
        chunk: with a leading axis of K clients: "examples" (fields [K, N, ...]), "index"
            int32[K, S, B], "mask" f32[K, S, B], "count" int32[K], "labels" uint32[K, 3],
            "state" (what clients keep, [K, ...]).
        num_clients: i32[], the clients that are there; the rest is padding.

    Returns:
        Update with a leading axis of K; zero where padded.
    """

    def one_client(k: jax.Array) -> Update:
        mine = jax.tree.map(lambda array: array[k], chunk)
        return _train_one(algorithm, max_norm, broadcast, seed, mine)

    def body(k: jax.Array, out: Update) -> Update:
        grown: Update = jax.tree.map(
            lambda array, value: array.at[k].set(value), out, one_client(k)
        )
        return grown

    size = chunk["count"].shape[0]
    if size == 1:  # nothing to loop over: saves a copy of examples and message
        only: Update = jax.tree.map(lambda leaf: leaf[None], one_client(jnp.int32(0)))
        return only
    shapes = jax.eval_shape(one_client, jnp.int32(0))
    empty = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), shapes)
    trained: Update = jax.lax.fori_loop(0, num_clients, body, empty)
    return trained


@functools.partial(jax.jit, static_argnames=_STATIC)
def vmap_chunk(
    algorithm: Algorithm,
    max_norm: float | None,
    broadcast: PyTree,
    seed: jax.Array,
    chunk: Mapping[str, Any],
    examples: Mapping[str, Any],
) -> Update:
    """Trains a chunk's clients side by side.

    Runs as many steps as the client with most; for the others a further step is the identity.

    Args:
        algorithm: the algorithm.
        max_norm: bound on a message's l2 norm, or None.
        broadcast: what the server sent.
        seed: uint32[2], the run seed's words.
        chunk: as of `scan_chunk` without "examples"; padding has no steps.
        examples: fields [M, ...] of all these clients, and maybe of others; "index" points here.

    Returns:
        Update with a leading axis of K.
    """

    def one_client(mine: Mapping[str, Any]) -> Update:
        return _train_one(algorithm, max_norm, broadcast, seed, {**mine, "examples": examples})

    trained: Update = jax.vmap(one_client)(chunk)
    return trained


@functools.partial(jax.jit, static_argnames=("algorithm",))
def begin_client(
    algorithm: Algorithm,
    broadcast: PyTree,
    client_state: PyTree,
    seed: jax.Array,
    labels: jax.Array,
) -> tuple[Any, jax.Array]:
    """Returns one client's state before its first step, and its key."""
    key = client_key(seed, labels)
    return algorithm.client_init(broadcast, client_state, key), key


@functools.partial(jax.jit, static_argnames=("algorithm",), donate_argnames=("state",))
def step_client(algorithm: Algorithm, state: Any, batch: Batch, key: jax.Array, s: Any) -> Any:
    """Takes one local step outside of any loop, where convolutions are fast on a CPU.

    Args:
        algorithm: the algorithm.
        state: before the step; used up.
        batch: fields [B, ...] and "mask".
        key: the client's.
        s: uint32[], the step's number.
    """
    return algorithm.client_step(state, batch, jax.random.fold_in(key, s))


@functools.partial(jax.jit, static_argnames=_STATIC)
def end_client(
    algorithm: Algorithm, max_norm: float | None, client_state: PyTree, state: Any
) -> Update:
    """Returns what a client sends and keeps after its last step."""
    return finish_client(algorithm, max_norm, client_state, state)


@functools.partial(jax.jit, static_argnames=("algorithm", "unravel"))
def server_step(
    algorithm: Algorithm,
    unravel: Callable[[jax.Array], PyTree],
    state: ServerState,
    mean: jax.Array,
) -> ServerState:
    """Returns the server's state after the mean message f32[d]."""
    return algorithm.server_update(state, unravel(mean))
