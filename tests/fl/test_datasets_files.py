"""Loaders and files: the published bytes or a typed error that says what to do."""

import gzip
import hashlib
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl import datasets
from fl.datasets import FederatedDataset, _files, vision
from fl.errors import ChecksumError, DataError, MissingExtraError, MissingFileError

_ROOT = Path(__file__).resolve().parents[2]
DATA_DIR = Path(os.environ.get("FL_DATA_DIR", _ROOT.parent / "shared" / "data"))

needs_files = pytest.mark.skipif(
    not (DATA_DIR / "mnist").is_dir() or not (DATA_DIR / "fashion-mnist").is_dir(),
    reason="the original files are not here: set FL_DATA_DIR to the folder that holds mnist/",
)


def _idx(shape: tuple[int, ...] = (2, 3), body: bytes = bytes(range(6)), code: int = 8) -> bytes:
    sizes = struct.pack(f">{len(shape)}I", *shape)
    return bytes([0, 0, code, len(shape)]) + sizes + body


def _parse(raw: bytes, shape: tuple[int, ...] = (2, 3), dtype: str = ">u1") -> np.ndarray:
    return _files.parse_idx(gzip.compress(raw), field="file.gz", shape=shape, dtype=dtype)


def test_idx_bytes_are_read():
    assert _parse(_idx()).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_idx_integers_are_big_endian():
    body = struct.pack(">3i", 1, -2, 2**31 - 1)
    array = _parse(_idx((3,), body, code=0x0C), (3,), ">i4")
    assert array.tolist() == [1, -2, 2**31 - 1]
    assert array.dtype == np.int32
    assert array.dtype.isnative


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "first bytes none"),
        (b"\x89PNG....", "first bytes 89504e47"),
        (_idx(code=0x0A), "first bytes 00000a02"),
        (_idx(code=0x0C), "2 dimensions of >i4"),
        (_idx((6,)), "1 dimensions of"),
        (_idx()[:9], "5 bytes of sizes"),
        (_idx((3, 2)), "shape (3, 2)"),
        (_idx((2**31, 2**31)), "shape (2147483648, 2147483648)"),
        (_idx()[:-1], "5 bytes after the header"),
        (_idx() + b"x", "more than 6 bytes after the header"),
    ],
)
def test_other_content_is_refused(raw: bytes, says: str):
    with pytest.raises(DataError) as caught:
        _parse(raw)
    assert caught.value.field == "file.gz"
    assert says in str(caught.value)


@pytest.mark.parametrize("cut", [0, 5, 20, -4])
def test_broken_gzip_is_refused(cut: int):
    packed = gzip.compress(_idx())
    with pytest.raises(DataError, match=r"file\.gz: got"):
        _files.parse_idx(packed[:cut], field="file.gz", shape=(2, 3), dtype=">u1")
    with pytest.raises(DataError, match="broken gzip data"):
        _files.parse_idx(b"not gzip", field="file.gz", shape=(2, 3), dtype=">u1")


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch):
    asked = []
    read = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        asked.append(size)
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(DataError, match="more than 6 bytes"):
        _parse(_idx(body=bytes(10**7)))
    assert asked == [4, 8, 7]


def _small(tmp_path: Path) -> _files.IdxFile:
    packed = gzip.compress(_idx(), mtime=0)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.gz").write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    return _files.IdxFile("set", "a.gz", "https://example.org/", digest, (2, 3), ">u1")


def test_a_file_is_found_in_its_folder_or_above(tmp_path: Path):
    file = _small(tmp_path)
    assert _files.read(file, tmp_path).shape == (2, 3)
    assert _files.read(file, tmp_path / "set").shape == (2, 3)


def test_a_flipped_bit_is_a_checksum_error(tmp_path: Path):
    file = _small(tmp_path)
    path = tmp_path / "set" / "a.gz"
    raw = bytearray(path.read_bytes())
    raw[4] ^= 1  # the time stamp of gzip: the content would read the same
    path.write_bytes(raw)
    with pytest.raises(ChecksumError) as caught:
        _files.read(file, tmp_path)
    assert caught.value.field == str(path)
    assert file.sha256 in str(caught.value)
    assert "https://example.org/a.gz" in str(caught.value)


