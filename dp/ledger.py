"""What was charged to whom and what was released; docs/privacy.md, "Ledgers".

A charge is written before a client's masked vector is sent, a release before its sum is
published; a crash in between can over-count but never under-count. The server keeps one ledger
over all clients, and each client keeps its own (num_clients=1), since the server's protects
nobody from the server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp import _realised, _validate
from dp.accountants.query import epsilon_with_failures, with_failures
from dp.errors import (
    LedgerMismatchError,
    ParameterError,
    ReleaseLimitError,
    RepeatedChargeError,
    RepeatedReleaseError,
    SurvivorsError,
)
from dp.events import (
    ComposedEvent,
    Event,
    NeighboringRelation,
    RecordSampledEvent,
    SelfComposedEvent,
)
from dp.events_io import event_from_dict, event_to_dict
from dp.intervals import Interval

IntArray = NDArray[np.int64]

_VERSION = 1
_MAX_CLIENTS = 10**8


@dataclass(frozen=True)
class _Release:
    survivors: IntArray
    num_survivors: int
    event: Event


class Ledger:
    """Charges and releases of a set of clients; every refusal leaves it unchanged.

    Args:
        num_clients: accounts, ids 0 .. num_clients - 1.
        max_releases: charges that one client allows, r.
        min_survivors: survivors below which nothing may be released.
        neighboring: the relation of every event released.
    """

    def __init__(
        self,
        num_clients: int,
        *,
        max_releases: int,
        min_survivors: int,
        neighboring: NeighboringRelation,
    ) -> None:
        self.num_clients = _validate.integer("num_clients", num_clients, 1, _MAX_CLIENTS)
        self.max_releases = _validate.integer("max_releases", max_releases, 1)
        self.min_survivors = _validate.integer("min_survivors", min_survivors, 1)
        if not isinstance(neighboring, NeighboringRelation):
            raise ParameterError("neighboring", neighboring, "a NeighboringRelation")
        self.neighboring = neighboring
        self._counts = np.zeros(self.num_clients, dtype=np.int64)
        self._charged: dict[tuple[int, int], IntArray] = {}
        self._released: dict[tuple[int, int], _Release] = {}

    def __repr__(self) -> str:
        return (
            f"Ledger(num_clients={self.num_clients}, attempts={len(self._charged)}, "
            f"releases={len(self._released)}, max_releases={self.max_releases})"
        )

    @property
    def charges(self) -> IntArray:
        """int64[num_clients]: charges so far, whether or not their rounds released anything."""
        return self._counts.copy()

    @property
    def exhausted(self) -> NDArray[np.bool_]:
        """bool[num_clients]: clients that have no release left."""
        return self._counts >= self.max_releases

    @property
    def releases(self) -> int:
        """Attempts that released a sum."""
        return len(self._released)

    def charge(self, round_index: int, attempt: int, client_ids: Iterable[int]) -> None:
        """Charge one release to each client, before its masked vector leaves it.

        Raises:
            ReleaseLimitError: a client has none left.
            RepeatedChargeError: a client was already charged for this attempt.
            RepeatedReleaseError: this attempt was already released.
            ParameterError: ids out of range or repeated.
        """
        key = _key(round_index, attempt)
        ids = _validate.identifiers("client_ids", client_ids, self.num_clients)
        if key in self._released:
            raise RepeatedReleaseError(*key)
        before = self._charged.get(key, np.zeros(0, dtype=np.int64))
        again = np.intersect1d(before, ids)
        if again.size:
            raise RepeatedChargeError(*key, again.tolist())
        full = ids[self._counts[ids] >= self.max_releases]
        if full.size:
            raise ReleaseLimitError(full.tolist(), self.max_releases)
        self._charged[key] = np.union1d(before, ids)
        self._counts[ids] += 1

    def release(
        self,
        round_index: int,
        attempt: int,
        survivors: Iterable[int],
        event: Event,
        *,
        num_survivors: int | None = None,
        neighboring: NeighboringRelation | None = None,
    ) -> None:
        """Record a release, before its sum is published.

        Args:
            round_index: the round, >= 0.
            attempt: the attempt at it, >= 0.
            survivors: ids, among this ledger's accounts, whose vectors are in the sum.
            event: what the release costs each of them.
            num_survivors: survivors in all, if this ledger holds only some clients' accounts.
            neighboring: the relation that the event's bounds were stated for, to be checked.

        Raises:
            LedgerMismatchError: another relation than the ledger's, or an event whose guarantee
                rests on hiding who took part (a sampled one): this ledger records who did.
            RepeatedReleaseError: this attempt was already released.
            SurvivorsError: fewer than min_survivors, or survivors that were never charged.
            ParameterError: ids out of range or repeated, or no event.
        """
        key = _key(round_index, attempt)
        ids = _validate.identifiers("survivors", survivors, self.num_clients)
        event_to_dict(event)  # refuses what is no event, so that to_json cannot fail later
        _check_unsampled(event)
        if neighboring not in (None, self.neighboring):
            raise LedgerMismatchError(
                f"neighboring={neighboring}: the ledger's is {self.neighboring}"
            )
        count = ids.size if num_survivors is None else num_survivors
        count = _validate.integer("num_survivors", count, ids.size)
        if key in self._released:
            raise RepeatedReleaseError(*key)
        if count < self.min_survivors:
            reason = f"{count} survivors, min_survivors is {self.min_survivors}"
            raise SurvivorsError(*key, reason)
        charged = self._charged.get(key, np.zeros(0, dtype=np.int64))
        unknown = np.setdiff1d(ids, charged)
        if unknown.size:
            raise SurvivorsError(*key, "survivors that were never charged", unknown.tolist())
        self._released[key] = _Release(ids, count, event)

    def realised(
        self,
        delta: float,
        accountant: str,
        *,
        failure_prob: float = 0.0,
        total_variation: float = 0.0,
        seen_as: Callable[[int], Event] | None = None,
    ) -> Interval:
        """Epsilon at `delta` of the client that released most: a query, nothing changes.

        The maximum over clients of the composition of the releases that each is part of.

        Args:
            delta: in (0, 1).
            accountant: as `dp.epsilon`.
            failure_prob: as `dp.epsilon_with_failures`.
            total_variation: as `dp.epsilon_with_failures`.
            seen_as: from a release's number of survivors to the event that it is to another
                adversary than the one the releases were recorded for.

        Raises:
            FailureBudgetError, ParameterError, UnsupportedEventError: as
                `dp.epsilon_with_failures`.
        """
        delta = _validate.open_unit("delta", delta)
        _validate.small_delta(delta, self.num_clients)
        failure_prob = _validate.probability("failure_prob", failure_prob)
        total_variation = _validate.probability("total_variation", total_variation)
        events, rows = self._compositions(seen_as)
        upper_at = _realised.upper_of(events, rows, self.neighboring, accountant)
        upper = with_failures(upper_at, delta, failure_prob, total_variation)
        return Interval(0.0, upper)

    def _compositions(
        self, seen_as: Callable[[int], Event] | None
    ) -> tuple[list[Event], _realised.Rows]:
        """Distinct events, and the distinct compositions of them that clients have."""
        by_event: dict[Event, list[IntArray]] = {}
        for release in self._released.values():
            event = seen_as(release.num_survivors) if seen_as else release.event
            by_event.setdefault(event, []).append(release.survivors)
        return list(by_event), _realised.patterns(list(by_event.values()), self.num_clients)

    def worst_case(
        self,
        event: Event,
        delta: float,
        accountant: str,
        *,
        failure_prob: float = 0.0,
        total_variation: float = 0.0,
    ) -> Interval:
        """Epsilon of max_releases releases of `event`: the guarantee, whatever happens.

        Args:
            event: one release with min_survivors survivors, less those who collude.
            delta: in (0, 1).
            accountant: as `dp.epsilon`.
            failure_prob: as `dp.epsilon_with_failures`.
            total_variation: as `dp.epsilon_with_failures`.
        """
        _validate.small_delta(_validate.open_unit("delta", delta), self.num_clients)
        return epsilon_with_failures(
            SelfComposedEvent(event, self.max_releases),
            delta,
            neighboring=self.neighboring,
            accountant=accountant,
            failure_prob=failure_prob,
            total_variation=total_variation,
        )

    def merged(self, other: Ledger) -> Ledger:
        """A new ledger with the charges and releases of both, over the same accounts.

        What both record of one attempt is counted once; a client charged in either is charged.

        Raises:
            LedgerMismatchError: other accounts, limits or relation, or two different releases
                of one attempt.
            ReleaseLimitError: together they exceed a client's releases.
            SurvivorsError: together they break a rule of releases.
        """
        if self._terms() != other._terms():
            raise LedgerMismatchError(f"{other._terms()}: this ledger has {self._terms()}")
        both = Ledger(
            self.num_clients,
            max_releases=self.max_releases,
            min_survivors=self.min_survivors,
            neighboring=self.neighboring,
        )
        none = np.zeros(0, dtype=np.int64)
        for key in sorted({*self._charged, *other._charged}):
            ids = np.union1d(self._charged.get(key, none), other._charged.get(key, none))
            both.charge(*key, ids.tolist())
            found = [book._released[key] for book in (self, other) if key in book._released]
            if not found:
                continue
            if any(one.event != found[0].event for one in found):
                raise LedgerMismatchError(f"round {key[0]} attempt {key[1]}: two different events")
            if any(one.num_survivors != found[0].num_survivors for one in found):
                raise LedgerMismatchError(f"round {key[0]} attempt {key[1]}: two survivor counts")
            survivors = np.unique(np.concatenate([one.survivors for one in found]))
            both.release(
                *key, survivors.tolist(), found[0].event, num_survivors=found[0].num_survivors
            )
        return both

    def _terms(self) -> tuple[int, int, int, str]:
        relation = self.neighboring.value
        return self.num_clients, self.max_releases, self.min_survivors, relation

    def to_json(self) -> str:
        """Everything this ledger holds, as text with a version."""
        attempts = []
        for key, ids in self._charged.items():
            entry: dict[str, object] = {
                "round": key[0],
                "attempt": key[1],
                "charged": ids.tolist(),
                "release": None,
            }
            release = self._released.get(key)
            if release is not None:
                entry["release"] = {
                    "survivors": release.survivors.tolist(),
                    "num_survivors": release.num_survivors,
                    "event": event_to_dict(release.event),
                }
            attempts.append(entry)
        return json.dumps(
            {
                "version": _VERSION,
                "num_clients": self.num_clients,
                "max_releases": self.max_releases,
                "min_survivors": self.min_survivors,
                "neighboring": self.neighboring.value,
                "attempts": attempts,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """The ledger that `to_json` wrote, replayed through the same checks.

        Raises:
            LedgerMismatchError: no ledger, another version, or missing fields.
            LedgerError, ParameterError: its content breaks a rule of the ledger.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise LedgerMismatchError("takes the text of a ledger, got no JSON") from error
        version = data.get("version") if isinstance(data, dict) else None
        if version != _VERSION:
            raise LedgerMismatchError(f"version={version!r}: takes {_VERSION}")
        try:
            ledger = cls(
                data["num_clients"],
                max_releases=data["max_releases"],
                min_survivors=data["min_survivors"],
                neighboring=_relation(data["neighboring"]),
            )
            for entry in data["attempts"]:
                ledger._replay(entry)
        except (KeyError, TypeError) as error:
            raise LedgerMismatchError(f"missing or misshapen field: {error}") from error
        return ledger

    def _replay(self, entry: dict[str, object]) -> None:
        """Charge and release what `to_json` wrote for one attempt."""
        round_index = _validate.integer("round", entry["round"], 0)
        attempt = _validate.integer("attempt", entry["attempt"], 0)
        self.charge(round_index, attempt, _ids(entry["charged"]))
        release = entry["release"]
        if release is None:
            return
        if not isinstance(release, dict):
            raise TypeError("release")
        self.release(
            round_index,
            attempt,
            _ids(release["survivors"]),
            event_from_dict(release["event"]),
            num_survivors=release["num_survivors"],
        )


def _check_unsampled(event: Event) -> None:
    """Refuse events that wrap another one otherwise than by composition: sampling."""
    if isinstance(event, ComposedEvent):
        for part in event.events:
            _check_unsampled(part)
    elif isinstance(event, SelfComposedEvent):
        _check_unsampled(event.event)
    elif hasattr(event, "event") and not isinstance(event, RecordSampledEvent):
        # A record's coin stays with its client: the ledger records clients alone.
        raise LedgerMismatchError(
            f"{type(event).__name__}: takes one release with known participants; amplification "
            "needs participation to be secret, and a ledger records it"
        )


def _relation(value: object) -> NeighboringRelation:
    found = [relation for relation in NeighboringRelation if relation.value == value]
    if not found:
        raise LedgerMismatchError(f"neighboring={value!r}: takes the name of a relation")
    return found[0]


def _ids(value: object) -> list[int]:
    if not isinstance(value, list):
        raise TypeError("ids")
    return value


def _key(round_index: int, attempt: int) -> tuple[int, int]:
    return (
        _validate.integer("round_index", round_index, 0),
        _validate.integer("attempt", attempt, 0),
    )
