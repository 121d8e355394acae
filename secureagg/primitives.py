"""X25519, Ed25519, HKDF-SHA256, AES-128-GCM and -CTR, SHA-256, each under a numbered usage tag.

The only file that imports `cryptography`. Every derivation, commitment and box goes through
`label`, so no two uses can meet on the same input.
"""

import hashlib
import os
from collections.abc import Callable
from enum import IntEnum

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secureagg._codec import prefixed

KEY_BYTES = 32
"""Private key, public key, agreement, seed, digest."""

CIPHER_BYTES = 16
"""AES key, and AES-CTR initial counter."""

BOX_OVERHEAD = 16
"""GCM tag."""

SIGNATURE_BYTES = 64

FINGERPRINT_BYTES = 16

_PROTOCOL = b"secureagg/1"
_PRIME = (1 << 255) - 19
# The u-coordinates below p of the points of order 1, 2, 4 and 8 on Curve25519 and its twist
# (Bernstein, https://cr.yp.to/ecdh.html#validate).
_LONGEST_GMAC = 2**30  # OpenSSL takes up to 2^31 - 1 bytes at once
# y of the eight points of small order of edwards25519: orders 4, 1, 2 and 8
_SMALL_ORDER_Y = frozenset((
    0,
    1,
    2**255 - 20,
    int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    ),
    int.from_bytes(
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
    ),
))  # fmt: skip
_SMALL_ORDER = {
    0,
    1,
    _PRIME - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
}


class Usage(IntEnum):
    """What a hash, key or seed is for. Numbers are never reused."""

    CONTEXT = 1
    CLIENT_KEYS = 2
    SHARE_COEFFICIENTS = 3
    SELF_SEED_COMMITMENT = 4
    BOX_KEY = 5
    BOX_DATA = 6
    PAIRWISE_MASK = 7
    SELF_MASK = 8
    GRAPH = 9
    BYTE_STREAM = 10
    SIGNED_KEYS = 11
    SHARE_COMMITMENT = 12
    WITNESSES = 13
    CONSISTENCY = 14
    SNAPSHOT = 15
    SURPLUS = 16
    ROSTER = 17
    PRESENCE = 18
    OPENING = 19
    OPENED_SEED = 20


_PREFIXES = {usage: _PROTOCOL + bytes([usage]) for usage in Usage}


def label(usage: Usage, *fields: bytes) -> bytes:
    """Returns the protocol name, the usage number and the fields, each behind its length."""
    return _PREFIXES[usage] + b"".join(map(prefixed, fields))


def digest(usage: Usage, *fields: bytes) -> bytes:
    """Returns SHA-256 of the label, 32 bytes."""
    return sha256(label(usage, *fields))


def sha256(data: bytes) -> bytes:
    """Returns SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def hkdf(secret: bytes, length: int, info: bytes, salt: bytes | None = None) -> bytes:
    """HKDF-SHA256 (RFC 5869).

    Args:
        secret: input keying material.
        length: output bytes, at most 8160.
        info: from `label`.
        salt: none in this protocol.
    """
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def public_key(private_key: bytes) -> bytes:
    """Returns the X25519 public key (32 bytes) of 32 private bytes (RFC 7748)."""
    return key_pair(private_key)[0]


Agree = Callable[[bytes], bytes]
"""A peer's X25519 public key (32 bytes) to the shared secret (32 bytes)."""


def agreement(private_key: bytes) -> Agree:
    """X25519 (RFC 7748) with one private key, loaded once: loading costs as much as agreeing.

    Args:
        private_key: 32 bytes, clamped here.

    Returns:
        A function from a peer's public key (32 bytes) to the shared secret (32 bytes). It raises
        ValueError where the secret would be all zero: the peer's point has small order.
    """
    return key_pair(private_key)[1]


def key_pair(private_key: bytes) -> tuple[bytes, Agree]:
    """Returns (`public_key`, `agreement`) of 32 private bytes, loaded once for both."""
    key = X25519PrivateKey.from_private_bytes(private_key)

    def agree(peer: bytes) -> bytes:
        return key.exchange(X25519PublicKey.from_public_bytes(peer))

    return key.public_key().public_bytes_raw(), agree


class IdentityKey:
    """A client's long-term Ed25519 key (RFC 8032): signs what it advertises and attests.

    Args:
        seed: 32 secret bytes.

    Raises:
        ValueError: the seed is not 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public_key = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, rand: Callable[[int], bytes] = os.urandom) -> "IdentityKey":
        """Makes a key from 32 bytes of `rand`, which has os.urandom's meaning."""
        return cls(rand(KEY_BYTES))

    def __repr__(self) -> str:
        return f"IdentityKey(public_key={self._public_key.hex()})"

    @property
    def public_key(self) -> bytes:
        """The 32 bytes that stand in the roster."""
        return self._public_key

    def sign(self, data: bytes) -> bytes:
        """Returns the 64-byte signature of what `label` made; the same one every time."""
        return self._key.sign(data)


def is_signed(identity: bytes, signature: object, data: bytes) -> bool:
    """Tells whether a signature of `data` by the holder of a roster key is valid."""
    if not isinstance(signature, bytes):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_identity(identity: bytes) -> bool:
    """Tells whether 32 bytes are a canonical Ed25519 public key that is not of small order.

    Under a key of small order a signature need not depend on the message. Bytes that are no point
    are not told apart: nothing is signed under them.
    """
    try:
        Ed25519PublicKey.from_public_bytes(identity)
    except ValueError:
        return False
    y = int.from_bytes(identity, "little") & ((1 << 255) - 1)
    return y < _PRIME and y not in _SMALL_ORDER_Y


def is_proper_public_key(key: bytes) -> bool:
    """Tells whether 32 bytes are a canonical X25519 public key that is not of small order."""
    number = int.from_bytes(key, "little")
    return len(key) == KEY_BYTES and number < _PRIME and number not in _SMALL_ORDER


def seal(key: bytes, plaintext: bytes, data: bytes) -> bytes:
    """AES-128-GCM under a key that is used for this box only, so the nonce is zero.

    Args:
        key: 16 bytes.
        plaintext: what to hide.
        data: associated data.

    Returns:
        Ciphertext and tag, len(plaintext) + 16 bytes.
    """
    return AESGCM(key).encrypt(bytes(12), plaintext, data)


def open_box(key: bytes, box: bytes, data: bytes) -> bytes | None:
    """Undoes `seal`; None where the box was not made with this key and data."""
    try:
        return AESGCM(key).decrypt(bytes(12), box, data)
    except InvalidTag:
        return None


def fingerprint(data: bytes) -> bytes:
    """A fast 16-byte digest to recognise a repeated message; not collision resistant (GMAC)."""
    if len(data) > _LONGEST_GMAC:
        return hashlib.blake2b(data, digest_size=FINGERPRINT_BYTES).digest()
    return AESGCM(bytes(CIPHER_BYTES)).encrypt(bytes(12), b"", data)


def key_stream(key: bytes, counter: bytes) -> CipherContext:
    """AES-128-CTR (NIST SP 800-38A) with a 128-bit big-endian counter.

    Args:
        key: 16 bytes.
        counter: 16 bytes, the first counter block.

    Returns:
        A context whose update methods encrypt; feed it zeros for the key stream itself.
    """
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
