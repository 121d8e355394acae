"""One round as both roles see it: parameters, roster, context hash and graph."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from secureagg import graph
from secureagg._codec import pack_flags, prefixed, u32
from secureagg.errors import MisuseError
from secureagg.graph import Flags, Graph
from secureagg.messages import VERSION, Status
from secureagg.params import Params
from secureagg.primitives import Usage, digest, is_identity, label, sha256


@dataclass(frozen=True, eq=False)
class Round:
    """What every party of a round can compute beforehand.

    Attributes:
        params: the parameters.
        ids: invited client ids, ascending; a client's rank here is its roster position.
        ctx: 32 bytes that bind parameters, roster, session, round and attempt.
        graph: over roster positions.
        position: client id to roster position.
        identities: client id to identity key; b"" with a semi-honest server.
        witnesses: ascending ids of who signs the sets of the round.
    """

    params: Params
    ids: tuple[int, ...]
    ctx: bytes
    graph: Graph
    position: Mapping[int, int] = field(repr=False)
    identities: Mapping[int, bytes] = field(repr=False)
    witnesses: tuple[int, ...] = field(repr=False)

    @property
    def index(self) -> int:
        """The round index that errors carry."""
        return self.params.round_index

    def mask_neighbours(self, client_id: int) -> tuple[int, ...]:
        """Returns the ascending ids this client shares pairwise masks with."""
        found = self.graph.mask_neighbours(self.position[client_id])
        return tuple([self.ids[p] for p in found.tolist()])

    def neighbours_in(self, flags: Flags, client_id: int) -> list[int]:
        """Returns those of `mask_neighbours` that [n] `flags` hold."""
        found = self.graph.mask_neighbours(self.position[client_id])
        return [self.ids[p] for p in found[flags[found]].tolist()]

    def holders(self, client_id: int) -> tuple[int, ...]:
        """Returns the ascending ids that hold this client's shares."""
        found = self.graph.holders(self.position[client_id])
        return tuple([self.ids[p] for p in found.tolist()])

    def flags(self, client_ids: frozenset[int] | set[int]) -> Flags:
        """Returns [n] booleans over roster positions."""
        found = np.zeros(len(self.ids), dtype=np.bool_)
        found[[self.position[i] for i in client_ids]] = True
        return found

    def members(self, flags: Flags) -> frozenset[int]:
        """Undoes `flags`."""
        return frozenset([self.ids[p] for p in np.flatnonzero(flags).tolist()])


def keys_to_sign(round_: Round, client_id: int, keys: bytes) -> bytes:
    """Returns what a client signs when it advertises `keys` (96 bytes: two keys, commitment)."""
    return label(Usage.SIGNED_KEYS, bytes([VERSION]), round_.ctx, u32(client_id), keys)


def statuses_of(
    round_: Round, shared: frozenset[int], survivors: frozenset[int]
) -> NDArray[np.uint8]:
    """Returns [n] statuses over roster positions."""
    here, there = round_.flags(shared), round_.flags(survivors)
    named = np.where(there, Status.SURVIVOR, np.where(here, Status.SHARED, Status.ABSENT))
    return named.astype(np.uint8)


def sets_to_sign(round_: Round, statuses: NDArray[np.uint8]) -> bytes:
    """Returns what a witness signs: the sets shared and survivors that [n] statuses stand for.

    Both are hashed by themselves: they may pass the 64 KiB of a labelled field.
    """
    shared, survivors = statuses != Status.ABSENT, statuses == Status.SURVIVOR
    sets = (sha256(pack_flags(flags)) for flags in (shared, survivors))
    return label(Usage.CONSISTENCY, round_.ctx, *sets)


def open_round(params: Params, roster: Mapping[int, bytes]) -> Round:
    """Fixes a round's context.

    Args:
        params: the parameters.
        roster: the invited clients' ids, 0..2^32 - 1, each with its Ed25519 public key: b"" with
            a semi-honest server.

    Returns:
        The round; ctx = SHA-256 over the canonical parameters (session, round index and attempt
        among them) and the roster in ascending order of ids.

    Raises:
        MisuseError: the roster does not have num_clients entries of that form.
    """
    have, need = len(roster), params.num_clients
    if have != need:
        raise MisuseError("roster", f"{have} clients, takes num_clients={need}")
    if params.malicious:
        check_identities(roster)
    elif any(key != b"" for key in roster.values()):
        raise MisuseError("roster", "a semi-honest server's roster maps ids to b''")
    listed = roster_to_bytes(roster)
    ids = tuple(sorted(roster))
    found = graph.build(params.num_clients, params.degree, params.graph_seed)
    return Round(
        params=params,
        ids=ids,
        # both are hashed by themselves: they may pass the 64 KiB of a labelled field
        ctx=digest(Usage.CONTEXT, sha256(params.to_bytes()), sha256(listed)),
        graph=found,
        position={client_id: position for position, client_id in enumerate(ids)},
        identities=dict(roster),
        witnesses=tuple([ids[p] for p in found.witnesses.tolist()]),
    )


def roster_to_bytes(roster: Mapping[int, bytes]) -> bytes:
    """Returns the (id, key) entries in ascending order of ids, each key behind its length.

    Raises:
        MisuseError: an id is not an integer in 0..2^32 - 1.
    """
    check_ids(roster)
    return b"".join(u32(i) + prefixed(roster[i]) for i in sorted(roster))


def check_ids(ids: Collection[int]) -> None:
    """Raises MisuseError unless there are ids and all are integers in 0..2^32 - 1."""
    if not ids or not all(type(i) is int and 0 <= i < 1 << 32 for i in ids):
        raise MisuseError("roster", "client ids are integers in 0..2^32 - 1")


def check_identities(roster: Mapping[int, bytes]) -> None:
    """Raises MisuseError unless the keys are different Ed25519 public keys."""
    keys = roster.values()
    if not all(isinstance(key, bytes) and is_identity(key) for key in keys):
        raise MisuseError("roster", "a malicious server's roster maps ids to Ed25519 public keys")
    if len(set(keys)) != len(keys):
        raise MisuseError("roster", "two clients have the same identity key")
