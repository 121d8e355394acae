"""Input vectors as residues, and their self masks and signed pairwise masks, in place.

masked_vector = vector + PRG(self_mask_seed) + sum over neighbours v of sign(u, v) PRG(u, v),
mod 2^b, where the lower id of a pair adds what the higher id subtracts (Bonawitz et al. 2017).
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from struct import Struct
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from secureagg import prg
from secureagg._codec import prefixed, u16, u32
from secureagg._packing import Words, pack_bits, packed_bytes, unpack_bits, word_dtype
from secureagg.errors import MisuseError
from secureagg.params import Params, Segment
from secureagg.primitives import CIPHER_BYTES, Usage, hkdf, label


class HasSegments(Protocol):
    """Params, or whatever else says how a vector is cut."""

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, in the order of the wire."""
        ...


_IDS = Struct("<HIHI")
"""Two client ids as `label` writes them, each behind its length, in one call."""

Vectors = Mapping[str, NDArray[np.integer]] | NDArray[np.integer]


def check_vectors(params: Params, vectors: Vectors) -> Mapping[str, NDArray[np.integer]]:
    """Checks one client's input; nothing is ever reduced or rounded silently.

    Args:
        params: names, lengths and moduli.
        vectors: integer arrays in [0, 2^b) by segment; a bare array where there is one segment.

    Returns:
        The arrays by segment, not copied.

    Raises:
        MisuseError: a segment is missing or unknown, or has the wrong type, shape or range. The
            text does not repeat input values.
    """
    if isinstance(vectors, np.ndarray):
        vectors = {params.segments[0].name: vectors}
    names = [s.name for s in params.segments]
    if not isinstance(vectors, Mapping) or sorted(vectors) != sorted(names):
        raise MisuseError("mask_input", f"takes arrays for exactly the segments {names}")
    for segment in params.segments:
        array, where = vectors[segment.name], f"segment {segment.name!r}"
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
            raise MisuseError("mask_input", f"{where}: takes a numpy array of integers")
        if array.shape != (segment.length,):
            raise MisuseError("mask_input", f"{where}: {array.shape}, takes ({segment.length},)")
        negative = array.dtype.kind == "i" and int(array.min()) < 0
        if negative or int(array.max()) >> segment.modulus_bits:
            takes = f"takes integers in [0, 2^{segment.modulus_bits})"
            raise MisuseError("mask_input", f"{where}: out of range, {takes}")
    return vectors


def to_words(params: Params, vectors: Mapping[str, NDArray[np.integer]]) -> tuple[Words, ...]:
    """Copies checked vectors to words, one array per segment in the order of params."""
    return tuple(vectors[s.name].astype(word_dtype(s.modulus_bits)) for s in params.segments)


def zero_words(params: HasSegments) -> tuple[Words, ...]:
    """Returns one zero array per segment: the server's running sums."""
    return tuple(np.zeros(s.length, dtype=word_dtype(s.modulus_bits)) for s in params.segments)


def pack_vector(params: HasSegments, words: tuple[Words, ...], header: bytes = b"") -> bytes:
    """Reduces each segment mod 2^b and packs it behind `header`; each starts on a whole byte."""
    parts = zip(params.segments, words, strict=True)
    return b"".join([header, *(pack_bits(w, s.modulus_bits) for s, w in parts)])


def vector_bytes(params: HasSegments) -> int:
    """Returns the bytes `pack_vector` makes."""
    return sum(packed_bytes(s.length, s.modulus_bits) for s in params.segments)


def unpack_vector(params: HasSegments, data: bytes | memoryview) -> tuple[Words, ...]:
    """Undoes `pack_vector`.

    Raises:
        ValueError: the length is wrong, or a padding bit is set.
    """
    if len(data) != vector_bytes(params):
        raise ValueError(f"vector of {len(data)} bytes, takes {vector_bytes(params)}")
    words, start = [], 0
    for segment in params.segments:
        end = start + packed_bytes(segment.length, segment.modulus_bits)
        words.append(unpack_bits(data[start:end], segment.length, segment.modulus_bits))
        start = end
    return tuple(words)


def self_mask_info(ctx: bytes, client_id: int) -> bytes:
    """Returns what a self mask is bound to, but for the segment."""
    return label(Usage.SELF_MASK, ctx, u32(client_id))


def pairwise_mask_info(ctx: bytes, one: int, other: int, keys: Mapping[int, bytes]) -> bytes:
    """Returns what a pair's mask is bound to, but for the segment: alike from both ends.

    Args:
        ctx: round context.
        one: a client id.
        other: the other client id.
        keys: advertised mask public keys by id.
    """
    low, high = min(one, other), max(one, other)
    ids = _IDS.pack(4, low, 4, high)
    return _pairwise_prefix(ctx) + ids + prefixed(keys[low]) + prefixed(keys[high])


@lru_cache(maxsize=16)
def _pairwise_prefix(ctx: bytes) -> bytes:
    """How the label of every pairwise mask of a round begins."""
    return label(Usage.PAIRWISE_MASK, ctx)


def add_masks(words: tuple[Words, ...], masks: Iterable[tuple[bytes, bytes, bool]]) -> None:
    """Adds masks to the segments in place, modulo the word size.

    Args:
        words: one array per segment.
        masks: (secret, info, add): what to expand, what it is bound to, add or subtract. Read
            once, a batch at a time where there is one segment.
    """
    if len(words) > 1:
        masks = list(masks)
    for index, segment_words in enumerate(words):
        prg.accumulate(segment_words, _streams(masks, index))


def _streams(masks: Iterable[tuple[bytes, bytes, bool]], segment: int) -> Iterator[prg.Stream]:
    suffix = u16(segment)
    for secret, info, add in masks:
        material = hkdf(secret, 2 * CIPHER_BYTES, info + suffix)
        yield material[:CIPHER_BYTES], material[CIPHER_BYTES:], add
