"""Requests and answers as bytes: what is malformed is refused before anything is read of it."""

import struct

import pytest

from fl import secure
from fl.engines import wire
from fl.engines.wire import Hello, Limits, Reply, Status, Step

SESSION = bytes(range(32))
LIMITS = Limits(100, 1000)
STEP = Step(SESSION, "mask_input", 3, 1, b"message", b"model")


def header(version: int = wire.VERSION, kind: int = 0) -> bytes:
    return bytes([version, kind]) + SESSION


@pytest.mark.parametrize("asked", [Hello(SESSION, bytes(32)), STEP], ids=["hello", "step"])
def test_a_request_is_read_as_it_was_written(asked: Hello | Step) -> None:
    assert wire.read_request(wire.frame(*asked.parts()), LIMITS) == asked


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"x" * 11, "a frame of 11 bytes; takes at least 12"),
        (wire.frame(bytes(101)), "a frame that claims 101 + 0 bytes; takes at most 100 + 1000"),
        (wire.frame(b"", bytes(1001)), "a frame that claims 0 + 1001 bytes; takes at most"),
        (struct.pack("<IQ", 2**32 - 1, 2**64 - 1), "a frame that claims 4294967295 + "),
        (wire.frame(bytes(40)) + b"x", "a frame of 53 bytes that claims 40 + 0"),
        (wire.frame(bytes(40))[:-1], "a frame of 51 bytes that claims 40 + 0"),
        (wire.frame(header()[:33]), "a request of 33 bytes; takes at least 34"),
        (wire.frame(header(version=2) + bytes(32)), "version 2; takes 1"),
        (wire.frame(header() + bytes(31)), "a nonce of 31 bytes; takes 32 and no bulk"),
        (wire.frame(header() + bytes(33)), "a nonce of 33 bytes; takes 32 and no bulk"),
        (wire.frame(header() + bytes(32), b"x"), "a nonce of 32 bytes; takes 32 and no bulk"),
        (wire.frame(header(kind=1) + bytes(7)), "kind 1 of 7 bytes; takes a stage, round and"),
        (
            wire.frame(header(kind=len(secure.STAGES) + 1) + bytes(8)),
            "kind 6 of 8 bytes; takes a stage",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_that_is_malformed_is_refused(frame: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        wire.read_request(frame, LIMITS)


def test_where_a_vector_was_released_is_none_or_a_round_and_an_attempt() -> None:
    for place in (None, (3, 1)):
        assert wire.read_settled(wire.settled(place)) == place
    for size in (7, 9):
        with pytest.raises(ValueError, match=f"{size} bytes; takes none, or 8"):
            wire.read_settled(bytes(size))


@pytest.mark.parametrize(
    "reply", [Reply(Status.ANSWER, b"a"), Reply(Status.SILENT), Reply(Status.ANSWER, bulk=b"b")]
)
def test_an_answer_is_read_as_it_was_written(reply: Reply) -> None:
    assert wire.read_reply(*wire.parts(reply.to_bytes(), LIMITS), LIMITS) == reply


@pytest.mark.parametrize(
    ("control", "bulk", "said"),
    [
        (b"\1\0" + bytes(99), b"", r"an answer of 101 \+ 0 bytes"),
        (b"\1\0", bytes(1001), r"an answer of 2 \+ 1001 bytes"),
        (b"", b"", "without version and status"),
        (b"\1", b"", "without version and status"),
        (b"\2\0", b"", "without version and status"),
        (b"\1\3", b"", "without version and status"),
    ],
    ids=["control", "bulk", "nothing", "no status", "another version", "another status"],
)
def test_an_answer_that_is_malformed_is_refused(control: bytes, bulk: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wire.read_reply(control, bulk, LIMITS)


def test_a_reason_is_short_and_printable_whoever_wrote_it() -> None:
    assert wire.refusal("é" * 300).body == "é".encode() * 200
    assert Reply(Status.REFUSED, b"x" * 500).reason == "x" * wire.REASON_BYTES
    assert Reply(Status.REFUSED, b"a\x1b[2J\n\xff").reason == "a?[2J?\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (wire.refusal("session: got another"), "session: got another"),
        (Reply(Status.SILENT, bytes(68)), "no member's answer"),
        (Reply(Status.ANSWER, bytes(3)), "no member's answer"),
    ],
)
def test_who_does_not_say_who_it_is_is_nobody(reply: Reply, said: str) -> None:
    assert wire.read_presence(wire.presence(7, b"signed")) == (7, b"signed")
    with pytest.raises(ValueError, match=said):
        wire.read_presence(reply)
