"""Who takes part in round t, and what that lets the accountant claim.

A schedule is a function of the round number, known before training, so participations are
bounded in advance. Neither schedule here amplifies: both are public.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl._validate import integer_fault
from fl.types import Purpose, generator


@dataclass(frozen=True)
class Cohort:
    """A public schedule of cohorts.

    Attributes:
        size: clients per round, or None for everybody.
    """

    size: int | None

    def faults(self, num_clients: int) -> tuple[str, ...]:
        """Returns what is wrong with this schedule for `num_clients` clients."""
        return () if self.size is None else integer_fault("cohort", self.size, 1, num_clients)

    def count(self, num_clients: int) -> int:
        """Returns n, the number of clients invited to every round."""
        return num_clients if self.size is None else self.size

    def members(self, round_index: int, num_clients: int, seed: int) -> NDArray[np.int64]:
        """Returns the ids invited to a round, ascending, int64[n]."""
        size = self.count(num_clients)
        if size == num_clients:
            return np.arange(num_clients, dtype=np.int64)
        order = generator(seed, Purpose.COHORT).permutation(num_clients)
        positions = (round_index * size + np.arange(size)) % num_clients
        return np.sort(order[positions]).astype(np.int64)

    def max_participations(self, rounds: int, num_clients: int) -> int:
        """Returns in how many of `rounds` rounds one client takes part at most."""
        # Positions are dealt in turn, so counts differ by at most one between clients.
        return math.ceil(rounds * self.count(num_clients) / num_clients)


def full() -> Cohort:
    """Everybody takes part in every round."""
    return Cohort(None)


def cyclic(size: int) -> Cohort:
    """`size` clients a round, in turn over a public random order of all clients."""
    return Cohort(size)
