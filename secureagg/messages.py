"""The wire messages: each with its length, `from_bytes` and `to_bytes`.

Every message opens with version (1 byte), kind (1 byte), client id (4 bytes) and ctx (32 bytes);
the client id is the sender's towards the server and the receiver's towards a client. Integers are
little-endian. Lengths are checked before fields are read, counts before anything is allocated.
`from_bytes` raises ValueError; the sessions turn it into a MessageError that names the sender.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from secureagg._codec import pack_flags, u32, unpack_flags
from secureagg.graph import Flags
from secureagg.primitives import BOX_OVERHEAD, KEY_BYTES, SIGNATURE_BYTES
from secureagg.shamir import LIMBS, PRIME, SHARE_BYTES

VERSION = 1
HEADER_BYTES = 38


class Kind(IntEnum):
    """Stage and direction: below 128 to the server, from 128 to a client."""

    KEYS = 1
    SHARES = 2
    MASKED_VECTOR = 3
    WITNESS_SIGNATURE = 4
    UNMASK_SHARES = 5
    NEIGHBOUR_KEYS = 129
    NEIGHBOUR_SHARES = 130
    STATUSES = 131
    QUORUM = 132


def header(kind: Kind, client_id: int, ctx: bytes) -> bytes:
    """Returns the 38 bytes a message opens with."""
    return bytes([VERSION, kind]) + u32(client_id) + ctx


def open_header(message: bytes, client_id: int, ctx: bytes) -> tuple[int, memoryview]:
    """Checks the header of a message.

    Returns:
        (kind, body).

    Raises:
        ValueError: too short, or another version, client or context.
    """
    if not isinstance(message, bytes):
        raise ValueError("not bytes")  # noqa: TRY004 - a peer's message, not the caller's type
    if len(message) < HEADER_BYTES:
        raise ValueError(f"{len(message)} bytes, shorter than the header")
    if message[0] != VERSION:
        raise ValueError(f"version {message[0]}, takes {VERSION}")
    if message[2:6] != u32(client_id):
        raise ValueError("names another client")
    if message[6:HEADER_BYTES] != ctx:
        raise ValueError("belongs to another context (parameters, roster, session, round, attempt)")
    return message[1], memoryview(message)[HEADER_BYTES:]


@dataclass(frozen=True)
class KeyBundle:
    """advertise_keys, client to server: two public keys and a commitment (32 bytes each).

    Behind them, against a malicious server, the sender's signature (64 bytes); b"" without.
    """

    enc_public_key: bytes
    mask_public_key: bytes
    commitment: bytes
    signature: bytes = b""

    @staticmethod
    def len_bytes(*, signed: bool) -> int:
        """Returns the body's bytes."""
        return 3 * KEY_BYTES + SIGNATURE_BYTES * signed

    @staticmethod
    def from_bytes(body: memoryview | bytes, *, signed: bool) -> "KeyBundle":
        """Reads the body."""
        _check_length(body, KeyBundle.len_bytes(signed=signed))
        data, one, two, three = bytes(body), KEY_BYTES, 2 * KEY_BYTES, 3 * KEY_BYTES
        return KeyBundle(data[:one], data[one:two], data[two:three], data[three:])

    def to_bytes(self) -> bytes:
        """Writes the body."""
        return self.enc_public_key + self.mask_public_key + self.commitment + self.signature


def bundles_from_bytes(body: memoryview, *, limit: int, signed: bool) -> dict[int, KeyBundle]:
    """advertise_keys, server to client: the neighbours' bundles in ascending order of ids.

    Args:
        body: (id, bundle) entries of 4 + 96 bytes, or 4 + 160 if signed.
        limit: most entries allowed.
        signed: whether bundles carry signatures.
    """
    entries = _entries(body, KeyBundle.len_bytes(signed=signed), limit)
    return {client_id: KeyBundle.from_bytes(entry, signed=signed) for client_id, entry in entries}


def bundles_to_bytes(bundles: Mapping[int, KeyBundle]) -> bytes:
    """Undoes `bundles_from_bytes`."""
    return b"".join([u32(i) + bundles[i].to_bytes() for i in sorted(bundles)])


