"""Shares on their way from dealer to holder: committed to in the open, boxed in secret.

A dealer publishes SHA-256(tag, ctx, dealer, holder, kind, share) for each share. So a holder knows
whether its box holds what was promised, and the server later tells a lying holder (its share does
not match the commitment) from a lying dealer (matching shares that rebuild a wrong secret).
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct

from secureagg import messages
from secureagg._codec import prefixed
from secureagg.messages import SealedShares, ShareKind
from secureagg.primitives import CIPHER_BYTES, Usage, hkdf, label, open_box, seal, sha256
from secureagg.shamir import SHARE_BYTES

_FIELDS = Struct(f"<HIHIHBH{SHARE_BYTES}s")
"""Dealer, holder, kind and share as `label` writes them, each behind its length, in one call."""

_IDS = Struct("<HIHI")
"""Two client ids, likewise."""

_MASK_KEY, _SELF_SEED = int(ShareKind.MASK_KEY), int(ShareKind.SELF_SEED)

SharePair = tuple[bytes, bytes]
"""(mask key share, self-mask seed share), SHARE_BYTES each."""


def share_commitment(ctx: bytes, dealer: int, holder: int, kind: ShareKind, share: bytes) -> bytes:
    """Returns what a dealer commits to a share with, 32 bytes."""
    return share_committer(ctx)(dealer, holder, kind, share)


@lru_cache(maxsize=16)
def share_committer(ctx: bytes) -> Callable[[int, int, int, bytes], bytes]:
    """Returns `share_commitment` in one context, for many shares: (dealer, holder, kind, share)."""
    prefix, pack = label(Usage.SHARE_COMMITMENT, ctx), _FIELDS.pack

    def commit(dealer: int, holder: int, kind: int, share: bytes) -> bytes:
        return sha256(prefix + pack(4, dealer, 4, holder, 1, kind, SHARE_BYTES, share))

    return commit


def commit_pair(ctx: bytes, dealer: int, holder: int, pair: SharePair) -> tuple[bytes, bytes]:
    """Returns the commitments to both shares, in the order of the pair."""
    commit, (mask_key, self_seed) = share_committer(ctx), pair
    return commit(dealer, holder, _MASK_KEY, mask_key), commit(
        dealer, holder, _SELF_SEED, self_seed
    )


def seal_pair(key: bytes, ctx: bytes, dealer: int, holder: int, pair: SharePair) -> SealedShares:
    """Boxes two shares for their holder and commits to them.

    Args:
        key: 16 bytes, of this dealer and holder in this context only.
        ctx: round context.
        dealer: whose secrets are shared.
        holder: who gets the box.
        pair: the shares.
    """
    plaintext = messages.share_pair_to_bytes(*pair)
    box = seal(key, plaintext, _box_data(ctx, dealer, holder))
    return SealedShares(box, *commit_pair(ctx, dealer, holder, pair))


def open_pair(
    key: bytes, ctx: bytes, dealer: int, holder: int, sealed: SealedShares
) -> SharePair | str:
    """Undoes `seal_pair`.

    Returns:
        The shares; or, in words, why they cannot be used.
    """
    plaintext = open_box(key, sealed.box, _box_data(ctx, dealer, holder))
    if plaintext is None:
        return "its box of shares does not open"
    try:
        pair = messages.share_pair_from_bytes(plaintext)
    except ValueError as error:
        return f"its box of shares is malformed: {error}"
    if commit_pair(ctx, dealer, holder, pair) != (
        sealed.mask_key_commitment,
        sealed.seed_commitment,
    ):
        return "its box of shares does not match its commitments"
    return pair


def box_keys(
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
    pair = _IDS.pack(4, low, 4, high) + prefixed(keys[low]) + prefixed(keys[high])
    material = hkdf(agreed, 2 * CIPHER_BYTES, _prefixes(ctx)[0] + pair)
    upwards, downwards = material[:CIPHER_BYTES], material[CIPHER_BYTES:]
    return (upwards, downwards) if me < other else (downwards, upwards)


def _box_data(ctx: bytes, sender: int, receiver: int) -> bytes:
    return _prefixes(ctx)[1] + _IDS.pack(4, sender, 4, receiver)


@lru_cache(maxsize=16)
def _prefixes(ctx: bytes) -> tuple[bytes, bytes]:
    """How the labels of box keys and of boxes' associated data begin."""
    return label(Usage.BOX_KEY, ctx), label(Usage.BOX_DATA, ctx)
