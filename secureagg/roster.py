"""The roster: which organisations take part under which keys, as all of them signed it.

Whoever writes the roster decides whose signatures count. A server that lists keys of its own under
others' ids would be every client but one; so a client takes part only under a roster that every
listed organisation has signed, its own entry among them.
"""

from collections.abc import Mapping

from secureagg._codec import u32
from secureagg.context import check_identities, check_ids, roster_to_bytes
from secureagg.errors import MisuseError, RosterError
from secureagg.primitives import KEY_BYTES, IdentityKey, Usage, is_signed, label, sha256


def roster_hash(session_id: bytes, roster: Mapping[int, bytes]) -> bytes:
    """Returns what organisations compare, 32 bytes: the SHA-256 of what they sign.

    Args:
        session_id: of the run, or any other 1..255 bytes that name what the roster is for.
        roster: ids, 0..2^32 - 1, each with its Ed25519 public key.

    Raises:
        MisuseError: the roster is empty, or its ids or keys are improper or not all different.
    """
    return sha256(_to_sign(session_id, roster))


def sign_roster(identity: IdentityKey, session_id: bytes, roster: Mapping[int, bytes]) -> bytes:
    """Returns an organisation's signature of a roster, 64 bytes.

    Args:
        identity: its key, which the roster lists once.
        session_id: as `roster_hash`.
        roster: as `roster_hash`. Check who the other keys belong to before signing.

    Raises:
        MisuseError: as `roster_hash`; or the roster does not list this key.
    """
    data = _to_sign(session_id, roster)
    if identity.public_key not in roster.values():
        raise MisuseError("roster", "it does not list the key that is to sign it")
    return identity.sign(data)


def verify_roster(
    session_id: bytes, roster: Mapping[int, bytes], signatures: Mapping[int, bytes]
) -> None:
    """Checks that every organisation in the roster has signed it.

    Args:
        session_id: as `roster_hash`.
        roster: as `roster_hash`.
        signatures: by id.

    Raises:
        RosterError: names whose signature is missing, wrong, or by nobody in the roster.
        MisuseError: as `roster_hash`.
    """
    data = _to_sign(session_id, roster)
    missing = tuple(sorted(set(roster) - set(signatures)))
    wrong = tuple(
        sorted(
            i
            for i, signature in signatures.items()
            if i not in roster or not is_signed(roster[i], signature, data)
        )
    )
    if missing or wrong:
        raise RosterError(missing, wrong)


def sign_presence(
    identity: IdentityKey, session_id: bytes, client_id: int, challenge: bytes
) -> bytes:
    """Returns an organisation's answer to "who is there?", 64 bytes.

    Args:
        identity: its key.
        session_id: of the run, 1..255 bytes.
        client_id: whom the roster lists with that key.
        challenge: 32 bytes that the other side has just drawn.

    Raises:
        MisuseError: an argument is out of range.
    """
    return identity.sign(_presence(session_id, client_id, challenge))


def is_present(
    public_key: bytes, signature: bytes, session_id: bytes, client_id: int, challenge: bytes
) -> bool:
    """Tells whether the holder of a roster's key has answered this challenge as this client.

    It proves that the holder was there to sign, not that whoever passed the answer on is it.
    """
    return is_signed(public_key, signature, _presence(session_id, client_id, challenge))


def _presence(session_id: bytes, client_id: int, challenge: bytes) -> bytes:
    _check_session(session_id)
    check_ids((client_id,))
    if not isinstance(challenge, bytes) or len(challenge) != KEY_BYTES:
        raise MisuseError("roster", f"a challenge takes {KEY_BYTES} bytes")
    return label(Usage.PRESENCE, session_id, u32(client_id), challenge)


def _check_session(session_id: bytes) -> None:
    if not isinstance(session_id, bytes) or not 1 <= len(session_id) <= 255:
        raise MisuseError("roster", "session_id takes 1..255 bytes")


def _to_sign(session_id: bytes, roster: Mapping[int, bytes]) -> bytes:
    _check_session(session_id)
    check_identities(roster)
    return label(Usage.ROSTER, session_id, sha256(roster_to_bytes(roster)))
