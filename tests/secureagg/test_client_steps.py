"""A client's steps: each once, in order, and nothing secret in what it shows."""

from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import messages, session
from secureagg._codec import u32
from secureagg.messages import Kind
from tests.secureagg.helpers import shared_message


@pytest.mark.parametrize("stages", [1, 2])
def test_repeated_bytes_are_ignored_and_other_bytes_refused(make_play, stages):
    play = make_play(stages)
    old = play.inbound[0]
    play.step()
    assert play.clients[0].receive(old) is None
    with pytest.raises(secureagg.FaultyServerError, match="second"):
        play.clients[0].receive(old + b"\0")
    play.finish()


def test_answers_reveal_one_kind_of_share_by_status(make_play):
    play = make_play(2)
    play.step(but=[5])
    client = play.clients[0]
    shares = client._state.shares
    answer = messages.UnmaskShares.from_bytes(memoryview(client.receive(play.inbound[0]))[38:], m=5)
    for row, neighbour in zip(answer.shares, (1, 2, 3, 4, 5), strict=True):
        mask_key_share, self_seed_share = shares[neighbour]
        assert row.tobytes() == (mask_key_share if neighbour == 5 else self_seed_share)


@pytest.mark.parametrize(
    ("step", "stage"), [("start", "advertise_keys"), ("mask", "mask_input"), ("unmask", "unmask")]
)
def test_once_stops_a_step_and_nothing_leaves(make_play, step, stage):
    play = make_play(0)
    allowed = [False]
    asked = []

    def once(key):
        asked.append(key)
        return allowed[0] or not key.endswith(step.encode())

    play.clients[0]._once = once
    but = []
    while play.server.stage != stage:
        play.step()
        but = [0]
    for client_id, answer in play.answers(but=[0]).items():
        play.server.receive(client_id, answer)
    call = play.clients[0].start if not but else lambda: play.clients[0].receive(play.inbound[0])
    state = play.clients[0]._state
    with pytest.raises(secureagg.MisuseError, match=f"'{step}'") as caught:
        call()
    assert caught.value.step == stage
    assert play.clients[0]._state is state
    ctx = play.clients[0]._round.ctx
    assert asked[-1] == secureagg.once_key(ctx, 0, step) == ctx + u32(0) + step.encode()


def test_once_is_asked_in_order_and_not_for_refused_messages(make_play):
    play = make_play(0)
    asked = []

    def once(key):
        asked.append(key[36:].decode())
        return True

    play.clients[0]._once = once
    play.step()
    play.step()
    with pytest.raises(secureagg.FaultyServerError):
        play.clients[0].receive(shared_message(play, 0, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]))
    assert asked == ["start"]
    play.finish()
    assert asked == ["start", "mask", "unmask"]


def test_memory_once():
    once = secureagg.MemoryOnce()
    assert [once(b"a"), once(b"b"), once(b"a"), once(b"b")] == [True, True, False, False]


def test_inputs_come_late_and_are_fixed_by_copy(make_play, make_params):
    play = make_play(1)
    params, roster = play.params, dict.fromkeys(range(6), b"")
    late = secureagg.ClientSession(params, 0, None, roster, once=secureagg.MemoryOnce())
    fresh = make_play(0)
    fresh.clients[0] = late
    fresh.step()
    fresh.step()
    with pytest.raises(secureagg.MisuseError, match="set_inputs"):
        late.receive(fresh.inbound[0])
    with pytest.raises(secureagg.MisuseError, match="out of range"):
        late.set_inputs(np.full(5, 1 << 20))
    vector = fresh.inputs[0].astype(np.uint32)  # the protocol's own words for 20 bits
    late.set_inputs(vector)
    vector[:] = 0
    with pytest.raises(secureagg.MisuseError, match="fixed"):
        late.set_inputs(vector)
    fresh.step()
    with pytest.raises(secureagg.MisuseError, match="fixed"):
        late.set_inputs(vector)
    fresh.finish()


def test_misuse_of_a_client_session(make_params, make_play):
    params, roster = make_params(), dict.fromkeys(range(6), b"")
    once = secureagg.MemoryOnce()

    def build(p=params, i=0, key: Any = None, r=roster, **more) -> secureagg.ClientSession:
        return secureagg.ClientSession(p, i, key, r, once=once, **more)

    for arguments in (
        {"i": 6},
        {"key": object()},
        {"r": {**roster, 6: b""}},
        {"r": {**roster, 0: b"key"}},
        {"i": -1},
        {"rand": lambda size: b"short"},
    ):
        with pytest.raises(secureagg.MisuseError):
            build(**arguments)
    play = make_play(1)
    with pytest.raises(secureagg.MisuseError, match="started"):
        play.clients[0].start()
    with pytest.raises(secureagg.MisuseError, match="start comes before"):
        make_play(0).clients[0].receive(play.inbound[0])


def test_nothing_is_expected_after_the_last_stage(make_play):
    play = make_play(4)
    message = messages.header(Kind.KEYS, 0, play.clients[0]._round.ctx)
    with pytest.raises(secureagg.MessageError, match="after the last stage"):
        play.clients[0].receive(message)


def test_no_secret_in_any_repr(make_play):
    play = make_play(0)
    secrets = set()
    while play.server.stage is not None:
        for session_ in play.clients.values():
            state = session_._state
            for part in (state, getattr(state, "me", None)):
                for name in ("secret", "enc_private_key", "mask_private_key", "self_mask_seed"):
                    if part is not None and hasattr(part, name):
                        secrets.add(getattr(part, name))
            for pair in getattr(state, "shares", {}).values():
                secrets.update(pair)
            secrets.update(getattr(state, "opening_keys", {}).values())
            shown = f"{session_!r} {state!r} {play.server!r} {play.server._state!r}"
            for secret in secrets:
                assert repr(secret)[2:-1] not in shown
                assert secret.hex() not in shown
        play.step()
    assert len(secrets) > 60


def test_table_of_steps_follows_the_stages():
    stages = [step.stage for step in session.CLIENT_STEPS.values()]
    assert ["advertise_keys", *stages] == [s for s in secureagg.STAGES if s != "check_consistency"]
    kinds = [step.kind for step in session.CLIENT_STEPS.values()]
    assert kinds == [k for k in Kind if k >= 128 and k != Kind.QUORUM]
    stages = [step.stage for step in session.MALICIOUS_STEPS.values()]
    assert ["advertise_keys", *stages] == list(secureagg.STAGES)
    assert [s.kind for s in session.MALICIOUS_STEPS.values()] == [k for k in Kind if k >= 128]
