"""Who is blamed when shares are wrong: a lying holder, a lying dealer, or nobody yet."""

from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import messages, shamir, sharing
from secureagg.messages import ShareKind


def resealed(play, dealer, holder, pair, *, commit=None) -> messages.SealedShares:
    """What the dealer would send had it dealt `pair`, with the commitments of `commit`."""
    session = play.clients[dealer]
    round_ = session._round
    state = session._state
    me, other = state.me, state.bundles[holder]
    keys = {dealer: me.bundle.enc_public_key, holder: other.enc_public_key}
    agreed = secureagg.primitives.agreement(me.enc_private_key)(other.enc_public_key)
    key, _ = sharing.box_keys(agreed, round_.ctx, dealer, holder, keys)
    sealed = sharing.seal_pair(key, round_.ctx, dealer, holder, pair)
    if commit is not None:
        sealed = sealed._replace(
            mask_key_commitment=commit.mask_key_commitment,
            seed_commitment=commit.seed_commitment,
        )
    return sealed


def dealt(play, dealer) -> dict[int, messages.SealedShares]:
    return messages.boxes_from_bytes(memoryview(play.sent[dealer])[38:], limit=99)


def with_boxes(play, dealer, boxes) -> bytes:
    message: bytes = play.edit(play.sent[dealer], messages.boxes_to_bytes(boxes))
    return message


def go_on(play) -> None:
    for client_id, message in play.sent.items():
        play.server.receive(client_id, message)
    play.inbound = play.server.close_stage()


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
@pytest.mark.parametrize("kind", [0, 1])
def test_a_box_that_does_not_match_its_commitment_is_not_held(make_play, server, kind):
    """A dealer that frames its holder: the holder does not pass the share on."""
    play = make_play(1, threshold=4, server=server, corrupt=0.2)
    play.answers()
    boxes = dealt(play, 1)
    pair = [bytes(36), bytes(36)]
    honest = boxes[0]
    wrong = resealed(play, 1, 0, tuple(pair), commit=honest)
    half = wrong._replace(
        **{
            ("mask_key_commitment", "seed_commitment")[1 - kind]: sharing.share_commitment(
                play.clients[1]._round.ctx, 1, 0, list(ShareKind)[1 - kind], bytes(36)
            )
        },
    )  # one of the two matches
    play.sent[1] = with_boxes(play, 1, boxes | {0: half})
    go_on(play)
    play.step()
    (suspicion,) = play.clients[0].suspicions
    assert suspicion.client_id == 1
    assert "commitments" in str(suspicion)
    play.finish()
    assert play.server.result.survivors == tuple(range(6))
    assert play.server.result.faulty == ()
    assert play.server.result.disputes == {1: (0,)}


def with_bad_boxes(make_play, *, dealer, holders, **changes) -> Any:
    """A round up to unmask in which these holders got no good box from this dealer."""
    play = make_play(1, **changes)
    play.answers()
    boxes = dealt(play, dealer)
    bad = {v: boxes[v]._replace(box=bytes(len(boxes[v].box))) for v in holders}
    play.sent[dealer] = with_boxes(play, dealer, boxes | bad)
    go_on(play)
    return play


def with_accusers(make_play, *, dealer, holders, **changes) -> Any:
    """The same from the other side: good boxes, and these holders say they were not."""
    play = make_play(3, **changes)
    play.answers()
    for holder in holders:
        answer = messages.UnmaskShares.from_bytes(memoryview(play.sent[holder])[38:], m=5)
        held, shares = answer.held.copy(), answer.shares.copy()
        row = dealer - (dealer > holder)
        held[row], shares[row] = False, 0
        lie = messages.UnmaskShares(held, shares).to_bytes()
        play.sent[holder] = play.edit(play.sent[holder], lie)
    return play


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize(
    ("threshold", "holders"), [(3, (0, 2, 3)), (4, (2, 5)), (1, (0, 2, 3, 4, 5))]
)
def test_more_refused_boxes_than_there_are_corrupt_clients_name_the_dealer(
    make_play, server, gone, threshold, holders
):
    """Too few good shares, and one of the holders that say so is honest: c is 1."""
    play = with_bad_boxes(
        make_play, dealer=1, holders=holders, threshold=threshold, corrupt=0.2, server=server
    )
    play.step(but=[1] if gone else [])
    assert {i for i, c in play.clients.items() if c.suspicions} == set(holders)
    while play.server.stage != "unmask":
        play.step()
    for client_id, message in play.answers().items():
        play.server.receive(client_id, message)
    with pytest.raises(secureagg.FaultyClientError, match="no good box") as caught:
        play.server.close_stage()
    assert caught.value.client_id == 1


