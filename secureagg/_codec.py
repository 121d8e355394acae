"""Fixed-width integers and bit sets, and their reader."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


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
