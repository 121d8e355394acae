import dataclasses
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import messages, recovery
from secureagg._codec import u32
from secureagg.messages import KeyBundle
from tests.secureagg.helpers import give, refused_by_server


@pytest.mark.parametrize("stages", range(4))
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": b"\x00"}, "version"),
        ({"client": u32(5)}, "another client"),
        ({"ctx": b"\x01" * 32}, "another context"),
        ({"kind": b"\x04"}, "kind 4"),
        ({"kind": b"\x81"}, "kind 129"),
    ],
)
def test_wrong_headers(make_play, stages, change, match):
    play = make_play(stages)
    play.answers()
    error = refused_by_server(
        play, 0, play.edit(play.sent[0], **change), secureagg.MessageError, match
    )
    assert (error.sender, error.round) == (0, 0)
    give(play)


@pytest.mark.parametrize("stages", range(4))
@pytest.mark.parametrize(
    "cut",
    [lambda m: m[:37], lambda m: m[:-1], lambda m: m + b"\0"],
    ids=["header", "short", "long"],
)
def test_wrong_lengths(make_play, stages, cut):
    play = make_play(stages)
    play.answers()
    refused_by_server(play, 0, cut(play.sent[0]), secureagg.MessageError, "bytes")
    give(play)


@pytest.mark.parametrize("stages", range(4))
def test_repeats_are_ignored_and_second_messages_refused(make_play, stages):
    play = make_play(stages)
    play.answers()
    play.server.receive(0, play.sent[0])
    sums = [array.copy() for array in play.server._sums]
    play.server.receive(0, play.sent[0])
    assert all(np.array_equal(a, b) for a, b in zip(sums, play.server._sums, strict=True))
    other = play.sent[0][:-1] + bytes([play.sent[0][-1] ^ 1])
    error = refused_by_server(play, 0, other, secureagg.FaultyClientError, "second")
    assert error.client_id == 0
    give(play)


@pytest.mark.parametrize("stages", range(3))
def test_earlier_messages_repeated_in_a_later_stage(make_play, stages):
    play = make_play(stages)
    play.step()
    old = play.sent[0]
    play.server.receive(0, old)
    refused_by_server(play, 0, old + b"\0", secureagg.FaultyClientError, "second")
    play.finish()
    play.server.receive(0, old)


def test_strangers(make_play):
    play = make_play(0)
    play.answers()
    error = refused_by_server(play, 77, play.sent[0], secureagg.MessageError, "roster")
    assert error.sender == 77
    give(play)


def test_a_client_cannot_speak_for_another(make_play):
    play = make_play(0)
    play.answers()
    refused_by_server(play, 1, play.sent[0], secureagg.MessageError, "another client")
    give(play)


@pytest.mark.parametrize("case", range(7))
def test_bad_public_keys(make_play, case):
    play = make_play(0)
    play.answers()
    mine, other = (
        KeyBundle.from_bytes(memoryview(play.sent[i])[38:], signed=False) for i in (0, 1)
    )
    bundle, match = [
        (dataclasses.replace(mine, enc_public_key=mine.mask_public_key), "twice"),
        (dataclasses.replace(mine, enc_public_key=other.enc_public_key), "sent before"),
        (dataclasses.replace(mine, enc_public_key=other.mask_public_key), "sent before"),
        (dataclasses.replace(mine, mask_public_key=other.mask_public_key), "sent before"),
        (dataclasses.replace(mine, mask_public_key=bytes(32)), "small-order"),
        (dataclasses.replace(mine, enc_public_key=b"\xed" + b"\xff" * 30 + b"\x7f"), "canonical"),
        (dataclasses.replace(mine, enc_public_key=b"\xff" * 32), "non-canonical"),
    ][case]
    play.server.receive(1, play.sent[1])
    message = play.edit(play.sent[0], bundle.to_bytes())
    if match == "sent before":  # by whom is not known: the keys may have been seen on their way
        error = refused_by_server(play, 0, message, secureagg.MessageError, match)
        assert error.sender == 0
    else:
        error = refused_by_server(play, 0, message, secureagg.FaultyClientError, match)
        assert error.client_id == 0
    give(play)


@pytest.mark.parametrize("receivers", [[1, 2, 3, 4], [1, 2, 3, 4, 6], [0, 1, 2, 3, 4], []])
def test_boxes_go_to_exactly_the_holders(make_play, receivers):
    play = make_play(1)
    play.answers()
    body = messages.boxes_to_bytes(
        dict.fromkeys(receivers, messages.SealedShares(bytes(90), bytes(32), bytes(32)))
    )
    message = play.edit(play.sent[0], body)
    refused_by_server(play, 0, message, secureagg.FaultyClientError, "exactly its holders")
    give(play)


def test_boxes_go_to_no_client_that_never_advertised(make_play):
    whole = make_play(1)
    whole.answers()
    play = make_play(0)
    play.step(but=[5])
    play.answers()
    message = play.edit(play.sent[0], whole.sent[0][38:])  # with a box for client 5
    refused_by_server(play, 0, message, secureagg.FaultyClientError, "exactly its holders")
    give(play)


def test_masked_vectors_with_set_padding(make_play):
    play = make_play(2)
    play.answers()
    message = play.sent[0][:-1] + bytes([play.sent[0][-1] | 0x80])  # 5 x 20 bits leave 4 spare
    refused_by_server(play, 0, message, secureagg.MessageError, "padding")
    give(play)