@pytest.mark.parametrize(
    ("load", "name", "url"),
    [
        (
            datasets.mnist_writers,
            "mnist/train-images-idx3-ubyte.gz",
            "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz",
        ),
        (
            lambda path: datasets.fashion_mnist(path, clients=2, partition="iid", seed=0),
            "fashion-mnist/train-images-idx3-ubyte.gz",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/",
        ),
    ],
)
def test_a_missing_file_says_in_one_line_what_to_get(
    load: Callable[[Path], FederatedDataset], name: str, url: str, tmp_path: Path
):
    with pytest.raises(MissingFileError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert caught.value.field == name
    assert url in message
    assert f"downloaded to {tmp_path / name}" in message
    assert "\n" not in message


def _digits(**changed: Any) -> FederatedDataset:
    request: dict[str, Any] = {"clients": 200, "partition": "dirichlet:1.0", "seed": 3}
    return datasets.digits(**{**request, **changed})


def test_digits_are_split_as_asked():
    data = _digits()
    assert (data.num_clients, data.num_examples, data.num_classes) == (200, 1437, 10)
    assert data.fields["x"].shape == (1437, 64)
    assert data.fields["x"].dtype == np.float32
    assert data.fields["y"].dtype == np.int32
    assert (data.fields["x"].min(), data.fields["x"].max()) == (-0.5, 0.5)
    assert data.test is not None
    # Stratified: 174 to 183 images a class, a fifth of each is 35 to 37.
    assert np.bincount(data.test["y"]).min() >= 34
    assert len(data.test["y"]) == 360


def test_digits_are_each_in_training_or_in_test():
    def every_image(data: FederatedDataset) -> list[bytes]:
        assert data.test is not None
        return sorted(bytes(image) for part in (data.fields, data.test) for image in part["x"])

    assert every_image(_digits(seed=3)) == every_image(_digits(seed=4))


def test_digits_depend_on_the_seed_only():
    first, again, other = _digits(), _digits(), _digits(seed=4)
    assert np.array_equal(first.fields["x"], again.fields["x"])
    assert np.array_equal(first.offsets, again.offsets)
    assert not np.array_equal(first.offsets, other.offsets)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"clients": 0}, "clients"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"partition": "natural"}, "partition"),
        ({"partition": "shards"}, "partition"),
    ],
)
def test_a_bad_request_is_refused_before_a_file_is_read(
    changed: dict[str, Any], field: str, tmp_path: Path
):
    with pytest.raises(DataError) as caught:
        _digits(**changed)
    assert caught.value.field == field
    request: dict[str, Any] = {"clients": 2, "partition": "iid", "seed": 0}
    with pytest.raises(DataError) as caught:
        datasets.fashion_mnist(tmp_path, **{**request, **changed})
    assert caught.value.field == field


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"private-aggregation\[data\]") as caught:
        _digits()
    assert caught.value.extra == "data"


def _load(name: str, **changed: Any) -> FederatedDataset:
    request: dict[str, Any] = {"data_dir": None, "clients": None, "partition": None, "seed": 0}
    return datasets.load(name, **{**request, **changed})


@pytest.mark.parametrize(
    ("name", "changed", "field"),
    [
        ("cifar", {}, "dataset"),
        ("digits", {"partition": "iid"}, "clients"),
        ("digits", {"clients": 3}, "partition"),
        ("fashion-mnist", {"partition": "iid"}, "clients"),
        ("fashion-mnist", {"clients": 3, "partition": "iid"}, "data_dir"),
        ("fashion-mnist", {"clients": 3, "partition": "iid", "data_dir": Path("/no")}, "data_dir"),
        ("mnist-writers", {}, "data_dir"),
        ("mnist-writers", {"clients": 100}, "clients"),
        ("mnist-writers", {"partition": "iid"}, "partition"),
    ],
)
def test_load_names_what_is_missing_or_does_not_fit(name: str, changed: dict[str, Any], field: str):
    with pytest.raises(DataError) as caught:
        _load(name, **changed)
    assert caught.value.field == field


