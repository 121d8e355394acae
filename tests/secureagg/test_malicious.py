"""What a malicious server adds: signed keys, witnesses, a quorum before anything is revealed."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import messages
from secureagg._codec import u32
from secureagg.context import sets_to_sign
from secureagg.messages import KeyBundle
from tests.secureagg.helpers import give, refused_by_client, refused_by_server


@pytest.fixture(name="play_on")
def _play_on(make_play):
    def build(stages=0, **changes) -> Any:
        return make_play(stages, **{"server": "malicious", "threshold": 4, **changes})

    return build


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_both_sessions_say_which_stage_is_next(make_play, server):
    play = make_play(server=server, threshold=4)
    for stage in (*play.params.stages, None):
        assert {client.stage for client in play.clients.values()} == {stage}
        assert play.server.stage == stage
        if stage is not None:
            play.step()


def test_five_stages_and_a_quorum(play_on):
    play = play_on()
    stages = []
    while play.server.stage is not None:
        stages.append(play.server.stage)
        play.step()
    play.check()
    assert tuple(stages) == secureagg.STAGES
    result = play.server.result
    assert len(result.quorum) == 4
    statuses = np.full(6, messages.Status.SURVIVOR, dtype=np.uint8)
    data = sets_to_sign(play.server._round, statuses)
    assert all(play.keys[i].sign(data) == s for i, s in result.quorum.items())


def test_run_round_draws_identity_then_secret_for_each_client(make_params):
    asked = []

    def rand(size):
        asked.append(size)
        return len(asked).to_bytes(size, "little")

    inputs = {i: np.zeros(5, dtype=int) for i in range(6)}
    params = make_params(server="malicious", threshold=4)
    result = secureagg.run_round(params, inputs, rand=rand)
    assert asked == [32] * 12
    assert set(result.cost.client_seconds) == set(secureagg.STAGES)
    first = secureagg.IdentityKey((1).to_bytes(32, "little"))
    second = secureagg.IdentityKey((3).to_bytes(32, "little"))
    data = sets_to_sign(
        secureagg.context.open_round(
            params,
            {
                i: secureagg.IdentityKey((2 * i + 1).to_bytes(32, "little")).public_key
                for i in range(6)
            },
        ),
        np.full(6, 2, dtype=np.uint8),
    )
    assert result.quorum[0] == first.sign(data)
    assert result.quorum[1] == second.sign(data)


@pytest.mark.parametrize("stage", secureagg.STAGES)
@pytest.mark.parametrize("seed", [None, b"graph seed"])
def test_dropouts_within_the_rate_never_stop_a_round(stage, seed):
    params = secureagg.choose_params(
        80,
        {"x": (7, 17)},
        corrupt=0.05,
        dropout=0.1,
        server="malicious",
        rounds=5,
        security_bits=10,
        correctness_bits=10,
        graph_seed=seed,
    )
    assert (params.degree < 79) == (seed is not None)
    generator = np.random.default_rng(3)
    inputs = {i: generator.integers(0, 1 << 17, 7) for i in range(80)}
    gone = [int(i) for i in generator.choice(80, 8, replace=False)]
    result = secureagg.run_round(params, inputs, dropouts={stage: gone})
    late = stage in ("check_consistency", "unmask")
    left = [i for i in range(80) if late or i not in gone]
    assert result.survivors == tuple(left)
    want = np.sum([inputs[i] for i in left], axis=0) % (1 << 17)
    assert result.sums["x"].tolist() == want.tolist()


def test_identity_keys_are_checked(make_params, play_on):
    play, params = play_on(), make_params(server="malicious", threshold=4)
    roster = dict(play.server._round.identities)
    once = secureagg.MemoryOnce()
    for key in (None, play.keys[1]):
        with pytest.raises(secureagg.MisuseError, match="roster lists"):
            secureagg.ClientSession(params, 0, key, roster, once=once)
    for bad, match in [
        ({**roster, 3: b""}, "Ed25519"),
        ({**roster, 3: bytes(31)}, "Ed25519"),
        ({**roster, 3: roster[2]}, "same identity"),
    ]:
        with pytest.raises(secureagg.MisuseError, match=match):
            secureagg.ServerSession(params, bad)
    with pytest.raises(ValueError, match="32"):
        secureagg.IdentityKey(b"short")
    assert "identity" not in repr(play.keys[0])
    seed = bytes(range(32))
    shown = repr(secureagg.IdentityKey.generate(lambda size: seed[:size]))
    assert seed.hex() not in shown


def altered(bundle: KeyBundle, case: str, play) -> KeyBundle:
    flip = bytes([bundle.signature[0] ^ 1]) + bundle.signature[1:]
    own = dataclasses.replace
    return {
        "signature": own(bundle, signature=flip),
        "commitment": own(bundle, commitment=bytes(32)),
        "swapped": own(
            bundle, enc_public_key=bundle.mask_public_key, mask_public_key=bundle.enc_public_key
        ),
        "none": own(bundle, signature=bytes(64)),
    }[case]


@pytest.mark.parametrize("case", ["signature", "commitment", "swapped", "none"])
def test_keys_that_a_client_did_not_sign(play_on, case):
    play = play_on(1)
    bundles = messages.bundles_from_bytes(memoryview(play.inbound[0])[38:], limit=9, signed=True)
    changed = bundles | {2: altered(bundles[2], case, play)}
    message = play.edit(play.inbound[0], messages.bundles_to_bytes(changed))
    refused_by_client(play, 0, message, secureagg.FaultyServerError, "client 2 did not sign")
    play.finish()
    play = play_on(0)
    play.answers()
    bundle = KeyBundle.from_bytes(memoryview(play.sent[2])[38:], signed=True)
    message = play.edit(play.sent[2], altered(bundle, case, play).to_bytes())
    error = refused_by_server(play, 2, message, secureagg.FaultyClientError, "did not sign")
    assert error.client_id == 2
    give(play)


def test_keys_signed_for_another_round_attempt_or_client(play_on):
    play = play_on(1)
    bundles = messages.bundles_from_bytes(memoryview(play.inbound[0])[38:], limit=9, signed=True)
    other = play_on(1, attempt=1)
    replay = messages.bundles_from_bytes(memoryview(other.inbound[0])[38:], limit=9, signed=True)
    for stolen in (replay[2], dataclasses.replace(replay[3])):
        message = play.edit(play.inbound[0], messages.bundles_to_bytes(bundles | {2: stolen}))
        refused_by_client(play, 0, message, secureagg.FaultyServerError, "did not sign")
    play.finish()


def test_witness_signatures_are_checked_by_the_server(play_on):
    play = play_on(3)
    play.answers()
    statuses = np.array([2, 2, 2, 2, 2, 1], dtype=np.uint8)
    other_sets = play.keys[0].sign(sets_to_sign(play.server._round, statuses))
    for body, error, match in [
        (other_sets, secureagg.FaultyClientError, "sets of this round"),
        (play.sent[1][38:], secureagg.FaultyClientError, "sets of this round"),
        (b"", secureagg.MessageError, "bytes"),
        (bytes(65), secureagg.MessageError, "bytes"),
    ]:
        refused_by_server(play, 0, play.edit(play.sent[0], body), error, match)
    give(play)


def test_a_witness_that_does_not_sign_is_gone(play_on):
    play = play_on(3)
    inbound = play.step(but=[5])
    assert sorted(inbound) == [0, 1, 2, 3, 4]
    play.finish()
    assert play.server.result.survivors == (0, 1, 2, 3, 4, 5)


def test_too_few_witnesses_release_nothing(play_on):
    play = play_on(3)
    play.answers()
    for client_id in (0, 1, 2):
        play.server.receive(client_id, play.sent[client_id])
    with pytest.raises(secureagg.TooFewClientsError, match="signatures") as caught:
        play.server.close_stage()
    assert (caught.value.have, caught.value.need) == (3, 4)
    give(play)


def quorum(play, client_id) -> dict[int, bytes]:
    return messages.quorum_from_bytes(memoryview(play.inbound[client_id])[38:], limit=99)


def with_quorum(play, signatures) -> Any:
    body = b"".join(u32(i) + signatures[i] for i in signatures)
    return play.edit(play.inbound[0], body)


def test_a_quorum_has_threshold_distinct_valid_signatures(play_on):
    play = play_on(4)
    honest = quorum(play, 0)
    assert len(honest) == 4
    last = max(honest)
    few = {i: s for i, s in honest.items() if i != last}
    sets = np.array([2, 2, 2, 2, 2, 1], dtype=np.uint8)
    other = play.keys[5].sign(sets_to_sign(play.server._round, sets))
    bad = [few, few | {5: few[0]}, few | {5: bytes(64)}, few | {5: other}, {}, few | {77: few[0]}]
    for signatures in bad:
        message = with_quorum(play, signatures)
        error = refused_by_client(play, 0, message, secureagg.FaultyServerError, "needs 4")
        assert error.round == 0
    repeated = u32(0) + honest[0]
    message = play.edit(play.inbound[0], repeated * 4)
    refused_by_client(play, 0, message, secureagg.MessageError, "ascending")
    long = {i: bytes(64) for i in range(7)}
    refused_by_client(play, 0, with_quorum(play, long), secureagg.MessageError, "at most 6")
    play.finish()


def test_only_witnesses_count(play_on):
    """In a sparse graph a signature by anybody else is worth nothing."""
    play = play_on(3, n=20, degree=6, threshold=4)
    witnesses = play.server._round.witnesses
    assert len(witnesses) == 6
    answers = play.answers()
    assert sorted(answers) == sorted(witnesses)
    for client_id, answer in answers.items():
        play.server.receive(client_id, answer)
    play.inbound = play.server.close_stage()
    assert sorted(play.inbound) == list(range(20))
    data = sets_to_sign(play.server._round, np.full(20, 2, dtype=np.uint8))
    strangers = [i for i in range(20) if i not in witnesses]
    signatures = {i: play.keys[i].sign(data) for i in strangers[:6]}
    message = with_quorum(play, signatures)
    refused_by_client(play, 0, message, secureagg.FaultyServerError, "0 witnesses")
    three = sorted(quorum(play, 0).items())[:3]
    message = with_quorum(play, dict(sorted([*three, *list(signatures.items())[:3]])))
    refused_by_client(play, 0, message, secureagg.FaultyServerError, "3 witnesses")
    play.finish()


def test_two_views_find_no_two_quorums(play_on):
    """The server tells clients 0..2 that 5 survived and the others that it did not."""
    play = play_on(2)
    play.answers()
    for client_id in range(6):
        play.server.receive(client_id, play.sent[client_id])
    honest = play.server.close_stage()
    other = messages.statuses_to_bytes(np.array([2, 2, 2, 2, 2, 1], dtype=np.uint8))
    signed: dict[int, bytes] = {}
    for i in range(6):
        message = honest[i] if i < 3 or i == 5 else play.edit(honest[i], other)
        signed[i] = play.clients[i].receive(message)[38:]
    body = messages.quorum_to_bytes(signed)
    header = play.edit(honest[0], b"", kind=bytes([messages.Kind.QUORUM]))
    with pytest.raises(secureagg.FaultyServerError, match="2 witnesses"):
        play.clients[3].receive(play.edit(header, body, client=u32(3)))
    assert play.clients[0].receive(play.edit(header, body)) is not None  # 0, 1, 2, 5 agree


@pytest.mark.parametrize("statuses", [[2, 3, 2, 2, 2, 1], [2, 2, 1, 1, 1, 1], [1, 2, 2, 2, 2, 1]])
def test_statuses_are_refused_before_anything_is_signed(play_on, statuses):
    play = play_on(2)
    play.step(but=[5])
    body = messages.statuses_to_bytes(np.array(statuses, dtype=np.uint8))
    message = play.edit(play.inbound[0], body)
    refused_by_client(play, 0, message, secureagg.FaultyServerError, "survivor|both")
    play.finish()


def test_nothing_is_revealed_without_a_quorum(play_on):
    """The unmask stage cannot be reached from the statuses alone."""
    play = play_on(3)
    answer = play.clients[0].receive(play.inbound[0])
    assert answer[1] == messages.Kind.WITNESS_SIGNATURE
    assert play.clients[0].receive(play.inbound[0]) is None


def test_once_stops_a_second_signature(play_on):
    play = play_on(3)
    play.clients[0]._once = lambda key: not key.endswith(b"sign")
    with pytest.raises(secureagg.MisuseError, match="'sign'"):
        play.clients[0].receive(play.inbound[0])


def test_server_kinds_disagree(make_play, play_on):
    """A server that claims the weaker protocol has another context."""
    play, weaker = play_on(1), make_play(1, threshold=4)
    refused_by_client(play, 0, weaker.inbound[0], secureagg.MessageError, "another context")
    play.finish()
