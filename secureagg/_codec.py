"""Fixed-width integers, bit sets, bit packing (least significant bit first), and their reader."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]

_DIRECT: dict[int, np.dtype[Any]] = {
    8: np.dtype("<u1"),
    16: np.dtype("<u2"),
    32: np.dtype("<u4"),
}


def word_dtype(bits: int) -> np.dtype[Any]:
    """Returns the little-endian word that holds a residue mod 2^bits: 2, 4 or 8 bytes.

    Args:
        bits: modulus bits, 1..62.
    """
    return np.dtype("<u2") if bits <= 16 else np.dtype("<u4") if bits <= 32 else np.dtype("<u8")


def low_bits(words: Words, bits: int) -> Words:
    """Returns words mod 2^bits, in the same dtype; words that all fit already, not copied."""
    if bits == 8 * words.dtype.itemsize:
        return words
    reduced: Words = words & words.dtype.type((1 << bits) - 1)
    return reduced


def packed_bytes(length: int, bits: int) -> int:
    """Returns the bytes that `length` residues of `bits` bits take."""
    return (length * bits + 7) // 8


def pack_bits(words: Words, bits: int) -> bytes:
    """Packs residues one after another, least significant bit first; padding bits are zero.

    Args:
        words: [length] unsigned words below 2^bits.
        bits: 1..62.

    Returns:
        `packed_bytes(length, bits)` bytes.
    """
    if bits in _DIRECT:
        return words.astype(_DIRECT[bits], copy=False).tobytes()
    group, lanes = _lanes(bits)
    rows = -(-len(words) // group)
    padded = np.zeros(rows * group, dtype=np.uint64)
    padded[: len(words)] = words
    columns = np.ascontiguousarray(padded.reshape(rows, group).T)  # [group, rows]
    packed = np.zeros((group * bits // 64, rows), dtype=np.uint64)
    for column, (word, shift) in zip(columns, lanes, strict=True):
        packed[word] |= column << np.uint64(shift)
        if shift + bits > 64:
            packed[word + 1] |= column >> np.uint64(64 - shift)
    return packed.T.astype("<u8").tobytes()[: packed_bytes(len(words), bits)]


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
    group, lanes = _lanes(bits)
    rows = -(-length // group)
    padded = np.zeros(rows * group * bits // 8, dtype=np.uint8)
    padded[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    packed = np.ascontiguousarray(padded.view("<u8").reshape(rows, -1).T)
    words = np.empty((group, rows), dtype=word_dtype(bits))
    keep = np.uint64((1 << bits) - 1)
    for lane, (word, shift) in enumerate(lanes):
        value = packed[word] >> np.uint64(shift)
        if shift + bits > 64:
            value |= packed[word + 1] << np.uint64(64 - shift)
        words[lane] = value & keep
    return words.T.reshape(-1)[:length]


def _lanes(bits: int) -> tuple[int, list[tuple[int, int]]]:
    """The shortest run of residues that fills whole 64-bit words, and where each one starts."""
    group = 64 // math.gcd(bits, 64)
    return group, [divmod(lane * bits, 64) for lane in range(group)]


def pack_flags(flags: NDArray[np.bool_]) -> bytes:
    """Packs [n] booleans into ceil(n / 8) bytes, least significant bit first."""
    return np.packbits(flags, bitorder="little").tobytes()


def unpack_flags(data: bytes | memoryview, length: int) -> NDArray[np.bool_]:
    """Undoes `pack_flags`.

    Raises:
        ValueError: the length is wrong, or a padding bit is set.
    """
    if len(data) != (length + 7) // 8:
        raise ValueError(f"{len(data)} bytes of flags, takes {(length + 7) // 8}")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")
    if bits[length:].any():
        raise ValueError("padding bits are not zero")
    return bits[:length].astype(np.bool_)


def u16(value: int) -> bytes:
    """Returns 2 little-endian bytes."""
    return value.to_bytes(2, "little")


def u32(value: int) -> bytes:
    """Returns 4 little-endian bytes."""
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    """Returns 8 little-endian bytes."""
    return value.to_bytes(8, "little")


def prefixed(data: bytes) -> bytes:
    """Returns data behind its length (2 bytes), so that a sequence of fields has one reading."""
    return len(data).to_bytes(2, "little") + data


class Reader:
    """Takes fields off the front of a body; ValueError where one is cut short."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)

    def __len__(self) -> int:
        return len(self._body)

    def take(self, size: int) -> memoryview:
        """Returns the next `size` bytes."""
        if size > len(self._body):
            raise ValueError(f"{len(self._body)} bytes left, takes {size}")
        found, self._body = self._body[:size], self._body[size:]
        return found

    def byte(self) -> int:
        """Returns the next byte."""
        return self.take(1)[0]

    def number(self, size: int = 4) -> int:
        """Returns the next `size` bytes as an integer."""
        return int.from_bytes(self.take(size), "little")

    def prefixed(self) -> memoryview:
        """Returns bytes that stand behind their length (2 bytes)."""
        return self.take(self.number(2))

    def blob(self) -> memoryview:
        """Returns bytes that stand behind their length (8 bytes)."""
        return self.take(int.from_bytes(self.take(8), "little"))

    def blobs(self) -> dict[int, bytes]:
        """Undoes `blobs`."""
        return {self.number(): bytes(self.blob()) for _ in range(self.number())}

    def close(self) -> None:
        """Raises ValueError unless everything was taken."""
        if len(self._body):
            raise ValueError(f"{len(self._body)} bytes too many")


def blob(data: bytes) -> bytes:
    """Returns data behind its length (8 bytes)."""
    return u64(len(data)) + data


def blobs(items: Mapping[int, bytes]) -> bytes:
    """Returns their number, then each 4-byte key with its blob."""
    return u32(len(items)) + b"".join([u32(key) + blob(data) for key, data in items.items()])
