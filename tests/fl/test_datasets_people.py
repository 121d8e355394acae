"""Heart disease, census income, credit default: rows by hand, no leaks, real files."""

import collections
import dataclasses
import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl import datasets
from fl.datasets import FederatedDataset, _columns, _files, tabular
from fl.errors import ChecksumError, DataError, MissingFileError
from tests.fl.originals import DATA_DIR, needs


def published(file: _files.TextFile, text: str, folder: Path) -> _files.TextFile:
    """Writes `text` in the place of a file, and a description by which it is the published one."""
    (folder / file.folder).mkdir(exist_ok=True)
    (folder / file.folder / file.name).write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return dataclasses.replace(file, sha256=digest, size=len(text))


def test_columns_by_hand() -> None:
    column = _columns.numbers(["3", "?", "-1.5"], "?")
    assert _columns.scaled(column, 1, 2).tolist() == [1.0, 0.0, -1.25]
    assert _columns.missing(column).tolist() == [0, 1, 0]
    places = _columns.codes(["b", "?", "a"], ("a", "b"), "letters", "?")
    assert places.tolist() == [1, -1, 0]
    assert _columns.one_hot(places, 2).tolist() == [[0, 1], [0, 0], [1, 0]]
    made = _columns.table(column[:1], np.ones((1, 2)))
    assert made.dtype == np.float32
    assert made.tolist() == [[3, 1, 1]]
    with pytest.raises(DataError, match="letters: got the value 'c'; takes one of a, b"):
        _columns.codes(["a", "c"], ("a", "b"), "letters", "?")
    with pytest.raises(ValueError, match="could not convert"):
        _columns.numbers(["NA"], "?")


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_file_is_read_packed_or_not(packed: bool, tmp_path: Path) -> None:
    file = published(tabular.CREDIT_FILE, "a,b\n1,2\n", tmp_path)
    path = tmp_path / file.folder / file.name
    if packed:
        path.with_name(f"{file.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert _files.read_text(file, tmp_path) == "a,b\n1,2\n"
    assert _files.read_text(file, tmp_path / file.folder) == "a,b\n1,2\n"
    for wrong in (dataclasses.replace(file, size=3), dataclasses.replace(file, sha256="0" * 64)):
        with pytest.raises(ChecksumError, match="download https://"):
            _files.read_text(wrong, tmp_path)


def test_a_packed_bomb_is_not_unpacked(tmp_path: Path) -> None:
    file = published(tabular.CREDIT_FILE, "a" * 9, tmp_path)
    path = tmp_path / file.folder / file.name
    path.with_name(f"{file.name}.gz").write_bytes(gzip.compress(b"a" * 10**7)[:-20])
    path.unlink()
    # Cut short, it would fail where more than the published size and a byte were unpacked.
    with pytest.raises(ChecksumError):
        _files.read_text(file, tmp_path)
    path.with_name(f"{file.name}.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="broken gzip data"):
        _files.read_text(file, tmp_path)


HEART = {
    "cleveland": "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0\n" * 2
    + "67.0,0.0,4.0,160.0,286.0,0.0,0.0,108.0,1.0,1.5,2.0,3.0,3.0,2\n",
    "hungarian": "55,1,2,130,?,0,?,140,0,1,?,?,?,1\n",
    "switzerland": "32,1,1,95,0,?,1,?,?,?,1,?,?,3\n",
    "va": "45,0,3,0,240,0,1,140,0,1,?,?,?,0\n" * 4,
}


@pytest.fixture
def heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FederatedDataset:
    files = tuple(
        published(file, HEART[hospital], tmp_path)
        for hospital, file in zip(tabular.HOSPITALS, tabular.HEART_FILES, strict=True)
    )
    monkeypatch.setattr(tabular, "HEART_FILES", files)
    return datasets.heart_disease(tmp_path)


def test_a_patient_by_hand(heart: FederatedDataset) -> None:
    def row(hospital: int, i: int) -> list[float]:
        return [round(float(v), 4) for v in heart.client(hospital)["x"][i]]

    known = [0] * 6
    assert row(0, 0) == [0.8, 1, 1, 0, 0, 0, 0.75, -0.14, 1, 0, 0, 1, 0.4, 0, 1.3, *known]
    assert row(0, 2) == [1.2, 0, 0, 0, 0, 1, 1.5, 0.92, 0, 1, 0, 0, -1.28, 1, 0.5, *known]
    # Missing: cholesterol; then all but blood pressure, the cholesterol written as 0; then a 0.
    assert row(1, 0)[7:] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert row(2, 0)[6:] == [-1.75, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert row(3, 0)[6:] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_every_third_patient_of_a_hospital_and_class_is_for_test(heart: FederatedDataset) -> None:
    assert heart.sizes.tolist() == [3, 1, 1, 3]  # only the last hospital has three alike
    assert [heart.client(i)["y"].tolist() for i in range(4)] == [[0, 0, 1], [1], [1], [0] * 3]
    assert heart.test is not None
    assert heart.test["y"].tolist() == [0]


@needs("heart-disease")
def test_heart_disease_by_hospital() -> None:
    data = datasets.load("heart-disease", data_dir=DATA_DIR, clients=4, partition="natural", seed=0)
    assert data.test is not None
    assert data.sizes.tolist() == [203, 197, 83, 134]
    assert (data.num_examples, len(data.test["y"]), data.num_classes) == (617, 303, 2)
    # With the test set these are the published numbers: 139 + 106 + 115 + 149 with the disease.
    assert int(data.fields["y"].sum() + data.test["y"].sum()) == 509
    assert data.fields["x"].shape[1] == 21
    assert np.abs(data.fields["x"]).max() < 8
    assert (data.client(2)["x"][:, 16] == 1).all()  # no Swiss cholesterol is known
    assert (data.client(0)["x"][:, 15:] == 0).all()  # and nothing is missing in Cleveland
    ill = [data.client(i)["y"].mean() for i in range(4)]
    assert np.round(ill, 2).tolist() == [0.46, 0.36, 0.93, 0.75]


ADULT_TRAIN = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male,"
    " 2174, 0, 40, United-States, <=50K\n"
    "25, ?, 1, 11th, 7, Widowed, ?, Wife, Black, Female, 0, 99, 55, ?, >50K\n\n"
)


def test_a_person_by_hand() -> None:
    columns = tabular._adult_columns(ADULT_TRAIN)
    x = tabular._adult_features(columns)
    assert x.shape == (2, 47)
    assert tabular._adult_labels(columns).tolist() == [0, 1]
    wanted = [np.zeros(47), np.zeros(47)]
    wanted[0][:5] = [-1 / 15, 1, 0, np.log(2175) / 10, 0]
    wanted[1][:5] = [-1, -1, 1, 0, np.log(100) / 10]
    # Workclass from 5, marital status from 13, occupation from 20, relationship from 34, race from
    # 40; sex and country last. State-gov is sixth, Never-married third, Adm-clerical ninth, ...
    wanted[0][[5 + 5, 13 + 2, 20 + 8, 34 + 3, 40 + 0, 45, 46]] = 1
    wanted[1][[13 + 4, 34 + 0, 40 + 4]] = 1
    np.testing.assert_allclose(x, wanted, rtol=1e-6)


def test_labels_of_the_test_file_end_in_a_full_stop() -> None:
    text = "|1x3 Cross validator\n" + ADULT_TRAIN.replace("50K", "50K.")
    assert tabular._adult_labels(tabular._adult_columns(text)).tolist() == [0, 1]


@needs("adult")
def test_adult() -> None:
    data = datasets.load("adult", data_dir=DATA_DIR, clients=100, partition="iid", seed=0)
    assert data.test is not None
    assert np.bincount(data.fields["y"]).tolist() == [24_720, 7_841]
    assert np.bincount(data.test["y"]).tolist() == [12_435, 3_846]
    assert sorted(set(data.sizes.tolist())) == [325, 326]
    blocks = data.fields["x"][:, 5:13].sum(axis=1)  # one-hot, or missing
    assert [(blocks == k).sum() for k in (0, 1)] == [1_836, 30_725]
    by_job = datasets.adult(DATA_DIR, clients=None, partition="natural:occupation", seed=0)
    assert by_job.num_clients == 15
    assert by_job.client(14)["x"][:, 20:34].sum() == 0  # those whose occupation is missing
    assert len(by_job.client(14)["y"]) == 1_843
    for client in (0, 5, 13):
        assert (by_job.client(client)["x"][:, 20 + client] == 1).all()


CREDIT_HEAD = (
    '"ID","LIMIT_BAL","SEX","EDUCATION","MARRIAGE","AGE","PAY_1","PAY_2","PAY_3","PAY_4","PAY_5",'
    '"PAY_6","BILL_AMT1","BILL_AMT2","BILL_AMT3","BILL_AMT4","BILL_AMT5","BILL_AMT6","PAY_AMT1",'
    '"PAY_AMT2","PAY_AMT3","PAY_AMT4","PAY_AMT5","PAY_AMT6","default.payment.next.month"\n'
)


def test_a_card_holder_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = "100000,2,5,0,45,2,-1,0,3,-2,0,50000,-300000,900000,0,0,1,0,99,0,0,0,0,1"
    # The same person under two IDs is on one side, whichever it is.
    text = CREDIT_HEAD + "".join(f"{i},{row}\n" for i in (1, 2)) + "3,20000,1" + row[8:] + "\n"
    monkeypatch.setattr(tabular, "CREDIT_FILE", published(tabular.CREDIT_FILE, text, tmp_path))
    data = datasets.credit_default(tmp_path, clients=None, partition="natural:age", seed=0)
    assert data.test is not None
    sizes = [data.num_examples, len(data.test["y"])]
    assert sorted(sizes) in ([0, 3], [1, 2])
    x = np.concatenate([data.fields["x"], data.test["x"]])
    mine = x[x[:, 0] == 0]  # a limit of 100,000
    assert len(mine) == 2
    delays, late = [1, 0, 0, 1.5, 0, 0], [1, 0, 0, 1, 0, 0]
    shares, paid = [0.5, -1, 2, 0, 0, 1e-5], [0, np.log(100) / 10, 0, 0, 0, 0]
    wanted = [0, 1, 0, 0, 0, 1, 0, 0, 1, 1, *delays, *late, *shares, *paid]
    np.testing.assert_allclose(mine[0], wanted, rtol=1e-6)


@needs("credit-card-default")
def test_credit_default() -> None:
    data = datasets.load(
        "credit-default", data_dir=DATA_DIR, clients=50, partition="dirichlet:0.5", seed=0
    )
    assert data.test is not None
    assert (data.num_examples, len(data.test["y"])) == (23_954, 6_046)
    assert int(data.fields["y"].sum() + data.test["y"].sum()) == 6_636
    by_age = datasets.credit_default(DATA_DIR, clients=6, partition="natural:age", seed=0)
    assert by_age.sizes.sum() == 23_954
    ages = [by_age.client(i)["x"][:, 9] * 10 + 35 for i in range(6)]
    assert [(a.min() >= 20 + 10 * i) and a.max() < 30 + 10 * i for i, a in enumerate(ages)]


@needs("credit-card-default")
def test_nobody_who_occurs_twice_is_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = _files.read_text(tabular.CREDIT_FILE, DATA_DIR).splitlines()
    seen = collections.Counter(line.partition(",")[2] for line in lines[1:])
    twice = [line for line in lines[1:] if seen[line.partition(",")[2]] > 1]
    assert len(twice) == 70
    text = "\n".join([lines[0], *twice]) + "\n"
    monkeypatch.setattr(tabular, "CREDIT_FILE", published(tabular.CREDIT_FILE, text, tmp_path))
    data = datasets.credit_default(tmp_path, clients=1, partition="iid", seed=0)
    assert data.test is not None
    for part in (data.fields, data.test):
        assert len(part["x"]) > 0
        assert set(collections.Counter(bytes(x) for x in part["x"]).values()) == {2}


REQUESTS: Any = {"clients": None, "partition": "iid", "seed": 0}


@pytest.mark.parametrize("load", [datasets.adult, datasets.credit_default])
@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({}, "clients"),
        ({"clients": 0}, "clients"),
        ({"clients": 3, "seed": -1}, "seed"),
        ({"clients": 3, "partition": "shards:0"}, "partition"),
        ({"partition": "natural"}, "partition"),
        ({"partition": "natural:zodiac"}, "partition"),
    ],
)
def test_a_bad_request_is_refused_before_a_file_is_read(
    load: Any, changed: dict[str, Any], field: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, **{**REQUESTS, **changed})
    assert caught.value.field == field


