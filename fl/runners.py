"""How a cohort is trained on one worker.

A loop over clients inside one compiled call, not vmap: on a CPU a vmapped cohort holds every
client's weights at once and falls out of cache, two to three times slower for dense models.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from fl.algorithms.base import Algorithm
from fl.client import Update, bucket_of, buckets, local_steps, steps_shape, train_client
from fl.datasets.dataset import FederatedDataset
from fl.types import Purpose, PyTree, jax_key

CHUNK = 16  # clients in flight: memory is CHUNK x (examples + parameters)


class Trained(NamedTuple):
    """The messages of some clients; rows belong to `client_ids`.

    Attributes:
        client_ids: int64[K], ascending.
        vectors: f32[K, d].
        finite: bool[K]; a client that is not finite has the zero vector.
        clipped: bool[K]; whose message was longer than the bound.
        metrics: name -> (sum, count) over these clients, for their owners.
        states: a tree of arrays [K, ...], the clients' states if their messages are released; ()
            in an algorithm that keeps none.
    """

    client_ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    finite: NDArray[np.bool_]
    clipped: NDArray[np.bool_]
    metrics: Mapping[str, tuple[float, float]]
    states: PyTree

    def state_of(self, row: int) -> PyTree:
        """Returns the state of the client in that row."""
        return jax.tree.map(lambda leaf: leaf[row], self.states)


def no_messages(client_ids: Sequence[int]) -> Trained:
    """Returns what stands for clients whose messages are made later, or never."""
    ids = np.asarray(client_ids, dtype=np.int64)
    ones = np.ones(len(ids), dtype=np.bool_)
    return Trained(ids, np.zeros((len(ids), 0), np.float32), ones, ~ones, {}, ())


@dataclass(frozen=True)
class ScanRunner:
    """Trains clients one after the other inside a compiled loop of up to CHUNK clients.

    Attributes:
        algorithm: the algorithm.
        data: the clients' examples.
        seed: the run seed.
        dim: length d of a message.
        max_norm: bound on a message's l2 norm, or None.
    """

    algorithm: Algorithm
    data: FederatedDataset
    seed: int
    dim: int
    max_norm: float | None

    def train(
        self,
        broadcast: PyTree,
        round_index: int,
        client_ids: Sequence[int],
        state_of: Callable[[int], PyTree] = lambda client: (),
    ) -> Trained:
        """Trains the given clients from `broadcast`.

        Args:
            broadcast: what the server sent.
            round_index: from 0.
            client_ids: ascending.
            state_of: client id -> its state; () in an algorithm that keeps none.
        """
        ids = np.asarray(client_ids, dtype=np.int64)
        vectors = np.zeros((len(ids), self.dim), dtype=np.float32)
        finite = np.ones(len(ids), dtype=np.bool_)
        clipped = np.zeros(len(ids), dtype=np.bool_)
        metrics: dict[str, tuple[float, float]] = {}
        like = state_of(int(ids[0])) if len(ids) else ()
        states = jax.tree.map(
            lambda leaf: np.zeros((len(ids), *np.shape(leaf)), np.asarray(leaf).dtype), like
        )
        for bucket, rows in self._chunks(ids):
            update = self._train_rows(broadcast, round_index, ids[rows], bucket, state_of)
            for kept, new in zip(
                jax.tree.leaves(states), jax.tree.leaves(update.state), strict=True
            ):
                kept[rows] = np.asarray(new)[: len(rows)]
            vectors[rows] = np.asarray(update.vector)[: len(rows)]
            finite[rows] = np.asarray(update.finite)[: len(rows)]
            clipped[rows] = np.asarray(update.clipped)[: len(rows)]
            for name, (total, count) in update.metrics.items():
                before = metrics.get(name, (0.0, 0.0))
                metrics[name] = (
                    before[0] + float(np.sum(np.asarray(total)[: len(rows)])),
                    before[1] + float(np.sum(np.asarray(count)[: len(rows)])),
                )
        return Trained(ids, vectors, finite, clipped, metrics, states)

    def _chunks(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        shapes = buckets(self.data.sizes)
        padded = np.array([bucket_of(int(self.data.sizes[i]), shapes) for i in ids], dtype=np.int64)
        for bucket in np.unique(padded):
            rows = np.flatnonzero(padded == bucket)
            for start in range(0, len(rows), CHUNK):
                yield int(bucket), rows[start : start + CHUNK]

    def _train_rows(
        self,
        broadcast: PyTree,
        round_index: int,
        ids: NDArray[np.int64],
        bucket: int,
        state_of: Callable[[int], PyTree],
    ) -> Update:
        shape = steps_shape(bucket, self.algorithm.batching)
        index = np.zeros((CHUNK, *shape), dtype=np.int32)
        mask = np.zeros((CHUNK, *shape), dtype=np.float32)
        counts = np.zeros(CHUNK, dtype=np.int32)
        examples = {
            name: np.zeros((CHUNK, bucket, *field.shape[1:]), dtype=field.dtype)
            for name, field in self.data.fields.items()
        }
        for k, client in enumerate(ids):
            size = int(self.data.sizes[client])
            steps = local_steps(
                size, bucket, self.algorithm.batching, self.seed, round_index, int(client)
            )
            index[k], mask[k], counts[k] = steps.index, steps.mask, steps.count
            for name, field in self.data.client(int(client)).items():
                examples[name][k, :size] = field
        states = self._padded_states([state_of(int(client)) for client in ids])
        padded_ids = np.zeros(CHUNK, dtype=np.uint32)
        padded_ids[: len(ids)] = ids
        chunk = {
            "examples": examples, "index": index, "mask": mask, "count": counts, "id": padded_ids,
            "state": states,
        }  # fmt: skip
        key = jax_key(self.seed, Purpose.TRAINING, round_index)
        trained: Update = train_chunk(
            self.algorithm, self.max_norm, broadcast, chunk, len(ids), key
        )
        return trained

    @staticmethod
    def _padded_states(states: Sequence[PyTree]) -> PyTree:
        """Stacks the clients' states to [CHUNK, ...]; zero where padded."""

        def stacked(*leaves: Any) -> NDArray[np.generic]:
            first = np.asarray(leaves[0])
            rows = np.zeros((CHUNK, *first.shape), first.dtype)
            rows[: len(leaves)] = leaves
            return rows

        return jax.tree.map(stacked, *states)


