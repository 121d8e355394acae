"""Asked before each step that must never happen twice: has this key been used?

`once(key) -> bool` is true only the first time it sees `key`. A session asks with
`once_key(ctx, client_id, step)` for the steps "start", "mask", "sign" and "unmask".
"""

from collections.abc import Callable

from secureagg._codec import u32

Once = Callable[[bytes], bool]


def once_key(ctx: bytes, client_id: int, step: str) -> bytes:
    """Returns ctx (32 bytes), the client id (4 bytes, little-endian) and the step in ASCII."""
    return ctx + u32(client_id) + step.encode("ascii")


class MemoryOnce:
    """Remembers keys for the life of the process only; a restart forgets them."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, key: bytes) -> bool:
        """Returns whether this is the first call with `key`."""
        if key in self._seen:
            return False
        self._seen.add(key)
        return True
