"""Coverage-guided fuzzing of every receive function of both roles (atheris).

    python -m tests.fuzz.fuzz_receive FOLDER [libFuzzer options, as -max_total_time=600]

FOLDER holds the inputs found so far, and is made with the honest messages in it; a file in its
place is tried alone.
Only the typed errors may come out, and a message that is refused changes no state. What a server
takes is closed over, so that later stages see it too. One input is one message to one session:
byte 0 picks the session (role, stage and kind of server), byte 1 how the rest is read (the whole
message, a body behind an honest header, or patches of the honest message). Inputs that break a rule
end the run and are written to a file (libFuzzer's -artifact_prefix).
"""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atheris
import numpy as np

with atheris.instrument_imports(include=["secureagg"]):
    import secureagg
    from secureagg.adder import Adder
    from secureagg.messages import HEADER_BYTES

MODES: tuple[dict[str, Any], ...] = (
    {"server": "semi_honest", "num_clients": 5, "degree": 4, "threshold": 3},
    {"server": "malicious", "num_clients": 5, "degree": 4, "threshold": 3},
    {"server": "malicious", "num_clients": 7, "degree": 4, "threshold": 2},
)
REFUSALS = (secureagg.ProtocolError, secureagg.TooFewClientsError)
SUMS = {"_sums", "sums"}  # attributes that are changed in place
CLIENT = 1  # whose messages are made wrong


@dataclass(frozen=True)
class Target:
    """A session that waits for a message, as copies of its attributes, and the honest message."""

    kind: type[Any]
    attributes: Mapping[str, Any]
    message: bytes
    allowed: tuple[type[Exception], ...] = REFUSALS

    def open(self) -> Any:
        """A session in this state."""
        session = object.__new__(self.kind)
        vars(session).update(copied(self.attributes))
        return session


def copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes by copy where a session changes them in place."""
    found = dict(attributes)
    for name, value in found.items():
        if isinstance(value, dict | set):
            found[name] = value.copy()
    for name in SUMS & set(found):
        found[name] = tuple(array.copy() for array in found[name])
    return found


def always(_: bytes) -> bool:
    """A record of what was done that forgets: each input starts afresh."""
    return True


def started(key: bytes) -> bool:
    """As `always`, but for the start: without it, a restored session would drop out."""
    return not key.endswith(b"start")


def sessions(mode: dict[str, Any]) -> tuple[dict[int, Any], Any]:
    """Clients by id, and the server, before the round."""
    params = secureagg.Params(
        segments=(secureagg.Segment("x", 5, 20), secureagg.Segment("y", 2, 32)),
        min_survivors=3,
        corrupt=0,
        dropout="0.5",
        rounds=1,
        security_bits=0,
        correctness_bits=0,
        session_id=b"fuzz",
        round_index=0,
        attempt=0,
        graph_seed=b"fuzz",
        **mode,
    )
    keys: dict[int, Any] = dict.fromkeys(range(params.num_clients))
    if params.malicious:
        keys = {i: identity_of(i) for i in keys}
    roster = {i: key.public_key if key else b"" for i, key in keys.items()}
    inputs = {"x": np.arange(5, dtype=np.uint64), "y": np.arange(2, dtype=np.uint64)}
    clients = {
        i: secureagg.ClientSession(
            params,
            i,
            keys[i],
            roster,
            inputs,
            once=always,
            rand=hashlib.shake_256(b"%d" % i).digest,
        )
        for i in keys
    }
    return clients, secureagg.ServerSession(params, roster)


def targets_of(mode: dict[str, Any]) -> list[Target]:
    """Both roles in every stage of one round, and a client before and after it.

    Each as it is, and as it comes back from what it saves.
    """
    clients, server = sessions(mode)
    me, found, inbound = clients[CLIENT], list[Target](), {i: b"" for i in clients}
    while server.stage is not None:
        before = copied(vars(me))
        reborn = copied(vars(restored(me)))
        answers = {i: answer(clients[i], message) for i, message in inbound.items()}
        message = answers[CLIENT]
        misuse = () if inbound[CLIENT] else (secureagg.MisuseError,)  # it has not started
        honest = inbound[CLIENT] or message or b""
        for attributes in (before, reborn):
            found.append(Target(secureagg.ClientSession, attributes, honest, (*REFUSALS, *misuse)))
        for i, sent in answers.items():
            if sent is not None and i != CLIENT:
                server.receive(i, sent)
        if message is not None:
            for session in (server, restored(server)):
                found.append(Target(secureagg.ServerSession, copied(vars(session)), message))
            if server.stage == "mask_input":
                adder = Adder(server._round, server._state.expected)
                found.append(Target(Adder, copied(vars(adder)), message))
            server.receive(CLIENT, message)
        inbound = server.close_stage()
    ends = [copied(vars(session)) for session in (me, restored(me))]
    return [*found, *(Target(secureagg.ClientSession, end, bytes(64)) for end in ends)]


def restored(session: Any) -> Any:
    """The session that comes back from what this one saves."""
    round_, data = session._round, session.to_bytes()
    if isinstance(session, secureagg.ServerSession):
        return secureagg.ServerSession.from_bytes(data, round_.params, dict(round_.identities))
    key = identity_of(session._id) if round_.params.malicious else None
    return secureagg.ClientSession.from_bytes(
        data, round_.params, session._id, key, dict(round_.identities), once=started
    )


def identity_of(client_id: int) -> secureagg.IdentityKey:
    return secureagg.IdentityKey(hashlib.sha256(b"%d" % client_id).digest())


def answer(client: Any, message: bytes) -> bytes | None:
    """A client's answer to a message; b"" starts it."""
    found: bytes | None = client.receive(message) if message else client.start()
    return found


