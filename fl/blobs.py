"""What a store's rows hold: bytes, or the file and hash of large ones; JSON."""

import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fl.errors import StoreError

INLINE_BYTES = 2**28  # larger ones are files beside the store

Kept = tuple[bytes | None, str | None, str | None]  # the bytes, or file name and sha256


def keep(directory: Path, name: str, data: bytes, inline: int) -> Kept:
    """Returns what a row holds; a file, of more than `inline` bytes, is on disk on return."""
    if len(data) <= inline:
        return data, None, None
    path = directory / f"{name}.npz"
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return None, path.name, hashlib.sha256(data).hexdigest()


def read(directory: Path | None, field: str, kept: Kept) -> bytes:
    """Returns the bytes of a row that `keep` made.

    Raises:
        StoreError: the file is gone or is not the one that was written.
    """
    data, name, digest = kept
    if name is not None and directory is not None:
        path = directory / name
        if not path.is_file():
            raise StoreError(field, f"no file {path}", "the file that the store names")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(field, f"another {path}", "the file that was written")
    return data or b""


def sweep(directory: Path, prefixes: tuple[str, ...], named: Collection[str | None]) -> None:
    """Removes files of earlier rows, and those that no row ever named."""
    for path in directory.glob("*.npz"):
        if path.name.startswith(prefixes) and path.name not in named:
            path.unlink()


def finite_json(value: Mapping[str, Any]) -> str:
    """JSON, in which a number that is not finite (a diverged loss) is null."""
    finite = {
        key: None if isinstance(item, float) and not math.isfinite(item) else item
        for key, item in value.items()
    }
    return json.dumps(finite, allow_nan=False)
