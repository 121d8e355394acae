"""What is kept of a round, and a roster, hold up only as they were signed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import Attestation, Params, verify_quorum, verify_roster


@pytest.fixture(scope="module", name="kept")
def _kept(make_params, seeded) -> Attestation:
    """A round of eight on a sparse graph; 7 is lost before sharing and 2 before masking."""
    params = make_params(
        8, degree=6, threshold=4, server="malicious", corrupt=0.125, min_survivors=5
    )
    inputs = {i: np.zeros(5, dtype=np.uint32) for i in range(8)}
    dropouts = {"share_keys": [7], "mask_input": [2]}
    result = secureagg.run_round(params, inputs, dropouts=dropouts, rand=seeded("kept"))
    assert result.attestation is not None
    return result.attestation


def arguments(kept, **changes) -> dict[str, Any]:
    names = ("params", "roster", "shared", "survivors", "quorum")
    return {name: getattr(kept, name) for name in names} | changes


def test_an_honest_round_leaves_a_record_that_verifies(kept):
    assert kept.shared == (0, 1, 2, 3, 4, 5, 6)
    assert kept.survivors == (0, 1, 3, 4, 5, 6)
    assert len(kept.quorum) == kept.params.threshold
    kept.verify()
    verify_quorum(**arguments(kept))
    again = Attestation.from_bytes(kept.to_bytes())
    assert again == kept
    again.verify()


def test_a_session_gives_the_record_after_the_last_stage_only(make_play):
    play = make_play(4, server="malicious", threshold=4)
    with pytest.raises(secureagg.MisuseError, match="no result"):
        _ = play.server.attestation
    play.step()
    saved = play.server.to_bytes()
    roster = {i: key.public_key for i, key in play.keys.items()}
    restored = secureagg.ServerSession.from_bytes(saved, play.params, roster)
    assert restored.attestation == play.server.attestation
    play.server.attestation.verify()


def test_a_semi_honest_server_has_none(make_play, make_params):
    play = make_play(4)
    assert play.server.attestation is None
    with pytest.raises(secureagg.MisuseError, match="semi-honest"):
        verify_quorum(play.params, dict.fromkeys(range(6), b""), range(6), range(6), {})


def test_any_changed_bit_is_refused(kept):
    """One of each byte of the record: parameters, roster, sets and signatures."""
    data = kept.to_bytes()
    refusals = (secureagg.MisuseError, secureagg.FaultyServerError)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        with pytest.raises(refusals):
            Attestation.from_bytes(bytes(changed)).verify()
    for cut in (0, 1, 20, len(data) - 1):
        with pytest.raises(refusals):
            Attestation.from_bytes(data[:cut]).verify()
    with pytest.raises(refusals):
        Attestation.from_bytes(data + b"\0").verify()


def test_a_record_has_one_form_in_bytes(kept):
    """Two entries of the roster, of clients that are in both sets, in each other's place."""
    data, start = kept.to_bytes(), 1 + 8 + len(kept.params.to_bytes())
    first, second = data[start : start + 36], data[start + 36 : start + 72]
    with pytest.raises(secureagg.MisuseError, match="ascending"):
        Attestation.from_bytes(data[:start] + second + first + data[start + 72 :])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"round_index": 1, "rounds": 2}, "did not sign"),
        ({"attempt": 1}, "did not sign"),
        ({"session_id": b"another"}, "did not sign"),
        ({"graph_seed": b"another"}, "sign"),  # other witnesses
        ({"threshold": 5}, "sign"),
        ({"min_survivors": 7}, "6 survivors, needs 7"),
        ({"corrupt": 0.625}, "6 survivors, needs 7"),
    ],
)
def test_it_is_bound_to_its_parameters(kept, changes, reason):
    with pytest.raises(secureagg.FaultyServerError, match=reason) as caught:
        verify_quorum(**arguments(kept, params=replace(kept.params, **changes)))
    assert caught.value.round == changes.get("round_index", 0)


def test_it_is_bound_to_its_roster(kept):
    stranger = secureagg.IdentityKey(bytes(32)).public_key
    outsider = next(i for i in kept.roster if i not in kept.quorum)
    for client_id in (min(kept.quorum), outsider):
        with pytest.raises(secureagg.FaultyServerError, match="did not sign"):
            verify_quorum(**arguments(kept, roster={**kept.roster, client_id: stranger}))
    with pytest.raises(secureagg.MisuseError, match="takes num_clients"):
        verify_quorum(**arguments(kept, roster={**kept.roster, 9: stranger}))


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ({"shared": (0, 1, 2, 3, 4, 5, 6, 7)}, "did not sign"),
        ({"survivors": (0, 1, 2, 3, 4, 5, 6)}, "did not sign"),
        ({"survivors": (0, 1, 3, 4, 5)}, "did not sign"),
        ({"survivors": (0, 1, 3, 4, 5, 7)}, "not in shared"),
        ({"shared": (0, 1, 2, 3, 4, 5, 6, 77)}, "not in shared, or shared in the roster"),
        ({"survivors": (0, 1, 3, 4)}, "4 survivors, needs 5"),
    ],
)
def test_it_is_bound_to_its_sets(kept, sets, reason):
    with pytest.raises(secureagg.FaultyServerError, match=reason):
        verify_quorum(**arguments(kept, **sets))