TARGETS = [target for mode in MODES for target in targets_of(mode)]


def message_of(honest: bytes, how: int, data: bytes) -> bytes:
    """Reads an input as a message."""
    if how == 0:
        return data
    if how == 1:
        return honest[:HEADER_BYTES] + data
    if how == 2:  # another kind
        return honest[:1] + data[:1] + honest[2:HEADER_BYTES] + data[1:]
    patched = bytearray(honest)
    while len(data) >= 4:  # where (2 bytes), how many bytes go, how many come
        at, out, into = int.from_bytes(data[:2], "little") % len(honest), data[2], data[3] % 64
        patched[at : at + out % 64] = data[4 : 4 + into]
        data = data[4 + into :]
    return bytes(patched)


def same(session: Any, before: Mapping[str, Any]) -> bool:
    """Tells whether a session is as it was."""
    now = dict(vars(session))
    for name in SUMS & set(now):
        sums = zip(now.pop(name), before[name], strict=True)
        if not all(np.array_equal(a, b) for a, b in sums):
            return False
    return now == {name: value for name, value in before.items() if name not in SUMS}


def receive_one(data: bytes) -> None:
    """One input. Raises what must not come out."""
    if len(data) < 2:
        return
    target = TARGETS[data[0] % len(TARGETS)]
    session, message = target.open(), message_of(target.message, data[1] % 4, data[2:])
    before = copied(vars(session))
    server = target.kind is secureagg.ServerSession
    client = target.kind is secureagg.ClientSession
    try:
        session.receive(*((message,) if client else (CLIENT, message)))
    except target.allowed as error:
        if not same(session, before):
            raise AssertionError("a refused message changed the state") from error
        return
    if server:
        try:
            session.close_stage()
        except (secureagg.FaultyClientError, secureagg.TooFewClientsError):
            return


def write_seeds(folder: Path) -> None:
    """The honest message of each target, in each reading."""
    for number, target in enumerate(TARGETS):
        body = target.message[HEADER_BYTES:]
        readings = (target.message, body, target.message[1:2] + body, b"\x26\0\1\1\0")
        for how, data in enumerate(readings):
            (folder / f"{number}-{how}").write_bytes(bytes([number, how]) + data)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    corpus = Path(sys.argv[1])
    if not corpus.is_file():
        corpus.mkdir(parents=True, exist_ok=True)
        write_seeds(corpus)
    atheris.Setup(sys.argv, receive_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