def test_load_gives_the_digits():
    data = _load("digits", clients=20, partition="iid")
    assert (data.name, data.num_clients) == ("digits", 20)


@pytest.fixture(scope="module")
def writers() -> FederatedDataset:
    return datasets.load(
        "mnist-writers", data_dir=DATA_DIR, clients=539, partition="natural", seed=0
    )


@needs_files
def test_mnist_by_writer(writers: FederatedDataset):
    assert writers.num_clients == vision.NUM_WRITERS == 539
    sizes = writers.sizes
    assert [sizes.min(), np.median(sizes), sizes.max(), sizes.sum()] == [19, 116, 131, 60_000]
    classes = np.bincount(writers.fields["y"]).tolist()
    assert classes == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert writers.fields["x"].shape == (60_000, 784)
    assert writers.fields["x"].dtype == np.float32
    assert writers.fields["x"].mean(dtype=np.float64) == pytest.approx(0.1307, abs=1e-4)
    assert writers.test is not None
    classes = np.bincount(writers.test["y"]).tolist()
    assert classes == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_files
def test_a_writer_owns_the_digits_that_qmnist_says(writers: FederatedDataset):
    # An independent reading of the same files: no parser, no grouping of ours.
    with gzip.open(DATA_DIR / "mnist" / vision.WRITERS_FILE.name) as stream:
        rows = np.frombuffer(stream.read()[12:], ">i4").reshape(60_000, 8)
    with gzip.open(DATA_DIR / "mnist" / "train-images-idx3-ubyte.gz") as stream:
        pixels = np.frombuffer(stream.read()[16:], np.uint8).reshape(60_000, 784)
    ids = sorted(set(rows[:, 2].tolist()))
    for client in (0, 137, 538):
        mine = rows[:, 2] == ids[client]
        assert writers.client(client)["y"].tolist() == rows[mine, 0].tolist()
        assert np.array_equal(np.rint(writers.client(client)["x"] * 255), pixels[mine])


def test_writers_of_other_images_are_refused():
    rows = np.array([[3, 0, 7, 0, 0, 0, 0, 0], [5, 0, 2, 0, 0, 0, 0, 0]], np.int32)
    assert vision._writers(rows, np.array([3, 5], np.uint8)).tolist() == [1, 0]
    with pytest.raises(DataError, match="another class than MNIST in 1 rows, first 1"):
        vision._writers(rows, np.array([3, 4], np.uint8))


@needs_files
def test_a_flipped_byte_in_the_published_file_is_refused(tmp_path: Path):
    raw = bytearray((DATA_DIR / "mnist" / "train-labels-idx1-ubyte.gz").read_bytes())
    raw[len(raw) // 2] ^= 0x10
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(raw)
    with pytest.raises(ChecksumError, match=r"train-labels-idx1-ubyte\.gz: got sha256"):
        _files.read(vision.MNIST_FILES["train-labels-idx1-ubyte.gz"], tmp_path)


@needs_files
def test_mnist_in_the_place_of_fashion_mnist_is_refused():
    with pytest.raises(ChecksumError):
        datasets.fashion_mnist(DATA_DIR / "mnist", clients=2, partition="iid", seed=0)


@needs_files
@pytest.mark.parametrize("data_dir", [DATA_DIR, DATA_DIR / "fashion-mnist"])
def test_fashion_mnist(data_dir: Path):
    data = _load("fashion-mnist", data_dir=data_dir, clients=1000, partition="dirichlet:0.3")
    assert (data.name, data.num_clients, data.num_examples) == ("fashion-mnist", 1000, 60_000)
    assert np.bincount(data.fields["y"]).tolist() == [6000] * 10
    assert data.fields["x"].mean(dtype=np.float64) == pytest.approx(0.2860, abs=1e-4)
    assert data.test is not None
    assert np.bincount(data.test["y"]).tolist() == [1000] * 10
    held = [len(np.unique(data.client(i)["y"])) for i in range(1000)]
    assert np.mean(held) < 8  # label skew: about 60 images a client, iid would give all ten
