import dataclasses
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import messages, primitives, session, sharing
from secureagg._codec import u32
from secureagg.messages import KeyBundle, Kind


def refused(play, client_id, message, error, match) -> Any:
    """The client refuses the message, and still takes the honest one."""
    session_ = play.clients[client_id]
    before = vars(session_).copy()
    before["_taken"] = dict(before["_taken"])
    with pytest.raises(error, match=match) as caught:
        session_.receive(message)
    assert vars(session_) == before
    return caught.value


def bundles(play, client_id) -> dict[int, KeyBundle]:
    return messages.bundles_from_bytes(
        memoryview(play.inbound[client_id])[38:], limit=99, signed=play.params.malicious
    )


def with_bundles(play, client_id, changed) -> Any:
    """A neighbour-keys message in the order of `changed`, which may be wrong."""
    body = b"".join(u32(i) + bundle.to_bytes() for i, bundle in changed.items())
    return play.edit(play.inbound[client_id], body)


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": b"\x02"}, "version"),
        ({"client": u32(5)}, "another client"),
        ({"ctx": bytes(32)}, "another context"),
        ({"kind": b"\x01"}, "kind 1"),
        ({"kind": b"\x84"}, "kind 132"),
    ],
)
def test_wrong_headers(make_play, stages, change, match):
    play = make_play(stages)
    error = refused(play, 0, play.edit(play.inbound[0], **change), secureagg.MessageError, match)
    assert (error.sender, error.round) == (None, 0)
    play.finish()


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize(
    "cut",
    [lambda m: m[:10], lambda m: m[:-1], lambda m: m + b"\0"],
    ids=["header", "short", "long"],
)
def test_wrong_lengths(make_play, stages, cut):
    play = make_play(stages)
    refused(play, 0, cut(play.inbound[0]), secureagg.MessageError, "bytes")
    play.finish()


def test_messages_are_bytes(make_play):
    play = make_play(1)
    refused(play, 0, bytearray(play.inbound[0]), secureagg.MessageError, "not bytes")


@pytest.mark.parametrize("stages", [1, 2])
def test_message_of_a_later_stage(make_play, stages):
    play, ahead = make_play(stages), make_play(stages + 1)
    refused(play, 0, ahead.inbound[0], secureagg.MessageError, "at this stage")
    play.finish()


def test_repeated_and_unordered_ids(make_play):
    play = make_play(1)
    entries = [u32(i) + b.to_bytes() for i, b in bundles(play, 0).items()]
    for order in ([0, 0, 1, 2], [1, 0, 2, 3]):
        message = play.edit(play.inbound[0], b"".join(entries[i] for i in order))
        refused(play, 0, message, secureagg.MessageError, "ascending")
    play.finish()


def test_more_bundles_than_neighbours(make_play):
    play = make_play(1, n=9, degree=4, threshold=2)
    entry = next(iter(bundles(play, 0).values()))
    message = with_bundles(play, 0, dict.fromkeys(range(100, 105), entry))
    refused(play, 0, message, secureagg.MessageError, "at most 4")


def test_keys_of_a_client_that_is_no_neighbour(make_play):
    play = make_play(1, n=9, degree=4, threshold=2)
    honest = bundles(play, 0)
    stranger = next(i for i in range(1, 9) if i not in honest)
    changed = dict(
        sorted({**dict(list(honest.items())[1:]), stranger: honest[min(honest)]}.items())
    )
    refused(play, 0, with_bundles(play, 0, changed), secureagg.FaultyServerError, "not a neighbour")
    own = {0: honest[min(honest)], **dict(list(honest.items())[1:])}
    refused(play, 0, with_bundles(play, 0, own), secureagg.FaultyServerError, "not a neighbour")
    play.finish()


def bad_keys(play) -> list[tuple[KeyBundle, str]]:
    """(name, bundle of client 1 as client 0 gets it, text)."""
    honest = bundles(play, 0)[1]
    mine = KeyBundle.from_bytes(memoryview(play.sent[0])[38:], signed=False)
    other = bundles(play, 0)[2]
    replace = dataclasses.replace
    return [
        (replace(honest, enc_public_key=honest.mask_public_key), "twice"),
        (replace(honest, mask_public_key=other.mask_public_key), "twice"),
        (replace(honest, mask_public_key=other.enc_public_key), "twice"),
        (replace(honest, enc_public_key=mine.enc_public_key), "own"),
        (replace(honest, mask_public_key=mine.mask_public_key), "own"),
        (replace(honest, mask_public_key=bytes(32)), "small-order"),
        (replace(honest, enc_public_key=(1).to_bytes(32, "little")), "small-order"),
        (replace(honest, enc_public_key=b"\xff" * 32), "non-canonical"),
    ]