SHARE_PAIR_BYTES = 2 * (1 + SHARE_BYTES)
BOX_BYTES = SHARE_PAIR_BYTES + BOX_OVERHEAD
_PAIR_LIMBS = Struct(f"<x{LIMBS}Ix{LIMBS}I")  # x: the kind of each share


class ShareKind(IntEnum):
    """Which secret a share belongs to; a status decides which one may be revealed."""

    MASK_KEY = 1
    SELF_SEED = 2


_KINDS = bytes([ShareKind.MASK_KEY]), bytes([ShareKind.SELF_SEED])


def share_pair_to_bytes(mask_key_share: bytes, self_seed_share: bytes) -> bytes:
    """What a box hides: each share behind its kind, 2 * 37 bytes."""
    return _KINDS[0] + mask_key_share + _KINDS[1] + self_seed_share


def share_pair_from_bytes(data: bytes) -> tuple[bytes, bytes]:
    """Returns (mask_key_share, self_seed_share), SHARE_BYTES each."""
    _check_length(data, SHARE_PAIR_BYTES)
    half = 1 + SHARE_BYTES
    if (data[:1], data[half : half + 1]) != _KINDS:
        raise ValueError("shares are not labelled mask key, self seed")
    if max(_PAIR_LIMBS.unpack(data)) >= PRIME:
        raise ValueError("a share is not below the prime")
    return data[1:half], data[half + 1 :]


class SealedShares(NamedTuple):
    """A box (90 bytes) and commitments (32 bytes each) to the two shares it hides."""

    box: bytes
    mask_key_commitment: bytes
    seed_commitment: bytes

    @staticmethod
    def len_bytes() -> int:
        """Returns its bytes."""
        return BOX_BYTES + 2 * KEY_BYTES

    @staticmethod
    def from_bytes(entry: bytes) -> "SealedShares":
        """Reads it; the caller has checked the length."""
        cut = BOX_BYTES + KEY_BYTES
        return SealedShares(entry[:BOX_BYTES], entry[BOX_BYTES:cut], entry[cut:])

    def to_bytes(self) -> bytes:
        """Writes it."""
        return self.box + self.mask_key_commitment + self.seed_commitment


def boxes_from_bytes(body: memoryview, *, limit: int) -> dict[int, SealedShares]:
    """share_keys, client to server: sealed shares by receiver, in ascending order of ids.

    Args:
        body: (receiver, sealed shares) entries of 4 + 154 bytes.
        limit: most entries allowed.
    """
    entries = _entries(body, SealedShares.len_bytes(), limit)
    return {client_id: SealedShares.from_bytes(entry) for client_id, entry in entries}


def raw_boxes_from_bytes(body: memoryview, *, limit: int) -> dict[int, bytes]:
    """As `boxes_from_bytes`, each entry (154 bytes) unread: the server passes them on."""
    return dict(_entries(body, SealedShares.len_bytes(), limit))


def raw_boxes_to_bytes(boxes: Mapping[int, bytes]) -> bytes:
    """Undoes `raw_boxes_from_bytes`."""
    return b"".join([u32(i) + boxes[i] for i in sorted(boxes)])


def boxes_to_bytes(boxes: Mapping[int, SealedShares]) -> bytes:
    """Undoes `boxes_from_bytes`."""
    return b"".join([u32(i) + boxes[i].to_bytes() for i in sorted(boxes)])


@dataclass(frozen=True)
class NeighbourShares:
    """share_keys, server to client: who shared, and the boxes of the neighbours among them.

    Attributes:
        shared: [n] over roster positions.
        boxes: sealed shares by sender id.
    """

    shared: Flags
    boxes: Mapping[int, SealedShares]

    @staticmethod
    def from_bytes(body: memoryview, *, num_clients: int, limit: int) -> "NeighbourShares":
        """Reads the body: ceil(n / 8) bytes of flags, then at most `limit` boxes."""
        cut = (num_clients + 7) // 8
        shared = unpack_flags(body[:cut], num_clients)
        return NeighbourShares(shared, boxes_from_bytes(body[cut:], limit=limit))

    def to_bytes(self) -> bytes:
        """Writes the body."""
        return pack_flags(self.shared) + boxes_to_bytes(self.boxes)


