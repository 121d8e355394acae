import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import messages


def seeded(name: str = "seed"):
    """A deterministic byte source that does not use the code under test."""
    counter = 0

    def rand(size: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{name}/{counter}".encode()).digest(size)

    return rand


def make_params(
    n=6, *, segments: Any = None, degree=None, threshold=3, **changes: Any
) -> secureagg.Params:
    """Hand-picked parameters: complete graph, three shares, nobody corrupt."""
    fields: dict[str, Any] = {
        "num_clients": n,
        "segments": (secureagg.Segment("x", 5, 20),) if segments is None else segments,
        "degree": n - 1 if degree is None else degree,
        "threshold": threshold,
        "min_survivors": 3,
        "corrupt": 0,
        "dropout": 0.5,
        "rounds": 1,
        "server": "semi_honest",
        "security_bits": 0,
        "correctness_bits": 0,
        "session_id": b"session",
        "round_index": 0,
        "attempt": 0,
        "graph_seed": b"graph",
    }
    return secureagg.Params(**(fields | changes))


@dataclass
class Play:
    """A round driven by hand, client by client."""

    params: secureagg.Params
    clients: dict[int, secureagg.ClientSession]
    server: secureagg.ServerSession
    inputs: dict[int, np.ndarray]
    inbound: dict[int, bytes] = field(default_factory=dict)
    sent: dict[int, bytes] = field(default_factory=dict)
    keys: dict[int, Any] = field(default_factory=dict)

    def answers(self, *, but=()) -> dict[int, bytes]:
        """Every client's answer to what it was last sent; not given to the server yet."""
        if not self.inbound:
            self.sent = {i: c.start() for i, c in self.clients.items() if i not in but}
        else:
            answers = {
                i: self.clients[i].receive(m) for i, m in self.inbound.items() if i not in but
            }
            self.sent = {i: answer for i, answer in answers.items() if answer is not None}
        return self.sent

    def step(self, *, but=()) -> dict[int, bytes]:
        """One whole stage."""
        for client_id, answer in self.answers(but=but).items():
            self.server.receive(client_id, answer)
        self.inbound = self.server.close_stage()
        return self.inbound

    def finish(self) -> None:
        """The remaining stages, and the sum is right."""
        while self.server.stage is not None:
            self.step()
        self.check()

    def check(self) -> None:
        result = self.server.result
        bits = self.params.segments[0].modulus_bits
        want = [
            sum(int(self.inputs[i][j]) for i in result.survivors) % (1 << bits)
            for j in range(self.params.segments[0].length)
        ]
        assert result.sums[self.params.segments[0].name].tolist() == want

    def edit(self, message: bytes, body: bytes | None = None, **header) -> bytes:
        """The message with another body or header field."""
        fields = {
            "version": message[0:1],
            "kind": message[1:2],
            "client": message[2:6],
            "ctx": message[6:38],
        }
        return b"".join((fields | header).values()) + (message[38:] if body is None else body)


def make_play(stages=0, *, ids=None, params=None, **changes) -> Play:
    """A round of which `stages` stages are over."""
    params = params or make_params(**changes)
    ids = list(range(params.num_clients)) if ids is None else ids
    keys: dict[int, Any] = dict.fromkeys(ids)
    if params.malicious:
        keys = {i: identity_of(i) for i in ids}
    roster = roster_of(keys)
    segment, generator = params.segments[0], np.random.default_rng(1)
    inputs = {
        i: generator.integers(0, 1 << segment.modulus_bits, segment.length, dtype=np.uint64)
        for i in ids
    }
    rand = seeded()
    clients = {
        i: secureagg.ClientSession(
            params, i, keys[i], roster, inputs[i], once=secureagg.MemoryOnce(), rand=rand
        )
        for i in ids
    }
    play = Play(params, clients, secureagg.ServerSession(params, roster), inputs, keys=keys)
    for _ in range(stages):
        play.step()
    return play


def identity_of(client_id) -> secureagg.IdentityKey:
    return secureagg.IdentityKey(hashlib.sha256(b"identity %d" % client_id).digest())


def roster_of(keys) -> dict[int, bytes]:
    return {i: key.public_key if key else b"" for i, key in keys.items()}


@pytest.fixture(scope="session", name="make_params")
def _make_params():
    return make_params


@pytest.fixture(scope="session", name="make_play")
def _make_play():
    return make_play


@pytest.fixture(scope="session", name="seeded")
def _seeded():
    return seeded


@pytest.fixture(scope="session")
def header_bytes():
    return messages.HEADER_BYTES
