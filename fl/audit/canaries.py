"""Canaries: clients of an auditor, whose messages are known vectors or zero by a secret coin.

They are clients like all others in everything but local training: they are invited, clipped,
encoded, noised, masked, and may drop out. A canary whose coin falls on absent sends zero in every
round, and its noise share: exactly zero-out.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from fl.datasets.dataset import FederatedDataset
from fl.errors import PlanError, fault
from fl.runners import StateOf, Trained
from fl.site import Trains
from fl.tree import clip_by_l2
from fl.types import FloatVector, PyTree, RandomBytes

DIRECTIONS = ("orthogonal", "random")
# Canaries train on nothing and would send messages this many times too long: the clip is at work.
_TOO_LONG = 4.0
LARGEST = 2**28  # values held at a time


@dataclass(frozen=True)
class Canaries:
    """What the auditor alone knows.

    Attributes:
        first_id: canary i is client first_id + i.
        directions: f32[m, d], of norm 1.
        present: bool[m], the coins.
    """

    first_id: int
    directions: NDArray[np.float32]
    present: NDArray[np.bool_]

    @property
    def ids(self) -> range:
        """The canaries' client ids."""
        return range(self.first_id, self.first_id + len(self.present))


def draw_canaries(
    count: int, dim: int, *, first_id: int, directions: str, rand: RandomBytes
) -> Canaries:
    """Draws m directions and m fair coins.

    Args:
        count: m.
        dim: d, the length of a message.
        first_id: of the first canary.
        directions: "orthogonal": on disjoint coordinates with random signs, m <= d; "random":
            normalised normal vectors.
        rand: the auditor's secret bytes.

    Raises:
        PlanError: more orthogonal directions than coordinates, or more values than memory holds.
    """
    if count * dim > LARGEST:
        takes = f"canaries times parameters at most {LARGEST}"
        raise PlanError((fault("canaries", f"{count} of {dim} parameters", takes),))
    if directions == "orthogonal" and count > dim:
        takes = f"at most {dim}, the parameters, or random directions"
        raise PlanError((fault("canaries", count, takes),))
    coins = np.frombuffer(rand(count), dtype=np.uint8)
    rng = np.random.default_rng(np.frombuffer(rand(32), dtype=np.uint64))
    if directions == "orthogonal":
        vectors = np.zeros((count, dim))
        owner = rng.permutation(dim) % count
        vectors[owner, np.arange(dim)] = rng.choice([-1.0, 1.0], dim)
    else:
        vectors = rng.normal(size=(count, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Canaries(first_id, vectors.astype(np.float32), (coins & 1).astype(np.bool_))


def with_clients(data: FederatedDataset, count: int) -> FederatedDataset:
    """Returns the data with `count` further clients that hold no examples."""
    more = np.full(count, data.offsets[-1], dtype=np.int64)
    return replace(data, offsets=np.concatenate([data.offsets, more]))


class Messages(Protocol):
    """Round -> what clients of the auditor send: a vector of norm 1, or None for zero."""

    def __call__(self, round_index: int) -> Mapping[int, FloatVector | None]:
        """Returns the messages of a round; clients that are not named train."""


@functools.partial(jax.jit, static_argnames="max_norm")
def _clipped(vectors: jax.Array, max_norm: float) -> jax.Array:
    """Clips the rows of f32[K, d] as a client clips its message."""
    return jax.vmap(lambda vector: clip_by_l2(vector, max_norm))(vectors)


class Planted:
    """Has some clients send what the auditor wants, clipped as all are; others train.

    Args:
        runner: trains the others.
        messages: what the auditor's clients send.
        max_norm: the clients' clip norm.
        dim: d.
        overhear: takes what training left of the others, before it is encoded.
    """

    def __init__(
        self,
        runner: Trains,
        messages: Messages,
        max_norm: float,
        dim: int,
        overhear: Callable[[Trained], None] | None = None,
    ) -> None:
        self._runner, self._messages = runner, messages
        self._dim, self._max_norm, self._overhear = dim, max_norm, overhear

    def train(
        self, broadcast: PyTree, round_index: int, client_ids: Sequence[int], state_of: StateOf
    ) -> Iterator[Trained]:
        """See `fl.runners.Runner.train`."""
        planted = self._messages(round_index)
        mine = [client for client in sorted(client_ids) if client in planted]
        others = [client for client in client_ids if client not in planted]
        for trained in self._runner.train(broadcast, round_index, others, state_of):
            if self._overhear is not None:
                self._overhear(trained)
            yield trained
        if not mine:
            return
        vectors = np.zeros((len(mine), self._dim), dtype=np.float32)
        for row, client in enumerate(mine):
            vector = planted[client]
            if vector is not None:
                vectors[row] = _TOO_LONG * self._max_norm * vector
        clipped = np.asarray(_clipped(vectors, self._max_norm))
        states = jax.tree.map(lambda *leaves: np.stack(leaves), *(state_of(c) for c in mine))
        yield Trained(
            np.array(mine, dtype=np.int64), clipped, np.ones(len(mine), dtype=np.bool_),
            np.any(vectors != clipped, axis=1), {}, states,
        )  # fmt: skip
