"""The roster as a file: who takes part under which name and key, and who has signed it.

Each organisation keeps its own copy and signs it with its own key; copies are merged. The signature
covers keys, names, commitments and the plan (`fl.engines.deployment`), so nobody trains under
another plan or beside other keys than it signed for. Checks: `secureagg.verify_roster`. Where the
graph is sparse, its seed is that of all openings: `secureagg.opened_seed`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fl import secure
from fl.engines.files import write_file
from fl.errors import PlanError, fault

_IDENTITY_WORD = "fl-identity-1"
_IDENTITY_TAKES = "a file of `python -m fl keygen`, readable by its owner alone (mode 0600)"
_FILE_TAKES = "a file of `python -m fl roster collect`"


@dataclass(frozen=True)
class Roster:
    """Who takes part; the position in each tuple is the client's id.

    Attributes:
        names: what logs call the organisations.
        keys: their Ed25519 public keys, 32 bytes each.
        signatures: id -> 64 bytes, of those who have signed.
        commitments: to their openings, 32 bytes each; none where the graph is complete.
        openings: id -> 32 bytes, of those who have revealed theirs.
    """

    names: tuple[str, ...]
    keys: tuple[bytes, ...]
    signatures: Mapping[int, bytes]
    commitments: tuple[bytes, ...] = ()
    openings: Mapping[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def identities(self) -> dict[int, bytes]:
        """Id -> public key, as `secureagg` takes a roster."""
        return dict(enumerate(self.keys))

    def digest(self, session_id: bytes) -> str:
        """Returns the hash that organisations compare out of band, hexadecimal."""
        return secure.roster_hash(session_id, self.identities).hex()

    def signed(self, identity: secure.IdentityKey, session_id: bytes) -> "Roster":
        """Returns the roster with one more signature.

        Raises:
            PlanError: the roster does not list this key.
        """
        try:
            signature = secure.sign_roster(identity, session_id, self.identities)
        except secure.MisuseError as error:
            raise PlanError((f"roster: {error}",)) from error
        member = self.keys.index(identity.public_key)
        return replace(self, signatures={**self.signatures, member: signature})

    def opened(self, member: int, opening: bytes) -> "Roster":
        """Returns the roster with one more opening."""
        return replace(self, openings={**self.openings, member: opening})

    def verify(self, session_id: bytes) -> None:
        """Checks that every organisation has signed these keys, names and plan.

        Raises:
            PlanError: it names whose signature is missing or wrong.
        """
        try:
            secure.verify_roster(session_id, self.identities, self.signatures)
        except secure.RosterError as error:
            takes = "one by everybody listed, over this plan (`python -m fl roster sign`)"
            raise self._fault(error, "signature", takes) from error

    def graph_seed(self, name: bytes, session_id: bytes) -> bytes:
        """Returns the seed of the sparse graph, 32 bytes; `verify` comes first.

        Args:
            name: of the run, as the commitments have it.
            session_id: as `verify`.

        Raises:
            PlanError: it names whose opening is missing, or not what it committed to.
        """
        try:
            return secure.opened_seed(
                name, session_id, self.identities, dict(enumerate(self.commitments)), self.openings
            )
        except secure.RosterError as error:
            takes = "that of everybody listed (`roster reveal`); if one withholds it, a new session"
            raise self._fault(error, "opening", takes) from error

    def _fault(self, error: secure.RosterError, what: str, takes: str) -> PlanError:
        parts = ((f"no {what} by", error.missing), (f"no valid {what} by", error.wrong))
        got = [f"{none} {', '.join(self.names[i] for i in who)}" for none, who in parts if who]
        return PlanError((fault("roster", "; ".join(got), takes),))

    def merged(self, other: "Roster") -> "Roster":
        """Returns the roster with the signatures and openings of another copy too.

        Raises:
            PlanError: the copy lists other names, keys or commitments, or another opening of a
                member: only one of the two can be what it committed to.
        """
        mine = (self.names, self.keys, self.commitments)
        if mine != (other.names, other.keys, other.commitments):
            got = "a copy with other names or keys, or other commitments"
            raise PlanError((fault("roster", got, "the same list"),))
        both = sorted(self.openings.keys() & other.openings.keys())
        if differ := [self.names[i] for i in both if self.openings[i] != other.openings[i]]:
            got = f"two different openings of {', '.join(differ)}"
            raise PlanError((fault("roster", got, "each from its member's own copy"),))
        return replace(
            self,
            signatures={**self.signatures, **other.signatures},
            openings={**self.openings, **other.openings},
        )

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all.

        Raises:
            PlanError: it cannot be written.
        """
        rows = [
            {
                "name": name,
                "key": key.hex(),
                **({"commitment": self.commitments[i].hex()} if self.commitments else {}),
                **({"signature": self.signatures[i].hex()} if i in self.signatures else {}),
                **({"opening": self.openings[i].hex()} if i in self.openings else {}),
            }
            for i, (name, key) in enumerate(zip(self.names, self.keys, strict=True))
        ]
        write_file(path, json.dumps({"members": rows}, indent=2) + "\n", "roster")


