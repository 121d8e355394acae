"""Who was charged for what, and what was released: on disk first, then in the ledger.

In a simulation one ledger holds the accounts of all clients and of the server, and its rows are
those of the run's store. See `docs/privacy.md`, "Release limit".
"""

from collections.abc import Sequence

import dp
from fl.privacy import RELATION, Exposure, Privacy
from fl.statement import Statement, so_far, statement
from fl.store import Store


class Books:
    """The ledger of a run, kept in its store.

    Attributes:
        ledger: None where nothing is promised: without privacy, and for seeded runs, which repeat
            their noise and resume as often as asked.
    """

    def __init__(self, exposure: Exposure, num_clients: int, store: Store) -> None:
        self._exposure = exposure
        self._store = store
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
        """Commits a release, before there is a sum."""
        self._store.release(round_index, attempt, survivors)
        self._unattested.add((round_index, attempt))
        if self.ledger is not None:
            self._record(self.ledger, round_index, attempt, survivors)

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
