"""Who was charged for what, and what was released: on disk first, then in the ledger.

In a simulation one ledger holds the accounts of all clients and of the server, and its rows are
those of the run's store. See `docs/privacy.md`, "Release limit".
"""

from collections.abc import Sequence

import dp
from fl.correlated import CorrelatedNoise
from fl.encoding import Noise
from fl.privacy import RELATION, Exposure, Privacy
from fl.statement import Statement, so_far, statement
from fl.store import Store


class Books:
    """The ledger of a run, kept in its store.

    Attributes:
        ledger: None where nothing is promised: without privacy, and for seeded runs, which repeat
            their noise and resume as often as asked.
    """

    def __init__(
        self,
        exposure: Exposure,
        num_clients: int,
        store: Store,
        noise: CorrelatedNoise | None = None,
    ) -> None:
        self._exposure = exposure
        self._store = store
        self._noise = noise
        self._unattested: set[tuple[int, int]] = set()
        self.ledger: dp.Ledger | None = None
        if isinstance(exposure.privacy, Privacy) and not exposure.seeded_secrets:
            self.ledger = dp.Ledger(
                num_clients,
                max_releases=exposure.max_releases,
                min_survivors=exposure.bounds.min_survivors,
                neighboring=RELATION,
            )

    def replay(self) -> None:
        """Reads back what the store holds."""
        self._unattested = self._store.unattested()
        if self.ledger is None:
            return
        for round_index, attempt, clients in self._store.charges():
            self.ledger.charge(round_index, attempt, clients)
        for round_index, attempt, survivors in self._store.releases():
            self._record(self.ledger, round_index, attempt, survivors)

    def charge(self, round_index: int, attempt: int, clients: Sequence[int]) -> None:
        """Commits the charge of clients that may send a masked vector, before any of them does."""
        if self.ledger is not None:
            self.ledger.charge(round_index, attempt, clients)
        self._store.charge(round_index, attempt, clients)

    def release(self, round_index: int, attempt: int, survivors: Sequence[int]) -> None:
        """Commits a release, before there is a sum, and with it that its noise is drawn."""
        state = None
        if self._noise is not None:
            self._noise.release(round_index)
            state = self._noise.to_bytes()
        self._store.release(round_index, attempt, survivors, state)
        self._unattested.add((round_index, attempt))
        if self.ledger is not None:
            self._record(self.ledger, round_index, attempt, survivors)

    @property
    def correlated(self) -> Noise | None:
        """Gives the noise of the last release, once; None where rounds have noise of their own."""
        return None if self._noise is None else self._noise.take

    def end(self, round_index: int) -> bytes | None:
        """Ends a round; returns the state of the noise where the round released nothing."""
        if self._noise is None:
            return None
        return self._noise.to_bytes() if self._noise.end(round_index) else None

    def restore(self, next_round: int) -> bool:
        """Takes the noise up where it was left; whether it says that `next_round` is lost.

        Its noise was drawn by an attempt that did not finish, so the sum may have been seen: the
        round counts as released and is not run again. Seeded noise is drawn again instead.

        Raises:
            StoreError: the store does not hold the state.
        """
        if self._noise is None:
            return False
        lost = not self._exposure.seeded_secrets and self._store.has_noise(next_round)
        last = next_round if lost else next_round - 1
        if last >= 0:
            self._noise.load(self._store.noise(last))
        return lost

    def attest(self, round_index: int, attempt: int, attestation: bytes) -> None:
        """Keeps what witnesses signed of a release."""
        self._store.attest(round_index, attempt, attestation)
        self._unattested.discard((round_index, attempt))

    def _record(
        self, ledger: dp.Ledger, round_index: int, attempt: int, survivors: Sequence[int]
    ) -> None:
        exposure = self._exposure
        public = not exposure.cohort.secret
        count = len(survivors) if public else exposure.bounds.min_survivors
        event = exposure.event(exposure.adversary, count)
        ledger.release(round_index, attempt, survivors, event)

    def refusal(self, clients: Sequence[int], max_attempts: int | None) -> str | None:
        """Returns why no further round may start with these clients, or None.

        Args:
            clients: the invited.
            max_attempts: that the protocol's failure probability covers; None without protocol.
        """
        if self.ledger is None:
            return None
        if self.ledger.exhausted[list(clients)].any():
            return f"a client has used all {self.ledger.max_releases} releases that it grants"
        if max_attempts is not None and self._store.total_attempts() >= max_attempts:
            return f"all {max_attempts} attempts that the figures cover are used"
        return None

    def statement(self) -> Statement:
        """The privacy statement from what happened so far."""
        return statement(self._exposure, self.ledger, attested=not self._unattested)

    def so_far(self) -> tuple[float | None, float | None]:
        """Upper ends so far of the row named by `against`: realised, worst case."""
        attempts, attested = self._store.total_attempts(), not self._unattested
        return so_far(self._exposure, self.ledger, attempts, attested=attested)
