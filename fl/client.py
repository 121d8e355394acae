"""One client's round: its examples cut into steps, and the loop over them.

Clients differ in size; XLA compiles one program per shape. So examples are padded to a few bucket
sizes, and the loop runs exactly the steps that a client has: padding costs memory, and compute only
where a step takes all examples at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from fl.algorithms.base import Algorithm, Batching
from fl.tree import clip_by_l2, ravel
from fl.types import MetricSums, Purpose, PyTree, generator

MAX_BUCKETS = 4  # with initialisation, server step and evaluation below 8 compilations a run
_CANDIDATES = 128  # sizes considered as buckets


@dataclass(frozen=True)
class Steps:
    """The local steps of one client.

    Attributes:
        index: int32[S, B], rows of the client's padded examples; 0 where masked.
        mask: f32[S, B].
        count: the steps that hold examples; later rows are padding.
    """

    index: NDArray[np.int32]
    mask: NDArray[np.float32]
    count: int


class Update(NamedTuple):
    """What local training leaves behind.

    Attributes:
        vector: f32[d], the flat message, within max_norm where one is set; 0 where not finite.
        finite: whether the message was finite.
        clipped: whether the message was longer than max_norm.
        metrics: name -> (sum, count), for the client's owner.
        state: what the client keeps; what it kept before where not finite.
    """

    vector: jax.Array
    finite: jax.Array
    clipped: jax.Array
    metrics: MetricSums
    state: PyTree


def buckets(sizes: NDArray[np.int64]) -> tuple[int, ...]:
    """Returns at most MAX_BUCKETS padded example counts, ascending, that fit all clients.

    Of all choices among the sizes that occur (or 128 quantiles of them), the one that pads least.
    """
    found = np.unique(np.maximum(sizes, 1))
    if len(found) > _CANDIDATES:
        found = found[np.linspace(0, len(found) - 1, _CANDIDATES).round().astype(np.int64)]
    upto = np.searchsorted(np.sort(sizes), found, side="right")  # clients within each candidate
    # least[j]: fewest padded rows for everybody within candidate j, candidate j being a bucket
    least, chosen = found * upto, [(int(size),) for size in found]
    for _ in range(MAX_BUCKETS - 1):
        total = least[:, None] + found[None, :] * (upto[None, :] - upto[:, None])
        total[np.tril_indices(len(found))] = np.iinfo(np.int64).max
        last = total.argmin(axis=0)
        better = total.min(axis=0) < least
        chosen = [
            (*chosen[last[j]], int(size)) if better[j] else chosen[j]
            for j, size in enumerate(found)
        ]
        least = np.where(better, total.min(axis=0), least)
    return chosen[-1]


def bucket_of(sizes: NDArray[np.int64], shapes: tuple[int, ...]) -> NDArray[np.int64]:
    """Returns the smallest of the buckets `shapes` that holds each of these sizes."""
    found: NDArray[np.int64] = np.array(shapes)[np.searchsorted(shapes, sizes)]
    return found


def steps_shape(bucket: int, batching: Batching) -> tuple[int, int]:
    """Returns (S, B) of a client padded to `bucket` examples."""
    batch = bucket if batching.batch_size is None else min(batching.batch_size, bucket)
    return batching.local_epochs * math.ceil(bucket / batch), batch


def local_steps(
    size: int, bucket: int, batching: Batching, seed: int, round_index: int, client: int
) -> Steps:
    """Cuts `size` examples into shuffled steps, every epoch in a fresh order."""
    max_steps, batch = steps_shape(bucket, batching)
    index = np.zeros((max_steps, batch), dtype=np.int32)
    mask = np.zeros((max_steps, batch), dtype=np.float32)
    per_epoch = math.ceil(size / batch)
    full_batch = size <= batch  # one step holds them all, so their order does not matter
    rng = generator(seed, Purpose.BATCHES, round_index, client) if not full_batch else None
    for epoch in range(batching.local_epochs):
        order = np.arange(size) if rng is None else rng.permutation(size)
        rows = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        index[rows].reshape(-1)[:size] = order
        mask[rows].reshape(-1)[:size] = 1.0
    return Steps(index, mask, batching.local_epochs * per_epoch)


def train_client(
    algorithm: Algorithm,
    max_norm: float | None,
    broadcast: PyTree,
    client_state: PyTree,
    examples: Mapping[str, jax.Array],
    index: jax.Array,
    mask: jax.Array,
    count: jax.Array,
    key: jax.Array,
) -> Update:
    """Trains one client; traceable.

    Args:
        algorithm: the algorithm.
        max_norm: bound on the message's l2 norm, or None.
        broadcast: what the server sent.
        client_state: what the client kept from its last round.
        examples: fields [N, ...], padded to a bucket.
        index: int32[S, B].
        mask: f32[S, B].
        count: i32[], the steps to run.
        key: this client's key for this round.
    """

    def step(s: jax.Array, state: Any) -> Any:
        batch = {name: field[index[s]] for name, field in examples.items()}
        return algorithm.client_step(state, {**batch, "mask": mask[s]}, jax.random.fold_in(key, s))

    state = algorithm.client_init(broadcast, client_state, key)
    state = jax.lax.fori_loop(0, count, step, state)
    return finish_client(algorithm, max_norm, client_state, state)


def finish_client(
    algorithm: Algorithm, max_norm: float | None, client_state: PyTree, state: Any
) -> Update:
    """Turns the last step's state into what is sent and kept; traceable.

    Args:
        algorithm: the algorithm.
        max_norm: bound on the message's l2 norm, or None.
        client_state: what the client kept from its last round.
        state: of the last step.
    """
    message, kept, metrics = algorithm.client_final(state)
    # Without the barrier XLA ravels once for every use.
    vector = jax.lax.optimization_barrier(ravel(message))  # type: ignore[no-untyped-call]
    finite = jnp.isfinite(jnp.min(vector)) & jnp.isfinite(jnp.max(vector))  # NaN is in both
    vector = jax.lax.cond(finite, lambda x: x, jnp.zeros_like, vector)
    clipped = jnp.asarray(False)
    if max_norm is not None:
        unclipped, vector = vector, clip_by_l2(vector, max_norm)
        clipped = jnp.any(unclipped != vector)
        finite = finite & jnp.all(jnp.isfinite(vector))
        vector = jnp.where(finite, vector, 0.0)
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), kept, client_state)
    return Update(vector, finite, clipped, metrics, kept)
