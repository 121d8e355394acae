"""Writes what a command leaves in an organisation's folders: whole and on disk, or not at all."""

import os
import secrets
from pathlib import Path

from fl.errors import PlanError, fault

_TAKES = (
    "a file that can be written: nothing was; free space, or mend its folder, and run this again"
)
_SYNCED = "a folder that can be synced; the file is there, but could be lost with the power"


def write_file(
    path: Path, text: str, field: str, *, private: bool = False, new: str | None = None
) -> None:
    """Writes a file through another one beside it, which takes its place once it is on disk.

    Args:
        path: of the file.
        text: all of it.
        field: what errors call it.
        private: mode 0600; else what the process makes files with.
        new: what is taken where there is such a file already; None replaces it.

    Raises:
        PlanError: it cannot be written (a full disk, say), or it is there already. Either way what
            was there before is as it was, and nothing else is. Or as `sync_folder`.
    """
    beside = path.parent / f".{path.name}.{secrets.token_hex(4)}.new"
    try:
        try:
            handle = os.open(
                beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666
            )
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if new is None:
                beside.replace(path)
            else:
                os.link(beside, path)  # unlike a rename, it takes the place of nothing
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        takes = new if new is not None and isinstance(error, FileExistsError) else _TAKES
        raise PlanError((fault(field, f"{path}: {error.strerror}", takes),)) from error
    sync_folder(path, field)


def sync_folder(path: Path, field: str) -> None:
    """Has the name of a file on disk, which it is with its folder alone; as `write_file`.

    Raises:
        PlanError: the folder cannot be synced; the file is there.
    """
    try:
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise PlanError((fault(field, f"{path}: {error.strerror}", _SYNCED),)) from error
