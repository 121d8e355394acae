"""A client's state to bytes and back. What expands from the session secret is not stored."""

from collections.abc import Mapping

import numpy as np

from secureagg import messages
from secureagg._codec import Reader, blob, pack_flags, prefixed, u32, unpack_flags
from secureagg.client import advertised
from secureagg.context import Round
from secureagg.errors import FaultyClientOrServerError
from secureagg.graph import Flags
from secureagg.primitives import CIPHER_BYTES, KEY_BYTES, IdentityKey
from secureagg.shamir import SHARE_BYTES
from secureagg.sharing import SharePair
from secureagg.states import Advertised, Checked, Invited, Masked, Revealed, Shared

State = Invited | Advertised | Shared | Masked | Checked | Revealed

_TAGS: Mapping[type, int] = {
    Invited: 1,
    Advertised: 2,
    Shared: 3,
    Masked: 4,
    Checked: 5,
    Revealed: 6,
}


def state_to_bytes(state: State) -> bytes:
    """Returns a tag and what cannot be computed again."""
    parts = [bytes([_TAGS[type(state)]])]
    if isinstance(state, Invited | Advertised):
        parts.append(state.secret)
    elif isinstance(state, Shared):
        parts += [state.me.secret, blob(messages.bundles_to_bytes(state.bundles))]
        parts += [state.opening_keys[v] for v in state.bundles]
    elif isinstance(state, Masked):
        parts += [pack_flags(state.shared), _pairs_to_bytes(state.shares)]
        parts.append(suspicions_to_bytes(state.suspicions))
    elif isinstance(state, Checked):
        parts += [messages.statuses_to_bytes(state.statuses), _pairs_to_bytes(state.shares)]
    return b"".join(parts)


def state_from_bytes(
    reader: Reader, round_: Round, client_id: int, identity: IdentityKey | None
) -> State:
    """Undoes `state_to_bytes`; ValueError where the bytes are no state."""
    tag, n = reader.byte(), round_.params.num_clients
    if tag == _TAGS[Masked]:
        shared = unpack_flags(reader.take((n + 7) // 8), n)
        pairs = _pairs_from_bytes(reader, round_, client_id, shared)
        return Masked(round_, client_id, identity, shared, pairs, suspicions_from_bytes(reader))
    if tag == _TAGS[Checked]:
        statuses = messages.statuses_from_bytes(reader.take((n + 3) // 4), num_clients=n)
        pairs = _pairs_from_bytes(reader, round_, client_id, statuses != messages.Status.ABSENT)
        return Checked(round_, client_id, statuses, pairs)
    if tag == _TAGS[Revealed]:
        return Revealed(round_, client_id)
    if tag not in (1, 2, 3):
        raise ValueError(f"state {tag}")
    invited = Invited(round_, client_id, identity, bytes(reader.take(KEY_BYTES)))
    if tag == _TAGS[Invited]:
        return invited
    me = advertised(invited)
    if tag == _TAGS[Advertised]:
        return me
    params = round_.params
    bundles = messages.bundles_from_bytes(
        reader.blob(), limit=params.degree, signed=params.malicious
    )
    return Shared(me, bundles, {v: bytes(reader.take(CIPHER_BYTES)) for v in bundles})


def suspicions_to_bytes(suspicions: tuple[FaultyClientOrServerError, ...]) -> bytes:
    """Returns their number, then each client id and reason."""
    named = [u32(s.client_id) + prefixed(s.reason.encode()) for s in suspicions]
    return u32(len(named)) + b"".join(named)


def suspicions_from_bytes(reader: Reader) -> tuple[FaultyClientOrServerError, ...]:
    """Undoes `suspicions_to_bytes`."""
    found = []
    for _ in range(reader.number()):
        client_id = reader.number()
        size = int.from_bytes(reader.take(2), "little")
        found.append(FaultyClientOrServerError(client_id, str(reader.take(size), "utf-8")))
    return tuple(found)


def _pairs_to_bytes(pairs: Mapping[int, SharePair | None]) -> bytes:
    held = np.array([pair is not None for pair in pairs.values()], dtype=np.bool_)
    return pack_flags(held) + b"".join([b"".join(pair) for pair in pairs.values() if pair])


def _pairs_from_bytes(
    reader: Reader, round_: Round, client_id: int, shared: Flags
) -> dict[int, SharePair | None]:
    near = [v for v in round_.mask_neighbours(client_id) if shared[round_.position[v]]]
    held = unpack_flags(reader.take((len(near) + 7) // 8), len(near))
    pairs: dict[int, SharePair | None] = {}
    for v, here in zip(near, held.tolist(), strict=True):
        pairs[v] = None
        if here:
            pairs[v] = bytes(reader.take(SHARE_BYTES)), bytes(reader.take(SHARE_BYTES))
    return pairs
