"""The byte pipe that the server ships, in front of a process that is slow, broken or hostile."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fl.engines import wire

flwr = pytest.importorskip("flwr.app")
client_app: Any = pytest.importorskip("fl.engines.client_app")

FRAME = wire.frame(b"asked")
ANSWER = wire.frame(b"control", b"bulk")
Answer = Callable[[socket.socket], None]


@contextlib.contextmanager
def answering(path: Path, *answers: Answer) -> Iterator[list[bytes]]:
    """A socket that takes one connection after another, and has one answer for each."""
    seen: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):  # who asked may have gone
                seen.append(connection.recv(len(FRAME)))
                answer(connection)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20.0)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield seen
        finally:
            thread.join()


def whole(connection: socket.socket) -> None:
    connection.sendall(ANSWER)


def half(connection: socket.socket) -> None:
    connection.sendall(ANSWER[:-1])


def silent(connection: socket.socket) -> None:
    connection.recv(1)  # until who asked has gone


def slow(connection: socket.socket) -> None:
    for at in range(20):
        connection.sendall(ANSWER[at : at + 1])
        time.sleep(0.1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.sock"


def test_a_process_that_dies_in_the_middle_is_asked_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_app, "RETRY_SECONDS", 0.01)
    with answering(path, half, whole) as seen:
        assert client_app.ask(str(path), FRAME, 20.0) == (b"control", b"bulk")
    assert seen == [FRAME] * 2


def test_a_process_that_always_dies_in_the_middle_is_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_app, "RETRY_SECONDS", 5.0)
    said = "3 of 4 bytes, then the end"
    with answering(path, half), pytest.raises(ConnectionResetError, match=said):
        client_app.ask(str(path), FRAME, 4.0)  # the next time would be too late


@pytest.mark.parametrize("answer", [silent, slow])
def test_nobody_waits_longer_than_the_stage(path: Path, answer: Answer) -> None:
    with answering(path, answer), pytest.raises(TimeoutError):
        client_app.ask(str(path), FRAME, 0.3)


def test_nor_for_a_process_that_takes_no_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float | None] = []

    class Busy(socket.socket):
        def connect(self, address: object) -> None:
            limits.append(self.gettimeout())
            raise TimeoutError

    monkeypatch.setattr(client_app.socket, "socket", Busy)
    with pytest.raises(TimeoutError):
        client_app.ask(str(path), FRAME, 5.0)
    (limit,) = limits
    assert limit is not None
    assert 0.0 < limit <= 5.0


def test_a_full_queue_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    monkeypatch.setattr(client_app.time, "sleep", lambda seconds: waits.set())
    found: list[tuple[bytes, bytes]] = []
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as before,
    ):
        listener.bind(str(path))
        listener.listen(0)
        listener.settimeout(20.0)
        before.connect(str(path))  # and nobody takes it
        asks = threading.Thread(target=lambda: found.append(client_app.ask(str(path), FRAME, 20.0)))
        asks.start()
        assert waits.wait(10.0)
        listener.accept()[0].close()
        connection, _ = listener.accept()
        with connection:
            connection.recv(len(FRAME))
            whole(connection)
        asks.join()
    assert found == [(b"control", b"bulk")]


def test_a_bulk_beyond_the_limit_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def claims(connection: socket.socket) -> None:
        connection.sendall(struct.pack("<IQ", 1, client_app.LIMIT + 1) + b"x")

    said = f"an answer of {client_app.LIMIT + 1} bytes; takes at most {client_app.LIMIT}"
    with answering(path, claims), pytest.raises(ValueError, match=said):
        client_app.ask(str(path), FRAME, 20.0)


def message(control: object, ttl: float = 20.0) -> Any:
    content = flwr.RecordDict({"control": flwr.ConfigRecord({"body": control})})
    return flwr.Message(content, 7, "query.hello", ttl=ttl)


def test_what_is_forwarded_is_bytes_for_as_long_as_the_message_lives(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def ask(*words: object) -> tuple[bytes, bytes]:
        asked.append(words)
        raise ConnectionError

    monkeypatch.setattr(client_app, "ask", ask)
    for name in ("_task_id", "_run_id", "_node_id"):  # set by Flower's own processes
        monkeypatch.setattr(f"flwr.supercore.task_identity.TaskIdentity.{name}", 1)
    context = SimpleNamespace(node_config={"socket": "here"})
    with pytest.raises(TypeError, match="control takes bytes"):
        client_app.forward(message("text"), context)
    with pytest.raises(ConnectionError):
        client_app.forward(message(b"asked", ttl=3.5), context)
    assert asked == [("here", FRAME, 3.5)]
