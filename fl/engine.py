"""What carries out an order: the clients of this run's own processes, or others elsewhere."""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from fl.aggregate import lost_before_masking
from fl.books import Books
from fl.group import Group
from fl.plan import Resolved
from fl.round import Clock, Outcome, attempt_round
from fl.site import OVER, Order, Report, Site


class Attempted(NamedTuple):
    """What came of one attempt at a round.

    Attributes:
        outcome: what the server read.
        reports: of the clients, beside their sum.
        kept: client -> npz of what it keeps if its message is released; read once.
    """

    outcome: Outcome
    reports: Sequence[Report]
    kept: Iterable[tuple[int, bytes]]


class Engine(Protocol):
    """Carries out orders, one at a time."""

    def attempt(self, order: Order, books: Books, clock: Clock) -> Attempted:
        """Carries out one attempt at a round.

        Charges are committed through `books` before a masked vector can leave a client, and the
        release before there is a sum.
        """

    def settle(self, survivors: Sequence[int]) -> None:
        """Ends a round that is on record: whose updates were released."""

    def close(self) -> None:
        """Ends the run."""


class InProcess:
    """All clients live in the processes of the run, of which this is process 0."""

    def __init__(self, resolved: Resolved, site: Site, group: Group) -> None:
        self._resolved, self._site, self._group = resolved, site, group

    def attempt(self, order: Order, books: Books, clock: Clock) -> Attempted:
        """See `Engine.attempt`."""
        index, attempt = order.round_index, order.attempt
        lost = lost_before_masking(order.dropouts)
        books.charge(index, attempt, [client for client in order.invited if client not in lost])
        if self._group.size > 1:
            self._group.tell(order.to_bytes())
        outcome = attempt_round(
            self._resolved, self._site, order, self._group,
            lambda survivors: books.release(index, attempt, survivors), clock, books.correlated,
        )  # fmt: skip
        if outcome is None:
            raise AssertionError("process 0 always has the outcome")
        if outcome.attestation is not None:
            books.attest(index, attempt, outcome.attestation)
        reports = self._reports()
        elsewhere = (report.states.items() for report in reports)
        kept = itertools.chain(self._site.states.pending(), *elsewhere)
        return Attempted(outcome, reports, kept)

    def _reports(self) -> list[Report]:
        mine = self._site.report(with_states=False)
        if self._group.size == 1:
            return [mine]
        return [mine, *(Report.from_bytes(data) for data in self._group.exchange(b"")[1:])]

    def settle(self, survivors: Sequence[int]) -> None:
        """See `Engine.settle`."""
        self._site.states.settle(survivors)
        if self._group.size > 1:
            self._group.tell(json.dumps(list(survivors)).encode())

    def close(self) -> None:
        """See `Engine.close`."""
        if self._group.size > 1:
            self._group.tell(OVER)
