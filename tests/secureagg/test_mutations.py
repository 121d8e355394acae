"""Mutated messages through every receive function: typed errors only, and no state changes."""

import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg._codec import u32
from secureagg.adder import Adder

MODES = [
    {"server": "semi_honest", "threshold": 3},
    {"server": "malicious", "threshold": 4},
    {"server": "malicious", "threshold": 3, "n": 9, "degree": 4, "min_survivors": 2},
]


SUMS = {"_sums", "sums"}


def frozen(session) -> dict[str, Any]:
    """The session's state, by copy where it is changed in place."""
    state = dict(vars(session))
    for name, value in state.items():
        if isinstance(value, dict | set):
            state[name] = value.copy()
    for name in SUMS & set(state):
        state[name] = tuple(array.copy() for array in state[name])
    return state


def unchanged(session, before) -> bool:
    now = dict(vars(session))
    for name in SUMS & set(now):
        pairs = zip(now.pop(name), before[name], strict=True)
        if not all(np.array_equal(a, b) for a, b in pairs):
            return False
    return now == {name: value for name, value in before.items() if name not in SUMS}


def mutated(message, others, generator) -> bytes:
    """One message made wrong in one way."""
    how, raw = generator.integers(8), bytearray(message)
    at = int(generator.integers(len(raw)))
    if how <= 1:  # anywhere, or in the first 60 bytes: header, flags, first id
        at = at if how else at % 60
        raw[at % len(raw)] ^= 1 << int(generator.integers(8))
    elif how == 2:
        del raw[at:]
    elif how == 3:
        raw += generator.bytes(int(generator.integers(1, 200)))
    elif how == 4:  # a length lie: one entry more, less, or moved
        size = int(generator.choice([4, 36, 64, 68, 90, 100, 158, 164]))
        start = 38 + int(generator.integers(max(1, len(raw) - 38)))
        raw[start:start] = raw[start : start + size]
        if generator.integers(2):
            del raw[-size:]
    elif how == 5:  # wrong stage or session, perhaps readdressed
        raw = bytearray(others[int(generator.integers(len(others)))])
        if generator.integers(2):
            raw[2:6] = message[2:6]
    elif how == 6:  # wrong stage, right header otherwise
        raw[1] = int(generator.choice([0, 1, 2, 3, 4, 5, 6, 128, 129, 130, 131, 132, 255]))
    else:
        raw[at : at + 4] = u32(int(generator.integers(1 << 32)))
    return bytes(raw)


def attack(session, receive, message, others, generator, count) -> set[str]:
    """Sends mutations; what is taken is undone. Returns the texts of the errors."""
    before, texts = frozen(session), set()
    for _ in range(count):
        try:
            receive(mutated(message, others, generator))
        except secureagg.ProtocolError as error:
            texts.add(str(error))
            assert unchanged(session, before)
        except secureagg.TooFewClientsError:
            assert unchanged(session, before)
        if not unchanged(session, before):
            vars(session).update(before)
            before = frozen(session)
    return texts


def messages_of_another_session(make_play, mode) -> list[bytes]:
    play, found = make_play(0, attempt=1, **mode), []
    while play.server.stage is not None:
        play.step()
        found += [play.sent.get(0, b"\0" * 40), play.inbound.get(0, b"\0" * 40)]
    return [message for message in found if message]


def secrets_of(play) -> list[bytes]:
    found: list[bytes] = []
    for session in play.clients.values():
        for part in (session._state, getattr(session._state, "me", None)):
            names = ("secret", "enc_private_key", "mask_private_key", "self_mask_seed")
            found += [getattr(part, name) for name in names if hasattr(part, name)]
        pairs = getattr(session._state, "shares", {}).values()
        found += [share for pair in pairs for share in pair or ()]
    return found


def storm(make_play, mode, count, seed) -> int:
    generator, sent = np.random.default_rng(seed), 0
    others = messages_of_another_session(make_play, mode)
    play, texts = make_play(0, **mode), set()
    secrets: list[bytes] = []
    while play.server.stage is not None:
        for client_id in play.clients:
            if client_id in play.inbound and client_id < 2:
                session = play.clients[client_id]
                session._once = lambda key: True  # mutations that are taken are undone
                message = play.inbound[client_id]
                texts |= attack(session, session.receive, message, others, generator, count)
                sent += count
        secrets += secrets_of(play)
        answers = play.answers()
        others += list(answers.values())[:2] + list(play.inbound.values())[:2]
        for client_id, answer in answers.items():
            if client_id in list(answers)[:2]:

                def receive(data, client_id=client_id) -> None:
                    play.server.receive(client_id, data)

                texts |= attack(play.server, receive, answer, others, generator, count)
                sent += count
                if play.server.stage == "mask_input":
                    adder = Adder(play.server._round, play.server._state.expected)
                    part = partial(adder.receive, client_id)
                    texts |= attack(adder, part, answer, others, generator, count)
                    sent += count
            play.server.receive(client_id, answer)
        play.inbound = play.server.close_stage()
    play.check()
    for text in texts:
        assert not any(secret.hex() in text or repr(secret) in text for secret in secrets)
    return sent


@pytest.mark.parametrize("mode", MODES)
def test_mutated_messages_change_nothing(make_play, mode):
    assert storm(make_play, mode, 120, seed=1) >= 14 * 120


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_million_mutated_messages_change_nothing(make_play, mode):
    assert storm(make_play, mode, 24_000, seed=2) >= 14 * 24_000


@pytest.mark.parametrize("size", [0, 1, 37, 200, 1 << 20])
def test_nothing_is_allocated_for_what_a_message_merely_claims(make_play, size):
    """Bodies of 0xff claim as much as they can; the peak stays a few times the message."""
    play = make_play(0, server="malicious", threshold=4)

    def send(receive, message) -> None:
        data = message[:38] + b"\xff" * size
        tracemalloc.start()
        with pytest.raises((secureagg.ProtocolError, secureagg.TooFewClientsError)):
            receive(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * len(data) + 200_000

    while play.server.stage is not None:
        if play.inbound:
            send(play.clients[0].receive, play.inbound[0])
        for client_id, answer in play.answers().items():
            if client_id == 0:
                send(lambda data: play.server.receive(0, data), answer)
            play.server.receive(client_id, answer)
        play.inbound = play.server.close_stage()
    play.check()
