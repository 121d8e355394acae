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

from dp import _validate
from dp.accountants import conversion
from dp.accountants.query import curve_of, with_failures
from dp.errors import (
    LedgerMismatchError,
    ParameterError,
    ReleaseLimitError,
    RepeatedChargeError,
    RepeatedReleaseError,
    SurvivorsError,
)
from dp.events import Event, Interval, NeighboringRelation, event_from_dict, event_to_dict

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
    ) -> None:
        """Record a release, before its sum is published.

        Args:
            round_index: the round, >= 0.
            attempt: the attempt at it, >= 0.
            survivors: ids, among this ledger's accounts, whose vectors are in the sum.
            event: what the release costs each of them.
            num_survivors: survivors in all, if this ledger holds only some clients' accounts.

        Raises:
            RepeatedReleaseError: this attempt was already released.
            SurvivorsError: fewer than min_survivors, or survivors that were never charged.
            ParameterError: ids out of range or repeated, or no event.
        """
        key = _key(round_index, attempt)
        ids = _validate.identifiers("survivors", survivors, self.num_clients)
        event_to_dict(event)  # refuses what is no event, so that to_json cannot fail later
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
        failure_prob = _validate.probability("failure_prob", failure_prob)
        total_variation = _validate.probability("total_variation", total_variation)
        events, rows = self._compositions(seen_as)
        curves = [curve_of(event, self.neighboring, accountant) for event in events]
        upper = with_failures(
            lambda rest: _largest_epsilon(curves, rows, rest),
            delta,
            failure_prob,
            total_variation,
        )
        return Interval(0.0, upper)

    def _compositions(self, seen_as: Callable[[int], Event] | None) -> tuple[list[Event], IntArray]:
        """Distinct events, and the distinct rows of int64[clients, events] counts."""
        releases = [
            (release.survivors, seen_as(release.num_survivors) if seen_as else release.event)
            for release in self._released.values()
        ]
        order: dict[Event, int] = {}
        for _, event in releases:
            order.setdefault(event, len(order))
        counts = np.zeros((self.num_clients, len(order)), dtype=np.int64)
        for survivors, event in releases:
            counts[survivors, order[event]] += 1
        return list(order), np.unique(counts, axis=0)

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


def _largest_epsilon(curves: list[conversion.Curve], rows: IntArray, delta: float) -> float:
    """Largest upper epsilon at `delta` over compositions `rows` int64[rows, events].

    One pass over the base grid of orders bounds every row from above; rows are then searched
    finely from the largest bound downwards, until no bound exceeds what was found.
    """
    if not curves:
        return 0.0
    a = conversion.base_grid()
    coarse = (rows @ np.stack([curve(a) for curve in curves])).astype(np.float64)
    bounds = (coarse * (1.0 + 2.0**-33) + conversion.conversion_term(a, delta)).min(axis=1)
    found = 0.0
    for index in np.argsort(-bounds):
        if bounds[index] <= found:
            break
        row = rows[index]
        found = max(found, conversion.epsilon_from_curve(_composed(curves, row), delta))
    return found


def _composed(curves: list[conversion.Curve], row: IntArray) -> conversion.Curve:
    """The curve of a composition that holds event i row[i] times."""
    used = np.flatnonzero(row)

    def curve(a: conversion.FloatArray) -> conversion.FloatArray:
        total = np.zeros_like(a)
        for index in used:
            total = total + float(row[index]) * curves[index](a)
        return total

    return curve