@pytest.mark.parametrize("case", range(8))
def test_bad_public_keys_blame_the_server(make_play, case):
    play = make_play(1, rounds=4, round_index=3)
    bundle, match = bad_keys(play)[case]
    message = with_bundles(play, 0, bundles(play, 0) | {1: bundle})
    error = refused(play, 0, message, secureagg.FaultyServerError, match)
    assert error.round == 3
    play.finish()


def test_fewer_than_threshold_neighbours_advertised(make_play):
    play = make_play(1, threshold=3)
    honest = bundles(play, 0)
    few = with_bundles(play, 0, {i: honest[i] for i in (1, 2)})
    error = refused(play, 0, few, secureagg.TooFewClientsError, "advertised")
    assert (error.have, error.need) == (2, 3)
    play.finish()


def shared_message(play, client_id, shared, senders) -> Any:
    """A neighbour-shares message with another set, and the boxes of `senders`."""
    honest = messages.NeighbourShares.from_bytes(
        memoryview(play.inbound[client_id])[38:], num_clients=play.params.num_clients, limit=99
    )
    flags = np.isin(np.arange(play.params.num_clients), shared)
    nothing = messages.SealedShares(bytes(90), bytes(32), bytes(32))
    boxes = {i: honest.boxes.get(i, nothing) for i in senders}
    return play.edit(play.inbound[client_id], messages.NeighbourShares(flags, boxes).to_bytes())


@pytest.mark.parametrize(
    ("shared", "senders", "match"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], "this client is not in shared"),
        ([0, 1, 2, 3, 4, 5], [1, 2, 3, 4], "boxes are not"),
        ([0, 1, 2, 3, 4], [1, 2, 3, 4, 5], "boxes are not"),
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4], "boxes are not"),
    ],
)
def test_shared_must_fit_the_boxes(make_play, shared, senders, match):
    play = make_play(2)
    refused(play, 0, shared_message(play, 0, shared, senders), secureagg.FaultyServerError, match)
    play.finish()


def test_a_neighbour_without_accepted_bundle(make_play):
    play = make_play(1)
    few = {i: b for i, b in bundles(play, 0).items() if i != 5}
    play.inbound[0] = with_bundles(play, 0, few)  # 5 is hidden from 0 at first ...
    for client_id, answer in play.answers(but=[0]).items():
        play.server.receive(client_id, answer)
    play.clients[0].receive(play.inbound[0])
    play.server.receive(0, make_play(1).clients[0].receive(make_play(1).inbound[0]))
    play.inbound = play.server.close_stage()  # ... and named in shared
    refused(play, 0, play.inbound[0], secureagg.FaultyServerError, "no accepted bundle")


def test_fewer_than_threshold_neighbours_shared(make_play):
    play = make_play(2, threshold=4)
    message = shared_message(play, 0, [0, 1, 2, 3], [1, 2, 3])
    error = refused(play, 0, message, secureagg.TooFewClientsError, "neighbours that shared")
    assert (error.have, error.need) == (3, 4)
    play.finish()


def test_shared_below_min_survivors(make_play):
    play = make_play(2, threshold=2, min_survivors=5)
    message = shared_message(play, 0, [0, 1, 2, 3], [1, 2, 3])
    error = refused(play, 0, message, secureagg.TooFewClientsError, "clients in shared")
    assert (error.have, error.need) == (4, 5)
    play.finish()


def test_shared_padding_must_be_zero(make_play):
    play = make_play(2)
    body = bytearray(play.inbound[0][38:])
    body[0] |= 1 << 6
    refused(play, 0, play.edit(play.inbound[0], bytes(body)), secureagg.MessageError, "padding")
    play.finish()