@pytest.mark.parametrize("liar", ["dealer", "holders"])
def test_refused_boxes_that_the_corrupt_could_have_made_up_name_both_sides(make_play, liar):
    """What the server sees is the same, whoever lies: c is 2, and so are the holders."""
    changes = {"threshold": 4, "corrupt": 0.4, "min_survivors": 4}
    if liar == "dealer":
        play = with_bad_boxes(make_play, dealer=1, holders=(0, 2), **changes)
        play.step()
        play.answers()
    else:
        play = with_accusers(make_play, dealer=1, holders=(0, 2), **changes)
    for client_id, message in play.sent.items():
        play.server.receive(client_id, message)
    with pytest.raises(secureagg.TooFewClientsError, match="client 1 or clients 0, 2") as abort:
        play.server.close_stage()
    assert (abort.value.have, abort.value.need) == (3, 4)
    assert abort.value.disputes == {1: (0, 2)}


@pytest.mark.parametrize(("corrupt", "faulty"), [(0.2, (1,)), (0.4, ())])
def test_a_round_with_enough_good_shares_goes_on_and_says_who_is_in_dispute(
    make_play, corrupt, faulty
):
    play = with_accusers(make_play, dealer=1, holders=(0, 2), threshold=3, corrupt=corrupt)
    go_on(play)
    play.check()
    assert play.server.result.disputes == {1: (0, 2)}
    assert play.server.result.faulty == faulty


def test_no_dealer_is_blamed_for_shares_of_another_that_are_lacking(make_play):
    """Client 0 is proven at fault, but its secret rebuilds; too few answer for one far away."""
    play = make_play(3, n=12, degree=4, threshold=3)
    play.answers()
    round_ = play.server._round
    far = next(i for i in round_.ids if i and not {0, *round_.holders(0)} & set(round_.holders(i)))
    holder = round_.holders(0)[0]
    answer = messages.UnmaskShares.from_bytes(memoryview(play.sent[holder])[38:], m=4)
    row = round_.holders(holder).index(0)
    held, shares = answer.held.copy(), answer.shares.copy()
    held[row], shares[row] = False, 0
    lie = messages.UnmaskShares(held, shares).to_bytes()
    play.sent[holder] = play.edit(play.sent[holder], lie)
    late = round_.holders(far)[:2]
    for client_id in round_.ids:
        if client_id not in late:
            play.server.receive(client_id, play.sent[client_id])
    with pytest.raises(secureagg.TooFewClientsError) as abort:
        play.server.close_stage()
    assert abort.value.disputes == {0: (holder,)}
    for client_id in late:
        play.server.receive(client_id, play.sent[client_id])
    play.server.close_stage()
    play.check()
    assert play.server.result.faulty == (0,)


@pytest.mark.parametrize("dropped", [[], [1]])
def test_a_dealer_whose_shares_rebuild_something_else(make_play, dropped):
    """All shares match their commitments, so the dealer alone can have done it."""
    play = make_play(1, threshold=4)
    play.answers()
    rand = np.random.default_rng(1).bytes
    xs = np.array([i + 1 for i in range(6) if i != 1])
    pairs = shamir.split((bytes(32), bytes(31) + b"\1"), xs, 4, rand)
    holders = [i for i in range(6) if i != 1]
    boxes = {
        v: resealed(play, 1, v, (pairs[0, i].tobytes(), pairs[1, i].tobytes()))
        for i, v in enumerate(holders)
    }
    play.sent[1] = with_boxes(play, 1, boxes)
    go_on(play)
    play.step(but=dropped)
    play.answers(but=dropped)
    for client_id, message in play.sent.items():
        play.server.receive(client_id, message)
    with pytest.raises(secureagg.FaultyClientError, match="do not rebuild") as caught:
        play.server.close_stage()
    assert caught.value.client_id == 1
    with pytest.raises(secureagg.MisuseError, match="no result"):
        _ = play.server.result


def test_a_dealer_whose_surplus_share_is_off_is_named_and_the_sum_is_right(make_play):
    play = make_play(1, threshold=3)
    play.answers()
    boxes = dealt(play, 1)
    play.sent[1] = with_boxes(play, 1, boxes | {5: resealed(play, 1, 5, (bytes(36), bytes(36)))})
    go_on(play)
    play.step()
    assert all(not client.suspicions for client in play.clients.values())
    play.finish()  # the first three holders' shares are used: 0, 2 and 3
    assert play.server.result.faulty == (1,)


@pytest.mark.parametrize("holders", [[0], [3], [0, 2]])
def test_a_bad_share_among_those_used_is_left_out_where_others_are_enough(make_play, holders):
    play = make_play(1, threshold=3)
    play.answers()
    bad = {v: resealed(play, 1, v, (bytes(36), bytes(36))) for v in holders}
    play.sent[1] = with_boxes(play, 1, dealt(play, 1) | bad)
    go_on(play)
    play.step()
    play.finish()
    assert play.server.result.faulty == (1,)


