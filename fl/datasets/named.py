"""The data sets that a Job knows by name, and what each of them needs."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fl.datasets.dataset import FederatedDataset
from fl.datasets.partition import parse_partition
from fl.datasets.sensors import AIR_KEYS, NUM_USERS, beijing_air, wisdm
from fl.datasets.tabular import (
    ADULT_KEYS,
    CREDIT_KEYS,
    HOSPITALS,
    adult,
    credit_default,
    heart_disease,
)
from fl.datasets.text import NUM_ROLES, shakespeare
from fl.datasets.vision import NUM_WRITERS, digits, fashion_mnist, mnist, mnist_writers
from fl.errors import DataError


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


_ARTIFICIAL = "--clients and --partition"
_DESCRIPTIONS = (
    Description(
        "digits",
        f"1,437 8x8 digits in 10 classes, {_ARTIFICIAL}; 360 for test",
        "extra 'data' (scikit-learn brings the images)",
    ),
    Description(
        "mnist",
        f"60,000 28x28 digits in 10 classes, {_ARTIFICIAL}; 10,000 for test",
        "--data-dir with mnist/ (four files)",
    ),
    Description(
        "mnist-writers",
        "60,000 28x28 digits in 10 classes, 539 natural clients (writers); 10,000 by 297 others "
        "for test",
        "--data-dir with mnist/ (four MNIST files and the QMNIST training labels)",
    ),
    Description(
        "fashion-mnist",
        f"60,000 28x28 clothes in 10 classes, {_ARTIFICIAL}; 10,000 for test",
        "--data-dir with fashion-mnist/ (four files)",
    ),
    Description(
        "shakespeare",
        "44,447 windows of 80 characters, 1,394 natural clients (roles); the last fifth of a "
        "role's speeches for test",
        "--data-dir with shakespeare/ (37 XML files or shaks200-xml.tar.gz)",
    ),
    Description(
        "heart-disease",
        "617 patients, 21 features, 2 classes, 4 natural clients (hospitals); 303 for test",
        "--data-dir with heart-disease/ (four processed.*.data files)",
    ),
    Description(
        "wisdm",
        "4,075 windows of an accelerometer, 45 features, 6 activities, 27 natural clients "
        "(people); 9 other people for test",
        "--data-dir with wisdm/ (WISDM_ar_v1.1_transformed.arff)",
    ),
    Description(
        "credit-default",
        f"23,954 card holders, 34 features, 2 classes, {_ARTIFICIAL}, or natural:KEY "
        f"({', '.join(CREDIT_KEYS)}); 6,046 for test",
        "--data-dir with credit-card-default/ (UCI_Credit_Card.csv)",
    ),
    Description(
        "adult",
        f"32,561 people, 47 features, 2 classes, {_ARTIFICIAL}, or natural:KEY "
        f"({', '.join(ADULT_KEYS)}); 16,281 for test",
        "--data-dir with adult/ (adult.data, adult.test)",
    ),
    Description(
        "beijing-air",
        "309,276 hours of air quality, 21 features, PM2.5 to predict, 12 natural clients "
        "(stations) or 432 (natural:month); the last year for test",
        "--data-dir with beijing-air-quality/ (twelve PRSA_Data_*.csv files)",
    ),
)
DATASETS = tuple(description.name for description in _DESCRIPTIONS)


def describe() -> list[Description]:
    """Name, summary and needs of every data set that `load` knows."""
    return list(_DESCRIPTIONS)


_NATURAL: dict[str, tuple[int, Callable[[Path], FederatedDataset]]] = {
    "mnist-writers": (NUM_WRITERS, mnist_writers),
    "shakespeare": (NUM_ROLES, shakespeare),
    "heart-disease": (len(HOSPITALS), heart_disease),
    "wisdm": (NUM_USERS, wisdm),
}
_MADE: dict[str, Callable[..., FederatedDataset]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "credit-default": credit_default,
    "adult": adult,
}


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
        partition: as `parse_partition` reads it; None or "natural" for natural clients.
        seed: decides artificial clients and, for "digits", the test set.

    Raises:
        DataError: an argument is missing, unknown or does not fit the data set; the subclasses
            ChecksumError and MissingFileError speak of files.
        MissingExtraError: the data come with a package that is not installed.
    """
    if name not in DATASETS:
        raise DataError("dataset", repr(name), f"one of {', '.join(DATASETS)}")
    if name in _NATURAL:
        count, natural = _NATURAL[name]
        _check_natural(name, clients, count, partition, ())
        return natural(_needed_dir(name, data_dir))
    if name == "beijing-air":
        by = _check_natural(name, None, None, partition, AIR_KEYS) or "station"
        data = beijing_air(_needed_dir(name, data_dir), by=by)
        _check_natural(name, clients, data.num_clients, partition, AIR_KEYS)
        return data
    if partition is None:
        takes = "'iid', 'dirichlet:ALPHA', ...: it has no clients of its own"
        raise DataError("partition", partition, takes)
    if name == "digits":
        if clients is None:
            raise DataError("clients", clients, f"a number: {name} has no natural clients")
        return digits(clients=clients, partition=partition, seed=seed)
    if clients is None and parse_partition(partition).kind != "natural":
        raise DataError("clients", clients, f"a number: {name} has no natural clients")
    directory = _needed_dir(name, data_dir)
    return _MADE[name](directory, clients=clients, partition=partition, seed=seed)


def _check_natural(
    name: str,
    clients: int | None,
    count: int | None,
    partition: str | None,
    keys: tuple[str, ...],
) -> str | None:
    """Refuses what does not fit natural clients; returns the KEY of "natural:KEY", or None."""
    if clients is not None and clients != count:
        raise DataError("clients", clients, f"none or {count}: {name} has its own")
    key = "" if partition is None else partition.removeprefix("natural").removeprefix(":")
    named = partition in (None, "natural") or partition in {f"natural:{known}" for known in keys}
    if not named:
        more = "".join(f", natural:{known}" for known in keys)
        raise DataError("partition", repr(partition), f"none, 'natural'{more}: {name} has its own")
    return key or None


def _needed_dir(name: str, data_dir: Path | str | None) -> Path:
    if data_dir is None:
        takes = f"a folder for the files of {name}; of a missing one it says where to get it"
        raise DataError("data_dir", data_dir, takes)
    folder = Path(data_dir)
    if not folder.is_dir():
        raise DataError("data_dir", f"{folder}, not a folder", f"a folder with {name}'s files")
    return folder