def collect(members: Sequence[tuple[str, str]]) -> Roster:
    """Makes an unsigned roster.

    Args:
        members: names and public keys (64 hexadecimal digits), in the order of client ids; where
            the graph is sparse, each key with ":" and the commitment (64 more) behind it.

    Raises:
        PlanError: with all faults.
    """
    rows = []
    for name, text in members:
        key, colon, commitment = text.partition(":")
        rows.append({"name": name, "key": key, **({"commitment": commitment} if colon else {})})
    return _checked(rows)


def read_roster(path: Path) -> Roster:
    """Reads a roster; signatures are not checked, see `Roster.verify`.

    Raises:
        PlanError: with all faults.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found["members"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        why = "no list of members" if isinstance(error, LookupError) else error
        # Not its repr: where the path is another file's, a key's say, that could hold all of it.
        raise PlanError((fault("roster", f"{path}: {why}", _FILE_TAKES),)) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PlanError((fault("roster", f"{path}: no list of members", _FILE_TAKES),))
    return _checked(rows)


def _checked(rows: Sequence[Mapping[str, Any]]) -> Roster:
    found: list[str] = []
    if len(rows) < 2:
        found.append(fault("roster", f"{len(rows)} members", "at least 2"))
    names = [row.get("name") for row in rows]
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.isprintable() or not name or name in names[:i]:
            found.append(fault(f"roster[{i}].name", name, "printable text, each name once"))
    keys = [_bytes(row.get("key"), 32) for row in rows]
    for i, key in enumerate(keys):
        if key is None:
            found.append(fault(f"roster[{i}].key", rows[i].get("key"), "64 hexadecimal digits"))
    signatures = _column(rows, "signature", 64, found)
    commitments = _column(rows, "commitment", 32, found)
    openings = _column(rows, "opening", 32, found)
    if commitments and len(commitments) < len(rows):
        got = f"{len(commitments)} commitments of {len(rows)} members"
        found.append(fault("roster", got, "one of everybody, or none (complete graph)"))
    if not found:
        try:
            secure.roster_hash(b"-", dict(enumerate(keys)))  # type: ignore[arg-type]  # no None left
        except secure.MisuseError as error:
            found.append(f"{error}")
    if found:
        raise PlanError(tuple(found))
    return Roster(
        tuple(names),  # type: ignore[arg-type]  # checked above
        tuple(keys),  # type: ignore[arg-type]
        signatures,
        tuple(commitments.values()),
        openings,
    )


def _column(
    rows: Sequence[Mapping[str, Any]], name: str, length: int, found: list[str]
) -> dict[int, bytes]:
    """What some members have under a name, in the order of ids; faults are added to `found`."""
    column = {}
    for i, row in enumerate(rows):
        data = _bytes(row[name], length) if name in row else b""
        if data is None:
            takes = f"{2 * length} hexadecimal digits"
            found.append(fault(f"roster[{i}].{name}", row[name], takes))
        elif data:
            column[i] = data
    return column


def _bytes(text: object, length: int) -> bytes | None:
    try:
        data = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return None
    return data if len(data) == length else None


def make_identity(path: Path) -> bytes:
    """Makes an identity key in a new file of mode 0600 and returns its public key, 32 bytes.

    Raises:
        PlanError: there is such a file already, or it cannot be written.
    """
    seed = os.urandom(32)
    new = "a new file; a key in use is never overwritten"
    write_file(path, f"{_IDENTITY_WORD} {seed.hex()}\n", "identity", private=True, new=new)
    return secure.IdentityKey(seed).public_key


def read_identity(path: Path) -> secure.IdentityKey:
    """Reads a file of `make_identity`.

    Raises:
        PlanError: the file is missing, open to others, or no identity; its content is not shown.
    """
    try:
        mode = path.stat().st_mode
        word, _, seed = path.read_text(encoding="ascii").rstrip("\n").partition(" ")
        if mode & 0o077 or word != _IDENTITY_WORD:
            got = f"mode {mode & 0o777:04o}" if mode & 0o077 else "another content"
            raise PlanError((fault("identity", f"{path}: {got}", _IDENTITY_TAKES),))
        return secure.IdentityKey(bytes.fromhex(seed))
    except OSError as error:
        raise PlanError(
            (fault("identity", f"{path}: {error.strerror}", _IDENTITY_TAKES),)
        ) from error
    except ValueError:  # its text could hold the key
        raise PlanError((fault("identity", f"{path}: no key", _IDENTITY_TAKES),)) from None
