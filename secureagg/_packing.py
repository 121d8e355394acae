"""Residues mod 2^b as b bits each, one after another, least significant bit first.

Where b is not a word's own width, neighbouring words are first joined until they fill a 64-bit
lane ("joined" bits of it), and lanes are laid in rows that are whole bytes, at least 8 of them.
Every 64-bit word of a row is then one strided store over all rows of a block. The last word of a
row may reach into the next row, so words are stored from last to first: what it spills, the next
row's first word covers.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]

_DIRECT: dict[int, np.dtype[Any]] = {
    8: np.dtype("<u1"),
    16: np.dtype("<u2"),
    32: np.dtype("<u4"),
}

_LANE = np.dtype("<u8")

BLOCK_WORDS = 1 << 15
"""Residues packed at a time: what is made on the way stays in the second-level cache."""


def word_dtype(bits: int) -> np.dtype[Any]:
    """Returns the little-endian word that holds a residue mod 2^bits: 2, 4 or 8 bytes.

    Args:
        bits: modulus bits, 1..62.
    """
    return np.dtype("<u2") if bits <= 16 else np.dtype("<u4") if bits <= 32 else _LANE


def low_bits(words: Words, bits: int) -> Words:
    """Returns words mod 2^bits, in the same dtype; words that all fit already, not copied."""
    if bits == 8 * words.dtype.itemsize:
        return words
    reduced: Words = words & words.dtype.type((1 << bits) - 1)
    return reduced


def packed_bytes(length: int, bits: int) -> int:
    """Returns the bytes that `length` residues of `bits` bits take."""
    return (length * bits + 7) // 8


def pack_bits(words: Words, bits: int) -> memoryview:
    """Packs words mod 2^bits one after another, least significant bit first; padding is zero.

    Args:
        words: [length] of `word_dtype(bits)`; bits above the lowest `bits` are left out.
        bits: 1..62.

    Returns:
        `packed_bytes(length, bits)` bytes.
    """
    if bits in _DIRECT:
        return np.ascontiguousarray(words, _DIRECT[bits]).view(np.uint8).data
    rows, at = _rows(bits), 0
    out = np.empty(-(-len(words) // rows.words) * rows.size + _LANE.itemsize, dtype=np.uint8)
    step = max(1, BLOCK_WORDS // rows.words) * rows.words
    for start in range(0, len(words), step):
        lanes = _join(low_bits(words[start : start + step], bits), bits, rows.words)
        _store(lanes.reshape(-1, rows.lanes), rows, out[at:])
        at += len(lanes) // rows.lanes * rows.size
    return out[: packed_bytes(len(words), bits)].data


def unpack_bits(data: bytes | memoryview, length: int, bits: int) -> Words:
    """Undoes `pack_bits`.

    Args:
        data: exactly `packed_bytes(length, bits)` bytes.
        length: residues to read.
        bits: 1..62.

    Returns:
        [length] words of `word_dtype(bits)`.

    Raises:
        ValueError: the length is wrong, or a padding bit is set.
    """
    if len(data) != packed_bytes(length, bits):
        raise ValueError(f"{len(data)} bytes, takes {packed_bytes(length, bits)}")
    if (spare := len(data) * 8 - length * bits) and data[-1] >> (8 - spare):
        raise ValueError("padding bits are not zero")
    if bits in _DIRECT:
        direct: Words = np.frombuffer(data, dtype=_DIRECT[bits]).astype(word_dtype(bits))
        return direct
    rows, packed = _rows(bits), np.frombuffer(data, dtype=np.uint8)
    words = np.empty(-(-length // rows.words) * rows.words, dtype=word_dtype(bits))
    step = max(1, BLOCK_WORDS // rows.words)
    for first in range(0, len(words) // rows.words, step):
        block = words[first * rows.words : (first + step) * rows.words]
        count = len(block) // rows.words
        lanes = _load(packed[first * rows.size :], count, rows)
        block[:] = _part(lanes, rows.joined, words.dtype)
    return words[:length]


class _Rows(NamedTuple):
    """How residues of one width lie in rows.

    Attributes:
        joined: bits that one lane fills, below 64.
        lanes: of a row.
        words: of a row.
        size: bytes of a row, at least 8.
    """

    joined: int
    lanes: int
    words: int
    size: int


@cache
def _rows(bits: int) -> _Rows:
    each = _LANE.itemsize // word_dtype(bits).itemsize
    joined = each * bits
    lanes = 8 // math.gcd(joined, 8)
    while lanes * joined < 8 * _LANE.itemsize:
        lanes *= 2
    return _Rows(joined, lanes, lanes * each, lanes * joined // 8)


def _join(words: Words, bits: int, multiple: int) -> Words:
    """Residues in little-endian words to lanes of several each, with zeros up to a whole row."""
    if missing := -len(words) % multiple:
        words = np.concatenate([words, np.zeros(missing, words.dtype)])
    while words.dtype != _LANE:
        half = 8 * words.dtype.itemsize
        pairs = words.view(f"<u{half // 4}")
        wide = pairs.dtype.type
        high = pairs >> wide(half)
        high <<= wide(bits)
        words = pairs & wide((1 << bits) - 1)
        words |= high
        bits *= 2
    return words


def _part(lanes: Words, joined: int, dtype: np.dtype[Any]) -> Words:
    """Undoes `_join`, but for the zeros."""
    while lanes.dtype != dtype:
        half, wide = 4 * lanes.dtype.itemsize, lanes.dtype.type
        joined //= 2
        high = lanes >> wide(joined)
        high <<= wide(half)
        lanes = lanes & wide((1 << joined) - 1)
        lanes |= high
        lanes = lanes.view(f"<u{half // 8}")
    return lanes


def _store(lanes: Words, rows: _Rows, out: NDArray[np.uint8]) -> None:
    """Lays [count, lanes] in rows; up to 7 bytes behind the last row are written too."""
    for start in reversed(range(0, rows.size, _LANE.itemsize)):
        word = np.zeros(len(lanes), dtype=_LANE)
        for lane, shift in _within(rows, 8 * start):
            column = lanes[:, lane]
            word |= column << np.uint64(shift) if shift >= 0 else column >> np.uint64(-shift)
        _strided(out, len(lanes), start, rows.size)[:] = word


def _load(packed: NDArray[np.uint8], count: int, rows: _Rows) -> Words:
    """Undoes `_store`: [count * lanes]."""
    needed = count * rows.size + _LANE.itemsize  # the last row's last word reaches behind it
    if len(packed) < needed:
        packed = np.concatenate([packed, np.zeros(needed - len(packed), np.uint8)])
    lanes = np.zeros((count, rows.lanes), dtype=_LANE)
    for start in range(0, rows.size, _LANE.itemsize):
        word = _strided(packed, count, start, rows.size).copy()
        for lane, shift in _within(rows, 8 * start):
            lanes[:, lane] |= word >> np.uint64(shift) if shift >= 0 else word << np.uint64(-shift)
    lanes &= np.uint64((1 << rows.joined) - 1)
    return lanes.reshape(-1)


def _within(rows: _Rows, start: int) -> list[tuple[int, int]]:
    """The lanes with bits in the word that starts at a bit of the row, and where each begins."""
    first, last = start // rows.joined, min(rows.lanes - 1, (start + 63) // rows.joined)
    return [(lane, lane * rows.joined - start) for lane in range(first, last + 1)]


def _strided(data: NDArray[np.uint8], count: int, offset: int, stride: int) -> Words:
    """The 64-bit words that begin `offset` bytes into each row."""
    return np.ndarray((count,), dtype=_LANE, buffer=data, offset=offset, strides=(stride,))
