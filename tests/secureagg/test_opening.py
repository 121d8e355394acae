"""Openings: nobody's seed without everybody's, and no opening but the one committed to."""

import hashlib
from typing import Any

import pytest

import secureagg
from secureagg import commit_opening, opened_seed
from secureagg.primitives import Usage, label
from secureagg.roster import roster_hash
from tests.secureagg.test_attestation import keys_of

NAME = b"spring"
KEYS = {i: key.public_key for i, key in keys_of((1, 4, 7)).items()}
OPENINGS = {i: bytes([i]) * 32 for i in KEYS}
COMMITMENTS = {i: commit_opening(NAME, key, OPENINGS[i]) for i, key in KEYS.items()}


def seed(**changes: Any) -> bytes:
    given: dict[str, Any] = {
        "name": NAME, "session_id": b"run", "roster": KEYS, "commitments": COMMITMENTS,
        "openings": OPENINGS,
    }  # fmt: skip
    return opened_seed(**{**given, **changes})


def test_a_seed_is_of_its_roster_and_of_all_openings_in_order() -> None:
    def prefixed(data: bytes) -> bytes:
        return len(data).to_bytes(2, "little") + data

    openings = b"".join(prefixed(OPENINGS[i]) for i in (1, 4, 7))
    hashed = label(Usage.OPENED_SEED, roster_hash(b"run", KEYS))
    assert seed() == hashlib.sha256(hashed + openings).digest()
    assert seed(openings=dict(reversed(OPENINGS.items()))) == seed()
    assert seed(session_id=b"other") != seed()
    for i, key in KEYS.items():
        other = OPENINGS | {i: bytes(32)}
        committed = COMMITMENTS | {i: commit_opening(NAME, key, bytes(32))}
        assert seed(openings=other, commitments=committed) != seed()


def test_a_commitment_is_of_one_run_one_key_and_one_opening() -> None:
    found = {
        commit_opening(name, key, opening)
        for name in (NAME, b"summer")
        for key in KEYS.values()
        for opening in OPENINGS.values()
    }
    assert len(found) == 2 * 3 * 3


def test_whose_opening_is_missing_or_wrong_is_named() -> None:
    with pytest.raises(secureagg.RosterError, match="no opening by 4, 7;") as caught:
        seed(openings={1: OPENINGS[1]})
    assert caught.value.missing == (4, 7)
    given: Any
    for given in (bytes(32), OPENINGS[7], OPENINGS[4][:31], OPENINGS[4].hex(), None):
        with pytest.raises(secureagg.RosterError, match="no valid opening by 4;") as caught:
            seed(openings=OPENINGS | {4: given})
        assert (caught.value.missing, caught.value.wrong) == ((), (4,))
    with pytest.raises(secureagg.RosterError, match="no valid opening by 9;"):
        seed(openings=OPENINGS | {9: bytes(32)})
    with pytest.raises(secureagg.RosterError, match="no valid opening by 1, 4, 7;"):
        seed(name=b"summer")


def test_commitments_are_of_the_roster() -> None:
    some = {i: COMMITMENTS[i] for i in (1, 4)}
    for commitments in (some, COMMITMENTS | {9: bytes(32)}):
        with pytest.raises(secureagg.MisuseError, match="one commitment of everybody"):
            seed(commitments=commitments)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ((b"", KEYS[1], bytes(32)), "name takes 1..255 bytes"),
        ((b"x" * 256, KEYS[1], bytes(32)), "name takes 1..255 bytes"),
        (("spring", KEYS[1], bytes(32)), "name takes 1..255 bytes"),
        ((NAME, bytes(32), bytes(32)), "an Ed25519 public key"),
        ((NAME, "key", bytes(32)), "an Ed25519 public key"),
        ((NAME, KEYS[1], bytes(31)), "takes 32 bytes"),
        ((NAME, KEYS[1], "x" * 32), "takes 32 bytes"),
    ],
)
def test_improper_openings(place: Any, reason: str) -> None:
    with pytest.raises(secureagg.MisuseError, match=reason):
        commit_opening(*place)
