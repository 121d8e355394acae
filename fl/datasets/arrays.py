"""Data sets of one's own in NumPy's files, mapped into memory rather than read.

An uncompressed npz holds each array as one npy file, byte for byte, so both can be mapped: opening
a file costs its offsets, and client i costs the rows of client i.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from fl.datasets.dataset import Array, FederatedDataset
from fl.errors import DataError

_TEST = "test/"
_CLIENTS = "offsets, int64 [num_clients + 1], or client_ids, integers [N]"


def to_npz(data: FederatedDataset, path: str | Path) -> None:
    """Writes a data set as an uncompressed npz that `from_npz` maps.

    Arrays: every field under its name, "offsets", and "test/NAME" for the test set. Name and number
    of classes are not in it.

    Raises:
        DataError: a field is called "offsets", "client_ids" or "test/...".
    """
    for key in data.fields:
        if key in ("offsets", "client_ids") or key.startswith(_TEST):
            raise DataError("fields", repr(key), "another name: this one has a meaning in the file")
    test = {f"{_TEST}{key}": value for key, value in (data.test or {}).items()}
    np.savez(Path(path), offsets=data.offsets, **data.fields, **test)  # type: ignore[arg-type]


def from_npz(
    path: str | Path, *, name: str, num_classes: int | None = None, mapped: bool = True
) -> FederatedDataset:
    """Opens an npz of fields, "offsets" or "client_ids", and "test/NAME" arrays.

    Args:
        path: written by `to_npz` or `numpy.savez`.
        name: what summaries call the data.
        num_classes: labels "y" are in [0, num_classes).
        mapped: map the arrays and read them when clients are asked for. This takes an uncompressed
            file and clients in ascending order. False reads the whole file.

    Raises:
        DataError: no such file, not an npz, an array is missing or cannot be mapped.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("path", f"{path}, no such file", "an npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if mapped:
                arrays = {key: _mapped(path, archive, entry) for key, entry in members.items()}
            else:
                arrays = {key: _whole(archive, entry) for key, entry in members.items()}
    except zipfile.BadZipFile as error:
        raise DataError(
            str(path), f"broken ({error})", "an npz file, as numpy.savez writes"
        ) from error
    return _assembled(arrays, str(path), name, num_classes, mapped)


def from_npy(folder: str | Path, *, name: str, num_classes: int | None = None) -> FederatedDataset:
    """Maps a folder of npy files: FIELD.npy, offsets.npy or client_ids.npy, test/FIELD.npy.

    As `from_npz` with `mapped=True`: clients in ascending order, read when they are asked for. Such
    files can be written piece by piece with `numpy.lib.format.open_memmap`.

    Raises:
        DataError: no such folder, a file is missing or cannot be mapped.
    """
    folder = Path(folder)
    paths = [*sorted(folder.glob("*.npy")), *sorted(folder.glob(f"{_TEST}*.npy"))]
    if not paths:
        raise DataError("folder", f"{folder} without npy files", f"FIELD.npy and {_CLIENTS}")
    arrays = {}
    for path in paths:
        try:
            arrays[path.relative_to(folder).with_suffix("").as_posix()] = np.load(
                path, mmap_mode="r", allow_pickle=False
            )
        except ValueError as error:  # numpy's word for what is no npy file, or holds objects
            raise DataError(str(path), f"unreadable ({error})", "an npy file") from error
    return _assembled(arrays, str(folder), name, num_classes, mapped=True)


def _assembled(
    arrays: Mapping[str, Array], where: str, name: str, num_classes: int | None, mapped: bool
) -> FederatedDataset:
    offsets, ids = arrays.get("offsets"), arrays.get("client_ids")
    reserved = ("offsets", "client_ids")
    fields = {k: v for k, v in arrays.items() if k not in reserved and not k.startswith(_TEST)}
    test = {k.removeprefix(_TEST): v for k, v in arrays.items() if k.startswith(_TEST)} or None
    if (offsets is None) == (ids is None):
        got = "neither" if ids is None else "both"
        raise DataError(where, f"{got} of offsets and client_ids", f"one of {_CLIENTS}")
    if offsets is not None:
        return FederatedDataset(
            name=name,
            fields=fields,
            offsets=np.array(offsets),  # small, and asked for all the time
            test=test,
            num_classes=num_classes,
        )
    if mapped and np.any(np.diff(np.asarray(ids, np.int64)) < 0):
        takes = "ascending ids, so that a client is a range of the file; or mapped=False"
        raise DataError(f"{where}, client_ids", "ids that fall", takes)
    return FederatedDataset.from_arrays(
        fields, np.asarray(ids), test=test, num_classes=num_classes, name=name
    )


def _mapped(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    if entry.compress_type != zipfile.ZIP_STORED:
        takes = "an array as numpy.savez stores it, uncompressed; or mapped=False"
        raise DataError(f"{path}, {entry.filename}", "a compressed array", takes)
    with archive.open(entry) as stream:
        shape, fortran, dtype = _header(stream, path, entry)
        header = stream.tell()
    if not np.prod(shape):  # nothing to map, and mmap refuses empty ranges
        return np.zeros(shape, dtype)
    with path.open("rb") as file:
        # Names in the local header may differ in length from those of the directory: APPNOTE 4.3.7.
        file.seek(entry.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
    start = entry.header_offset + 30 + int(lengths.sum()) + header
    array: Array = np.memmap(
        path, dtype=dtype, mode="r", offset=start, shape=shape, order="F" if fortran else "C"
    )
    return array


def _whole(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    with archive.open(entry) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _header(
    stream: IO[bytes], path: Path, entry: zipfile.ZipInfo
) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, column order and type of an npy member; the stream is left where the data begin."""
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(stream)
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path}, {entry.filename}", f"no npy data ({error})", "npy 1.0 or 2.0"
        ) from error
    if dtype.hasobject:
        raise DataError(f"{path}, {entry.filename}", "Python objects", "numbers")
    return shape, fortran, dtype
