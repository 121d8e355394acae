"""Tables about people: heart disease by hospital, census income, credit default.

Fields of every set: "x" float32 [N, d] and "y" int32 [N] in {0, 1}. Constants that scale and code
the columns are public, see `fl.datasets._columns`. No person is in both training and test data.
"""

import csv
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fl.datasets import _columns, _files
from fl.datasets._columns import Column
from fl.datasets.dataset import FederatedDataset
from fl.datasets.partition import Partition, assign, checked_request, parse_partition, split_rng
from fl.errors import DataError

_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/"
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
_HEART_SHA256 = {
    "cleveland": "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
    "hungarian": "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
    "switzerland": "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
    "va": "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
}
_HEART_SIZES = {"cleveland": 18461, "hungarian": 10263, "switzerland": 4109, "va": 6737}
HEART_FILES = tuple(
    _files.TextFile(
        "heart-disease",
        f"processed.{hospital}.data",
        f"{_UCI}heart-disease/",
        _HEART_SHA256[hospital],
        _HEART_SIZES[hospital],
    )
    for hospital in HOSPITALS
)
ADULT_FILES = (
    _files.TextFile(
        "adult", "adult.data", f"{_UCI}adult/",
        "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d", 3974305,
    ),
    _files.TextFile(
        "adult", "adult.test", f"{_UCI}adult/",
        "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05", 2003153,
    ),
)  # fmt: skip
CREDIT_FILE = _files.TextFile(
    "credit-card-default",
    "UCI_Credit_Card.csv",
    "https://raw.githubusercontent.com/nikhilchoppa/Credit_Cards_Data_Privacy/"
    "7b77a18dfaaebe57f10770e5b00751605ba284e7/",
    "78523e9c1eaa39b6ce81ee305ab1e4159c4a1da55a56138edd31ac2fd507c386",
    2862995,
)


def heart_disease(data_dir: Path) -> FederatedDataset:
    """UCI Heart Disease: does a patient have it? Four hospitals are four clients.

    Cleveland, Hungary, Switzerland and VA Long Beach with 303, 294, 123 and 200 patients. Test set:
    every third patient of each hospital and class, in the order of the files.

    As in FLamby (Ogier du Terrail et al. 2022), the first ten attributes are used and slope, ca and
    thal, mostly missing outside Cleveland, are not; chest pain and resting ECG are one-hot. Unlike
    there, no patient is left out (FLamby keeps the 740 without a missing value, 46 of them Swiss)
    and scales are constants: a missing number counts as the centre, and six columns say which were
    missing. A cholesterol or blood pressure of 0, as everywhere in Switzerland, is missing.
    Source: Janosi, Steinbrunn, Pfisterer, Detrano 1988, doi:10.24432/C52P4X.

    Args:
        data_dir: the folder that holds the files, or that holds `heart-disease/` with them.

    Returns:
        "x" float32 [N, 21] and "y" int32 [N], 1 for disease.

    Raises:
        MissingFileError: a file is not there.
        ChecksumError: a file is not the published one.
    """
    rows: list[list[str]] = []
    hospitals: list[int] = []
    for hospital, file in enumerate(HEART_FILES):
        found = list(csv.reader(_files.read_text(file, data_dir).splitlines()))
        rows += found
        hospitals += [hospital] * len(found)
    columns = [_columns.numbers(values, "?") for values in zip(*rows, strict=True)]
    age, sex, pain, pressure, cholesterol, sugar, ecg, rate, angina, depression = columns[:10]
    pressure, cholesterol = (np.where(c == 0, np.nan, c) for c in (pressure, cholesterol))
    x = _columns.table(
        _columns.scaled(age, 55, 10),
        sex,
        _columns.one_hot(pain.astype(np.int64) - 1, 4),
        _columns.scaled(pressure, 130, 20),
        _columns.scaled(cholesterol, 240, 50),
        _columns.scaled(sugar, 0, 1),
        _columns.one_hot(np.nan_to_num(ecg, nan=-1).astype(np.int64), 3),
        _columns.scaled(rate, 140, 25),
        _columns.scaled(angina, 0, 1),
        _columns.scaled(depression, 1, 1),
        *map(_columns.missing, (pressure, cholesterol, sugar, rate, angina, depression)),
    )
    y, ids = (columns[13] > 0).astype(np.int32), np.array(hospitals, np.int64)
    return _grouped(x, y, ids, len(HOSPITALS), _every_third(2 * ids + y), "heart-disease")


