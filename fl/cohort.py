"""Who takes part in round t, and what that lets the accountant claim.

A public schedule is a function of the run seed and the round number, known before training, so
participations are bounded in advance and nothing is amplified by sampling: whoever knows the seed
knows the cohorts. A Poisson cohort's coins come from the operating system and are published
nowhere; only then may an outsider's row count them. docs/privacy.md, "Cohorts".
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl._validate import integer_fault, number_fault
from fl.errors import fault
from fl.types import Purpose, RandomBytes, generator

SIZE_FAILURE = 2.0**-40  # that a Poisson run leaves its bounds; charged to the outsider's delta

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Cohort:
    """A way to choose cohorts; made by the functions of this module.

    Attributes:
        kind: "full", "cyclic", "fixed", "separated" or "poisson".
        size: clients per round, of the public schedules but full.
        limit: "fixed": participations of one client at most. "separated": rounds from one
            participation to the next at least.
        prob: "poisson": that a client joins a round.
    """

    kind: str
    size: int | None = None
    limit: int | None = None
    prob: float | None = None

    def __str__(self) -> str:
        """The cohort as a Job writes it, such as "fixed:100:5"."""
        parts = (self.kind, self.size, self.limit, self.prob)
        return ":".join(str(part) for part in parts if part is not None)

    @property
    def secret(self) -> bool:
        """Whether cohorts, and with them their sizes, are kept secret."""
        return self.kind == "poisson"

    def amplifies(self, adversary: str) -> bool:
        """Whether the adversary's row may count these cohorts' coins.

        Only an outsider's, and only secret coins: the server and the participants see who takes
        part, and a public schedule is known to everybody.
        """
        return self.secret and adversary == "outsider"

    def faults(self, num_clients: int, rounds: int) -> tuple[str, ...]:
        """Returns what is wrong with these cohorts for that many clients and rounds."""
        if self.kind == "full":
            return ()
        if self.kind == "poisson":
            return self._poisson_faults(num_clients, rounds)
        if found := integer_fault("cohort", self.size, 1, num_clients):
            return found
        if self.kind == "fixed":
            return self._fixed_faults(num_clients, rounds)
        if self.kind == "separated":
            most = num_clients // (self.size or 1)
            return integer_fault("min_separation", self.limit, 1, most)
        return ()

    def _fixed_faults(self, num_clients: int, rounds: int) -> tuple[str, ...]:
        if found := integer_fault("max_participations", self.limit, 1):
            return found
        needed = math.ceil(rounds * self.count(num_clients) / num_clients)
        if (self.limit or 0) < needed:
            takes = f"at least {needed}, for {rounds} rounds of {self.size} of {num_clients}"
            return (fault("max_participations", self.limit, takes),)
        return ()

    def _poisson_faults(self, num_clients: int, rounds: int) -> tuple[str, ...]:
        if found := number_fault(
            "cohort", self.prob, "a probability above 0, below 1", lambda v: 0 < v < 1
        ):
            return found
        low, _ = self.sizes(num_clients, rounds)
        if low < 2:
            got = f"poisson with {self._joining * num_clients:g} of {num_clients} clients expected"
            return (fault("cohort", got, "more, so that no cohort is ever empty"),)
        return ()

    @property
    def _joining(self) -> float:
        """The probability of Poisson cohorts."""
        return self.prob or 0.0

    def count(self, num_clients: int) -> int:
        """Returns n, the number of clients invited to a round; expected where it is random."""
        if self.kind == "poisson":
            return max(1, round(self._joining * num_clients))
        return num_clients if self.size is None else self.size

    def sizes(self, num_clients: int, rounds: int) -> tuple[int, int]:
        """Returns the least and the largest cohort that a run admits.

        A Poisson cohort outside would release nothing; over the run that happens with probability
        at most SIZE_FAILURE / 2.
        """
        if self.kind != "poisson":
            return self.count(num_clients), self.count(num_clients)
        return likely_counts(num_clients, self._joining, SIZE_FAILURE / (2 * rounds))

    def members(
        self, round_index: int, num_clients: int, seed: int, coins: RandomBytes | None = None
    ) -> Ids:
        """Returns the ids invited to a round, ascending, int64[n].

        Args:
            round_index: from 0.
            num_clients: ids are 0 .. num_clients - 1.
            seed: the run seed, of public schedules.
            coins: secret bytes, for Poisson cohorts: a call that is repeated gives other members.
        """
        if self.kind == "poisson":
            if coins is None:
                raise AssertionError("Poisson cohorts take secret coins")
            return np.flatnonzero(drawn(num_clients, self._joining, coins)).astype(np.int64)
        size = self.count(num_clients)
        if size == num_clients:
            return np.arange(num_clients, dtype=np.int64)
        if self.kind == "cyclic":
            order = generator(seed, Purpose.COHORT).permutation(num_clients)
            positions = (round_index * size + np.arange(size)) % num_clients
            return np.sort(order[positions]).astype(np.int64)
        return _history(self, num_clients, seed).members(round_index)

    def separation(self, num_clients: int) -> int:
        """Returns how many rounds lie from one participation of a client to its next, at least."""
        if self.kind == "separated":
            return self.limit or 1
        if self.kind == "cyclic":  # everybody else has a turn in between
            return num_clients // self.count(num_clients)
        return 1

    def max_participations(self, rounds: int, num_clients: int) -> int:
        """Returns in how many of `rounds` rounds one client takes part at most.

        Of Poisson cohorts: except with probability SIZE_FAILURE / 2 for all clients together;
        a run in which a client would exceed it ends.
        """
        if self.kind == "poisson":
            rare = SIZE_FAILURE / (2 * num_clients)
            return min(rounds, likely_counts(rounds, self._joining, rare)[1])
        if self.count(num_clients) == num_clients:
            return rounds
        if self.kind == "fixed":
            return min(rounds, self.limit or rounds)
        if self.kind == "separated":
            return math.ceil(rounds / (self.limit or 1))
        # Positions are dealt in turn, so counts differ by at most one between clients.
        return math.ceil(rounds * self.count(num_clients) / num_clients)


def full() -> Cohort:
    """Everybody takes part in every round."""
    return Cohort("full")


def cyclic(size: int) -> Cohort:
    """`size` clients a round, in turn over a public random order of all clients."""
    return Cohort("cyclic", size)


def fixed(size: int, max_participations: int) -> Cohort:
    """`size` clients a round, drawn from those with fewer than `max_participations` so far.

    The draw is public. It is uniform but for the end of what the participations allow, where
    clients that must take part for later cohorts to fill are taken first.
    """
    return Cohort("fixed", size, max_participations)


def separated(size: int, min_separation: int) -> Cohort:
    """`size` clients a round, drawn from those who sat out the last min_separation - 1 rounds.

    The draw is public and uniform. One client takes part in at most ceil(rounds /
    min_separation) rounds.
    """
    return Cohort("separated", size, min_separation)


def poisson(prob: float) -> Cohort:
    """Every client joins every round with `prob`, by a secret coin of its own.

    Against the server and the participants nothing is amplified, and one client's
    participations are bounded by a quantile that is enforced.
    """
    return Cohort("poisson", prob=prob)


def drawn(count: int, prob: float, coins: RandomBytes) -> NDArray[np.bool_]:
    """Returns bool[count], each True with `prob` rounded down to 2^-64; 8 bytes of coins each."""
    if prob >= 1.0:
        return np.ones(count, dtype=np.bool_)
    words = np.frombuffer(coins(8 * count), dtype="<u8")
    chosen: NDArray[np.bool_] = words < np.uint64(math.floor(prob * 2.0**64))
    return chosen


def likely_counts(trials: int, prob: float, failure: float) -> tuple[int, int]:
    """Returns (low, high) with P[low <= Binomial(trials, prob) <= high] >= 1 - failure.

    By Chernoff's bound on each side: P[X <= k] and P[X >= k] are at most exp(-trials
    KL(k / trials, prob)) below and above the mean.
    """
    tail = math.log(2.0 / failure)
    low = high = min(trials, max(0, round(trials * prob)))
    while low > 0 and trials * _divergence((low - 1) / trials, prob) < tail:
        low -= 1
    while high < trials and trials * _divergence((high + 1) / trials, prob) < tail:
        high += 1
    return low, high


def _divergence(share: float, prob: float) -> float:
    """KL divergence of coins in nats, a little below it."""
    total = share * math.log(share / prob) if share > 0 else 0.0
    total += (1 - share) * math.log((1 - share) / (1 - prob)) if share < 1 else 0.0
    return total * (1.0 - 2.0**-30)


class _History:
    """The cohorts of a public draw so far: each depends on those before it."""

    def __init__(self, cohort: Cohort, num_clients: int, seed: int) -> None:
        self._cohort, self._seed, self._num_clients = cohort, seed, num_clients
        self._rounds: list[Ids] = []
        self._counts = np.zeros(num_clients, dtype=np.int64)

    def members(self, round_index: int) -> Ids:
        while len(self._rounds) <= round_index:
            ids = self._separated() if self._cohort.kind == "separated" else self._fixed()
            self._counts[ids] += 1
            self._rounds.append(np.sort(ids).astype(np.int64))
        return self._rounds[round_index]

    def _separated(self) -> Ids:
        resting = (
            self._rounds[-((self._cohort.limit or 1) - 1) :] if self._cohort.limit != 1 else []
        )
        free = np.setdiff1d(
            np.arange(self._num_clients), np.concatenate([np.zeros(0, int), *resting])
        )
        return self._rng().choice(free, self._cohort.count(self._num_clients), replace=False)

    def _fixed(self) -> Ids:
        """Draws so that the rounds that remain can be filled.

        They can where the sum of min(left, R) is at least R size (McNaughton 1959), R being the
        rounds that all participations together still fill. A client with R left or more that is
        not drawn costs one of the slack, and so does one with fewer that is drawn.
        """
        size, limit = self._cohort.count(self._num_clients), self._cohort.limit or 1
        left = limit - self._counts
        remaining = self._num_clients * limit // size - len(self._rounds)
        full, some = (
            np.flatnonzero(left >= remaining),
            np.flatnonzero((left > 0) & (left < remaining)),
        )
        slack = int(np.minimum(left, remaining).sum()) - remaining * size
        rng = self._rng()
        forced = rng.permutation(full)[: max(0, len(full) - slack)]
        others = np.setdiff1d(np.concatenate([full, some]), forced)
        return np.concatenate([forced, rng.choice(others, size - len(forced), replace=False)])

    def _rng(self) -> np.random.Generator:
        return generator(self._seed, Purpose.COHORT, len(self._rounds))


@functools.lru_cache(maxsize=4)
def _history(cohort: Cohort, num_clients: int, seed: int) -> _History:
    return _History(cohort, num_clients, seed)
