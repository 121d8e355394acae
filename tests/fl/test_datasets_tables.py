"""Tables with a client column: what is read, what is refused, what is never made up."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.datasets import FederatedDataset, from_csv, from_frame, from_hugging_face, from_parquet
from fl.errors import DataError, MissingExtraError

pd = pytest.importorskip("pandas", reason="needs the extra 'tables'")
pytest.importorskip("pyarrow", reason="needs the extra 'tables'")

ROWS = {
    "site": ["b", "a", "b", "c", "a"],
    "age": [50, 30, 40, 20, 60],
    "dose": [0.5, 1.0, 0.25, 0.0, 2.0],
    "ill": [1, 0, 0, 1, 1],
}
FRAME: Any = pd.DataFrame(ROWS)


def checked(data: FederatedDataset) -> None:
    assert (data.num_clients, data.num_classes, data.name) == (3, 2, "sites")
    assert data.sizes.tolist() == [2, 2, 1]
    assert data.fields["x"].dtype == np.float32
    assert data.fields["y"].dtype == np.int32
    assert data.client(0)["x"].tolist() == [[30, 1.0], [60, 2.0]]
    assert data.client(1)["x"].tolist() == [[50, 0.5], [40, 0.25]]
    assert data.client(1)["y"].tolist() == [1, 0]


def read(frame: Any = FRAME, **changed: Any) -> FederatedDataset:
    options: dict[str, Any] = {"client": "site", "label": "ill", "num_classes": 2, "name": "sites"}
    return from_frame(frame, **{**options, **changed})


def test_a_data_frame_is_grouped_by_its_column() -> None:
    checked(read())


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_files_are_read_alike(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    reader: Callable[..., FederatedDataset] = from_csv
    if suffix == ".parquet":
        FRAME.to_parquet(path)
        reader = from_parquet
    else:
        FRAME.to_csv(path, index=False)
    checked(reader(path, client="site", label="ill", num_classes=2, name="sites"))
    data = reader(path, test=path, client="site", label="ill", num_classes=2, name="sites")
    assert data.test is not None
    assert data.test["x"].tolist() == [[50, 0.5], [30, 1.0], [40, 0.25], [20, 0], [60, 2.0]]


def test_features_are_those_that_are_asked_for_in_that_order() -> None:
    data = read(features=["dose", "age"])
    assert data.client(2)["x"].tolist() == [[0.0, 20.0]]
    assert read(features=["dose"]).fields["x"].shape == (5, 1)


def test_labels_are_numbers_classes_or_names_of_classes() -> None:
    data = read(label="dose", num_classes=None)
    assert data.fields["y"].dtype == np.float32
    assert data.num_classes is None
    assert data.client(0)["y"].tolist() == [1.0, 2.0]
    named = FRAME.assign(ill=["yes", "no", "no", "yes", "yes"])
    checked(read(named, num_classes=None, classes=["no", "yes"]))
    with pytest.raises(DataError, match=r"column 'ill': got the value 'yes'; takes one of \['no'"):
        read(named, num_classes=None, classes=["no"])


@pytest.mark.parametrize(
    ("frame", "changed", "field", "says"),
    [
        (FRAME, {"client": "clinic"}, "column 'clinic'", "none of that name"),
        (FRAME, {"label": "dead"}, "column 'dead'", "none of that name"),
        (FRAME, {"features": ["age", "sex"]}, "column 'sex'", "none of that name"),
        (FRAME[["site", "ill"]], {}, "features", "column besides"),
        (FRAME.assign(age=list("abcde")), {}, "column 'age'", "code categories"),
        (FRAME.assign(age=[1, None, 3, 4, 5]), {}, "column 'age'", "got 1 missing values"),
        (FRAME.assign(ill=[1, None, 0, 0, 0]), {}, "column 'ill'", "missing values"),
        (FRAME.assign(ill=[1, 0.5, 0, 0, 0]), {}, "column 'ill'", "no integers"),
        (FRAME.assign(ill=[1, 2, 0, 0, 0]), {}, "fields['y']", "labels 0 to 2"),
        (FRAME.assign(site=["a", None, "b", "a", "b"]), {}, "column 'site'", "missing values"),
        (FRAME.assign(site=[1.0, np.nan, 2, 2, 2]), {}, "column 'site'", "missing values"),
        (FRAME, {"test": FRAME[["site", "age", "ill"]]}, "test, column 'dose'", "same columns"),
        (FRAME, {"test": FRAME.assign(age=np.nan)}, "test, column 'age'", "5 missing values"),
    ],
)
def test_what_does_not_fit_is_named(frame: Any, changed: Any, field: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read(frame, **changed)
    assert caught.value.field == field
    assert says in str(caught.value)


def test_files_that_are_not_there_or_no_tables_are_named(tmp_path: Path) -> None:
    options: dict[str, Any] = {"client": "site", "label": "ill", "name": "sites"}
    with pytest.raises(DataError, match=r"path: got .*none\.csv, no such file"):
        from_csv(tmp_path / "none.csv", **options)
    FRAME.to_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"test: got .*no such file"):
        from_csv(tmp_path / "a.csv", test=tmp_path / "none.csv", **options)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match=r"path: got .*unreadable"):
        from_csv(tmp_path / "empty.csv", **options)
    (tmp_path / "no.parquet").write_bytes(b"PAR0")
    with pytest.raises(DataError, match=r"path: got .*unreadable"):
        from_parquet(tmp_path / "no.parquet", **options)


def test_without_pandas_or_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"client": "site", "label": "ill", "name": "sites"}
    monkeypatch.setitem(sys.modules, "pandas", None)
    for reader in (from_csv, from_parquet):
        with pytest.raises(MissingExtraError, match=r"private-aggregation\[tables\]"):
            reader(tmp_path / "a", **options)
    monkeypatch.setitem(sys.modules, "pandas", pd)
    FRAME.to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(pd, "read_parquet", lambda _: (_ for _ in ()).throw(ImportError("none")))
    with pytest.raises(MissingExtraError, match=r"private-aggregation\[tables\]"):
        from_parquet(tmp_path / "a.parquet", **options)


class Label:
    """As `datasets.ClassLabel`: a feature that knows its classes."""

    num_classes = 3


class Split:
    """As much of `datasets.Dataset` as is used."""

    def __init__(self, columns: dict[str, Any], features: dict[str, Any]) -> None:
        self.columns, self.features = columns, features
        self.column_names = list(columns)

    def select_columns(self, names: list[str]) -> "Split":
        return Split({name: self.columns[name] for name in names}, self.features)

    def with_format(self, kind: str) -> "Split":
        assert kind == "numpy"
        return self

    def __getitem__(self, rows: slice) -> dict[str, Any]:
        assert rows == slice(None)
        return {name: np.asarray(values) for name, values in self.columns.items()}


def faces(**changed: Any) -> Split:
    columns: dict[str, Any] = {
        "image": np.arange(16, dtype=np.uint8).reshape(4, 2, 2),
        "embedding": np.ones((4, 3)),
        "label": [2, 0, 1, 1],
        "who": ["eve", "bob", "eve", "ann"],
    }
    return Split({**columns, **changed}, {"label": Label(), "image": object(), "who": object()})


def hugging(split: Any, fields: dict[str, str], **changed: Any) -> FederatedDataset:
    options: dict[str, Any] = {"client": "who", "name": "faces"}
    return from_hugging_face(split, fields=fields, **{**options, **changed})


def test_a_split_of_hugging_face_is_grouped_by_its_column() -> None:
    data = hugging(faces(), {"x": "image", "e": "embedding", "y": "label"}, test=faces())
    assert (data.num_clients, data.num_classes) == (3, 3)
    assert data.client(2)["x"].tolist() == [[[0, 1], [2, 3]], [[8, 9], [10, 11]]]
    assert data.client(2)["y"].tolist() == [2, 1]
    kinds = {key: str(value.dtype) for key, value in data.fields.items()}
    assert kinds == {"x": "uint8", "e": "float32", "y": "int32"}
    assert data.test is not None
    assert data.test["y"].tolist() == [2, 0, 1, 1]
    assert hugging(faces(), {"x": "image", "y": "label"}, num_classes=5).num_classes == 5
    assert hugging(faces(), {"x": "image"}).num_classes is None


@pytest.mark.parametrize(
    ("split", "fields", "says"),
    [
        (faces(), {"x": "picture"}, "column 'picture': got "),
        ({"train": faces()}, {"x": "image"}, r"got \['train'\]; takes one split"),
        (faces(label=["a", "b", "c", "d"]), {"y": "label"}, "column 'label': got <U1"),
        (faces(label=[1, 2**40, 0, 0]), {"y": "label"}, "no integers of 32 bits"),
        (faces(who=["eve", None, "eve", "ann"]), {"x": "image"}, "column 'who': got missing"),
    ],
)
def test_what_a_split_lacks_is_named(split: Any, fields: dict[str, str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        hugging(split, fields)


def test_the_real_package() -> None:
    real = pytest.importorskip("datasets", reason="the package datasets is not installed")
    features = real.Features(
        {
            "image": real.Array2D((2, 2), "uint8"),
            "label": real.ClassLabel(names=["a", "b", "c"]),
            "who": real.Value("string"),
        }
    )
    split = real.Dataset.from_dict(
        {
            "image": np.arange(16, dtype=np.uint8).reshape(4, 2, 2).tolist(),
            "label": [2, 0, 1, 1],
            "who": ["eve", "bob", "eve", "ann"],
        },
        features=features,
    )
    data = hugging(split, {"x": "image", "y": "label"}, test=split)
    assert (data.num_clients, data.num_classes) == (3, 3)
    assert data.client(2)["x"].tolist() == [[[0, 1], [2, 3]], [[8, 9], [10, 11]]]
    assert data.client(2)["y"].tolist() == [2, 1]
