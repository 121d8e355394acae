"""A round driven by hand with secrets that anybody can make again."""

import dataclasses
import hashlib
from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import secureagg

Json = dict[str, Any]


def secret(*parts: object) -> bytes:
    """32 bytes that anybody can make again: SHA-256 of the words, spaces between."""
    return hashlib.sha256(" ".join(map(str, parts)).encode()).digest()


def given(data: bytes, size: int) -> bytes:
    """A byte source with `data` and nothing else in it."""
    return data[:size]


def words_of(params: secureagg.Params, client_id: int) -> dict[str, NDArray[np.uint64]]:
    """A client's input: a residue for each place of each segment."""
    return {
        s.name: np.array(
            [
                int.from_bytes(secret(s.name, client_id, j)[:8], "little") % (1 << s.modulus_bits)
                for j in range(s.length)
            ],
            dtype=np.uint64,
        )
        for s in params.segments
    }


class Script:
    """A round driven by hand, that remembers every message."""

    def __init__(self, name: str, ids: list[int], **changes: Any) -> None:
        self.name, self.ids = name, ids
        fields: dict[str, Any] = {
            "num_clients": len(ids),
            "segments": (secureagg.Segment("x", 3, 20),),
            "degree": len(ids) - 1,
            "threshold": 3,
            "min_survivors": 3,
            "corrupt": "0",
            "dropout": "0.4",
            "rounds": 2,
            "server": "semi_honest",
            "security_bits": 0,
            "correctness_bits": 0,
            "session_id": b"vectors",
            "round_index": 1,
            "attempt": 0,
            "graph_seed": b"beacon",
        }
        self.params = secureagg.Params(**(fields | changes))
        malicious = self.params.malicious
        self.keys = {
            i: secureagg.IdentityKey(secret("identity", i)) if malicious else None for i in ids
        }
        self.roster = {i: key.public_key if key else b"" for i, key in self.keys.items()}
        self.inputs = {i: words_of(self.params, i) for i in ids}
        self.clients = {
            i: secureagg.ClientSession(
                self.params,
                i,
                self.keys[i],
                self.roster,
                self.inputs[i],
                once=secureagg.MemoryOnce(),
                rand=partial(given, secret("session", i)),
            )
            for i in ids
        }
        self.server = secureagg.ServerSession(self.params, self.roster)
        self.inbound: dict[int, bytes] = {}
        self.up: list[dict[int, bytes]] = []
        self.down: list[dict[int, bytes]] = []

    def answer(self, *, gone: Collection[int] = ()) -> dict[int, bytes]:
        """What the clients send in this stage; not given to the server yet."""
        inbound = self.inbound or dict.fromkeys(self.ids, b"")
        sent = {}
        for i, message in inbound.items():
            if i not in gone:
                session = self.clients[i]
                reply = session.receive(message) if message else session.start()
                if reply is not None:
                    sent[i] = reply
        return sent

    def step(self, *, gone: Collection[int] = ()) -> None:
        """One stage: the clients' messages in, the server's out."""
        sent = self.answer(gone=gone)
        for i, message in sent.items():
            self.server.receive(i, message)
        self.inbound = self.server.close_stage()
        self.up.append(sent)
        self.down.append(dict(self.inbound))


def described(script: Script) -> Json:
    """Parameters, roster and secrets: all that a transcript follows from."""
    params = script.params
    fields = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
    fields["segments"] = [dataclasses.astuple(s) for s in params.segments]
    for name in ("session_id", "graph_seed"):
        fields[name] = fields[name].hex()
    for name in ("corrupt", "dropout"):
        fields[name] = str(fields[name])
    return {
        "params": fields,
        "params_bytes": params.to_bytes().hex(),
        "roster": {str(i): key.hex() for i, key in script.roster.items()},
        "identity_seeds": {str(i): secret("identity", i).hex() for i in script.ids}
        if params.malicious
        else {},
        "session_secrets": {str(i): secret("session", i).hex() for i in script.ids},
        "inputs": {
            str(i): {name: array.tolist() for name, array in vectors.items()}
            for i, vectors in script.inputs.items()
        },
        "ctx": script.server._round.ctx.hex(),
    }


def hexed(stage_messages: dict[int, bytes]) -> dict[str, str]:
    return {str(i): message.hex() for i, message in stage_messages.items()}
