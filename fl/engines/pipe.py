"""The Unix socket of an organisation's process: frames in, frames out, one connection at a time.

Who may connect is decided by the operating system: the file's mode is 0600, or 0660 for one group
beside its owner, that of a SuperNode which runs as another user. A connection carries one request.
Lengths are checked before anything is read, and whoever stalls is cut off.
"""

import contextlib
import logging
import os
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fl.engines.wire import FRAME_BYTES, Limits, lengths, refusal
from fl.errors import StoreError

LOG = logging.getLogger("fl.pipe")
_CHUNK = 2**20
_POLL = 0.2  # seconds between looks at whether to stop
_UMASK = threading.Lock()  # the process has one: two threads would put back each other's


def serve(
    path: Path,
    handle: Callable[[bytes], bytes],
    limits: Limits,
    *,
    read_timeout: float,
    stop: threading.Event,
    group: str | None = None,
) -> None:
    """Answers connections to a socket until told to stop.

    Args:
        path: of the socket; what is left of an earlier one is replaced.
        handle: a request's frame -> the answer's frame.
        limits: the longest request.
        read_timeout: seconds in which a request must have arrived, or an answer been taken.
        stop: ends the loop; an answer that is being computed is still sent.
        group: whose members may connect too.

    Raises:
        StoreError: there is something else at `path`, another process answers there, or no socket
            can be made, or given to that group.
    """
    listener = _listen(path, group)
    try:
        listener.settimeout(_POLL)
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                _converse(connection, handle, limits, read_timeout)
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _listen(path: Path, group: str | None) -> socket.socket:
    takes = "a path for a socket"
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StoreError("socket", f"{path}, which is no socket", takes)
        if _answers(path):
            raise StoreError("socket", f"{path}, where another process answers", takes)
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(listener, path)
        if group is not None:
            shutil.chown(path, group=group)
            path.chmod(0o660)
    except (OSError, LookupError) as error:  # a group that there is not, or that is not one's own
        listener.close()
        raise StoreError("socket", f"{path}: {error}", takes) from error
    listener.listen()
    return listener


def _bind(listener: socket.socket, path: Path) -> None:
    with _UMASK:
        before = os.umask(0o177)  # the socket is never open to others, not even between two calls
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


def _converse(
    connection: socket.socket, handle: Callable[[bytes], bytes], limits: Limits, timeout: float
) -> None:
    try:
        try:
            request = read_frame(connection, limits, timeout)
        except ValueError as error:
            LOG.warning("refused: malformed: %s", error)
            answer = refusal(f"malformed: {error}").to_bytes()
        else:
            answer = handle(request)
        connection.settimeout(timeout)
        connection.sendall(answer)
    except OSError as error:  # gone or stalled: it may ask again with the same bytes
        LOG.warning("a connection broke off: %s", error)


def read_frame(connection: socket.socket, limits: Limits, timeout: float) -> bytes:
    """Reads one frame within `timeout` seconds altogether.

    Raises:
        ValueError: a part claims more than its limit, or the other side ends early.
        TimeoutError: it stalls.
        OSError: the connection breaks.
    """
    deadline = time.monotonic() + timeout
    head = _exactly(connection, FRAME_BYTES, deadline)
    control, bulk = lengths(bytes(head), limits)
    return bytes(head + _exactly(connection, control + bulk, deadline))


def _exactly(connection: socket.socket, size: int, deadline: float) -> bytearray:
    """Reads `size` bytes; memory grows with what has arrived, not with what was announced."""
    found = bytearray()
    while len(found) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{len(found)} of {size} bytes in time")
        connection.settimeout(left)
        piece = connection.recv(min(_CHUNK, size - len(found)))
        if not piece:
            raise ValueError(f"{len(found)} of {size} bytes, then the end")
        found += piece
    return found
