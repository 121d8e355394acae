"""The client's stages: pure functions of a state and what the server sent.

`advertise_keys`, `share_keys`, `mask_input`, `check_consistency` (with a malicious server) and
`unmask` each take one state and return the next with the message to send. They check everything
before they compute; what they raise has changed nothing. Each state is used once. All randomness
expands from one 32-byte session secret, so a step taken twice from one state gives the same bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from secureagg import masking, messages, prg, shamir, sharing
from secureagg._codec import u32
from secureagg._packing import Words
from secureagg.context import Round, keys_to_sign, sets_to_sign
from secureagg.errors import FaultyClientOrServerError, FaultyServerError, TooFewClientsError
from secureagg.messages import KeyBundle, Kind, NeighbourShares, Status, UnmaskShares
from secureagg.primitives import (
    CIPHER_BYTES,
    KEY_BYTES,
    Usage,
    digest,
    hkdf,
    is_proper_public_key,
    is_signed,
    key_pair,
    label,
)
from secureagg.sharing import SharePair
from secureagg.states import Advertised, Checked, Invited, Masked, Revealed, Shared


def advertise_keys(state: Invited) -> tuple[Advertised, bytes]:
    """Makes both key pairs and the self-mask seed.

    Returns:
        (state, message): public keys and SHA-256(tag, ctx, id, self-mask seed), signed where the
        server may be malicious.
    """
    after = advertised(state)
    message = messages.header(Kind.KEYS, state.client_id, state.round.ctx)
    return after, message + after.bundle.to_bytes()


def advertised(state: Invited) -> Advertised:
    """Expands the session secret to keys, seed and bundle: the same every time."""
    ctx, me, identity = state.round.ctx, state.client_id, state.identity
    keys = hkdf(state.secret, 3 * KEY_BYTES, label(Usage.CLIENT_KEYS, ctx, u32(me)))
    enc, mask, seed = (keys[i : i + KEY_BYTES] for i in range(0, len(keys), KEY_BYTES))
    (enc_public, enc_agree), (mask_public, mask_agree) = key_pair(enc), key_pair(mask)
    bundle = KeyBundle(enc_public, mask_public, self_seed_commitment(ctx, me, seed))
    if identity is not None:
        signature = identity.sign(keys_to_sign(state.round, me, bundle.to_bytes()))
        bundle = replace(bundle, signature=signature)
    return Advertised(
        state.round, me, identity, state.secret, enc, mask, seed, bundle, enc_agree, mask_agree
    )


def self_seed_commitment(ctx: bytes, client_id: int, seed: bytes) -> bytes:
    """Returns what advertise_keys commits to, 32 bytes."""
    return digest(Usage.SELF_SEED_COMMITMENT, ctx, u32(client_id), seed)


def read_bundles(state: Advertised, body: memoryview) -> dict[int, KeyBundle]:
    """Parses what `share_keys` takes."""
    params = state.round.params
    return messages.bundles_from_bytes(body, limit=params.degree, signed=params.malicious)


def share_keys(state: Advertised, bundles: Mapping[int, KeyBundle]) -> tuple[Shared, bytes]:
    """Shares the mask key and the self-mask seed among the neighbours that advertised.

    Args:
        state: after advertise_keys.
        bundles: the neighbours' bundles, ascending ids.

    Returns:
        (state, message): one box and two commitments per neighbour.

    Raises:
        FaultyServerError: an id is not a neighbour; a signature is bad; keys repeat, are its own,
            non-canonical or of small order.
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
    mask_key, self_seed = shamir.split(secrets, xs, round_.params.threshold, rand).astype("<u4")
    agree = state.enc_agree
    keys = {v: bundle.enc_public_key for v, bundle in bundles.items()}
    keys[me] = state.bundle.enc_public_key
    boxes, opening_keys = {}, {}
    for i, v in enumerate(holders):
        sealing_key, opening_keys[v] = sharing.box_keys(agree(keys[v]), round_.ctx, me, v, keys)
        pair = mask_key[i].tobytes(), self_seed[i].tobytes()
        boxes[v] = sharing.seal_pair(sealing_key, round_.ctx, me, v, pair)
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
        did not open or match their commitments; their edges are masked all the same.

    Raises:
        FaultyServerError: this client is not in shared; the boxes are not exactly those of its
            neighbours in shared; one of them has no accepted bundle.
        TooFewClientsError: fewer of them than threshold, or fewer in shared than may survive.
    """
    me, round_ = state.me, state.me.round
    neighbours = check_shared(state, inbound)
    shares: dict[int, SharePair | None] = {}
    suspicions = []
    for v in neighbours:
        key, sealed = state.opening_keys[v], inbound.boxes[v]
        found = sharing.open_pair(key, round_.ctx, v, me.client_id, sealed)
        shares[v] = None if isinstance(found, str) else found
        if isinstance(found, str):
            suspicions.append(FaultyClientOrServerError(v, found))
    masked = tuple(array.copy() for array in words)
    masking.add_masks(masked, _masks(state, neighbours))
    header = messages.header(Kind.MASKED_VECTOR, me.client_id, round_.ctx)
    message = masking.pack_vector(round_.params, masked, header)
    after = Masked(round_, me.client_id, me.identity, inbound.shared, shares, tuple(suspicions))
    return after, message


def read_statuses(state: Masked, body: memoryview) -> NDArray[np.uint8]:
    """Parses what `unmask` and `check_consistency` take."""
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
    _check_statuses(state, statuses)
    return _reveal(state.round, state.client_id, state.shares, statuses)


def check_consistency(state: Masked, statuses: NDArray[np.uint8]) -> tuple[Checked, bytes | None]:
    """Fixes the sets that this client will unmask, once the witnesses say that everybody's agree.

    Args:
        state: after mask_input.
        statuses: [n] by roster position.

    Returns:
        (state, message): a witness's signature over both sets; None from anybody else.

    Raises:
        FaultyServerError: as `unmask`.
    """
    _check_statuses(state, statuses)
    round_, me = state.round, state.client_id
    message = None
    if me in round_.witnesses and state.identity is not None:
        message = messages.header(Kind.WITNESS_SIGNATURE, me, round_.ctx)
        message += state.identity.sign(sets_to_sign(round_, statuses))
    return Checked(round_, me, statuses, state.shares), message


def read_quorum(state: Checked, body: memoryview) -> dict[int, bytes]:
    """Parses what `unmask_agreed` takes."""
    return messages.quorum_from_bytes(body, limit=len(state.round.witnesses))


def unmask_agreed(state: Checked, signatures: Mapping[int, bytes]) -> tuple[Revealed, bytes]:
    """As `unmask`, of the sets this client holds, if a quorum of witnesses holds the same.

    Args:
        state: after check_consistency.
        signatures: by witness id; those after the first `threshold` valid ones are not looked at.

    Raises:
        FaultyServerError: fewer than threshold valid signatures by witnesses over these sets.
    """
    round_ = state.round
    need, data = round_.params.threshold, sets_to_sign(round_, state.statuses)
    have = 0
    for client_id in round_.witnesses:
        if have < need and client_id in signatures:
            identity = round_.identities[client_id]
            have += is_signed(identity, signatures[client_id], data)
    if have < need:
        reason = f"{have} witnesses signed the sets this client holds, needs {need}"
        raise FaultyServerError(round_.index, reason)
    return _reveal(round_, state.client_id, state.shares, state.statuses)


def _check_statuses(state: Masked, statuses: NDArray[np.uint8]) -> None:
    """The checks of `unmask` and `check_consistency`."""
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


def _reveal(
    round_: Round,
    me: int,
    pairs: Mapping[int, SharePair | None],
    statuses: NDArray[np.uint8],
) -> tuple[Revealed, bytes]:
    """One share for each neighbour in shared, by its status."""
    held = np.array([pair is not None for pair in pairs.values()], dtype=np.bool_)
    positions = [round_.position[v] for v in pairs]
    survived = (statuses[positions] == Status.SURVIVOR).tolist()
    nothing = bytes(shamir.SHARE_BYTES)
    rows = [
        nothing if pair is None else pair[seed]
        for pair, seed in zip(pairs.values(), survived, strict=True)
    ]
    shares = np.frombuffer(b"".join(rows), dtype="<u4").reshape(-1, shamir.LIMBS)
    message = messages.header(Kind.UNMASK_SHARES, me, round_.ctx)
    message += UnmaskShares(held, shares).to_bytes()
    return Revealed(round_, me), message


def is_bundle_signed(round_: Round, client_id: int, bundle: KeyBundle) -> bool:
    """Tells whether the roster's key of this client signed this bundle in this context."""
    data = keys_to_sign(round_, client_id, replace(bundle, signature=b"").to_bytes())
    return is_signed(round_.identities[client_id], bundle.signature, data)


def _check_bundles(state: Advertised, bundles: Mapping[int, KeyBundle]) -> None:
    """The checks of `share_keys`. A bad bundle blames the server, which had to refuse it."""
    round_, index = state.round, state.round.index
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
    for client_id, bundle in bundles.items():
        if round_.params.malicious and not is_bundle_signed(round_, client_id, bundle):
            raise FaultyServerError(index, f"sent keys that client {client_id} did not sign")
    if len(bundles) < state.round.params.threshold:
        need = state.round.params.threshold
        raise TooFewClientsError(index, len(bundles), need, "neighbours that advertised")


def check_shared(state: Shared, inbound: NeighbourShares) -> list[int]:
    """The checks of `mask_input`; returns the neighbours in shared, ascending."""
    round_, me = state.me.round, state.me.client_id
    if not inbound.shared[round_.position[me]]:
        raise FaultyServerError(round_.index, "this client is not in shared")
    neighbours = round_.neighbours_in(inbound.shared, me)
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
    agree = me.mask_agree
    for v in neighbours:
        info = masking.pairwise_mask_info(ctx, me.client_id, v, keys)
        yield agree(keys[v]), info, me.client_id < v
