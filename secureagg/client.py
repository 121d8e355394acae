"""The client's stages: pure functions of a state and what the server sent.

`advertise_keys`, `share_keys`, `mask_input` and `unmask` each take one state and return the next
with the message to send. They check everything before they compute; what they raise has changed
nothing. Each state is used once. All randomness expands from one 32-byte session secret, so a step
taken twice from one state gives the same bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from secureagg import masking, messages, prg, shamir
from secureagg._codec import Words, u32
from secureagg.context import Round
from secureagg.errors import FaultyClientOrServerError, FaultyServerError, TooFewClientsError
from secureagg.graph import Flags
from secureagg.messages import KeyBundle, Kind, NeighbourShares, Status, UnmaskShares
from secureagg.primitives import (
    CIPHER_BYTES,
    KEY_BYTES,
    Usage,
    agreement,
    digest,
    hkdf,
    is_proper_public_key,
    label,
    open_box,
    public_key,
    seal,
)


@dataclass(frozen=True)
class Invited:
    """Before advertise_keys.

    Attributes:
        round: the round.
        client_id: this client.
        secret: 32 bytes that all its randomness expands from.
    """

    round: Round
    client_id: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Advertised:
    """After advertise_keys.

    Attributes:
        round: the round.
        client_id: this client.
        secret: as before.
        enc_private_key: opens and seals boxes.
        mask_private_key: agrees on pairwise masks; shared among the holders.
        self_mask_seed: expands to the self mask; shared among the holders.
        bundle: what was sent.
    """

    round: Round
    client_id: int
    secret: bytes = field(repr=False)
    enc_private_key: bytes = field(repr=False)
    mask_private_key: bytes = field(repr=False)
    self_mask_seed: bytes = field(repr=False)
    bundle: KeyBundle = field(repr=False)


@dataclass(frozen=True)
class Shared:
    """After share_keys.

    Attributes:
        me: own keys.
        bundles: accepted bundles of neighbours, by id.
        opening_keys: AES keys of the boxes to come, by sender.
    """

    me: Advertised
    bundles: Mapping[int, KeyBundle] = field(repr=False)
    opening_keys: Mapping[int, bytes] = field(repr=False)


@dataclass(frozen=True)
class Masked:
    """After mask_input.

    Attributes:
        round: the round.
        client_id: this client.
        shared: [n] the set masked with.
        shares: (mask key share, self seed share) by neighbour in shared, ascending; None where
            the box did not open.
        suspicions: one error for each box that did not open.
    """

    round: Round
    client_id: int
    shared: Flags = field(repr=False)
    shares: Mapping[int, tuple[bytes, bytes] | None] = field(repr=False)
    suspicions: tuple[FaultyClientOrServerError, ...]


@dataclass(frozen=True)
class Revealed:
    """After unmask: nothing is left to do."""

    round: Round
    client_id: int


def advertise_keys(state: Invited) -> tuple[Advertised, bytes]:
    """Makes both key pairs and the self-mask seed.

    Returns:
        (state, message): public keys and SHA-256(tag, ctx, id, self-mask seed).
    """
    ctx, me = state.round.ctx, state.client_id
    keys = hkdf(state.secret, 3 * KEY_BYTES, label(Usage.CLIENT_KEYS, ctx, u32(me)))
    enc, mask, seed = (keys[i : i + KEY_BYTES] for i in range(0, len(keys), KEY_BYTES))
    bundle = KeyBundle(public_key(enc), public_key(mask), self_seed_commitment(ctx, me, seed))
    after = Advertised(state.round, me, state.secret, enc, mask, seed, bundle)
    return after, messages.header(Kind.KEYS, me, ctx) + bundle.to_bytes()


def self_seed_commitment(ctx: bytes, client_id: int, seed: bytes) -> bytes:
    """Returns what advertise_keys commits to, 32 bytes."""
    return digest(Usage.SELF_SEED_COMMITMENT, ctx, u32(client_id), seed)


def read_bundles(state: Advertised, body: memoryview) -> dict[int, KeyBundle]:
    """Parses what `share_keys` takes."""
    return messages.bundles_from_bytes(body, limit=state.round.params.degree)


def share_keys(state: Advertised, bundles: Mapping[int, KeyBundle]) -> tuple[Shared, bytes]:
    """Shares the mask key and the self-mask seed among the neighbours that advertised.

    Args:
        state: after advertise_keys.
        bundles: the neighbours' bundles, ascending ids.

    Returns:
        (state, message): one box per neighbour.

    Raises:
        FaultyServerError: an id is not a neighbour; keys repeat, are its own, non-canonical or of
            small order.
        TooFewClientsError: fewer neighbours than threshold.
    """
    _check_bundles(state, bundles)
    round_, me = state.round, state.client_id
    holders = [v for v in round_.holders(me) if v in bundles]
    rand = prg.stream_of(
        hkdf(
            state.secret,
            2 * CIPHER_BYTES,
            label(Usage.SHARE_COEFFICIENTS, round_.ctx, u32(me)),
        )
    )
    xs = np.array([round_.position[v] + 1 for v in holders], dtype=np.uint64)
    secrets = (state.mask_private_key, state.self_mask_seed)
    mask_key, self_seed = shamir.split(secrets, xs, round_.params.threshold, rand)
    agree = agreement(state.enc_private_key)
    keys = {v: bundle.enc_public_key for v, bundle in bundles.items()}
    keys[me] = state.bundle.enc_public_key
    boxes, opening_keys = {}, {}
    for i, v in enumerate(holders):
        sealing_key, opening_keys[v] = _box_keys(agree(keys[v]), round_.ctx, me, v, keys)
        pair = messages.share_pair_to_bytes(_share_bytes(mask_key[i]), _share_bytes(self_seed[i]))
        boxes[v] = seal(sealing_key, pair, _box_data(round_.ctx, me, v))
    message = messages.header(Kind.SHARES, me, round_.ctx) + messages.boxes_to_bytes(boxes)
    return Shared(state, bundles, opening_keys), message


def read_shares(state: Shared, body: memoryview) -> NeighbourShares:
    """Parses what `mask_input` takes."""
    params = state.me.round.params
    return NeighbourShares.from_bytes(body, num_clients=params.num_clients, limit=params.degree)


def mask_input(
    state: Shared, inbound: NeighbourShares, words: tuple[Words, ...]
) -> tuple[Masked, bytes]:
    """Masks the input over exactly the neighbours that shared, so both ends of an edge agree.

    Args:
        state: after share_keys.
        inbound: who shared, and the neighbours' boxes.
        words: the input, one array per segment; not changed.

    Returns:
        (state, message): the masked vector, bit-packed. The state's `suspicions` name boxes that
        did not open; their edges are masked all the same.

    Raises:
        FaultyServerError: this client is not in shared; the boxes are not exactly those of its
            neighbours in shared; one of them has no accepted bundle.
        TooFewClientsError: fewer of them than threshold, or fewer in shared than may survive.
    """
    me, round_ = state.me, state.me.round
    neighbours = _check_shared(state, inbound)
    shares: dict[int, tuple[bytes, bytes] | None] = {}
    suspicions = []
    for v in neighbours:
        data = _box_data(round_.ctx, v, me.client_id)
        shares[v] = _open_shares(state.opening_keys[v], inbound.boxes[v], data)
        if shares[v] is None:
            suspicions.append(FaultyClientOrServerError(v, "its box of shares does not open"))
    masked = tuple(array.copy() for array in words)
    masking.add_masks(masked, _masks(state, neighbours))
    message = messages.header(Kind.MASKED_VECTOR, me.client_id, round_.ctx)
    message += masking.pack_vector(round_.params, masked)
    return Masked(round_, me.client_id, inbound.shared, shares, tuple(suspicions)), message


def read_statuses(state: Masked, body: memoryview) -> NDArray[np.uint8]:
    """Parses what `unmask` takes."""
    return messages.statuses_from_bytes(body, num_clients=state.round.params.num_clients)


def unmask(state: Masked, statuses: NDArray[np.uint8]) -> tuple[Revealed, bytes]:
    """Reveals, for each neighbour in shared, one share: which kind follows from its status.

    Args:
        state: after mask_input.
        statuses: [n] by roster position.

    Returns:
        (state, message): shares of the self-mask seeds of survivors and of the mask keys of the
        others.

    Raises:
        FaultyServerError: both kinds of share are asked for; this client is not among the
            survivors; shared is not the set it masked with; too few survivors to release a sum.
    """
    round_ = state.round
    if (statuses > Status.SURVIVOR).any():
        raise FaultyServerError(round_.index, "asks for both kinds of share of one client")
    if statuses[round_.position[state.client_id]] != Status.SURVIVOR:
        raise FaultyServerError(
            round_.index, "this client sent a masked vector, and is no survivor"
        )
    if not np.array_equal(statuses != Status.ABSENT, state.shared):
        raise FaultyServerError(round_.index, "shared is not the set that was masked with")
    survivors = int((statuses == Status.SURVIVOR).sum())
    if survivors < round_.params.required_survivors:
        reason = f"{survivors} survivors, needs {round_.params.required_survivors}"
        raise FaultyServerError(round_.index, reason)
    held = np.array([pair is not None for pair in state.shares.values()], dtype=np.bool_)
    rows = []
    for v, (mask_key_share, self_seed_share) in _or_zero(state.shares):
        survived = statuses[round_.position[v]] == Status.SURVIVOR
        rows.append(self_seed_share if survived else mask_key_share)
    shares = np.frombuffer(b"".join(rows), dtype="<u4").reshape(-1, shamir.LIMBS)
    message = messages.header(Kind.UNMASK_SHARES, state.client_id, round_.ctx)
    message += UnmaskShares(held, shares).to_bytes()
    return Revealed(round_, state.client_id), message


def _check_bundles(state: Advertised, bundles: Mapping[int, KeyBundle]) -> None:
    """The checks of `share_keys`. A bad bundle blames the server, which had to refuse it."""
    index = state.round.index
    if not set(bundles) <= set(state.round.mask_neighbours(state.client_id)):
        raise FaultyServerError(index, "sent keys of a client that is not a neighbour")
    seen: set[bytes] = set()
    for bundle in (state.bundle, *bundles.values()):
        for key in (bundle.enc_public_key, bundle.mask_public_key):
            if not is_proper_public_key(key):
                raise FaultyServerError(index, "sent a non-canonical or small-order public key")
            if key in seen:
                raise FaultyServerError(index, "sent a public key twice, or this client's own")
            seen.add(key)
    if len(bundles) < state.round.params.threshold:
        need = state.round.params.threshold
        raise TooFewClientsError(index, len(bundles), need, "neighbours that advertised")


def _check_shared(state: Shared, inbound: NeighbourShares) -> list[int]:
    """The checks of `mask_input`; returns the neighbours in shared, ascending."""
    round_, me = state.me.round, state.me.client_id
    if not inbound.shared[round_.position[me]]:
        raise FaultyServerError(round_.index, "this client is not in shared")
    all_neighbours = round_.mask_neighbours(me)
    neighbours = [v for v in all_neighbours if inbound.shared[round_.position[v]]]
    if list(inbound.boxes) != neighbours:
        raise FaultyServerError(round_.index, "boxes are not those of the neighbours in shared")
    if not all(v in state.bundles for v in neighbours):
        raise FaultyServerError(round_.index, "a neighbour in shared has no accepted bundle")
    params, have = round_.params, int(inbound.shared.sum())
    if len(neighbours) < params.threshold:
        have, need = len(neighbours), params.threshold
        raise TooFewClientsError(round_.index, have, need, "neighbours that shared")
    if have < params.required_survivors:
        raise TooFewClientsError(round_.index, have, params.required_survivors, "clients in shared")
    return neighbours


def _masks(state: Shared, neighbours: list[int]) -> Iterator[tuple[bytes, bytes, bool]]:
    """The self mask, then a pairwise mask for each neighbour in shared."""
    me, ctx = state.me, state.me.round.ctx
    yield me.self_mask_seed, masking.self_mask_info(ctx, me.client_id), True
    keys = {v: state.bundles[v].mask_public_key for v in neighbours}
    keys[me.client_id] = me.bundle.mask_public_key
    agree = agreement(me.mask_private_key)
    for v in neighbours:
        info = masking.pairwise_mask_info(ctx, me.client_id, v, keys)
        yield agree(keys[v]), info, me.client_id < v


def _open_shares(key: bytes, box: bytes, data: bytes) -> tuple[bytes, bytes] | None:
    plaintext = open_box(key, box, data)
    if plaintext is None:
        return None
    try:
        return messages.share_pair_from_bytes(plaintext)
    except ValueError:
        return None


def _or_zero(
    shares: Mapping[int, tuple[bytes, bytes] | None],
) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    """Pairs of shares by neighbour, zero where none is held."""
    nothing = bytes(shamir.SHARE_BYTES)
    for v, pair in shares.items():
        yield v, pair or (nothing, nothing)


def _box_keys(
    agreed: bytes, ctx: bytes, me: int, other: int, keys: Mapping[int, bytes]
) -> tuple[bytes, bytes]:
    """The AES keys of the two boxes of a pair: (from me to the other, from the other to me).

    Args:
        agreed: agreement of both enc keys.
        ctx: round context.
        me: own id.
        other: the other's id.
        keys: enc public keys by id.
    """
    low, high = min(me, other), max(me, other)
    info = label(Usage.BOX_KEY, ctx, u32(low), u32(high), keys[low], keys[high])
    material = hkdf(agreed, 2 * CIPHER_BYTES, info)
    upwards, downwards = material[:CIPHER_BYTES], material[CIPHER_BYTES:]
    return (upwards, downwards) if me < other else (downwards, upwards)


def _box_data(ctx: bytes, sender: int, receiver: int) -> bytes:
    return label(Usage.BOX_DATA, ctx, u32(sender), u32(receiver))


def _share_bytes(limbs: NDArray[np.uint32]) -> bytes:
    return limbs.astype("<u4").tobytes()
