"""The frame of a saved session, and a reader that checks every length.

Version (1 byte), role (1), ctx (32), body, SHA-256(tag, ctx, SHA-256(all before)). The digest
finds damage, not malice: whoever writes the file owns the session. A body holds secrets.
"""

from collections.abc import Mapping

from secureagg._codec import u32, u64
from secureagg.errors import MisuseError
from secureagg.primitives import KEY_BYTES, Usage, digest, sha256

_VERSION = 1
CLIENT, SERVER = 1, 2


def frame(role: int, ctx: bytes, body: bytes) -> bytes:
    """Returns the bytes to keep."""
    data = bytes([_VERSION, role]) + ctx + body
    return data + digest(Usage.SNAPSHOT, ctx, sha256(data))


def unframe(role: int, ctx: bytes, data: bytes) -> "Reader":
    """Undoes `frame`.

    Raises:
        MisuseError: another version, role or context; or damaged.
    """
    head = 2 + KEY_BYTES
    if len(data) < head + KEY_BYTES or data[0] != _VERSION:
        raise MisuseError("from_bytes", f"takes a saved session of version {_VERSION}")
    if data[1] != role:
        raise MisuseError("from_bytes", "a client's session is not a server's")
    if data[2:head] != ctx:
        raise MisuseError("from_bytes", "saved in another context (parameters, roster, round)")
    if data[-KEY_BYTES:] != digest(Usage.SNAPSHOT, ctx, sha256(data[:-KEY_BYTES])):
        raise MisuseError("from_bytes", "the saved session is damaged")
    return Reader(data[head:-KEY_BYTES])


class Reader:
    """Takes fields off the front of a body; ValueError where one is cut short."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)

    def take(self, size: int) -> memoryview:
        """Returns the next `size` bytes."""
        if size > len(self._body):
            raise ValueError(f"{len(self._body)} bytes left, takes {size}")
        found, self._body = self._body[:size], self._body[size:]
        return found

    def byte(self) -> int:
        """Returns the next byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """Returns the next 4 bytes as an integer."""
        return int.from_bytes(self.take(4), "little")

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