@pytest.mark.parametrize("dropped", [[], [1]])
@pytest.mark.parametrize("seed", range(6))
def test_the_round_succeeds_wherever_the_wrong_shares_can_be_decoded(make_play, seed, dropped):
    """Eleven holders, threshold 5: any three of them may hold wrong shares, of either secret."""
    generator = np.random.default_rng(seed)
    others = [i for i in range(12) if i != 1]
    wrong = [0, 4, 8] if seed == 0 else generator.choice(others, 1 + seed % 3, replace=False)
    play = make_play(1, n=12, threshold=5, min_survivors=6)
    play.answers()
    words = generator.integers(0, shamir.PRIME, (12, 2, 9)).astype("<u4")
    bad = {
        int(v): resealed(play, 1, int(v), (words[v, 0].tobytes(), words[v, 1].tobytes()))
        for v in wrong
    }
    play.sent[1] = with_boxes(play, 1, dealt(play, 1) | bad)
    go_on(play)
    play.step(but=dropped)
    play.finish()
    assert play.server.result.survivors == tuple(i for i in range(12) if i not in dropped)
    assert play.server.result.faulty == (1,)


def test_shares_that_fit_no_secret_name_the_dealer(make_play):
    """Nine limbs that stand for a number above 2^256."""
    play = make_play(1, threshold=1)
    play.answers()
    top = np.zeros(9, dtype="<u4")
    top[8] = 1 << 20
    pair = (top.tobytes(), top.tobytes())
    boxes = {v: resealed(play, 1, v, pair) for v in range(6) if v != 1}
    play.sent[1] = with_boxes(play, 1, boxes)
    go_on(play)
    play.step()
    play.answers()
    for client_id, message in play.sent.items():
        play.server.receive(client_id, message)
    with pytest.raises(secureagg.FaultyClientError, match="do not rebuild") as caught:
        play.server.close_stage()
    assert caught.value.client_id == 1


def test_too_few_good_shares_release_nothing(make_play):
    play = make_play(3, threshold=3)
    play.answers()
    for holder in (0, 1, 2, 3):
        answer = messages.UnmaskShares.from_bytes(memoryview(play.sent[holder])[38:], m=5)
        shares: Any = answer.shares.copy()
        shares[4, 0] ^= 1
        lie = play.edit(play.sent[holder], messages.UnmaskShares(answer.held, shares).to_bytes())
        with pytest.raises(secureagg.FaultyClientError) as caught:
            play.server.receive(holder, lie)
        assert caught.value.client_id == holder
    for holder in (4, 5):
        play.server.receive(holder, play.sent[holder])
    with pytest.raises(secureagg.TooFewClientsError) as abort:
        play.server.close_stage()
    assert (abort.value.have, abort.value.need) == (1, 3)


def test_a_holder_cannot_pass_on_the_other_kind_of_share(make_play):
    """A commitment is bound to its kind, dealer and holder."""
    play = make_play(2, threshold=3)
    play.step(but=[5])
    pairs = play.clients[0]._state.shares
    play.answers()
    answer = messages.UnmaskShares.from_bytes(memoryview(play.sent[0])[38:], m=5)
    for row, other in [(0, pairs[1][0]), (4, pairs[5][1]), (0, pairs[2][1])]:
        shares: Any = answer.shares.copy()
        shares[row] = np.frombuffer(other, dtype="<u4")
        lie = play.edit(play.sent[0], messages.UnmaskShares(answer.held, shares).to_bytes())
        with pytest.raises(secureagg.FaultyClientError, match="committed"):
            play.server.receive(0, lie)
    go_on(play)
    play.finish()


@pytest.mark.parametrize("m", [4, 7, 30])
@pytest.mark.parametrize("threshold", [1, 3])
def test_surplus_shares_are_checked_against_the_polynomial(m, threshold):
    generator = np.random.default_rng(5)
    secrets = tuple(generator.bytes(32) for _ in range(3))
    xs = np.sort(generator.choice(1 << 30, m, replace=False)) + 1
    shares = shamir.split(secrets, xs, threshold, generator.bytes)
    rows = np.tile(xs, (3, 1))
    assert shamir.consistent(rows, shares, threshold, generator.bytes).tolist() == [True] * 3
    for where in (0, m - 1):
        for limb in (0, 8):
            bad = shares.copy()
            bad[1, where, limb] ^= 1
            found = shamir.consistent(rows, bad, threshold, generator.bytes)
            assert found.tolist() == [True, False, True]
