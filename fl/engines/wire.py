"""What the server asks an organisation and what it answers, as bytes.

A frame has two parts: control, and bulk for what is as long as the model. It opens with the length
of each (4 and 8 bytes, little-endian). Lengths are checked before anything is read or allocated.
Control opens with version (1 byte), kind (1 byte) and the session (32 bytes). Whatever is malformed
raises ValueError.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from fl import secure

VERSION = 1
NONCE_BYTES = 32
REASON_BYTES = 400  # of a refusal's text, at most
_LENGTHS = struct.Struct("<IQ")
FRAME_BYTES = _LENGTHS.size
_HEADER = struct.Struct("<BB32s")
_STEP = struct.Struct("<II")
_HELLO = 0  # kinds from 1 are the stages in their order
_MEMBER = struct.Struct("<I")
_CONTROL, _PER_MEMBER = 1024, 512  # bytes of a control message, at most: these, and per member


class Limits(NamedTuple):
    """The longest parts that a receiver takes, in bytes."""

    control: int
    bulk: int


def control_limit(members: int) -> int:
    """Returns the bytes of a stage's longest control message among so many members."""
    return _CONTROL + _PER_MEMBER * members


def frame(control: bytes, bulk: bytes = b"") -> bytes:
    """Returns both parts behind their lengths."""
    return _LENGTHS.pack(len(control), len(bulk)) + control + bulk


def lengths(head: bytes, limits: Limits) -> tuple[int, int]:
    """Reads the first FRAME_BYTES of a frame.

    Raises:
        ValueError: too short, or a part is longer than its limit.
    """
    if len(head) < FRAME_BYTES:
        raise ValueError(f"a frame of {len(head)} bytes; takes at least {FRAME_BYTES}")
    control, bulk = _LENGTHS.unpack_from(head)
    if control > limits.control or bulk > limits.bulk:
        raise ValueError(
            f"a frame that claims {control} + {bulk} bytes; takes at most"
            f" {limits.control} + {limits.bulk}"
        )
    return control, bulk


def parts(data: bytes, limits: Limits) -> tuple[bytes, bytes]:
    """Undoes `frame`: (control, bulk)."""
    control, bulk = lengths(data, limits)
    if len(data) != FRAME_BYTES + control + bulk:
        raise ValueError(f"a frame of {len(data)} bytes that claims {control} + {bulk}")
    middle = FRAME_BYTES + control
    return data[FRAME_BYTES:middle], data[middle:]


@dataclass(frozen=True)
class Hello:
    """Asks who is there.

    Attributes:
        session: 32 bytes that stand for the run, its plan and its roster.
        nonce: 32 fresh bytes that the answer signs.
    """

    session: bytes
    nonce: bytes

    def parts(self) -> tuple[bytes, bytes]:
        """Returns control and bulk."""
        return _HEADER.pack(VERSION, _HELLO, self.session) + self.nonce, b""


@dataclass(frozen=True)
class Step:
    """One stage of one attempt at a round.

    Attributes:
        session: as in `Hello`.
        stage: one of the protocol's.
        round_index: from 0.
        attempt: from 0.
        message: of the ServerSession to this client; at advertise_keys, which opens the attempt,
            b"", or where the client's vector was released last: `settled`.
        broadcast: what training starts from, at mask_input; else b"".
    """

    session: bytes
    stage: str
    round_index: int
    attempt: int
    message: bytes
    broadcast: bytes = b""

    def parts(self) -> tuple[bytes, bytes]:
        """Returns control and bulk."""
        kind = 1 + secure.STAGES.index(self.stage)
        header = _HEADER.pack(VERSION, kind, self.session)
        place = _STEP.pack(self.round_index, self.attempt)
        return header + place + self.message, self.broadcast


def read_request(data: bytes, limits: Limits) -> Hello | Step:
    """Undoes `parts` of both, from a frame."""
    control, bulk = parts(data, limits)
    if len(control) < _HEADER.size:
        raise ValueError(f"a request of {len(control)} bytes; takes at least {_HEADER.size}")
    version, kind, session = _HEADER.unpack_from(control)
    body = control[_HEADER.size :]
    if version != VERSION:
        raise ValueError(f"version {version}; takes {VERSION}")
    if kind == _HELLO:
        if len(body) != NONCE_BYTES or bulk:
            raise ValueError(f"a nonce of {len(body)} bytes; takes {NONCE_BYTES} and no bulk")
        return Hello(session, body)
    if kind > len(secure.STAGES) or len(body) < _STEP.size:
        raise ValueError(f"kind {kind} of {len(body)} bytes; takes a stage, round and attempt")
    index, attempt = _STEP.unpack_from(body)
    return Step(session, secure.STAGES[kind - 1], index, attempt, body[_STEP.size :], bulk)


def settled(place: tuple[int, int] | None) -> bytes:
    """Returns the message of advertise_keys: round and attempt of a release, or b"" for none."""
    return b"" if place is None else _STEP.pack(*place)


def read_settled(message: bytes) -> tuple[int, int] | None:
    """Undoes `settled`."""
    if not message:
        return None
    if len(message) != _STEP.size:
        raise ValueError(f"{len(message)} bytes; takes none, or {_STEP.size} of round and attempt")
    index, attempt = _STEP.unpack(message)
    return index, attempt


class Status(IntEnum):
    """What an answer is."""

    ANSWER = 0
    SILENT = 1
    REFUSED = 2


@dataclass(frozen=True)
class Reply:
    """An organisation's answer.

    Attributes:
        status: SILENT where the protocol has nothing to send.
        body: the message to the server, or why it is refused.
        bulk: the masked vector's message, in place of `body`.
    """

    status: Status
    body: bytes = b""
    bulk: bytes = b""

    def to_bytes(self) -> bytes:
        """Returns the frame."""
        return frame(bytes([VERSION, self.status]) + self.body, self.bulk)

    @property
    def message(self) -> bytes:
        """The client's message, whichever part carries it."""
        return self.bulk or self.body

    @property
    def reason(self) -> str:
        """The text of a refusal; whoever wrote it may have put anything printable in it."""
        text = self.body[:REASON_BYTES].decode("utf-8", "replace")
        return "".join(letter if letter.isprintable() else "?" for letter in text)


def refusal(why: str) -> Reply:
    """Returns a refusal that says why."""
    return Reply(Status.REFUSED, why.encode()[:REASON_BYTES])


def read_reply(control: bytes, bulk: bytes, limits: Limits) -> Reply:
    """Undoes `Reply.to_bytes`, from the parts of its frame."""
    if len(control) > limits.control or len(bulk) > limits.bulk:
        raise ValueError(f"an answer of {len(control)} + {len(bulk)} bytes; takes {limits}")
    if len(control) < 2 or control[0] != VERSION or control[1] not in list(Status):
        raise ValueError("an answer without version and status")
    return Reply(Status(control[1]), control[2:], bulk)


def presence(member: int, signature: bytes) -> Reply:
    """Returns the answer to a `Hello`."""
    return Reply(Status.ANSWER, _MEMBER.pack(member) + signature)


def read_presence(reply: Reply) -> tuple[int, bytes]:
    """Undoes `presence`: (member, signature)."""
    if reply.status != Status.ANSWER or len(reply.body) < _MEMBER.size:
        raise ValueError(reply.reason if reply.status == Status.REFUSED else "no member's answer")
    return _MEMBER.unpack_from(reply.body)[0], reply.body[_MEMBER.size :]
