"""Asked before each step that must never happen twice: has this key been used?

`once(key) -> bool` is true only the first time it sees `key`. A session asks with
`once_key(ctx, client_id, step)` for the steps "start", "mask", "sign" and "unmask".
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from secureagg._codec import u32
from secureagg.errors import MisuseError

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


class SqliteOnce:
    """Remembers keys in a file, for every process and thread that opens it.

    A call returns only when its row is on disk, so a crash can lose a step but never repeat one.
    Copying an older file back undoes that: keep it where snapshots and backups do not reach.

    Args:
        path: the file; made with mode 0600 if there is none.

    Raises:
        MisuseError: the file cannot be opened or made; it is no SQLite database; others than its
            owner may read or write it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            mode = self._path.stat().st_mode
        except OSError as error:
            raise MisuseError("once", f"{self._path}: {error.strerror}") from error
        if mode & 0o077:
            raise MisuseError("once", f"{self._path} is open to others than its owner")
        try:
            with closing(self._connect()) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS seen (key BLOB PRIMARY KEY) STRICT")
        except sqlite3.Error as error:
            raise MisuseError("once", f"{self._path}: {error}") from error

    def __call__(self, key: bytes) -> bool:
        """Returns whether this is the first call with `key`, by anybody, ever.

        Raises:
            MisuseError: the file is gone, stays locked or cannot be written; the key may be used
                up, so the step must not be taken.
        """
        try:
            with closing(self._connect()) as connection:
                added = connection.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount
        except sqlite3.Error as error:
            raise MisuseError("once", f"{self._path}: {error}") from error
        return added == 1

    def _connect(self) -> sqlite3.Connection:
        # autocommit: one statement is one transaction. EXTRA syncs the directory too, so that the
        # deleted rollback journal does not come back after a power cut and undo the row.
        # mode=rw: a file that was deleted is not made again, empty, which would repeat steps.
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, timeout=60, isolation_level=None, uri=True)
        connection.execute("PRAGMA synchronous=EXTRA")
        return connection
