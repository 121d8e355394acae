"""Each adversary is caught by whom it must be caught by, and the error blames the right one."""

from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import adversaries, context
from secureagg.messages import KeyBundle, Kind
from secureagg.primitives import public_key

N = 8
INPUTS = {i: np.full(5, i + 1) for i in range(N)}


@pytest.fixture(name="params")
def _params(make_params):
    def build(**changes) -> Any:
        return make_params(N, **{"server": "malicious", "threshold": 5, **changes})

    return build


def keys_of() -> list[secureagg.IdentityKey]:
    return [secureagg.IdentityKey((2 * i + 1).to_bytes(32, "little")) for i in range(N)]


def counting() -> Any:
    calls = iter(range(1, 10_000))
    return lambda size: next(calls).to_bytes(size, "little")


def round_of(params) -> context.Round:
    keys = keys_of() if params.malicious else []
    roster = {i: keys[i].public_key if keys else b"" for i in range(N)}
    return context.open_round(params, roster)


def play(params, wire, **more) -> secureagg.RoundResult:
    return secureagg.run_round(params, INPUTS, wire=wire, rand=counting(), **more)


def recorded(params, kind) -> dict[int, bytes]:
    """Every message of one kind in an honest round."""
    found: dict[int, bytes] = {}

    def wire(client_id, message):
        if message[1] == kind:
            found[client_id] = message
        return [(client_id, message)]

    play(params, wire)
    return found


def blames_server(params, wire, match, **more) -> None:
    with pytest.raises(secureagg.FaultyServerError, match=match) as caught:
        play(params, wire, **more)
    assert caught.value.round == params.round_index


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_nothing_happens_without_an_adversary(params, server):
    result = play(params(server=server), adversaries.honest)
    assert result.sums["x"].tolist() == [36] * 5
    assert not result.suspicions
    assert not result.faulty


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_a_server_that_asks_for_both_shares(params, server):
    p = params(server=server)
    blames_server(p, adversaries.ask_both_kinds(round_of(p), 3), "both kinds")


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_a_server_that_shrinks_the_survivors(params, server):
    p = params(server=server, min_survivors=6)
    blames_server(p, adversaries.shrink_survivors(round_of(p), range(5)), "5 survivors, needs 6")


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_a_server_that_asks_again(params, server):
    p = params(server=server)
    blames_server(p, adversaries.ask_again(round_of(p), 3), "second")


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_a_server_that_withholds_a_box(params, server):
    p = params(server=server)
    blames_server(p, adversaries.withhold_box(round_of(p), 2, 5), "boxes are not")


def own_keys() -> KeyBundle:
    return KeyBundle(public_key(b"\x01" * 32), public_key(b"\x02" * 32), bytes(32))


def test_a_server_that_swaps_keys(params):
    wire = adversaries.swap_keys(4, 2, own_keys())
    blames_server(params(), wire, "client 4 did not sign")


def test_swapped_keys_go_unnoticed_by_a_client_that_trusts_the_server(params):
    """The reason for signatures: the masks do not cancel, or worse, the server reads the box."""
    p = params(server="semi_honest", threshold=3)
    result = play(p, adversaries.swap_keys(4, 2, own_keys()))
    assert set(result.suspicions) == {2, 4}
    assert result.sums["x"].tolist() != [36] * 5


@pytest.mark.parametrize("told", [[5], [5, 6], [5, 6, 7]])
def test_a_server_that_equivocates_on_survivors(params, told):
    p = params()
    wire = adversaries.equivocate_survivors(round_of(p), 1, told)
    blames_server(p, wire, f"{len(told)} witnesses signed the sets this client holds, needs 5")


@pytest.mark.parametrize("told", [[5], [5, 6, 7]])
def test_a_server_that_shows_arcs_of_the_ring_different_sets(params, told):
    p = params(threshold=5)
    wire = adversaries.equivocate_shared(round_of(p), 1, told)
    blames_server(p, wire, f"{len(told)} witnesses signed")


def test_equivocation_leaves_no_side_with_a_quorum(params):
    p = params()
    wire = adversaries.equivocate_survivors(round_of(p), 1, [0, 2, 5, 6])
    with pytest.raises(secureagg.TooFewClientsError) as caught:
        play(p, wire)
    assert (caught.value.have, caught.value.need) == (4, 5)


@pytest.mark.parametrize(
    "changes", [{"attempt": 1}, {"session_id": b"other"}, {"rounds": 2, "round_index": 1}]
)
@pytest.mark.parametrize(
    "kind", [Kind.NEIGHBOUR_KEYS, Kind.NEIGHBOUR_SHARES, Kind.STATUSES, Kind.QUORUM]
)
def test_a_server_that_replays(params, changes, kind):
    old = recorded(params(**changes), kind)
    with pytest.raises(secureagg.MessageError, match="another context") as caught:
        play(params(), adversaries.replay(kind, old))
    assert caught.value.sender is None


@pytest.mark.parametrize(
    "changes", [{"min_survivors": 2}, {"server": "semi_honest"}, {"corrupt": "1/4"}]
)
def test_a_server_that_downgrades_params(params, changes):
    other = round_of(params(**{"threshold": 6, **changes}))
    with pytest.raises(secureagg.MessageError, match="another context"):
        play(params(threshold=6), adversaries.claim_context(other.ctx))


def test_a_server_that_stuffs_the_cohort(params):
    """One of its own in place of client 7: the roster is another, so the context is."""
    p = params()
    roster = {i: key.public_key for i, key in enumerate(keys_of())}
    roster[7] = secureagg.IdentityKey(b"\x07" * 32).public_key
    stuffed = context.open_round(p, roster)
    with pytest.raises(secureagg.MessageError, match="another context"):
        play(p, adversaries.claim_context(stuffed.ctx))


@pytest.mark.parametrize("kind", [k for k in Kind if k < 128])
def test_a_client_that_sends_garbage(params, kind):
    with pytest.raises(secureagg.MessageError) as caught:
        play(params(), adversaries.send_garbage(kind, 3))
    assert caught.value.sender == 3


def test_a_client_that_lies_about_a_share(params):
    with pytest.raises(secureagg.FaultyClientError, match="share of client 4") as caught:
        play(params(), adversaries.lie_about_share(2, 3))
    assert caught.value.client_id == 2


def test_a_client_that_frames_its_holder(params):
    result = play(params(), adversaries.frame_holder(6, 2))
    assert result.sums["x"].tolist() == [36] * 5
    assert {i: [s.client_id for s in found] for i, found in result.suspicions.items()} == {2: [6]}


def test_a_client_that_repeats_itself(params):
    assert play(params(), adversaries.send_twice(3)).sums["x"].tolist() == [36] * 5


@pytest.mark.parametrize("kind", [Kind.KEYS, Kind.SHARES, Kind.MASKED_VECTOR])
def test_a_client_that_is_late_has_dropped_out(params, kind):
    result = play(params(), adversaries.send_late(kind, 3))
    assert result.survivors == (0, 1, 2, 4, 5, 6, 7)
    assert result.sums["x"].tolist() == [32] * 5


@pytest.mark.parametrize("kind", [Kind.WITNESS_SIGNATURE])
def test_a_late_witness_is_not_needed(params, kind):
    result = play(params(), adversaries.send_late(kind, 3))
    assert result.survivors == tuple(range(N))
    assert 3 not in result.quorum
