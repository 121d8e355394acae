"""Original data files: where they are, whether they are the published bytes, what they hold."""

import dataclasses
import gzip
import hashlib
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fl.errors import ChecksumError, DataError, MissingFileError

# Element type by the third byte of an IDX magic number; values are big-endian.
# Source: the format description at http://yann.lecun.com/exdb/mnist/.
_IDX_TYPES: dict[int, np.dtype[np.generic]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


@dataclasses.dataclass(frozen=True)
class DataFile:
    """One published file.

    Attributes:
        folder: subfolder that it usually lies in.
        name: file name.
        url: folder on the web that holds it, with a trailing slash.
        sha256: of its bytes as published, hexadecimal.
    """

    folder: str
    name: str
    url: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class IdxFile(DataFile):
    """A gzip IDX file; `sha256` is that of the compressed bytes.

    Attributes:
        shape: of the array inside.
        dtype: of the array inside, big-endian.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class TextFile(DataFile):
    """A text file; `sha256` is that of the text, which may lie there as NAME.gz too.

    Attributes:
        size: of the text in bytes.
    """

    size: int


def find(file: DataFile, data_dir: Path, *suffixes: str) -> Path:
    """The file in data_dir/folder, or else in data_dir itself; NAME before NAME + suffix.

    Raises:
        MissingFileError: neither holds it; the message says what to download from where.
    """
    nested = data_dir / file.folder / file.name
    for path in (nested, data_dir / file.name):
        for suffix in ("", *suffixes):
            if (named := path.with_name(path.name + suffix)).is_file():
                return named
    takes = f"{file.url}{file.name} downloaded to {nested}"
    raise MissingFileError(f"{file.folder}/{file.name}", f"no such file in {data_dir}", takes)


def read(file: IdxFile, data_dir: Path) -> npt.NDArray[np.generic]:
    """The array of a file whose bytes are the published ones, in native byte order.

    Raises:
        MissingFileError: see `find`.
        ChecksumError: the bytes are not the published ones.
        DataError: the content is not the described array.
    """
    path = find(file, data_dir)
    packed = path.read_bytes()
    _check_sha256(file, path, packed)
    return parse_idx(packed, field=str(path), shape=file.shape, dtype=file.dtype)


def read_text(file: TextFile, data_dir: Path) -> str:
    """The text of a file whose bytes are the published ones, compressed or not.

    Of a compressed file no more than one byte beyond the published size is decompressed.

    Raises:
        MissingFileError: see `find`.
        ChecksumError: the text is not the published one.
        DataError: the compressed file is broken.
    """
    path = find(file, data_dir, ".gz")
    try:
        with gzip.open(path) if path.name != file.name else path.open("rb") as stream:
            text = stream.read(file.size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(str(path), f"broken gzip data ({error})", "a whole gzip file") from error
    _check_sha256(file, path, text)
    return text.decode()


def _check_sha256(file: DataFile, path: Path, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        takes = f"sha256 {file.sha256}: download {file.url}{file.name} again"
        raise ChecksumError(str(path), f"sha256 {digest}", takes)


def parse_idx(
    packed: bytes, *, field: str, shape: tuple[int, ...], dtype: str
) -> npt.NDArray[np.generic]:
    """Reads one gzip IDX array of a known shape.

    The header is compared with `shape` and `dtype` before anything is allocated, and no more than
    one byte beyond the announced length is ever decompressed.

    Args:
        packed: the compressed file.
        field: names the file in errors.
        shape: of the array that is expected.
        dtype: of the array that is expected, big-endian, such as ">u1".

    Returns:
        A writable array of that shape, in native byte order.

    Raises:
        DataError: not gzip, not IDX, another type or shape, too short or too long.
    """
    want = np.dtype(dtype)
    length = math.prod(shape) * want.itemsize
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            _check_header(stream, field, shape, want)
            body = stream.read(length + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(field, f"broken gzip data ({error})", "a whole gzip file") from error
    if len(body) != length:
        got = f"{'more than ' if len(body) > length else ''}{min(len(body), length)} bytes"
        raise DataError(field, f"{got} after the header", f"{length} bytes, shape {shape}")
    return np.frombuffer(body, want).reshape(shape).astype(want.newbyteorder("="))


def _check_header(
    stream: gzip.GzipFile, field: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> None:
    magic = stream.read(4)
    if len(magic) != 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
        takes = "an IDX file: two zero bytes, a type code and a number of dimensions"
        raise DataError(field, f"the first bytes {magic.hex() or 'none'}", takes)
    if _IDX_TYPES[magic[2]] != dtype or magic[3] != len(shape):
        got = f"{magic[3]} dimensions of {_IDX_TYPES[magic[2]].str}"
        raise DataError(field, got, f"{len(shape)} dimensions of {dtype.str}")
    sizes = stream.read(4 * len(shape))
    if len(sizes) != 4 * len(shape):
        raise DataError(field, f"{len(sizes)} bytes of sizes", f"{4 * len(shape)} bytes")
    found = struct.unpack(f">{len(shape)}I", sizes)
    if found != shape:
        raise DataError(field, f"shape {found}", f"shape {shape}")