@needs("adult")
def test_a_number_of_clients_that_is_not_the_columns_is_refused() -> None:
    with pytest.raises(DataError, match="clients: got 7; takes none or 9, the values of workclass"):
        datasets.adult(DATA_DIR, clients=7, partition="natural:workclass", seed=0)


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (datasets.heart_disease, "heart-disease/processed.cleveland.data"),
        (lambda path: datasets.adult(path, **{**REQUESTS, "clients": 2}), "adult/adult.data"),
        (
            lambda path: datasets.credit_default(path, **{**REQUESTS, "clients": 2}),
            "credit-card-default/UCI_Credit_Card.csv",
        ),
        (datasets.wisdm, "wisdm/WISDM_ar_v1.1_transformed.arff"),
        (
            datasets.beijing_air,
            "beijing-air-quality/PRSA_Data_Aotizhongxin_20130301-20170228.csv",
        ),
        (datasets.shakespeare, "shakespeare/a_and_c.xml"),
    ],
)
def test_a_missing_file_says_what_to_get_and_another_one_is_refused(
    load: Any, name: str, tmp_path: Path
) -> None:
    with pytest.raises(MissingFileError) as caught:
        load(tmp_path)
    assert caught.value.field == name
    assert "https://" in str(caught.value)
    assert "\n" not in str(caught.value)
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("something else")
    with pytest.raises((ChecksumError, MissingFileError)) as refused:
        load(tmp_path)
    assert "https://" in str(refused.value)
