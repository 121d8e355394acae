"""No key stream, box key or KDF input is ever used for two things."""

import collections
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import primitives
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
    """Rounds, attempts, two segments of one shape, dropouts in every stage."""
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
        for client_id, session in play.clients.items():
            play.clients[client_id] = secureagg.ClientSession.from_bytes(
                session.to_bytes(), play.params, client_id, play.keys[client_id],
                play.server._round.identities, once=session._once,
            )  # fmt: skip
        play.step()
    play.check()
    one_use_each(record)


def test_the_recorder_sees_a_repeat(make_params, seeded, monkeypatch):
    """Two runs of one context with other secrets: what it is there to find."""
    record = Record()
    record.install(monkeypatch)
    params, inputs = make_params(), {i: np.zeros(5, dtype=int) for i in range(6)}
    for name in ("one", "two"):
        secureagg.run_round(params, inputs, rand=seeded(name))
    with pytest.raises(AssertionError):
        one_use_each(record)