def _every_third(groups: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Marks the third, sixth, ... row of every group, bool [N]."""
    marked = np.zeros(len(groups), np.bool_)
    for group in np.unique(groups):
        marked[np.flatnonzero(groups == group)[2::3]] = True
    return marked


# Attributes and their values in the order of adult.names; "?" is missing.
_ADULT_COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation"),
    *("relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week"),
    *("native-country", "income"),
)
_ADULT_CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "workclass": (
        *("Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov"),
        *("Without-pay", "Never-worked"),
    ),
    "education": (
        *("Bachelors", "Some-college", "11th", "HS-grad", "Prof-school", "Assoc-acdm"),
        *("Assoc-voc", "9th", "7th-8th", "12th", "Masters", "1st-4th", "10th", "Doctorate"),
        *("5th-6th", "Preschool"),
    ),
    "marital-status": (
        *("Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed"),
        *("Married-spouse-absent", "Married-AF-spouse"),
    ),
    "occupation": (
        *("Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial"),
        *("Prof-specialty", "Handlers-cleaners", "Machine-op-inspct", "Adm-clerical"),
        *("Farming-fishing", "Transport-moving", "Priv-house-serv", "Protective-serv"),
        "Armed-Forces",
    ),
    "relationship": (
        *("Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"),
    ),
    "race": ("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"),
    "sex": ("Female", "Male"),
}
ADULT_KEYS = ("workclass", "education", "occupation")


def adult(data_dir: Path, *, clients: int | None, partition: str, seed: int) -> FederatedDataset:
    """UCI Adult: does a person earn more than 50,000 dollars a year (1994)?

    The official test set. The sampling weight fnlwgt and the text of the education, which
    education-num repeats, are not features; of the country only whether it is the United States.
    A missing value is a row of zeros in its one-hot block. Gains and losses are log(1 + v) / 10.
    Source: Becker, Kohavi 1996, doi:10.24432/C5XW20.

    Args:
        data_dir: the folder that holds the files, or that holds `adult/` with them.
        clients: how many, for an artificial partition.
        partition: an artificial one, or "natural:KEY" with a key of `ADULT_KEYS`: one client per
            value, in the order of adult.names, "?" last where it occurs.
        seed: decides artificial clients.

    Returns:
        "x" float32 [32561, 47] and "y" int32 [32561], 1 for more; test [16281, ...].

    Raises:
        MissingFileError: a file is not there.
        ChecksumError: a file is not the published one.
        DataError: clients or partition does not fit.
    """
    split = _checked_split(partition, clients, seed, ADULT_KEYS)
    train, test = (_adult_columns(_files.read_text(file, data_dir)) for file in ADULT_FILES)
    labels = _adult_labels(train)

    def natural(key: str) -> tuple[npt.NDArray[np.int64], int]:
        known = _ADULT_CATEGORIES[key]
        values = (*known, "?") if "?" in train[key] else known
        return _columns.codes(train[key], values, key), len(values)

    ids, count = _clients(split, clients, labels, seed, natural)
    held_out = {"x": _adult_features(test), "y": _adult_labels(test)}
    return FederatedDataset.from_arrays(
        {"x": _adult_features(train), "y": labels},
        ids,
        test=held_out,
        num_clients=count,
        num_classes=2,
        name="adult",
    )


def _adult_columns(text: str) -> dict[str, Sequence[str]]:
    lines = [line for line in text.splitlines() if line and not line.startswith("|")]
    rows = csv.reader(lines, skipinitialspace=True)
    return dict(zip(_ADULT_COLUMNS, zip(*rows, strict=True), strict=True))


def _adult_labels(columns: Mapping[str, Sequence[str]]) -> npt.NDArray[np.int32]:
    # Labels of the test file end in a full stop.
    return np.array([value.rstrip(".") == ">50K" for value in columns["income"]], np.int32)


def _adult_features(columns: Mapping[str, Sequence[str]]) -> npt.NDArray[np.float32]:
    def number(name: str) -> Column:
        return _columns.numbers(columns[name], "?")

    def block(name: str) -> Column:
        known = _ADULT_CATEGORIES[name]
        return _columns.one_hot(_columns.codes(columns[name], known, name, "?"), len(known))

    return _columns.table(
        _columns.scaled(number("age"), 40, 15),
        _columns.scaled(number("education-num"), 10, 3),
        _columns.scaled(number("hours-per-week"), 40, 15),
        np.log1p(number("capital-gain")) / 10,
        np.log1p(number("capital-loss")) / 10,
        *map(block, ("workclass", "marital-status", "occupation", "relationship", "race")),
        block("sex")[:, 1],
        np.array([value == "United-States" for value in columns["native-country"]], np.float64),
    )


CREDIT_KEYS = ("education", "marriage", "age")


def credit_default(
    data_dir: Path, *, clients: int | None, partition: str, seed: int
) -> FederatedDataset:
    """Default of credit card clients (Taiwan, 2005): does a card holder default next month?

    A fifth of the people is the test set, chosen by the CRC-32 of their row without its ID, so that
    the 35 rows that occur twice are never on both sides. Undocumented codes (EDUCATION 0, 5, 6;
    MARRIAGE 0) count as "others". Months of delay are halved and a column each says whether there
    was one; bills are shares of the limit within [-1, 2]; payments are log(1 + v) / 10.
    Source: Yeh, Lien 2009, Expert Systems with Applications 36(2); doi:10.24432/C55S3H.

    Args:
        data_dir: the folder that holds the file, or that holds `credit-card-default/` with it.
        clients: how many, for an artificial partition.
        partition: an artificial one, or "natural:KEY" with a key of `CREDIT_KEYS`: education (4
            clients), marriage (3) or decade of age (20 to 70 and more, 6).
        seed: decides artificial clients.

    Returns:
        "x" float32 [N, 34] and "y" int32 [N], 1 for default; N is about 24,000.

    Raises:
        MissingFileError: the file is not there.
        ChecksumError: the file is not the published one.
        DataError: clients or partition does not fit.
    """
    split = _checked_split(partition, clients, seed, CREDIT_KEYS)
    lines = _files.read_text(CREDIT_FILE, data_dir).splitlines()
    held_out = np.array(
        [zlib.crc32(line.partition(",")[2].encode()) % 5 == 0 for line in lines[1:]]
    )
    names = [name.strip('"') for name in lines[0].split(",")]
    cells = np.array([line.split(",") for line in lines[1:]], np.float64)
    column = dict(zip(names, cells.T, strict=True))
    levels = {
        "education": np.where((column["EDUCATION"] >= 1) & (column["EDUCATION"] <= 3),
                              column["EDUCATION"], 4).astype(np.int64) - 1,
        "marriage": np.where(column["MARRIAGE"] == 0, 3, column["MARRIAGE"]).astype(np.int64) - 1,
        "age": np.clip(column["AGE"] // 10, 2, 7).astype(np.int64) - 2,
    }  # fmt: skip
    counts = {"education": 4, "marriage": 3, "age": 6}
    x, y = _credit_features(column, levels), cells[:, -1].astype(np.int32)

    def natural(key: str) -> tuple[npt.NDArray[np.int64], int]:
        return levels[key][~held_out], counts[key]

    ids = np.zeros(len(y), np.int64)
    ids[~held_out], count = _clients(split, clients, y[~held_out], seed, natural)
    return _grouped(x, y, ids, count, held_out, "credit-default")


def _credit_features(
    column: Mapping[str, Column], levels: Mapping[str, npt.NDArray[np.int64]]
) -> npt.NDArray[np.float32]:
    limit = column["LIMIT_BAL"]
    delays = [np.maximum(column[f"PAY_{k}"], 0) for k in range(1, 7)]
    return _columns.table(
        np.log(limit / 1e5),
        column["SEX"] - 1,
        _columns.one_hot(levels["education"], 4),
        _columns.one_hot(levels["marriage"], 3),
        _columns.scaled(column["AGE"], 35, 10),
        *(delay / 2 for delay in delays),
        *((delay > 0).astype(np.float64) for delay in delays),
        *(np.clip(column[f"BILL_AMT{k}"] / limit, -1, 2) for k in range(1, 7)),
        *(np.log1p(column[f"PAY_AMT{k}"]) / 10 for k in range(1, 7)),
    )


def _checked_split(
    partition: str, clients: int | None, seed: int, keys: Sequence[str]
) -> Partition:
    """What can be wrong about artificial or natural clients, before a file is read."""
    split = parse_partition(partition)
    if split.kind != "natural":
        return checked_request(clients, partition, seed)
    if split.parameter not in keys:
        takes = f"an artificial one, or natural:KEY with KEY one of {', '.join(keys)}"
        raise DataError("partition", repr(partition), takes)
    return split


def _clients(
    split: Partition,
    clients: int | None,
    labels: npt.NDArray[np.int32],
    seed: int,
    natural: Callable[[str], tuple[npt.NDArray[np.int64], int]],
) -> tuple[npt.NDArray[np.int64], int]:
    """Client ids [N] and the number of clients, artificial or by the values of a column."""
    if split.kind != "natural" and clients is not None:
        return assign(split, labels.astype(np.int64), clients, split_rng(seed)), clients
    ids, count = natural(str(split.parameter))
    if clients not in (None, count):
        raise DataError("clients", clients, f"none or {count}, the values of {split.parameter}")
    return ids, count


def _grouped(
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int32],
    ids: npt.NDArray[np.int64],
    num_clients: int,
    held_out: npt.NDArray[np.bool_],
    name: str,
) -> FederatedDataset:
    return FederatedDataset.from_arrays(
        {"x": x[~held_out], "y": y[~held_out]},
        ids[~held_out],
        test={"x": x[held_out], "y": y[held_out]},
        num_clients=num_clients,
        num_classes=2,
        name=name,
    )
