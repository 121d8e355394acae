"""Shakespeare's plays by speaking role, for predicting the next character."""

import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from fl.datasets.dataset import FederatedDataset
from fl.errors import ChecksumError, DataError, MissingFileError

FOLDER = "shakespeare"
ARCHIVE = "shaks200-xml.tar.gz"
PLAYS_URL = (
    "https://github.com/CodyCahoon/Shapespeare/tree/84f89f1b094f9e850df5a9aa96c39e0174f10b8d/xml"
)
# The published files and their hashes, in the format of sha256sum.
PLAYS: Mapping[str, str] = {
    name: digest
    for digest, name in (
        line.split()
        for line in Path(__file__).with_name("plays.sha256").read_text("ascii").splitlines()
    )
}
_MAX_PLAY = 1 << 20  # bytes; the longest has 290,000

# Public and fixed, so that nothing about a role can be read from it. 0 is padding, 1 whatever else.
ALPHABET = "\n !$&'(),-.0123456789:;?[]ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PADDING, UNKNOWN = 0, 1
NUM_SYMBOLS = 2 + len(ALPHABET)
WINDOW = 80  # characters that the LSTM is unrolled over: McMahan et al. 2017, LEAF
NUM_ROLES = 1_394


def shakespeare(data_dir: Path) -> FederatedDataset:
    """All 37 plays: 1,394 roles (a speaker in a play) are the clients.

    Much as in LEAF (Caldas et al. 2018) and McMahan et al. 2017, who cut another edition: a role's
    speeches, in order and joined by a line end, are cut into windows of 80 characters without
    overlap; at every position the next character is to be predicted. Of a role with five or more
    speeches the last fifth is test data: no window spans both parts, but the same roles speak in
    both, and the test part is public. Speeches without a speaker (prologues) are left out; stage
    directions inside a line stay.
    Source: Bosak 1999, The Plays of Shakespeare in XML; public domain.

    Args:
        data_dir: the folder that holds the 37 XML files or their archive `shaks200-xml.tar.gz`, or
            that holds `shakespeare/` with them.

    Returns:
        "x" and "y" uint8 [N, 80] in [0, NUM_SYMBOLS): characters and those that follow; `PADDING`
        after the end of a text. Clients by play and speaker in alphabetical order.

    Raises:
        MissingFileError: a play is not there.
        ChecksumError: a play is not the published one.
    """
    roles: dict[tuple[str, str], list[str]] = {}
    for play, xml in sorted(_plays(data_dir).items()):
        for speaker, speech in speeches(xml):
            if speaker:
                roles.setdefault((play, speaker), []).append(speech)
    parts: dict[str, list[npt.NDArray[np.uint8]]] = {"train": [], "test": []}
    ids = []
    for client, role in enumerate(sorted(roles)):
        cut = len(roles[role]) - len(roles[role]) // 5
        training = symbols("\n".join(roles[role][:cut]))
        parts["train"].append(_windows(training))
        parts["test"].append(_windows(symbols("\n".join(roles[role][cut:]))))
        ids += [client] * len(parts["train"][-1])
    train, test = (np.concatenate(windows) for windows in parts.values())
    return FederatedDataset.from_arrays(
        {"x": train[:, 0], "y": train[:, 1]},
        np.array(ids),
        test={"x": test[:, 0], "y": test[:, 1]},
        num_clients=len(roles),
        num_classes=NUM_SYMBOLS,
        name="shakespeare",
    )


def symbols(text: str) -> npt.NDArray[np.uint8]:
    """Positions of characters in the alphabet plus 2, uint8 [len(text)]."""
    table = np.full(256, UNKNOWN, np.uint8)
    table[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(2, NUM_SYMBOLS)
    return table[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]


def _windows(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[k, 2, WINDOW]: characters and the ones that follow; every one but the first follows once."""
    count = -(-max(0, len(text) - 1) // WINDOW)
    padded = np.full((2, count * WINDOW), PADDING, np.uint8)
    if count:
        padded[0, : len(text) - 1], padded[1, : len(text) - 1] = text[:-1], text[1:]
    return padded.reshape(2, count, WINDOW).swapaxes(0, 1)


def speeches(xml: bytes) -> Iterator[tuple[str, str]]:
    """Speaker and text of every speech of a play; several speakers are joined by " / "."""
    for speech in ET.fromstring(xml).iter("SPEECH"):  # noqa: S314 - published bytes only
        speakers = ((found.text or "").strip() for found in speech.iter("SPEAKER"))
        lines = (" ".join("".join(line.itertext()).split()) for line in speech.iter("LINE"))
        yield " / ".join(name for name in speakers if name), "\n".join(lines)


def _plays(data_dir: Path) -> dict[str, bytes]:
    """The bytes of every play by name, from the archive or from its file, checked."""
    found: dict[str, bytes] = {}
    where = data_dir / FOLDER
    for folder in (data_dir / FOLDER, data_dir):
        if (folder / ARCHIVE).is_file():
            found, where = _unpacked(folder / ARCHIVE), folder / ARCHIVE
        else:
            paths = {name: folder / name for name in PLAYS}
            found = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
            where = folder
        if found:
            break
    for name, digest in PLAYS.items():
        if name not in found:
            takes = f"the folder {PLAYS_URL} downloaded to {data_dir / FOLDER}"
            raise MissingFileError(f"{FOLDER}/{name}", f"no such file in {where}", takes)
        got = hashlib.sha256(found[name]).hexdigest()
        if got != digest:
            takes = f"sha256 {digest}: download {PLAYS_URL} again"
            raise ChecksumError(f"{where}, {name}", f"sha256 {got}", takes)
    return found


def _unpacked(archive: Path) -> dict[str, bytes]:
    """The plays of an archive, by file name; nothing is written anywhere."""
    plays = {}
    try:
        with tarfile.open(archive) as members:
            for member in members:
                name = member.name.rpartition("/")[2]
                if name in PLAYS and (stream := members.extractfile(member)) is not None:
                    plays[name] = stream.read(_MAX_PLAY)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(str(archive), f"broken ({error})", "a tar of the plays") from error
    return plays
