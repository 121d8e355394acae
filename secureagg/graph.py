"""Who masks with whom, and who holds whose shares, as roster positions 0..n - 1.

The sparse graph is a Harary ring over a random order of the roster: each client is joined to the
degree / 2 next ones on each side (Bell et al., CCS 2020, section 3.2). The order comes from the
public graph seed, so every client computes its own neighbours.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from secureagg.prg import stream_of
from secureagg.primitives import CIPHER_BYTES, Usage, hkdf, label

Positions = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Graph:
    """Complete graph, or a ring in a shuffled order.

    Attributes:
        size: n.
        degree: neighbours of each position.
        order: [n] positions around the ring.
        slot: [n] the inverse: where in the ring each position sits.
        witnesses: [degree] ascending positions of who signs the sets of a round; [n], everybody,
            in the complete graph.
    """

    size: int
    degree: int
    order: Positions = field(repr=False)
    slot: Positions = field(repr=False)
    witnesses: Positions = field(repr=False)

    def mask_neighbours(self, position: int) -> Positions:
        """Returns the ascending positions this one shares pairwise masks with, [degree]."""
        if self.degree == self.size - 1:
            return np.delete(np.arange(self.size), position)
        half = self.degree // 2
        steps = np.concatenate((np.arange(-half, 0), np.arange(1, half + 1)))
        return np.sort(self.order[(self.slot[position] + steps) % self.size])

    def holders(self, position: int) -> Positions:
        """Returns the ascending positions that hold this one's shares, [degree].

        The mask neighbours; a function of its own because the two need not agree.
        """
        return self.mask_neighbours(position)

    def count_neighbours(self, alive: Flags) -> NDArray[np.int64]:
        """Returns for every position how many of its neighbours are alive, [n]."""
        ones = alive.astype(np.int64)
        if self.degree == self.size - 1:
            others: Positions = int(ones.sum()) - ones
            return others
        half = self.degree // 2
        ring = ones[self.order]
        wrapped = np.concatenate((ring[-half:], ring, ring[:half]))
        sums = np.concatenate(([0], np.cumsum(wrapped)))
        around = sums[self.degree + 1 :] - sums[: -self.degree - 1] - ring
        return around[self.slot]

    def core(self, alive: Flags, threshold: int) -> Flags:
        """Drops, again and again, who keeps fewer than `threshold` alive neighbours.

        Args:
            alive: [n] who answered.
            threshold: shares that rebuild a secret.

        Returns:
            [n] the largest subset in which everybody has `threshold` neighbours: the clients whose
            secrets can still be recovered by the others.
        """
        while True:
            kept = alive & (self.count_neighbours(alive) >= threshold)
            if np.array_equal(kept, alive):
                return alive
            alive = kept


@lru_cache(maxsize=16)
def build(size: int, degree: int, seed: bytes | None) -> Graph:
    """Builds the graph of a round; repeated calls return the same object.

    Args:
        size: n, at least 2.
        degree: n - 1, or even and below.
        seed: the public graph seed; not used by the complete graph.
    """
    order = witnesses = np.arange(size)
    if degree != size - 1:
        order = _shuffled(size, seed or b"", Usage.GRAPH)
        witnesses = np.sort(_shuffled(size, seed or b"", Usage.WITNESSES)[:degree])
    slot = np.empty_like(order)
    slot[order] = np.arange(size)
    order.flags.writeable = slot.flags.writeable = witnesses.flags.writeable = False
    return Graph(size, degree, order, slot, witnesses)


def _shuffled(size: int, seed: bytes, usage: Usage) -> Positions:
    """The order of `size` random 128-bit keys: uniform up to ties, below size^2 2^-129."""
    rand = stream_of(hkdf(seed, 2 * CIPHER_BYTES, label(usage)))
    keys = np.frombuffer(rand(16 * size), dtype="<u8").reshape(size, 2)
    return np.lexsort((keys[:, 0], keys[:, 1]))
