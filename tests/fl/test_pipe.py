"""The Unix socket of an organisation's process: who may connect, what is read, who is cut off."""

import contextlib
import grp
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl.engines import pipe, wire
from fl.engines.wire import Limits, Status
from fl.errors import StoreError

LIMITS = Limits(100, 1000)
FIRST = wire.frame(b"first")


class Served:
    """A socket whose process answers every frame with itself."""

    def __init__(self, path: Path, group: str | None = None) -> None:
        self.path, self.stop, self.seen = path, threading.Event(), list[bytes]()
        self.answer: bytes | None = None
        self.thread = threading.Thread(
            target=pipe.serve, args=(path, self.handle, LIMITS),
            kwargs={"read_timeout": 0.3, "stop": self.stop, "group": group},
        )  # fmt: skip

    def handle(self, frame: bytes) -> bytes:
        answer = frame if self.answer is None else self.answer
        self.seen.append(frame)
        return answer

    def __enter__(self) -> "Served":
        self.thread.start()
        assert said(self.path, FIRST) == FIRST  # it answers by now
        self.seen.clear()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        self.thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path / "client.sock") as found:
        yield found


def said(path: Path, *pieces: bytes, pause: float = 0.0) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20.0)
        for _ in range(1000):  # a process that is just starting
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, PermissionError):
                connection.connect(str(path))
                break
            time.sleep(0.01)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        found = b""
        while piece := connection.recv(4096):
            found += piece
    return found


def refused(path: Path, *pieces: bytes) -> str:
    reply = wire.read_reply(*wire.parts(said(path, *pieces), Limits(1000, 0)), Limits(1000, 0))
    assert reply.status == Status.REFUSED
    return reply.reason


def test_frames_come_whole_whatever_the_pieces(served: Served) -> None:
    frame = wire.frame(b"c" * 100, b"b" * 1000)
    assert said(served.path, frame) == frame
    assert said(served.path, frame[:5], frame[5:600], frame[600:], pause=0.01) == frame
    assert served.seen == [frame, frame]


def test_only_its_owner_may_connect(served: Served) -> None:
    assert served.path.stat().st_mode & 0o777 == 0o600


def test_a_group_may_connect_too(tmp_path: Path) -> None:
    path, mine = tmp_path / "client.sock", grp.getgrgid(os.getgid()).gr_name
    with Served(path, group=mine):
        assert said(path, wire.frame(b"x")) == wire.frame(b"x")
        assert path.stat().st_mode & 0o777 == 0o660
        assert path.stat().st_gid == os.getgid()
    assert "no such group" in serve_error(path, whole=True, group="nobody here")
    path.unlink()


@pytest.mark.parametrize("claim", [(101, 0), (0, 1001), (2**31, 0), (0, 2**31), (0, 2**64 - 1)])
def test_a_claim_beyond_the_limits_is_refused_unread(
    served: Served, claim: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    whole = pipe._exactly

    def counted(connection: socket.socket, size: int, deadline: float) -> bytearray:
        asked.append(size)
        return whole(connection, size, deadline)

    monkeypatch.setattr(pipe, "_exactly", counted)
    assert "takes at most 100 + 1000" in refused(served.path, struct.pack("<IQ", *claim))
    assert asked == [wire.FRAME_BYTES]
    assert not served.seen


def test_whoever_stalls_or_ends_early_is_cut_off_and_others_are_served(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    frame = wire.frame(b"x")
    assert said(served.path, frame[:-1]) == b""  # stalls: no answer, the connection is closed
    assert "a connection broke off: 12 of" not in caplog.text
    assert "0 of 1 bytes in time" in caplog.text or "timed out" in caplog.text
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as early:
        early.connect(str(served.path))
        early.sendall(frame[:-1])
        early.shutdown(socket.SHUT_WR)
        assert b"then the end" in early.recv(4096)
    assert said(served.path, frame) == frame


def test_whoever_trickles_is_cut_off_when_time_is_up(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Each byte comes in time; the frame does not."""
    frame = wire.frame(b"x" * 8)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        assert said(served.path, *(frame[i : i + 1] for i in range(len(frame))), pause=0.05) == b""
    assert "a connection broke off" in caplog.text
    assert not served.seen


def test_time_that_is_up_is_not_asked_for(served: Served) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one,
        pytest.raises(TimeoutError, match="0 of 5 bytes in time"),
    ):
        pipe._exactly(one, 5, time.monotonic() - 1.0)


def test_whoever_takes_no_answer_is_cut_off_and_others_are_served(tmp_path: Path) -> None:
    path = tmp_path / "client.sock"
    with Served(path) as served, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
        served.answer = bytes(2**24)  # more than the system keeps for whoever does not read
        mute.connect(str(path))
        mute.sendall(FIRST)
        while not served.seen:
            time.sleep(0.01)
        served.answer = None
        assert said(path, FIRST) == FIRST


def test_a_socket_left_behind_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "client.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with Served(path) as served:
        assert serve_error(path) == f"socket: got {path}, where another process answers"
    assert not served.path.exists()
    path.write_text("a letter")
    assert serve_error(path) == f"socket: got {path}, which is no socket"
    assert path.read_text() == "a letter"
    assert "takes a path for a socket" in serve_error(tmp_path / ("x" * 200), whole=True)


def test_a_process_that_takes_no_connection_is_one_that_answers(tmp_path: Path) -> None:
    """It is busy with another; whoever asks without a time limit would wait with that one."""
    path = tmp_path / "client.sock"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first,
    ):
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        waiting = threading.Thread(target=serve_error, args=(path,), daemon=True)
        waiting.start()
        waiting.join(20.0)
        assert not waiting.is_alive()
        assert serve_error(path) == f"socket: got {path}, where another process answers"


def test_sockets_that_are_made_at_once_leave_the_umask_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, umask, second = list[int](), os.umask, list[threading.Thread]()

    def swap(mask: int) -> int:
        before = umask(mask)
        masks.append(before)
        if not second:  # while the first is at it
            second.append(threading.Thread(target=make, args=(tmp_path / "b.sock",)))
            second[0].start()
            second[0].join(0.2)
        return before

    def make(path: Path) -> None:
        pipe._listen(path, None).close()

    monkeypatch.setattr("os.umask", swap)
    make(tmp_path / "a.sock")
    second[0].join()
    assert masks == [masks[0], 0o177] * 2


def serve_error(path: Path, *, whole: bool = False, group: str | None = None) -> str:
    stop = threading.Event()
    stop.set()  # a path that is taken after all is let go at once
    arguments: Any = {"read_timeout": 1.0, "stop": stop, "group": group}
    with pytest.raises(StoreError) as caught:
        pipe.serve(path, bytes, LIMITS, **arguments)
    return str(caught.value) if whole else str(caught.value).partition(";")[0]
