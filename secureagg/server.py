"""The server's stages: a state says who may answer; `accept_*` checks one message, `close_*` ends.

Dropouts are explicit: whoever has not been accepted when a stage closes is gone. Clients left with
fewer than threshold neighbours count as gone too (`Graph.core`), as their secrets could not be
recovered. Whatever raises has changed nothing, so a stage that closes too early can close again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from secureagg import masking, messages, shamir
from secureagg._codec import Words, low_bits
from secureagg.client import self_seed_commitment
from secureagg.context import Round
from secureagg.errors import FaultyClientError, TooFewClientsError
from secureagg.graph import Flags
from secureagg.messages import KeyBundle, Kind, NeighbourShares, Status, UnmaskShares
from secureagg.primitives import agreement, is_proper_public_key, public_key


@dataclass(frozen=True)
class CollectKeys:
    """advertise_keys. Attributes: the round, and who may answer (everybody invited)."""

    round: Round
    expected: frozenset[int]


@dataclass(frozen=True)
class CollectShares:
    """share_keys.

    Attributes:
        round: the round.
        expected: the clients that advertised.
        bundles: their keys.
    """

    round: Round
    expected: frozenset[int]
    bundles: Mapping[int, KeyBundle] = field(repr=False)


@dataclass(frozen=True)
class CollectVectors:
    """mask_input.

    Attributes:
        round: the round.
        expected: shared, the clients whose boxes went out.
        bundles: their keys.
    """

    round: Round
    expected: frozenset[int]
    bundles: Mapping[int, KeyBundle] = field(repr=False)


@dataclass(frozen=True)
class CollectUnmask:
    """Unmask.

    Attributes:
        round: the round.
        expected: the survivors, whose masked vectors are in the sum.
        bundles: keys of everybody in shared.
        sums: masked sums by segment.
    """

    round: Round
    expected: frozenset[int]
    bundles: Mapping[int, KeyBundle] = field(repr=False)
    sums: tuple[Words, ...] = field(repr=False)


@dataclass(frozen=True)
class Aggregate:
    """What the round releases.

    Attributes:
        sums: uint64 [length] by segment: the survivors' sum mod 2^modulus_bits.
        survivors: ascending ids.
    """

    sums: dict[str, NDArray[np.uint64]]
    survivors: tuple[int, ...]


@dataclass(frozen=True)
class Finished:
    """The sum is out. Attributes: the round, nobody to hear from, and the result."""

    round: Round
    expected: frozenset[int]
    aggregate: Aggregate


def accept_keys(state: CollectKeys, sender: int, body: memoryview, keys: set[bytes]) -> KeyBundle:
    """Checks one bundle.

    Args:
        state: advertise_keys.
        sender: who sent it.
        body: the message behind its header.
        keys: all public keys accepted so far.

    Raises:
        FaultyClientError: a key is non-canonical, of small order, or taken.
        ValueError: malformed.
    """
    bundle = KeyBundle.from_bytes(body)
    fresh = (bundle.enc_public_key, bundle.mask_public_key)
    if not all(map(is_proper_public_key, fresh)):
        raise FaultyClientError(sender, "sent a non-canonical or small-order public key")
    if fresh[0] == fresh[1] or not keys.isdisjoint(fresh):
        raise FaultyClientError(sender, "sent a public key that is taken")
    return bundle


def close_keys(
    state: CollectKeys, received: Mapping[int, KeyBundle]
) -> tuple[CollectShares, dict[int, bytes]]:
    """Ends advertise_keys; everybody left gets its neighbours' bundles.

    Raises:
        TooFewClientsError: fewer clients are left than must survive.
    """
    round_ = state.round
    advertised = _core(round_, set(received))
    bundles = {i: received[i] for i in sorted(advertised)}
    out = {}
    for client_id in bundles:
        near = {v: bundles[v] for v in round_.mask_neighbours(client_id) if v in bundles}
        body = messages.bundles_to_bytes(near)
        out[client_id] = messages.header(Kind.NEIGHBOUR_KEYS, client_id, round_.ctx) + body
    return CollectShares(round_, advertised, bundles), out


def accept_shares(state: CollectShares, sender: int, body: memoryview) -> dict[int, bytes]:
    """Checks that the boxes are for exactly the holders that advertised.

    Raises:
        FaultyClientError: they are not.
        ValueError: malformed.
    """
    boxes = messages.boxes_from_bytes(body, limit=state.round.params.degree)
    if list(boxes) != [v for v in state.round.holders(sender) if v in state.expected]:
        raise FaultyClientError(sender, "its boxes are not for exactly its holders")
    return boxes


def close_shares(
    state: CollectShares, received: Mapping[int, Mapping[int, bytes]]
) -> tuple[CollectVectors, dict[int, bytes]]:
    """Ends share_keys; everybody left gets the set and the boxes its neighbours sent it.

    Raises:
        TooFewClientsError: fewer clients are left than must survive.
    """
    round_ = state.round
    shared = _core(round_, set(received))
    flags = round_.flags(shared)
    out = {}
    for client_id in sorted(shared):
        near = [v for v in round_.mask_neighbours(client_id) if v in shared]
        body = NeighbourShares(flags, {v: received[v][client_id] for v in near}).to_bytes()
        out[client_id] = messages.header(Kind.NEIGHBOUR_SHARES, client_id, round_.ctx) + body
    bundles = {i: state.bundles[i] for i in sorted(shared)}
    return CollectVectors(round_, shared, bundles), out


def accept_vector(state: CollectVectors, body: memoryview, sums: tuple[Words, ...]) -> None:
    """Adds one masked vector to the running sums, which it changes only if all is well.

    Raises:
        ValueError: malformed.
    """
    for total, words in zip(sums, masking.unpack_vector(state.round.params, body), strict=True):
        np.add(total, words, out=total)


def close_vectors(
    state: CollectVectors, contributors: frozenset[int], sums: tuple[Words, ...]
) -> tuple[CollectUnmask, dict[int, bytes]]:
    """Ends mask_input; every survivor gets one status per client.

    Raises:
        TooFewClientsError: fewer survivors than must be.
    """
    round_ = state.round
    _check_count(round_, len(contributors))
    shared, survivors = round_.flags(state.expected), round_.flags(contributors)
    statuses = np.where(survivors, Status.SURVIVOR, np.where(shared, Status.SHARED, Status.ABSENT))
    body = messages.statuses_to_bytes(statuses.astype(np.uint8))
    out = {
        client_id: messages.header(Kind.STATUSES, client_id, round_.ctx) + body
        for client_id in sorted(contributors)
    }
    return CollectUnmask(round_, contributors, state.bundles, sums), out


def accept_unmask(state: CollectUnmask, sender: int, body: memoryview) -> UnmaskShares:
    """Parses one client's shares: one for each neighbour in shared.

    Raises:
        ValueError: malformed.
    """
    return UnmaskShares.from_bytes(body, m=len(_dealers(state, sender)))


def close_unmask(state: CollectUnmask, received: Mapping[int, UnmaskShares]) -> Finished:
    """Rebuilds what is needed from exactly threshold shares each, and takes the masks off.

    Needed are the self-mask seed of every survivor and the mask key of every client in shared
    that is no survivor but has one among its neighbours.

    Raises:
        TooFewClientsError: some secret has fewer than threshold shares.
        FaultyClientError: a secret does not match what its dealer advertised: the dealer or one
            of the holders is faulty.
    """
    round_ = state.round
    needed = _needed(state)
    secrets = _rebuild(round_, needed, *_flat_shares(state, received))
    for client_id, secret in secrets.items():
        _check_secret(state, client_id, secret)
    sums = tuple(array.copy() for array in state.sums)
    masking.add_masks(sums, _masks_left(state, secrets))
    parts = zip(round_.params.segments, sums, strict=True)
    totals = {s.name: low_bits(w, s.modulus_bits).astype(np.uint64) for s, w in parts}
    return Finished(round_, frozenset(), Aggregate(totals, tuple(sorted(state.expected))))


def _core(round_: Round, answered: set[int]) -> frozenset[int]:
    """Who goes on: everybody with threshold neighbours that go on."""
    alive = round_.graph.core(round_.flags(answered), round_.params.threshold)
    _check_count(round_, int(alive.sum()))
    return round_.members(alive)


def _check_count(round_: Round, have: int) -> None:
    if have < round_.params.required_survivors:
        raise TooFewClientsError(round_.index, have, round_.params.required_survivors)


def needed_dealers(round_: Round, shared: Flags, survivors: Flags) -> Flags:
    """[n] whose secret unmasking takes: survivors, and dropped clients with a surviving peer."""
    met = round_.graph.count_neighbours(survivors) > 0
    return survivors | (shared & met)


def _needed(state: CollectUnmask) -> NDArray[np.int64]:
    """Ascending roster positions of the dealers whose secret is rebuilt."""
    shared, survivors = state.round.flags(set(state.bundles)), state.round.flags(state.expected)
    return np.flatnonzero(needed_dealers(state.round, shared, survivors))


def _dealers(state: CollectUnmask, holder: int) -> list[int]:
    """Whose shares a holder answers for, ascending roster positions."""
    near = state.round.mask_neighbours(holder)
    return [state.round.position[v] for v in near if v in state.bundles]


def _flat_shares(
    state: CollectUnmask, received: Mapping[int, UnmaskShares]
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint32]]:
    """All shares as (dealer position [N], holder's x [N], limbs [N, 9]), by ascending holder."""
    dealers, xs, limbs = [], [], []
    for holder in sorted(received):
        answer = received[holder]
        found = np.array(_dealers(state, holder), dtype=np.int64)[answer.held]
        dealers.append(found)
        xs.append(np.full(len(found), state.round.position[holder] + 1, dtype=np.uint64))
        limbs.append(answer.shares[answer.held])
    if not dealers:
        empty = np.zeros(0, dtype=np.uint64)
        return empty.astype(np.int64), empty, np.zeros((0, shamir.LIMBS), dtype=np.uint32)
    return np.concatenate(dealers), np.concatenate(xs), np.concatenate(limbs)


def _rebuild(
    round_: Round,
    needed: NDArray[np.int64],
    dealers: NDArray[np.int64],
    xs: NDArray[np.uint64],
    limbs: NDArray[np.uint32],
) -> dict[int, bytes | None]:
    """Secrets by client id; None where the shares fit no secret."""
    threshold = round_.params.threshold
    counts = np.bincount(dealers, minlength=len(round_.ids))
    have = int(counts[needed].min())
    if have < threshold:
        raise TooFewClientsError(round_.index, have, threshold, "shares of one secret")
    order = np.argsort(dealers, kind="stable")
    starts = np.cumsum(counts) - counts
    chosen = order[starts[needed][:, None] + np.arange(threshold)]  # [G, t]
    secrets = shamir.combine(xs[chosen], limbs[chosen])
    return dict(zip([round_.ids[p] for p in needed.tolist()], secrets, strict=True))


def _check_secret(state: CollectUnmask, client_id: int, secret: bytes | None) -> None:
    bundle = state.bundles[client_id]
    if secret is not None:
        if client_id in state.expected:
            commitment = self_seed_commitment(state.round.ctx, client_id, secret)
            if commitment == bundle.commitment:
                return
        elif public_key(secret) == bundle.mask_public_key:
            return
    what = "self-mask seed" if client_id in state.expected else "mask key"
    reason = f"its {what} does not rebuild: the dealer or one of its holders is faulty"
    raise FaultyClientError(client_id, reason)


def _masks_left(
    state: CollectUnmask, secrets: Mapping[int, bytes | None]
) -> Iterator[tuple[bytes, bytes, bool]]:
    """The survivors' self masks and their pairwise masks with dropped clients, sign reversed."""
    round_ = state.round
    keys = {i: bundle.mask_public_key for i, bundle in state.bundles.items()}
    for client_id, secret in secrets.items():
        if secret is None:  # _check_secret has refused it
            continue
        if client_id in state.expected:
            yield secret, masking.self_mask_info(round_.ctx, client_id), False
            continue
        agree = agreement(secret)
        for survivor in round_.mask_neighbours(client_id):
            if survivor in state.expected:
                info = masking.pairwise_mask_info(round_.ctx, survivor, client_id, keys)
                yield agree(keys[survivor]), info, survivor > client_id
