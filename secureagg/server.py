"""The server's stages up to unmask: a state says who may answer.

`accept_*` checks one message, `close_*` ends the stage. Dropouts are explicit: whoever has not
been accepted when a stage closes is gone. Clients left with fewer than threshold neighbours count
as gone too (`Graph.core`), as their secrets could not be recovered. Whatever raises has changed
nothing, so a stage that closes too early can close again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from secureagg import masking, messages
from secureagg._codec import pack_flags
from secureagg._packing import Words
from secureagg.client import is_bundle_signed
from secureagg.context import Round, sets_to_sign, statuses_of
from secureagg.errors import FaultyClientError, TooFewClientsError
from secureagg.messages import KeyBundle, Kind
from secureagg.primitives import is_proper_public_key, is_signed
from secureagg.recovery import CollectUnmask, Commitments


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
        commitments: to the shares they dealt.
    """

    round: Round
    expected: frozenset[int]
    bundles: Mapping[int, KeyBundle] = field(repr=False)
    commitments: Commitments = field(repr=False)


@dataclass(frozen=True)
class CollectSignatures:
    """check_consistency, against a malicious server only.

    Attributes:
        round: the round.
        expected: the witnesses among the survivors.
        unmask: what comes next, but for who may answer and the signatures.
        statuses: [n] the sets that they sign.
    """

    round: Round
    expected: frozenset[int]
    unmask: CollectUnmask
    statuses: NDArray[np.uint8] = field(repr=False)

    @staticmethod
    def after(unmask: CollectUnmask) -> "CollectSignatures":
        """What check_consistency is before the `unmask` it leads to."""
        round_ = unmask.round
        witnesses = unmask.survivors & frozenset(round_.witnesses)
        statuses = statuses_of(round_, frozenset(unmask.bundles), unmask.survivors)
        return CollectSignatures(round_, witnesses, unmask, statuses)


def accept_keys(state: CollectKeys, sender: int, body: memoryview, keys: set[bytes]) -> KeyBundle:
    """Checks one bundle.

    Args:
        state: advertise_keys.
        sender: who sent it.
        body: the message behind its header.
        keys: all public keys accepted so far.

    Raises:
        FaultyClientError: a key is non-canonical, of small order, or sent twice; a bad signature.
        ValueError: malformed, or a key that another client sent before.
    """
    signed = state.round.params.malicious
    bundle = KeyBundle.from_bytes(body, signed=signed)
    fresh = (bundle.enc_public_key, bundle.mask_public_key)
    if not all(map(is_proper_public_key, fresh)):
        raise FaultyClientError(sender, "sent a non-canonical or small-order public key")
    if fresh[0] == fresh[1]:
        raise FaultyClientError(sender, "sent one public key twice")
    if signed and not is_bundle_signed(state.round, sender, bundle):
        raise FaultyClientError(sender, "sent keys that its identity key did not sign")
    if not keys.isdisjoint(fresh):
        # No blame: whoever saw this client's keys on their way may have sent them first.
        raise ValueError("a public key that another client sent before")
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
    boxes = messages.raw_boxes_from_bytes(body, limit=state.round.params.degree)
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
    flags = pack_flags(round_.flags(shared))
    out = {}
    for client_id in sorted(shared):
        near = [v for v in round_.mask_neighbours(client_id) if v in shared]
        body = flags + messages.raw_boxes_to_bytes({v: received[v][client_id] for v in near})
        out[client_id] = messages.header(Kind.NEIGHBOUR_SHARES, client_id, round_.ctx) + body
    bundles = {i: state.bundles[i] for i in sorted(shared)}
    commitments = {
        i: {v: entry[messages.BOX_BYTES :] for v, entry in received[i].items() if v in shared}
        for i in bundles
    }
    return CollectVectors(round_, shared, bundles, commitments), out


def accept_vector(state: CollectVectors, body: memoryview, sums: tuple[Words, ...]) -> None:
    """Adds one masked vector to the running sums, which it changes only if all is well.

    Raises:
        ValueError: malformed.
    """
    for total, words in zip(sums, masking.unpack_vector(state.round.params, body), strict=True):
        np.add(total, words, out=total)


def close_vectors(
    state: CollectVectors, contributors: frozenset[int], sums: tuple[Words, ...]
) -> tuple[CollectUnmask | CollectSignatures, dict[int, bytes]]:
    """Ends mask_input; every survivor gets one status per client.

    Returns:
        (state, messages): CollectSignatures against a malicious server.

    Raises:
        TooFewClientsError: fewer survivors than must be.
    """
    round_ = state.round
    _check_count(round_, len(contributors))
    body = messages.statuses_to_bytes(statuses_of(round_, state.expected, contributors))
    out = {
        client_id: messages.header(Kind.STATUSES, client_id, round_.ctx) + body
        for client_id in sorted(contributors)
    }
    unmask = CollectUnmask(
        round_, contributors, contributors, state.bundles, state.commitments, sums, {}
    )
    if not round_.params.malicious:
        return unmask, out
    return CollectSignatures.after(unmask), out


def accept_signature(state: CollectSignatures, sender: int, body: memoryview) -> bytes:
    """Checks one witness's signature over the sets.

    Raises:
        FaultyClientError: it is not of these sets by this client.
        ValueError: malformed.
    """
    signature, round_ = messages.signature_from_bytes(body), state.round
    if not is_signed(round_.identities[sender], signature, sets_to_sign(round_, state.statuses)):
        raise FaultyClientError(sender, "did not sign the sets of this round")
    return signature


def close_signatures(
    state: CollectSignatures, received: Mapping[int, bytes]
) -> tuple[CollectUnmask, dict[int, bytes]]:
    """Ends check_consistency; every survivor but a witness that did not sign gets a quorum.

    Raises:
        TooFewClientsError: fewer signatures than threshold.
    """
    round_, need = state.round, state.round.params.threshold
    if len(received) < need:
        raise TooFewClientsError(round_.index, len(received), need, "witnesses' signatures")
    quorum = {i: received[i] for i in sorted(received)[:need]}
    left = state.unmask.survivors - (state.expected - frozenset(received))
    body = messages.quorum_to_bytes(quorum)
    out = {i: messages.header(Kind.QUORUM, i, round_.ctx) + body for i in sorted(left)}
    return replace(state.unmask, expected=left, quorum=quorum), out


def _core(round_: Round, answered: set[int]) -> frozenset[int]:
    """Who goes on: everybody with threshold neighbours that go on."""
    alive = round_.graph.core(round_.flags(answered), round_.params.threshold)
    _check_count(round_, int(alive.sum()))
    return round_.members(alive)


def _check_count(round_: Round, have: int) -> None:
    if have < round_.params.required_survivors:
        raise TooFewClientsError(round_.index, have, round_.params.required_survivors)
