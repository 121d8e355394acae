"""Federated data sets: examples by client, loaders that check what they read, partitions."""

from pathlib import Path
from typing import NamedTuple

from fl.datasets.dataset import FederatedDataset
from fl.datasets.partition import Partition, assign, dirichlet, iid, parse_partition
from fl.datasets.vision import NUM_WRITERS, digits, fashion_mnist, mnist_writers
from fl.errors import DataError

__all__ = (
    "DATASETS",
    "Description",
    "FederatedDataset",
    "Partition",
    "assign",
    "describe",
    "digits",
    "dirichlet",
    "fashion_mnist",
    "iid",
    "load",
    "mnist_writers",
    "parse_partition",
)


class Description(NamedTuple):
    """One data set in words.

    Attributes:
        name: what `load` takes.
        summary: examples, classes, clients, test set.
        needs: the extra or the files that it is read from.
    """

    name: str
    summary: str
    needs: str


_DESCRIPTIONS = (
    Description(
        "digits",
        "1,437 8x8 digits in 10 classes, --clients and --partition; 360 for test",
        "extra 'data' (scikit-learn brings the images)",
    ),
    Description(
        "mnist-writers",
        "60,000 28x28 digits in 10 classes, 539 natural clients (writers); 10,000 by 297 others "
        "for test",
        "--data-dir with mnist/ (four MNIST files and the QMNIST training labels)",
    ),
    Description(
        "fashion-mnist",
        "60,000 28x28 clothes in 10 classes, --clients and --partition; 10,000 for test",
        "--data-dir with fashion-mnist/ (four files)",
    ),
)
DATASETS = tuple(description.name for description in _DESCRIPTIONS)


def describe() -> list[Description]:
    """Name, summary and needs of every data set that `load` knows."""
    return list(_DESCRIPTIONS)


def load(
    name: str,
    *,
    data_dir: Path | str | None,
    clients: int | None,
    partition: str | None,
    seed: int,
) -> FederatedDataset:
    """One data set by name, from the strings and numbers of a job.

    Args:
        name: one of `DATASETS`.
        data_dir: where original files lie; not used by "digits".
        clients: number of artificial clients; None or the true number for natural clients.
        partition: "iid" or "dirichlet:ALPHA"; None or "natural" for natural clients.
        seed: decides artificial clients and, for "digits", the test set.

    Raises:
        DataError: an argument is missing, unknown or does not fit the data set; the subclasses
            ChecksumError and MissingFileError speak of files.
        MissingExtraError: the data come with a package that is not installed.
    """
    if name not in DATASETS:
        raise DataError("dataset", repr(name), f"one of {', '.join(DATASETS)}")
    if name == "mnist-writers":
        if clients not in (None, NUM_WRITERS):
            raise DataError("clients", clients, f"none or {NUM_WRITERS}: {name} has its own")
        if partition not in (None, "natural"):
            raise DataError("partition", repr(partition), f"none or 'natural': {name} has its own")
        return mnist_writers(_needed_dir(name, data_dir))
    if clients is None:
        raise DataError("clients", clients, f"a number: {name} has no natural clients")
    if partition is None:
        raise DataError("partition", partition, "'iid' or 'dirichlet:ALPHA': no natural clients")
    if name == "digits":
        return digits(clients=clients, partition=partition, seed=seed)
    directory = _needed_dir(name, data_dir)
    return fashion_mnist(directory, clients=clients, partition=partition, seed=seed)


def _needed_dir(name: str, data_dir: Path | str | None) -> Path:
    if data_dir is None:
        takes = f"a folder for the files of {name}; of a missing one it says where to get it"
        raise DataError("data_dir", data_dir, takes)
    folder = Path(data_dir)
    if not folder.is_dir():
        raise DataError("data_dir", f"{folder}, not a folder", f"a folder with {name}'s files")
    return folder
