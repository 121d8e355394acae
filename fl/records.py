"""Local work where the unit of privacy is one record: every record is a message of its own.

The algorithm is run on each record alone, from what the server sent, and its message is clipped
by itself; with `fedsgd` that is the clipped gradient of the record's loss. The client sums the
encoded messages of the records that joined and adds its noise: one release a round, DP-SGD across
clients (Abadi et al. 2016). docs/privacy.md, "Records" and "Sampled records".
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fl.algorithms.base import Algorithm
from fl.client import train_client
from fl.cohort import drawn
from fl.datasets.dataset import FederatedDataset
from fl.types import FloatVector, Purpose, PyTree, RandomBytes, jax_key

# Messages computed together: few calls for small models, while large ones stay within a few MiB,
# as fresh memory costs more than their gradients.
_MOST_RECORDS, _FEWEST_RECORDS, _MOST_FLOATS = 64, 4, 1 << 20


def records_at_once(dim: int) -> int:
    """Returns how many messages of `dim` floats are computed together."""
    return max(_FEWEST_RECORDS, min(_MOST_RECORDS, _MOST_FLOATS // dim))


@dataclass(frozen=True)
class RecordRunner:
    """Makes the messages of a client's records.

    Attributes:
        algorithm: one that keeps no client state.
        data: the clients' examples.
        seed: the run seed.
        max_norm: bound on one record's message.
        sampling: the probability with which each record joins.
    """

    algorithm: Algorithm
    data: FederatedDataset
    seed: int
    max_norm: float
    sampling: float

    def rows(
        self, broadcast: PyTree, round_index: int, client: int, coins: RandomBytes
    ) -> Iterator[FloatVector]:
        """Yields f32[d] of every record that joins; a message that is not finite is zero.

        Args:
            broadcast: what the server sent.
            round_index: from 0.
            client: whose records.
            coins: secret bytes; they alone decide which records join.
        """
        examples = self.data.client(client)
        joined = np.flatnonzero(drawn(int(self.data.sizes[client]), self.sampling, coins))
        key = jax.random.fold_in(jax_key(self.seed, Purpose.TRAINING, round_index), client)
        width = records_at_once(sum(leaf.size for leaf in jax.tree.leaves(broadcast)))
        for start in range(0, len(joined), width):
            rows = joined[start : start + width]
            block = {}
            for name, field in examples.items():
                block[name] = np.zeros((width, *field.shape[1:]), field.dtype)
                block[name][: len(rows)] = field[rows]
            ids = np.zeros(width, dtype=np.uint32)
            ids[: len(rows)] = rows
            vectors = record_messages(self.algorithm, self.max_norm, broadcast, block, ids, key)
            yield from np.asarray(vectors)[: len(rows)]


@functools.partial(jax.jit, static_argnames=("algorithm", "max_norm"))
def record_messages(
    algorithm: Algorithm,
    max_norm: float,
    broadcast: PyTree,
    records: Mapping[str, jax.Array],
    ids: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Returns the message of each record trained on alone, f32[k, d].

    Args:
        algorithm: its local epochs are steps on the one record.
        max_norm: bound on each message's l2 norm.
        broadcast: what the server sent.
        records: fields [k, ...].
        ids: uint32[k], the records' places in their client.
        key: of the client and round.
    """
    steps = algorithm.batching.local_epochs
    index, mask = jnp.zeros((steps, 1), jnp.int32), jnp.ones((steps, 1), jnp.float32)

    def message(record: Mapping[str, jax.Array], number: jax.Array) -> jax.Array:
        examples = {name: field[None] for name, field in record.items()}
        update = train_client(
            algorithm, max_norm, broadcast, (), examples, index, mask, jnp.int32(steps),
            jax.random.fold_in(key, number),
        )  # fmt: skip
        return update.vector

    return jax.vmap(message)(records, ids)
