"""A member's opening: its part of the sparse graph's seed, drawn for one session.

It lies beside the identity key, mode 0600. The seed is beyond everybody's choice only while an
opening is unknown until all commitments are fixed; so one that was revealed under a roster is never
committed to again, nor revealed under another.
"""

import os
from pathlib import Path

from fl.engines.files import sync_folder, write_file
from fl.errors import PlanError, fault

_WORD = "fl-opening-1"
_REVEALED = "revealed"
_TAKES = "a file of `python -m fl roster commit`, readable by its owner alone (mode 0600)"
_ONCE = "a new session in everybody's plan: an opening is revealed under one roster"


def opening_file(identity: Path, name: bytes) -> Path:
    """Returns where the opening of a run lies, by the run's name of 32 bytes."""
    return identity.with_name(f"{identity.name}.{name.hex()[:16]}.opening")


def draw_opening(identity: Path, name: bytes) -> bytes:
    """Returns the opening of a run, 32 bytes, drawn unless it was before; it stays secret.

    Args:
        identity: file of the member's key.
        name: of the run, 32 bytes.

    Raises:
        PlanError: it was revealed already; or its file cannot be made or read.
    """
    path = opening_file(identity, name)
    if os.path.exists(path):  # where it cannot be told, neither can one be written
        opening, roster = _read(path)
        if roster is not None:
            got = f"{path}, revealed under roster {roster}"
            raise PlanError((fault("opening", got, _ONCE),))
        return opening
    opening = os.urandom(32)
    write_file(path, _text(opening), "opening", private=True, new="a new file")
    return opening


def held_opening(identity: Path, name: bytes, roster: str) -> bytes:
    """Returns the opening, 32 bytes, to sign or reveal under one roster; it stays secret.

    Args:
        identity: file of the member's key.
        name: of the run, 32 bytes.
        roster: hash of the roster, hexadecimal.

    Raises:
        PlanError: there is none, or it was revealed under another roster.
    """
    path = opening_file(identity, name)
    opening, earlier = _read(path)
    if earlier not in (None, roster):
        raise PlanError((fault("opening", f"{path}, revealed under roster {earlier}", _ONCE),))
    return opening


def reveal_opening(identity: Path, name: bytes, roster: str) -> bytes:
    """As `held_opening`, to be handed out: from now on it is of this roster, on disk.

    Everybody's signature of the roster was verified before: it is what fixes the commitments.

    Raises:
        PlanError: as `held_opening`; or its file cannot be written.
    """
    opening = held_opening(identity, name, roster)
    path = opening_file(identity, name)
    if _read(path)[1] is None:
        text = f"{_text(opening)}{_REVEALED} {roster}\n"
        write_file(path, text, "opening", private=True)
    else:
        sync_folder(path, "opening")  # which may be what failed before
    return opening


def _text(opening: bytes) -> str:
    return f"{_WORD} {opening.hex()}\n"


def _read(path: Path) -> tuple[bytes, str | None]:
    """The opening, and the hash of the roster under which it was revealed."""
    try:
        mode = path.stat().st_mode & 0o777
        lines = path.read_text(encoding="ascii").splitlines()
        word, _, text = lines[0].partition(" ")
        opening = bytes.fromhex(text)
        revealed, _, roster = lines[1].partition(" ") if len(lines) > 1 else (_REVEALED, "", None)
    except (OSError, ValueError, IndexError) as error:  # a ValueError's text could hold it
        why = error.strerror if isinstance(error, OSError) else "no opening"
        raise PlanError((fault("opening", f"{path}: {why}", _TAKES),)) from None
    if mode & 0o077:
        raise PlanError((fault("opening", f"{path}: mode {mode:04o}", _TAKES),))
    if word != _WORD or len(opening) != 32 or revealed != _REVEALED or len(lines) > 2:
        raise PlanError((fault("opening", f"{path}: no opening", _TAKES),))
    return opening, roster
