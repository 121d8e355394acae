"""A seed of the sparse graph that nobody chose: commitments in the signed roster, then openings.

Each organisation draws an opening of 32 bytes and commits to it before the roster is signed; the
session_id that the roster is signed under must stand for all commitments. Who holds all signatures
reveals its opening. docs/protocol.md, "Openings", says what that promises and what it does not.
"""

from collections.abc import Mapping

from secureagg.errors import MisuseError, RosterError
from secureagg.primitives import Usage, digest, is_identity
from secureagg.roster import roster_hash

OPENING_BYTES = 32


def commit_opening(name: bytes, public_key: bytes, opening: bytes) -> bytes:
    """Returns an organisation's commitment, 32 bytes.

    Args:
        name: of the run, 1..255 bytes.
        public_key: of the organisation, an Ed25519 key: nobody can commit to what another has.
        opening: 32 bytes from the operating system, drawn for this run alone.

    Raises:
        MisuseError: an argument is out of range.
    """
    if not isinstance(name, bytes) or not 1 <= len(name) <= 255:
        raise MisuseError("opening", "the run's name takes 1..255 bytes")
    if not isinstance(public_key, bytes) or not is_identity(public_key):
        raise MisuseError("opening", "takes an Ed25519 public key")
    if not _is_opening(opening):
        raise MisuseError("opening", f"takes {OPENING_BYTES} bytes")
    return digest(Usage.OPENING, name, public_key, opening)


def opened_seed(
    name: bytes,
    session_id: bytes,
    roster: Mapping[int, bytes],
    commitments: Mapping[int, bytes],
    openings: Mapping[int, bytes],
) -> bytes:
    """Returns the graph_seed that follows from all openings, 32 bytes.

    Args:
        name: as `commit_opening`.
        session_id: that the roster was signed under; it stands for the commitments.
        roster: as `roster_hash`; verify its signatures first.
        commitments: by id, of everybody in the roster.
        openings: by id.

    Raises:
        RosterError: names whose opening is missing, or is not what was committed to.
        MisuseError: as `roster_hash`; or the commitments are not those of the roster's ids.
    """
    hashed = roster_hash(session_id, roster)
    if set(commitments) != set(roster):
        raise MisuseError("opening", "takes one commitment of everybody in the roster")
    missing = tuple(sorted(set(roster) - set(openings)))
    wrong = tuple(
        sorted(
            i
            for i, opening in openings.items()
            if i not in roster
            or not _is_opening(opening)
            or commit_opening(name, roster[i], opening) != commitments[i]
        )
    )
    if missing or wrong:
        raise RosterError(missing, wrong, "opening")
    return digest(Usage.OPENED_SEED, hashed, *(openings[i] for i in sorted(roster)))


def _is_opening(opening: object) -> bool:
    return isinstance(opening, bytes) and len(opening) == OPENING_BYTES