def test_it_takes_a_quorum_of_witnesses_all_of_them_right(kept, make_play):
    first, *others = kept.quorum
    outsider = next(i for i in kept.roster if i not in kept.quorum)
    few = {i: kept.quorum[i] for i in others}
    with pytest.raises(secureagg.FaultyServerError, match="3 witnesses signed, needs 4"):
        verify_quorum(**arguments(kept, quorum=few))
    for wrong in ({first: kept.quorum[others[0]]}, {first: bytes(64)}, {first: b""}):
        with pytest.raises(secureagg.FaultyServerError, match=f"client {first} did not sign"):
            verify_quorum(**arguments(kept, quorum=kept.quorum | wrong))
    for stranger in (outsider, 77):
        with pytest.raises(secureagg.FaultyServerError, match=r"did not sign|no witnesses"):
            verify_quorum(**arguments(kept, quorum={**kept.quorum, stranger: bytes(64)}))


def test_only_witnesses_count(make_play):
    """Twelve clients, of whom six are witnesses: a proper signature by another is refused."""
    play = make_play(5, n=12, degree=6, threshold=4, server="malicious")
    found = play.server.attestation
    found.verify()
    round_ = play.server._round
    other = next(i for i in round_.ids if i not in round_.witnesses)
    flags = secureagg.context.statuses_of(
        round_, frozenset(found.shared), frozenset(found.survivors)
    )
    signed = play.keys[other].sign(secureagg.context.sets_to_sign(round_, flags))
    with pytest.raises(secureagg.FaultyServerError, match="no witnesses"):
        verify_quorum(**arguments(found, quorum={**found.quorum, other: signed}))


def keys_of(ids) -> dict[int, secureagg.IdentityKey]:
    return {i: secureagg.IdentityKey(bytes([i + 1] * 32)) for i in ids}


def signed_roster(keys, name=b"run") -> Any:
    roster = {i: key.public_key for i, key in keys.items()}
    return roster, {i: secureagg.sign_roster(key, name, roster) for i, key in keys.items()}


def test_a_roster_that_everybody_signed():
    roster, signatures = signed_roster(keys_of((4, 1, 9)))
    verify_roster(b"run", roster, signatures)
    backwards = dict(sorted(roster.items(), reverse=True))
    verify_roster(b"run", backwards, signatures)
    assert secureagg.roster_hash(b"run", roster) == secureagg.roster_hash(b"run", backwards)
    assert len(secureagg.roster_hash(b"run", roster)) == 32


def test_who_has_not_signed_or_signed_something_else_is_named():
    keys = keys_of((1, 4, 9, 12))
    roster, signatures = signed_roster(keys)
    _, elsewhere = signed_roster(keys, b"another run")
    _, before = signed_roster(keys_of((1, 4, 9)))
    with pytest.raises(secureagg.RosterError, match="no signature by 4, 12") as caught:
        verify_roster(b"run", roster, {i: signatures[i] for i in (1, 9)})
    assert (caught.value.missing, caught.value.wrong) == ((4, 12), ())
    swapped: dict[int, Any] = {
        1: signatures[4],
        4: elsewhere[4],
        9: before[9],
        12: b"short",
        7: signatures[1],
    }
    with pytest.raises(secureagg.RosterError, match="no valid signature by") as caught:
        verify_roster(b"run", roster, swapped)
    assert (caught.value.missing, caught.value.wrong) == ((), (1, 4, 7, 9, 12))
    unsigned: dict[int, Any] = signatures | {4: None, 9: signatures[9].hex()}
    with pytest.raises(secureagg.RosterError) as caught:
        verify_roster(b"run", roster, unsigned)
    assert caught.value.wrong == (4, 9)


def test_a_roster_signed_by_the_server_alone_is_refused():
    """Keys of its own under everybody's ids: it can sign for them, but not for who checks."""
    server = {i: secureagg.IdentityKey(bytes([i + 100] * 32)) for i in range(3)}
    mine = secureagg.IdentityKey(bytes(32))
    roster = {i: key.public_key for i, key in server.items()} | {3: mine.public_key}
    signatures = {i: secureagg.sign_roster(key, b"run", roster) for i, key in server.items()}
    with pytest.raises(secureagg.RosterError) as caught:
        verify_roster(b"run", roster, signatures)
    assert caught.value.missing == (3,)
    by_server = {i: secureagg.sign_roster(server[0], b"run", roster) for i in roster}
    with pytest.raises(secureagg.RosterError) as caught:
        verify_roster(b"run", roster, by_server)
    assert caught.value.wrong == (1, 2, 3)