@pytest.mark.parametrize("harm", ["flip", "swap", "replay"])
def test_a_box_that_does_not_open_is_reported_and_the_round_goes_on(make_play, harm):
    play = make_play(2, threshold=3)
    inbound = messages.NeighbourShares.from_bytes(
        memoryview(play.inbound[0])[38:], num_clients=6, limit=5
    )
    boxes = dict(inbound.boxes)
    if harm == "flip":
        box = boxes[1].box
        boxes[1] = boxes[1]._replace(box=box[:-1] + bytes([box[-1] ^ 1]))
    elif harm == "swap":
        boxes[1] = boxes[2]
    else:  # the same pair of clients in another attempt
        other = make_play(2, attempt=1)
        at = other.inbound[0].index(u32(1), 39)
        entry = other.inbound[0][at + 4 : at + 4 + messages.SealedShares.len_bytes()]
        boxes[1] = messages.SealedShares.from_bytes(entry)
    body = messages.NeighbourShares(inbound.shared, boxes).to_bytes()
    play.inbound[0] = play.edit(play.inbound[0], body)
    play.step()
    (suspicion,) = play.clients[0].suspicions
    assert isinstance(suspicion, secureagg.FaultyClientOrServerError)
    assert suspicion.client_id == 1
    play.finish()


@pytest.mark.parametrize(
    "plaintext",
    [
        b"\x02" + bytes(36) + b"\x01" + bytes(36),
        b"\x01" + bytes(36) + b"\x01" + bytes(36),
        b"\x01" + bytes(36) + b"\x02" + bytes(32) + (2**31 - 1).to_bytes(4, "little"),
        b"\x01" + b"\xff" * 36 + b"\x02" + bytes(36),
    ],
)
def test_a_box_that_opens_to_nonsense_is_reported_too(make_play, plaintext):
    play = make_play(2, threshold=3)
    key = play.clients[0]._state.opening_keys[1]
    box = primitives.seal(key, plaintext, sharing._box_data(play.clients[0]._round.ctx, 1, 0))
    inbound = messages.NeighbourShares.from_bytes(
        memoryview(play.inbound[0])[38:], num_clients=6, limit=5
    )
    # the commitments fit, so that only the plaintext can be at fault
    pair = plaintext[1:37], plaintext[38:]
    promised = sharing.commit_pair(play.clients[0]._round.ctx, 1, 0, pair)
    sealed = messages.SealedShares(box, *promised)
    changed = messages.NeighbourShares(inbound.shared, {**inbound.boxes, 1: sealed})
    play.inbound[0] = play.edit(play.inbound[0], changed.to_bytes())
    play.step()
    assert [s.client_id for s in play.clients[0].suspicions] == [1]
    play.finish()


def statuses_message(play, client_id, statuses) -> Any:
    body = messages.statuses_to_bytes(np.array(statuses, dtype=np.uint8))
    return play.edit(play.inbound[client_id], body)


@pytest.mark.parametrize(
    ("statuses", "match"),
    [
        ([2, 3, 2, 2, 2, 1], "both kinds"),
        ([1, 2, 2, 2, 2, 1], "no survivor"),
        ([0, 2, 2, 2, 2, 1], "no survivor"),
        ([2, 2, 2, 2, 2, 0], "not the set that was masked"),
        ([2, 0, 2, 2, 2, 1], "not the set that was masked"),
        ([2, 2, 2, 1, 1, 1], "3 survivors, needs 4"),
    ],
)
@pytest.mark.parametrize("reason", [{"min_survivors": 4}, {"min_survivors": 1, "corrupt": "1/3"}])
def test_unmask_requests_that_ask_too_much(make_play, statuses, match, reason):
    play = make_play(2, **reason)
    play.step(but=[5])
    message = statuses_message(play, 0, statuses)
    error = refused(play, 0, message, secureagg.FaultyServerError, match)
    assert error.round == 0
    play.finish()


def test_shared_may_not_grow_after_masking(make_play):
    play = make_play(1)
    play.step(but=[5])
    play.step()
    message = statuses_message(play, 0, [2, 2, 2, 2, 2, 1])
    refused(play, 0, message, secureagg.FaultyServerError, "not the set that was masked")
    play.finish()


def test_a_second_unmask_request(make_play):
    play = make_play(3)
    assert play.clients[0].receive(play.inbound[0]) is not None
    assert play.clients[0].receive(play.inbound[0]) is None
    message = statuses_message(play, 0, [2, 2, 2, 2, 1, 1])
    with pytest.raises(secureagg.FaultyServerError, match="second"):
        play.clients[0].receive(message)


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