@functools.partial(jax.jit, static_argnames=("algorithm", "max_norm"))
def train_chunk(
    algorithm: Algorithm,
    max_norm: float | None,
    broadcast: PyTree,
    chunk: Mapping[str, Any],
    num_clients: jax.Array,
    key: jax.Array,
) -> Update:
    """Trains the first `num_clients` of a chunk, one after the other.

    Compiled once per algorithm and shape, also across runs of one process.

    Args:
        algorithm: the algorithm.
        max_norm: bound on a message's l2 norm, or None.
        broadcast: what the server sent.
        chunk: "examples" (fields [CHUNK, N, ...]), "index" int32[CHUNK, S, B],
            "mask" f32[CHUNK, S, B], "count" int32[CHUNK], "id" uint32[CHUNK], "state" (the
            clients' own, a tree of arrays [CHUNK, ...]).
        num_clients: i32[], the clients that are there; the rest is padding.
        key: of the round.

    Returns:
        Update with a leading axis of CHUNK; zero where padded.
    """

    def one_client(k: jax.Array) -> Update:
        mine = jax.tree.map(lambda array: array[k], chunk)
        return train_client(
            algorithm, max_norm, broadcast, mine["state"], mine["examples"], mine["index"],
            mine["mask"], mine["count"], jax.random.fold_in(key, mine["id"]),
        )  # fmt: skip

    def body(k: jax.Array, out: Update) -> Update:
        grown: Update = jax.tree.map(
            lambda array, value: array.at[k].set(value), out, one_client(k)
        )
        return grown

    shapes = jax.eval_shape(one_client, jnp.int32(0))
    empty = jax.tree.map(lambda leaf: jnp.zeros((CHUNK, *leaf.shape), leaf.dtype), shapes)
    trained: Update = jax.lax.fori_loop(0, num_clients, body, empty)
    return trained
