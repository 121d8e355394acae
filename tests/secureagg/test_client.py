"""What a client refuses of each message, and whom it blames."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import messages, primitives, sharing
from secureagg._codec import u32
from secureagg.messages import KeyBundle
from tests.secureagg.helpers import refused_by_client, shared_message


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
    error = refused_by_client(
        play, 0, play.edit(play.inbound[0], **change), secureagg.MessageError, match
    )
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
    refused_by_client(play, 0, cut(play.inbound[0]), secureagg.MessageError, "bytes")
    play.finish()


def test_messages_are_bytes(make_play):
    play = make_play(1)
    refused_by_client(play, 0, bytearray(play.inbound[0]), secureagg.MessageError, "not bytes")


@pytest.mark.parametrize("stages", [1, 2])
def test_message_of_a_later_stage(make_play, stages):
    play, ahead = make_play(stages), make_play(stages + 1)
    refused_by_client(play, 0, ahead.inbound[0], secureagg.MessageError, "at this stage")
    play.finish()


def test_repeated_and_unordered_ids(make_play):
    play = make_play(1)
    entries = [u32(i) + b.to_bytes() for i, b in bundles(play, 0).items()]
    for order in ([0, 0, 1, 2], [1, 0, 2, 3]):
        message = play.edit(play.inbound[0], b"".join(entries[i] for i in order))
        refused_by_client(play, 0, message, secureagg.MessageError, "ascending")
    play.finish()


def test_more_bundles_than_neighbours(make_play):
    play = make_play(1, n=9, degree=4, threshold=2)
    entry = next(iter(bundles(play, 0).values()))
    message = with_bundles(play, 0, dict.fromkeys(range(100, 105), entry))
    refused_by_client(play, 0, message, secureagg.MessageError, "at most 4")


def test_keys_of_a_client_that_is_no_neighbour(make_play):
    play = make_play(1, n=9, degree=4, threshold=2)
    honest = bundles(play, 0)
    stranger = next(i for i in range(1, 9) if i not in honest)
    changed = dict(
        sorted({**dict(list(honest.items())[1:]), stranger: honest[min(honest)]}.items())
    )
    refused_by_client(
        play, 0, with_bundles(play, 0, changed), secureagg.FaultyServerError, "not a neighbour"
    )
    own = {0: honest[min(honest)], **dict(list(honest.items())[1:])}
    refused_by_client(
        play, 0, with_bundles(play, 0, own), secureagg.FaultyServerError, "not a neighbour"
    )
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
    error = refused_by_client(play, 0, message, secureagg.FaultyServerError, match)
    assert error.round == 3
    play.finish()


def test_fewer_than_threshold_neighbours_advertised(make_play):
    play = make_play(1, threshold=3)
    honest = bundles(play, 0)
    few = with_bundles(play, 0, {i: honest[i] for i in (1, 2)})
    error = refused_by_client(play, 0, few, secureagg.TooFewClientsError, "advertised")
    assert (error.have, error.need) == (2, 3)
    play.finish()


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
    refused_by_client(
        play, 0, shared_message(play, 0, shared, senders), secureagg.FaultyServerError, match
    )
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
    refused_by_client(play, 0, play.inbound[0], secureagg.FaultyServerError, "no accepted bundle")


def test_fewer_than_threshold_neighbours_shared(make_play):
    play = make_play(2, threshold=4)
    message = shared_message(play, 0, [0, 1, 2, 3], [1, 2, 3])
    error = refused_by_client(
        play, 0, message, secureagg.TooFewClientsError, "neighbours that shared"
    )
    assert (error.have, error.need) == (3, 4)
    play.finish()


def test_shared_below_min_survivors(make_play):
    play = make_play(2, threshold=2, min_survivors=5)
    message = shared_message(play, 0, [0, 1, 2, 3], [1, 2, 3])
    error = refused_by_client(play, 0, message, secureagg.TooFewClientsError, "clients in shared")
    assert (error.have, error.need) == (4, 5)
    play.finish()


def test_shared_padding_must_be_zero(make_play):
    play = make_play(2)
    body = bytearray(play.inbound[0][38:])
    body[0] |= 1 << 6
    refused_by_client(
        play, 0, play.edit(play.inbound[0], bytes(body)), secureagg.MessageError, "padding"
    )
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
    error = refused_by_client(play, 0, message, secureagg.FaultyServerError, match)
    assert error.round == 0
    play.finish()


def test_shared_may_not_grow_after_masking(make_play):
    play = make_play(1)
    play.step(but=[5])
    play.step()
    message = statuses_message(play, 0, [2, 2, 2, 2, 2, 1])
    refused_by_client(play, 0, message, secureagg.FaultyServerError, "not the set that was masked")
    play.finish()


def test_a_second_unmask_request(make_play):
    play = make_play(3)
    assert play.clients[0].receive(play.inbound[0]) is not None
    assert play.clients[0].receive(play.inbound[0]) is None
    message = statuses_message(play, 0, [2, 2, 2, 2, 1, 1])
    with pytest.raises(secureagg.FaultyServerError, match="second"):
        play.clients[0].receive(message)
