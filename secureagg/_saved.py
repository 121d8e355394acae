"""The frame of a saved session.

Version (1 byte), role (1), ctx (32), body, SHA-256(tag, ctx, SHA-256(all before)). The digest
finds damage, not malice: whoever writes the file owns the session. A body holds secrets.
"""

from secureagg._codec import Reader
from secureagg.errors import MisuseError
from secureagg.primitives import KEY_BYTES, Usage, digest, sha256

_VERSION = 1
CLIENT, SERVER = 1, 2


def frame(role: int, ctx: bytes, body: bytes) -> bytes:
    """Returns the bytes to keep."""
    data = bytes([_VERSION, role]) + ctx + body
    return data + digest(Usage.SNAPSHOT, ctx, sha256(data))


def unframe(role: int, ctx: bytes, data: bytes) -> Reader:
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
