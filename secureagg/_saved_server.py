"""The server's state to bytes and back: keys, commitments, one sum per segment, never a vector."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from secureagg import messages
from secureagg._codec import Reader, blob, blobs, pack_flags, unpack_flags
from secureagg._packing import Words, word_dtype
from secureagg.context import Round
from secureagg.messages import KeyBundle, UnmaskShares
from secureagg.primitives import KEY_BYTES
from secureagg.recovery import Aggregate, CollectUnmask, Commitments, Finished, count_dealers
from secureagg.server import CollectKeys, CollectShares, CollectSignatures, CollectVectors

_TAGS: Mapping[type, int] = {
    CollectKeys: 1,
    CollectShares: 2,
    CollectVectors: 3,
    CollectSignatures: 4,
    CollectUnmask: 5,
    Finished: 6,
}


def state_to_bytes(state: Any, received: Mapping[int, Any], sums: tuple[Words, ...]) -> bytes:
    """Returns a tag, the state, and what has been accepted in the open stage."""
    round_, parts = state.round, [bytes([_TAGS[type(state)]])]
    if isinstance(state, Finished):
        aggregate = state.aggregate
        sets = (aggregate.shared, aggregate.survivors, aggregate.faulty)
        parts += [_ids(round_, members) for members in sets]
        parts += [blob(messages.quorum_to_bytes(aggregate.quorum))]
        disputes = {i: _ids(round_, holders) for i, holders in aggregate.disputes.items()}
        parts += [blobs(disputes)]
        parts += [aggregate.sums[s.name].astype("<u8").tobytes() for s in round_.params.segments]
        return b"".join(parts)
    held = state.unmask if isinstance(state, CollectSignatures) else state
    if not isinstance(state, CollectKeys):
        parts.append(blob(messages.bundles_to_bytes(held.bundles)))
    if not isinstance(state, CollectKeys | CollectShares):
        parts.append(
            blobs({i: messages.raw_boxes_to_bytes(row) for i, row in held.commitments.items()})
        )
        parts += [array.tobytes() for array in sums]
    if isinstance(state, CollectSignatures | CollectUnmask):
        parts += [_ids(round_, held.survivors), _ids(round_, held.expected)]
        parts.append(blob(messages.quorum_to_bytes(held.quorum)))
    parts.append(blobs({i: _accepted(state, item) for i, item in received.items()}))
    return b"".join(parts)


def state_from_bytes(
    reader: Reader, round_: Round
) -> tuple[Any, dict[int, Any], tuple[Words, ...]]:
    """Undoes `state_to_bytes`; ValueError where the bytes are no state."""
    tag, params = reader.byte(), round_.params
    sums = tuple(np.zeros(s.length, word_dtype(s.modulus_bits)) for s in params.segments)
    if tag == _TAGS[Finished]:
        return _finished(reader, round_), {}, sums
    state: Any = CollectKeys(round_, frozenset(round_.ids))
    if tag == _TAGS[CollectKeys]:
        return state, _received(reader, state), sums
    bundles = messages.bundles_from_bytes(
        reader.blob(), limit=params.num_clients, signed=params.malicious
    )
    everybody = frozenset(bundles)
    if tag == _TAGS[CollectShares]:
        state = CollectShares(round_, everybody, bundles)
        return state, _received(reader, state), sums
    commitments = {i: _commitments_from(row) for i, row in reader.blobs().items()}
    sums = tuple(
        np.frombuffer(reader.take(array.nbytes), dtype=array.dtype).copy() for array in sums
    )
    if tag == _TAGS[CollectVectors]:
        state = CollectVectors(round_, everybody, bundles, commitments)
    else:
        state = _late_state(reader, tag, round_, bundles, commitments, sums)
    return state, _received(reader, state), sums


def _late_state(
    reader: Reader,
    tag: int,
    round_: Round,
    bundles: Mapping[int, KeyBundle],
    commitments: Commitments,
    sums: tuple[Words, ...],
) -> CollectSignatures | CollectUnmask:
    survivors, expected = _ids_from(reader, round_), _ids_from(reader, round_)
    quorum = messages.quorum_from_bytes(reader.blob(), limit=len(round_.witnesses))
    unmask = CollectUnmask(round_, expected, survivors, bundles, commitments, sums, quorum)
    if tag == _TAGS[CollectUnmask]:
        return unmask
    if tag != _TAGS[CollectSignatures]:
        raise ValueError(f"state {tag}")
    return CollectSignatures.after(unmask)


def _finished(reader: Reader, round_: Round) -> Finished:
    shared, survivors, faulty = (tuple(sorted(_ids_from(reader, round_))) for _ in range(3))
    quorum = messages.quorum_from_bytes(reader.blob(), limit=len(round_.witnesses))
    disputes = {
        i: tuple(sorted(_ids_from(Reader(flags), round_))) for i, flags in reader.blobs().items()
    }
    sums = {
        s.name: np.frombuffer(reader.take(8 * s.length), dtype="<u8").astype(np.uint64)
        for s in round_.params.segments
    }
    return Finished(
        round_, frozenset(), Aggregate(sums, shared, survivors, quorum, faulty, disputes)
    )


def _accepted(state: object, item: Any) -> bytes:
    if isinstance(state, CollectShares):
        return messages.raw_boxes_to_bytes(item)
    if isinstance(state, CollectVectors):
        return b""
    if isinstance(state, CollectSignatures):
        return bytes(item)
    return bytes(item.to_bytes())


def _received(reader: Reader, state: Any) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for i, data in reader.blobs().items():
        body = memoryview(data)
        if isinstance(state, CollectKeys):
            found[i] = KeyBundle.from_bytes(body, signed=state.round.params.malicious)
        elif isinstance(state, CollectShares):
            found[i] = messages.raw_boxes_from_bytes(body, limit=state.round.params.degree)
        elif isinstance(state, CollectVectors):
            found[i] = None
        elif isinstance(state, CollectSignatures):
            found[i] = messages.signature_from_bytes(body)
        else:
            found[i] = UnmaskShares.from_bytes(body, m=count_dealers(state, i))
    return found


def _commitments_from(data: bytes) -> dict[int, bytes]:
    reader, found = Reader(data), {}
    for _ in range(len(data) // (4 + 2 * KEY_BYTES)):
        holder = reader.number()
        found[holder] = bytes(reader.take(2 * KEY_BYTES))
    reader.close()
    return found


def _ids(round_: Round, client_ids: Any) -> bytes:
    return pack_flags(round_.flags(set(client_ids)))


def _ids_from(reader: Reader, round_: Round) -> frozenset[int]:
    n = len(round_.ids)
    return round_.members(unpack_flags(reader.take((n + 7) // 8), n))