def test_every_change_of_a_roster_changes_its_hash():
    roster, signatures = signed_roster(keys_of((1, 4, 9)))
    other = secureagg.IdentityKey(bytes(32)).public_key
    changed = [
        roster | {4: other},
        roster | {5: other},
        {1: roster[1], 4: roster[4]},
        {1: roster[4], 4: roster[1], 9: roster[9]},
        {1: roster[1], 5: roster[4], 9: roster[9]},
    ]
    hashes = {secureagg.roster_hash(b"run", r) for r in (roster, *changed)}
    assert len(hashes | {secureagg.roster_hash(b"ru", roster)}) == 7
    for roster_ in changed:
        with pytest.raises(secureagg.RosterError):
            verify_roster(b"run", roster_, signatures)


@pytest.mark.parametrize(
    ("roster", "session_id", "reason"),
    [
        ({}, b"run", "client ids"),
        ({-1: 0}, b"run", "client ids"),
        ({1 << 32: 0}, b"run", "client ids"),
        ({0: 0, "1": b"other"}, b"run", "public keys"),
        ({"0": 0}, b"run", "client ids"),
        ({0: "text" * 8}, b"run", "public keys"),
        ({0: bytes(70_000)}, b"run", "public keys"),
        ({0: 0, 1: 0}, b"run", "same identity key"),
        ({0: b"short"}, b"run", "public keys"),
        ({0: (1).to_bytes(32, "little")}, b"run", "public keys"),  # small order
        ({0: 0}, b"", "session_id"),
        ({0: 0}, b"x" * 256, "session_id"),
    ],
)
def test_improper_rosters(roster, session_id, reason):
    key = keys_of([0])[0]
    listed = {i: k or key.public_key for i, k in roster.items()}
    for call in (
        lambda: secureagg.roster_hash(session_id, listed),
        lambda: secureagg.sign_roster(key, session_id, listed),
        lambda: verify_roster(session_id, listed, {}),
    ):
        with pytest.raises(secureagg.MisuseError, match=reason):
            call()


def test_nobody_signs_a_roster_that_does_not_list_them():
    roster, _ = signed_roster(keys_of((1, 4)))
    with pytest.raises(secureagg.MisuseError, match="does not list the key"):
        secureagg.sign_roster(secureagg.IdentityKey(bytes(32)), b"run", roster)


def test_presence_is_of_one_key_session_client_and_challenge():
    key, other = keys_of((1, 4)).values()
    challenge = bytes(range(32))
    signature = secureagg.sign_presence(key, b"run", 1, challenge)
    place = (b"run", 1, challenge)
    assert secureagg.is_present(key.public_key, signature, *place)
    assert signature == secureagg.sign_presence(key, *place)
    for wrong in (
        (other.public_key, signature, *place),
        (key.public_key, bytes(64), *place),
        (key.public_key, signature[:-1], *place),
        (key.public_key, signature, b"ruN", 1, challenge),
        (key.public_key, signature, b"run", 4, challenge),
        (key.public_key, signature, b"run", 1, bytes(32)),
    ):
        assert not secureagg.is_present(*wrong)
    roster, signatures = signed_roster(keys_of((1, 4)))
    assert not secureagg.is_present(roster[1], signatures[1], *place)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ((b"", 1, bytes(32)), "session_id"),
        ((b"x" * 256, 1, bytes(32)), "session_id"),
        ((b"run", -1, bytes(32)), "client ids"),
        ((b"run", 1 << 32, bytes(32)), "client ids"),
        ((b"run", 1, bytes(31)), "a challenge takes 32 bytes"),
        ((b"run", 1, "x" * 32), "a challenge takes 32 bytes"),
    ],
)
def test_improper_challenges(place, reason):
    key = keys_of([1])[1]
    with pytest.raises(secureagg.MisuseError, match=reason):
        secureagg.sign_presence(key, *place)
    with pytest.raises(secureagg.MisuseError, match=reason):
        secureagg.is_present(key.public_key, bytes(64), *place)


def test_parameters_come_back_from_their_bytes(make_params):
    many = tuple(
        secureagg.Segment(name, 3 + i, 1 + i) for i, name in enumerate(["x", "é", "y" * 200])
    )
    for params in (
        make_params(),
        make_params(8, degree=4, segments=many, corrupt="0.125", server="malicious", rounds=9,
                    round_index=8, attempt=3),
        make_params(graph_seed=None),
    ):  # fmt: skip
        data = params.to_bytes()
        again = Params.from_bytes(data)
        assert again.to_bytes() == data
        assert again.failure == params.failure
        assert repr(replace(again, corrupt=0, dropout=0)) == repr(
            replace(params, corrupt=0, dropout=0)
        )
        for cut in range(len(data)):
            with pytest.raises(secureagg.ParamsError):
                Params.from_bytes(data[:cut])
        with pytest.raises(secureagg.ParamsError):
            Params.from_bytes(data + b"\0")


def test_parameters_have_one_form_in_bytes(make_params):
    data = make_params(dropout=0.5).to_bytes()
    for other in (b"\x03\x002/4", b"\x05\x000.500"):
        with pytest.raises(secureagg.ParamsError, match="bytes that"):
            Params.from_bytes(data.replace(b"\x03\x001/2", other))
