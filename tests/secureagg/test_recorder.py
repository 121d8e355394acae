"""No key stream, box key or KDF input is ever used for two things."""

import collections
import dataclasses
import hashlib
import itertools
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import messages, primitives
from secureagg.primitives import Usage


class Record:
    """What went into HKDF, AES-CTR and AES-GCM, whoever asked."""

    def __init__(self) -> None:
        self.derived: dict[bytes, set[tuple[bytes, bytes]]] = collections.defaultdict(set)
        self.streams: dict[tuple[bytes, bytes], int] = collections.Counter()
        self.boxes: dict[tuple[bytes, bytes], set[tuple[bytes, bytes]]] = collections.defaultdict(
            set
        )
        self.signed: set[bytes] = set()

    def install(self, patch) -> None:
        code: Any = primitives
        record, hkdf, gcm, cipher = self, code.HKDF, code.AESGCM, code.Cipher

        class Hkdf:
            def __init__(self, algorithm, length, salt, info) -> None:
                self._inner, self._info = hkdf(algorithm, length, salt, info), info

            def derive(self, secret) -> bytes:
                out: bytes = self._inner.derive(secret)
                record.derived[self._info].add((secret, out))
                return out

        class Gcm:
            def __init__(self, key) -> None:
                self._inner, self._key = gcm(key), key

            def encrypt(self, nonce, plaintext, data) -> Any:
                if self._key != bytes(16):  # the fingerprint of a message hides nothing
                    record.boxes[self._key, nonce].add((plaintext, data))
                return self._inner.encrypt(nonce, plaintext, data)

            def decrypt(self, nonce, box, data) -> Any:
                return self._inner.decrypt(nonce, box, data)

        def ctr(algorithm, mode) -> Any:
            record.streams[algorithm.key, mode.nonce] += 1
            return cipher(algorithm, mode)

        patch.setattr(primitives, "HKDF", Hkdf)
        patch.setattr(primitives, "AESGCM", Gcm)
        patch.setattr(primitives, "Cipher", ctr)


def rounds(make_params, seeded, server) -> int:
    """Rounds, attempts, two segments of one shape, one client lost while masking."""
    segments = tuple(secureagg.Segment(name, 6, 20) for name in "ab")
    rand, count = seeded("recorder"), 0
    inputs = {i: {name: np.full(6, i) for name in "ab"} for i in range(9)}
    for round_index in range(3):
        for attempt in range(2):
            params = make_params(
                9, segments=segments, server=server, threshold=3, degree=4, rounds=3,
                round_index=round_index, attempt=attempt, min_survivors=2,
            )  # fmt: skip
            secureagg.run_round(params, inputs, rand=rand, dropouts={"mask_input": [4]})
            count += 1
    return count


def one_use_each(record) -> None:
    assert all(len(found) == 1 for found in record.derived.values())  # info: one secret, one output
    outputs = [out for found in record.derived.values() for _, out in found]
    halves = [out[i : i + 16] for out in outputs for i in range(0, len(out), 16)]
    assert len(set(halves)) == len(halves)
    assert len({key for key, _ in record.streams}) == len(record.streams)  # one counter per key
    assert all(len(found) == 1 for found in record.boxes.values())
    assert {nonce for _, nonce in record.boxes} == {bytes(12)}
    assert not {key for key, _ in record.boxes} & {key for key, _ in record.streams}


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_nothing_is_used_twice_over_rounds_attempts_segments_and_directions(
    make_params, seeded, monkeypatch, server
):
    record = Record()
    record.install(monkeypatch)
    secureagg.graph.build.cache_clear()
    count = rounds(make_params, seeded, server)
    one_use_each(record)
    kinds = collections.Counter(info[len(b"secureagg/1")] for info in record.derived)
    assert kinds[Usage.CLIENT_KEYS] == kinds[Usage.SHARE_COEFFICIENTS] == 9 * count
    assert kinds[Usage.BOX_KEY] == 18 * count  # 9 * 4 / 2 pairs, both directions in one output
    assert len(record.boxes) == 36 * count
    assert kinds[Usage.PAIRWISE_MASK] == 2 * 18 * count  # two segments
    assert kinds[Usage.SELF_MASK] == 2 * 8 * count  # one client never masks
    secureagg.graph.build.cache_clear()


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_nothing_is_used_twice_when_everybody_is_restored(make_play, monkeypatch, server):
    record = Record()
    record.install(monkeypatch)
    play = make_play(0, server=server, threshold=4)
    while play.server.stage is not None:
        for client_id in play.clients:
            play.clients[client_id] = restored(play, client_id)
        play.step()
    play.check()
    one_use_each(record)