def test_a_bad_second_segment_leaves_the_first_sum_alone(make_play):
    segments = (secureagg.Segment("x", 5, 20), secureagg.Segment("y", 3, 1))
    play = make_play(0, segments=segments[:1])
    params = dataclasses.replace(play.params, segments=segments)
    inputs = {"x": np.ones(5, dtype=int), "y": np.ones(3, dtype=int)}
    roster = dict.fromkeys(range(6), b"")
    play.params, play.server = params, secureagg.ServerSession(params, roster)
    for i in range(6):
        play.clients[i] = secureagg.ClientSession(
            params, i, None, roster, inputs, once=secureagg.MemoryOnce()
        )
        play.inputs[i] = inputs["x"]
    play.step()
    play.step()
    play.answers()
    message = play.sent[0][:-1] + bytes([play.sent[0][-1] | 0x80])
    refused_by_server(play, 0, message, secureagg.MessageError, "padding")
    give(play)
    assert play.server.result.sums["y"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_late_messages_of_dropped_clients_are_discarded(make_play, stages):
    play = make_play(stages - 1)
    play.answers()
    late = play.sent.pop(5)
    for client_id, message in play.sent.items():
        play.server.receive(client_id, message)
    play.inbound = play.server.close_stage()
    play.server.receive(5, late)
    assert 5 not in play.server._received
    play.finish()
    assert play.server.result.survivors == (0, 1, 2, 3, 4)


def unmask_body(play, client_id) -> tuple[Any, Any]:
    answer = messages.UnmaskShares.from_bytes(memoryview(play.sent[client_id])[38:], m=5)
    return answer.held.copy(), answer.shares.copy()


def test_malformed_unmask_shares(make_play):
    play = make_play(3)
    play.answers()
    held, shares = unmask_body(play, 0)
    shares[0, 0] = 2**31 - 1
    body = messages.UnmaskShares(held, shares).to_bytes()
    refused_by_server(
        play, 0, play.edit(play.sent[0], body), secureagg.MessageError, "below the prime"
    )
    held, shares = unmask_body(play, 0)
    held[2] = False
    body = messages.UnmaskShares(held, shares).to_bytes()
    refused_by_server(play, 0, play.edit(play.sent[0], body), secureagg.MessageError, "not held")
    padded = bytearray(play.sent[0][38:])
    padded[0] |= 0x80
    refused_by_server(
        play, 0, play.edit(play.sent[0], bytes(padded)), secureagg.MessageError, "padding"
    )
    give(play)


@pytest.mark.parametrize("dropped", [[], [5]])
@pytest.mark.parametrize("dealer", [1, 5])
def test_a_wrong_share_names_its_holder_and_the_round_goes_on(make_play, dropped, dealer):
    """A wrong share of a self-mask seed, or of a dropped client's mask key."""
    play = make_play(2)
    play.step(but=dropped)
    play.answers()
    held, shares = unmask_body(play, 0)
    shares[dealer - 1, 4] ^= 1
    body = messages.UnmaskShares(held, shares).to_bytes()
    lie = play.edit(play.sent[0], body)
    error = refused_by_server(
        play, 0, lie, secureagg.FaultyClientError, f"share of client {dealer}"
    )
    assert error.client_id == 0
    del play.sent[0]
    give(play)


@pytest.mark.parametrize("stages", range(4))
def test_a_stage_that_closes_too_early_can_close_again(make_play, stages):
    play = make_play(stages)
    play.answers()
    for client_id in (0, 1):
        play.server.receive(client_id, play.sent[client_id])
    with pytest.raises(secureagg.TooFewClientsError):
        play.server.close_stage()
    give(play)
    assert play.server.result.survivors == (0, 1, 2, 3, 4, 5)


def test_unmask_without_any_answer(make_play):
    play = make_play(3)
    with pytest.raises(secureagg.TooFewClientsError) as caught:
        play.server.close_stage()
    assert (caught.value.have, caught.value.need) == (0, 3)


def test_clients_left_without_neighbours_drop_out(make_params, make_play):
    """Both neighbours of client 0 never advertise: it gets no answer, and is no survivor."""
    play = make_play(0, n=9, degree=2, threshold=1, min_survivors=2)
    a, b = play.server._round.mask_neighbours(0)
    inbound = play.step(but=[a, b])
    assert 0 not in inbound
    assert len(inbound) == 6
    play.finish()
    assert 0 not in play.server.result.survivors


def test_a_dropped_client_without_surviving_neighbours_is_not_needed(make_play):
    """Nobody masked with it, and nobody is left who holds its shares."""
    play = make_play(2, n=9, degree=2, threshold=1, min_survivors=2)
    play.step(but=[0, *play.server._round.mask_neighbours(0)])
    play.finish()
    assert len(play.server.result.survivors) == 6


def test_unmasking_changes_nothing_it_is_given(make_play):
    play = make_play(3)
    for client_id, message in play.answers().items():
        play.server.receive(client_id, message)
    state, received = play.server._state, play.server._received
    one, two = (recovery.close_unmask(state, received).aggregate for _ in range(2))
    assert one.sums["x"].tolist() == two.sums["x"].tolist()


def test_misuse_of_a_server_session(make_play):
    play = make_play(3)
    with pytest.raises(secureagg.MisuseError, match="no result"):
        _ = play.server.result
    play.finish()
    with pytest.raises(secureagg.MisuseError, match="over"):
        play.server.close_stage()
    assert play.server.stage is None
    with pytest.raises(secureagg.MisuseError, match="num_clients"):
        secureagg.ServerSession(play.params, {0: b""})


def test_server_keeps_one_sum_and_no_vector(make_play):
    play = make_play(3)
    assert not any(isinstance(v, np.ndarray) for v in play.server._received.values())
    assert [array.shape for array in play.server._sums] == [(5,)]