class Status(IntEnum):
    """Where a client stands when the masked vectors are in; the wire's fourth value has no name.

    Two bits: "reveal my mask key" and "reveal my self-mask seed". Both at once is refused.
    """

    ABSENT = 0
    SHARED = 1
    SURVIVOR = 2


def statuses_from_bytes(body: memoryview, *, num_clients: int) -> NDArray[np.uint8]:
    """mask_input, server to client: two bits for each roster position.

    Returns:
        [n] values 0..3, of which Status names three.
    """
    bits = unpack_flags(body, 2 * num_clients).astype(np.uint8).reshape(num_clients, 2)
    return bits[:, 0] + 2 * bits[:, 1]


def statuses_to_bytes(statuses: NDArray[np.uint8]) -> bytes:
    """Undoes `statuses_from_bytes`."""
    bits = np.stack((statuses & 1, statuses >> 1), axis=1)
    return pack_flags(bits.reshape(-1).astype(np.bool_))


def signature_from_bytes(body: memoryview) -> bytes:
    """check_consistency, client to server: one witness's signature, 64 bytes."""
    _check_length(body, SIGNATURE_BYTES)
    return bytes(body)


def quorum_from_bytes(body: memoryview, *, limit: int) -> dict[int, bytes]:
    """check_consistency, server to client: witnesses' signatures in ascending order of ids.

    Args:
        body: (id, signature) entries of 4 + 64 bytes.
        limit: most entries allowed.
    """
    return dict(_entries(body, SIGNATURE_BYTES, limit))


def quorum_to_bytes(signatures: Mapping[int, bytes]) -> bytes:
    """Undoes `quorum_from_bytes`."""
    return b"".join([u32(i) + signatures[i] for i in sorted(signatures)])


@dataclass(frozen=True, repr=False)
class UnmaskShares:
    """Unmask, client to server: one share for each neighbour in shared, in ascending order.

    Attributes:
        held: [m] whether the share is there; a box may have failed to open.
        shares: [m, 9] limb shares, zero where not held.
    """

    held: Flags
    shares: NDArray[np.uint32]

    @staticmethod
    def len_bytes(*, m: int) -> int:
        """Returns the body's bytes for m neighbours in shared."""
        return (m + 7) // 8 + m * SHARE_BYTES

    @staticmethod
    def from_bytes(body: memoryview, *, m: int) -> "UnmaskShares":
        """Reads the body."""
        _check_length(body, UnmaskShares.len_bytes(m=m))
        cut = (m + 7) // 8
        held = unpack_flags(body[:cut], m)
        shares = np.frombuffer(body[cut:], dtype="<u4").reshape(m, LIMBS)
        if (shares >= PRIME).any():
            raise ValueError("a share is not below the prime")
        if shares[~held].any():
            raise ValueError("a share that is not held is not zero")
        return UnmaskShares(held, shares)

    def to_bytes(self) -> bytes:
        """Writes the body."""
        return pack_flags(self.held) + self.shares.astype("<u4").tobytes()


def _check_length(data: bytes | memoryview, length: int) -> None:
    if len(data) != length:
        raise ValueError(f"body of {len(data)} bytes, takes {length}")


def _entries(body: memoryview, size: int, limit: int) -> Iterable[tuple[int, bytes]]:
    """(id, entry) pairs; ids strictly ascending, so none is named twice."""
    step = 4 + size
    if len(body) % step or len(body) // step > limit:
        raise ValueError(f"{len(body)} bytes of entries, takes at most {limit} of {step}")
    found, last, data = [], -1, bytes(body)
    for start in range(0, len(data), step):
        client_id = int.from_bytes(data[start : start + 4], "little")
        if client_id <= last:
            raise ValueError("ids are not strictly ascending: repeated or out of order")
        found.append((client_id, data[start + 4 : start + step]))
        last = client_id
    return found