def restored(play, client_id, data=None) -> secureagg.ClientSession:
    session = play.clients[client_id]
    return secureagg.ClientSession.from_bytes(
        session.to_bytes() if data is None else data, play.params, client_id,
        play.keys[client_id], play.server._round.identities, once=session._once,
    )  # fmt: skip


def played(play, gone) -> bool:
    """Everybody restarts before each stage; perhaps one client more is lost in each."""
    lost: set[int] = set()
    for number, _ in enumerate(play.params.stages):
        for i in play.clients:
            play.clients[i] = restored(play, i)
        play.server = secureagg.ServerSession.from_bytes(
            play.server.to_bytes(), play.params, play.server._round.identities
        )
        lost |= {number} if gone else set()
        try:
            play.step(but=lost)
        except secureagg.TooFewClientsError:  # what was derived by then counts all the same
            return False
    play.check()
    return True


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
@pytest.mark.parametrize("degree", [8, 4])
def test_nothing_is_used_twice_over_all_of_these_together(make_play, monkeypatch, server, degree):
    """One record of sessions, rounds, attempts, dropouts in every stage, and restores of all."""
    record = Record()
    record.install(monkeypatch)
    secureagg.graph.build.cache_clear()
    segments = tuple(secureagg.Segment(name, 6, 20) for name in "x")
    finished = 0
    for session_id, round_index, attempt in itertools.product((b"one", b"two"), (0, 1), (0, 1)):
        play = make_play(
            0, n=9, degree=degree, threshold=2, min_survivors=2, server=server, rounds=2,
            segments=segments, session_id=session_id, round_index=round_index, attempt=attempt,
        )  # fmt: skip
        # a client of several rounds draws a fresh secret for each: here, one of its context
        for i, client in play.clients.items():
            secret = hashlib.sha256(play.server._round.ctx + bytes([i])).digest()
            client._state = dataclasses.replace(client._state, secret=secret)
        finished += played(play, gone=attempt)
    assert finished >= 4
    one_use_each(record)
    secureagg.graph.build.cache_clear()


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_restores_that_are_shown_different_neighbours_seal_the_same_boxes(
    make_play, monkeypatch, server
):
    """A share, its box and its key do not hang on who else advertised; and only one masks."""
    record = Record()
    record.install(monkeypatch)
    play = make_play(1, server=server, threshold=3)
    saved, message = play.clients[0].to_bytes(), play.inbound[0]
    entry = 4 + messages.KeyBundle.len_bytes(signed=play.params.malicious)
    for shown in (message, message[:-entry], message[:38] + message[38 + entry :]):
        assert restored(play, 0, saved).receive(shown) is not None
    one_use_each(record)
    assert len([key for key, _ in record.boxes]) == 5


def test_the_recorder_sees_a_repeat(make_params, seeded, monkeypatch):
    """Two runs of one context with other secrets: what it is there to find."""
    record = Record()
    record.install(monkeypatch)
    params, inputs = make_params(), {i: np.zeros(5, dtype=int) for i in range(6)}
    for name in ("one", "two"):
        secureagg.run_round(params, inputs, rand=seeded(name))
    with pytest.raises(AssertionError):
        one_use_each(record)
