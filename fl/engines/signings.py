"""Which rosters a member has signed: beside its identity key, a file for each.

Whoever signs two rosters of one session could be run under either. So the second is refused unless
it is asked for, and the member's own process runs under the last one alone. How many there were is
R of docs/protocol.md, "Openings": the member alone can count it.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

from fl.engines.files import sync_folder, write_file
from fl.errors import PlanError, fault

_FORM = re.compile(r"fl-signed-1 ([0-9a-f]{64})\n")
_FILE = "files of `python -m fl roster sign`, as it left them"
_ANOTHER = (
    "the roster that this member signed in this session; or a new session in everybody's plan; or"
    " --another, and it runs under this one alone from now on"
)
_LAST = "the roster that this member signed last in this session (`python -m fl roster sign`)"


class _Signing(NamedTuple):
    run: str  # first 16 hexadecimal digits of its name
    number: int  # from 1 in its run
    roster: str  # its hash, hexadecimal


def record_signing(identity: Path, name: bytes, roster: str, *, another: bool = False) -> None:
    """Keeps on disk, before the signature is handed out, that a member signs a roster.

    Args:
        identity: file of the member's key.
        name: of the run, 32 bytes.
        roster: hash of the roster, hexadecimal.
        another: whether it may take the place of one that was signed in this session.

    Raises:
        PlanError: another was signed in this session; or the record cannot be read or written.
    """
    found = _of_run(identity, name)
    if found and found[-1].roster == roster:
        sync_folder(_file(identity, found[-1].run, found[-1].number), "signed")
        return
    if found and not another:
        got = f"{roster}, after {found[-1].roster} in the same session"
        raise PlanError((fault("roster", got, _ANOTHER),))
    number = found[-1].number + 1 if found else 1
    path = _file(identity, name.hex()[:16], number)
    # A new file for each: two commands at once cannot take each other's place.
    write_file(path, f"fl-signed-1 {roster}\n", "signed", private=True, new="a new file")


def check_signed_last(identity: Path, name: bytes, roster: str) -> None:
    """Refuses a roster under which this member is not to run; arguments as `record_signing`.

    Raises:
        PlanError: it signed none here in this session, or another later; or as `record_signing`.
    """
    found = _of_run(identity, name)
    if not found:
        got = f"{roster}, without a record beside {identity} that it was signed here"
        raise PlanError((fault("roster", got, _LAST),))
    if found[-1].roster != roster:
        got = f"{roster}; it has signed {found[-1].roster} since"
        raise PlanError((fault("roster", got, _LAST),))


def signings_line(identity: Path, name: bytes, *, sparse: bool) -> str:
    """Says how many rosters a member has signed, and what that costs a sparse graph.

    Those of other sessions may have been for this run, which had to begin again, or for others: so
    R is between the two numbers. docs/protocol.md, "Openings".
    """
    here = len({signing.roster for signing in _of_run(identity, name)})
    total = len({signing.roster for signing in _signings(identity)})
    line = f"rosters on record beside this key: {here} in this session, {total} in all"
    if not sparse or here == 0:
        return line
    span = str(here) if here == total else f"{here} to {total}"
    bits = math.ceil(10 * math.log2(total)) / 10
    return (
        f"{line}; sparse graph: at most R times the statement's protocol failure, R = {span}, the"
        f" rosters signed for this run: at most {bits} of security_bits"
    )


def _file(identity: Path, run: str, number: int) -> Path:
    return identity.with_name(f"{identity.name}.{run}.signed.{number}")


def _of_run(identity: Path, name: bytes) -> list[_Signing]:
    return [signing for signing in _signings(identity) if signing.run == name.hex()[:16]]


def _signings(identity: Path) -> list[_Signing]:
    """Everything that was signed with this key here, in the order of each run."""
    form = re.compile(rf"{re.escape(identity.name)}\.([0-9a-f]{{16}})\.signed\.([0-9]+)")
    try:
        named = [(path, form.fullmatch(path.name)) for path in identity.parent.iterdir()]
        texts = [(path, name, path.read_text("ascii")) for path, name in named if name is not None]
    except (OSError, ValueError) as error:
        got = f"{identity.parent}: {error}"
        raise PlanError((fault("signed", got, _FILE),)) from error
    found = []
    for path, name, text in texts:
        said = _FORM.fullmatch(text)
        if said is None:
            raise PlanError((fault("signed", f"{path}: no hash of a roster", _FILE),))
        found.append(_Signing(name[1], int(name[2]), said[1]))
    found.sort()
    for i, signing in enumerate(found):
        before = (signing.run, signing.number - 1)
        if signing.number > 1 and found[i - 1][:2] != before:
            got = f"{_file(identity, signing.run, signing.number)}, without the one before it"
            raise PlanError((fault("signed", got, _FILE),))
    return found
