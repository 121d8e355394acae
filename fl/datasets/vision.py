"""Images of digits and clothes with natural or artificial clients.

Fields of every set: "x" float32 [N, pixels] and "y" int32 [N] in [0, 10).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fl.datasets import _files
from fl.datasets.dataset import Array, FederatedDataset
from fl.datasets.partition import assign, checked_request, split_rng
from fl.errors import DataError, MissingExtraError

_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_QMNIST_URL = (
    "https://raw.githubusercontent.com/facebookresearch/qmnist/"
    "94061367ec2e099ea18c553c75727ecf849ddb9b/"
)
_FASHION_URL = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/"
)
_TRAIN_X = "train-images-idx3-ubyte.gz"
_TRAIN_Y = "train-labels-idx1-ubyte.gz"
_TEST_X = "t10k-images-idx3-ubyte.gz"
_TEST_Y = "t10k-labels-idx1-ubyte.gz"


def _image_set(folder: str, url: str, sha256: Mapping[str, str]) -> dict[str, _files.IdxFile]:
    """The four files that MNIST and its replacements consist of, by file name."""
    shapes: dict[str, tuple[int, ...]] = {
        _TRAIN_X: (60_000, 28, 28),
        _TRAIN_Y: (60_000,),
        _TEST_X: (10_000, 28, 28),
        _TEST_Y: (10_000,),
    }
    return {
        name: _files.IdxFile(folder, name, url, sha256[name], shape, ">u1")
        for name, shape in shapes.items()
    }


MNIST_FILES = _image_set(
    "mnist",
    _MNIST_URL,
    {
        _TRAIN_X: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        _TRAIN_Y: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        _TEST_X: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        _TEST_Y: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)
FASHION_FILES = _image_set(
    "fashion-mnist",
    _FASHION_URL,
    {
        _TRAIN_X: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        _TRAIN_Y: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        _TEST_X: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        _TEST_Y: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)
# Columns: class, HSF series, writer, index of the digit, NIST class, NIST index, duplicate, unused.
# Row i belongs to MNIST training image i (Yadav and Bottou 2019, arXiv:1905.10498).
WRITERS_FILE = _files.IdxFile(
    "mnist",
    "qmnist-train-labels-idx2-int.gz",
    _QMNIST_URL,
    "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
    (60_000, 8),
    ">i4",
)
NUM_WRITERS = 539


def digits(*, clients: int, partition: str, seed: int) -> FederatedDataset:
    """The 1,797 8x8 digits that come with scikit-learn, split over artificial clients.

    360 of them, stratified by class, are the test set. Pixels are scaled to x/16 - 0.5.
    Source: Alpaydin and Kaynak 1998, UCI ML Repository, doi:10.24432/C50P49.

    Args:
        clients: how many.
        partition: an artificial one, see `fl.datasets.parse_partition`.
        seed: 0 to 2**32 - 1; decides the test set and the clients.

    Returns:
        "x" float32 [1437, 64] in [-0.5, 0.5] and "y" int32 [1437]; test [360, 64] and [360].

    Raises:
        MissingExtraError: scikit-learn is not installed.
        DataError: clients, partition or seed is out of range.
    """
    split = checked_request(clients, partition, seed)
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise MissingExtraError("the data set digits", "data") from error
    pixels, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        (pixels / 16 - 0.5).astype(np.float32),
        labels.astype(np.int32),
        test_size=360,
        stratify=labels,
        random_state=seed,
    )
    return FederatedDataset.from_arrays(
        {"x": train_x, "y": train_y},
        assign(split, train_y, clients, split_rng(seed)),
        test={"x": test_x, "y": test_y},
        num_clients=clients,
        num_classes=10,
        name="digits",
    )


def mnist_writers(data_dir: Path) -> FederatedDataset:
    """MNIST grouped by the person who wrote: 539 natural clients, tested on other writers.

    Client i is the i-th writer in ascending order of NIST writer id; clients hold 19 to 131
    digits. The test set is the official one, written by 297 people of whom none is a client.
    Pixels are scaled to x/255.
    Sources: LeCun, Bottou, Bengio, Haffner 1998; writers from Yadav and Bottou 2019,
    arXiv:1905.10498 (QMNIST).

    Args:
        data_dir: the folder that holds the files, or that holds `mnist/` with them.

    Returns:
        "x" float32 [60000, 784] and "y" int32 [60000]; test [10000, 784] and [10000].

    Raises:
        MissingFileError: a file is not there.
        ChecksumError: a file is not the published one.
        DataError: the QMNIST rows do not describe the MNIST images.
    """
    pixels = _files.read(MNIST_FILES[_TRAIN_X], data_dir)
    labels = _files.read(MNIST_FILES[_TRAIN_Y], data_dir)
    ids = _writers(_files.read(WRITERS_FILE, data_dir), labels)
    test = _image_fields(
        _files.read(MNIST_FILES[_TEST_X], data_dir), _files.read(MNIST_FILES[_TEST_Y], data_dir)
    )
    return _grouped(pixels, labels, ids, NUM_WRITERS, test=test, name="mnist-writers")


def mnist(data_dir: Path, *, clients: int, partition: str, seed: int) -> FederatedDataset:
    """MNIST split over artificial clients, with the official test set: McMahan et al.'s task.

    They used 100 clients, "iid" and "shards:2". Pixels are scaled to x/255. Source: LeCun, Bottou,
    Bengio, Haffner 1998.

    Args and errors are those of `fashion_mnist`; the folder is `mnist/`.
    """
    return _artificial(MNIST_FILES, data_dir, clients, partition, seed, "mnist")


def fashion_mnist(data_dir: Path, *, clients: int, partition: str, seed: int) -> FederatedDataset:
    """Fashion-MNIST split over artificial clients, with the official test set.

    Pixels are scaled to x/255. Source: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747.

    Args:
        data_dir: the folder that holds the files, or that holds `fashion-mnist/` with them.
        clients: how many.
        partition: an artificial one, see `fl.datasets.parse_partition`.
        seed: 0 to 2**32 - 1; decides the clients.

    Returns:
        "x" float32 [60000, 784] and "y" int32 [60000]; test [10000, 784] and [10000].

    Raises:
        MissingFileError: a file is not there.
        ChecksumError: a file is not the published one.
        DataError: clients, partition or seed is out of range.
    """
    return _artificial(FASHION_FILES, data_dir, clients, partition, seed, "fashion-mnist")


def _artificial(
    files: Mapping[str, _files.IdxFile],
    data_dir: Path,
    clients: int,
    partition: str,
    seed: int,
    name: str,
) -> FederatedDataset:
    split = checked_request(clients, partition, seed)
    pixels, labels = (_files.read(files[part], data_dir) for part in (_TRAIN_X, _TRAIN_Y))
    ids = assign(split, labels.astype(np.int64), clients, split_rng(seed))
    test = _image_fields(*(_files.read(files[part], data_dir) for part in (_TEST_X, _TEST_Y)))
    return _grouped(pixels, labels, ids, clients, test=test, name=name)


def _writers(rows: Array, labels: Array) -> npt.NDArray[np.int64]:
    """Client of each MNIST training image, int64 [N], from QMNIST rows [N, 8].

    Raises:
        DataError: the class column is not the MNIST label of every image, so that the rows cannot
            be about these images.
    """
    wrong = np.flatnonzero(rows[:, 0] != labels)
    if wrong.size:
        got = f"another class than MNIST in {wrong.size} rows, first {wrong[0]}"
        raise DataError(WRITERS_FILE.name, got, "the MNIST label in column 0 of every row")
    return np.unique(rows[:, 2], return_inverse=True)[1].astype(np.int64)


def _image_fields(pixels: Array, labels: Array) -> dict[str, Array]:
    """uint8 [N, 28, 28] and uint8 [N] as model inputs.

    Pixels are not centred: zeros stay zeros, so gradients are sparse and lose less to the clip.
    Logistic regression over the 539 writers, 30 rounds, clipped, Gaussian noise multiplier 2.7,
    the best of 3 local rates x 3 clip norms, one seed, test accuracy in %: x/255 91.1; minus its
    mean 90.8; standardised 90.6; x/255 - 0.5 90.2; 2x/255 - 1 90.2.
    """
    flat = pixels.reshape(len(pixels), -1)
    return {"x": np.divide(flat, 255, dtype=np.float32), "y": labels.astype(np.int32)}


def _grouped(
    pixels: Array,
    labels: Array,
    ids: npt.NDArray[np.int64],
    num_clients: int,
    *,
    test: dict[str, Array],
    name: str,
) -> FederatedDataset:
    """Sorts while pixels are bytes: as floats they are four times as many."""
    order = np.argsort(ids, kind="stable")
    return FederatedDataset.from_arrays(
        _image_fields(pixels[order], labels[order]),
        ids[order],
        test=test,
        num_clients=num_clients,
        num_classes=10,
        name=name,
    )
