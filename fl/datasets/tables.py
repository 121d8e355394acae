"""Data sets of one's own in tables with a client column: data frames, CSV, Parquet, Hugging Face.

Nothing is computed from the values: no scaling, no filling in of what is missing, no guessing of
classes. Such a statistic of private training data would be a query outside the guarantee, so
preprocessing with public constants is the caller's, before or after. Clients are numbered in
ascending order of their column's values.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fl.datasets.dataset import Array, FederatedDataset
from fl.errors import DataError, MissingExtraError


def from_csv(
    path: str | Path, *, test: str | Path | None = None, **options: Any
) -> FederatedDataset:
    r"""Reads a CSV file with a header and a client column; options are those of `from_frame`.

    Args:
        path: of the clients' examples; may be compressed (.gz, .zip, ...).
        test: of a file with the same columns, the client column aside.
        options: `client`, `label` and the rest of `from_frame`'s arguments.

    Raises:
        MissingExtraError: pandas is not installed.
        DataError: no such file, or as `from_frame`.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "visits.csv"
        >>> _ = path.write_text("clinic,age,ill\nb,50,1\na,30,0\nb,40,0\n")
        >>> data = from_csv(path, client="clinic", label="ill", num_classes=2, name="visits")
        >>> data.client(1)["x"].tolist(), data.client(1)["y"].tolist()
        ([[50.0], [40.0]], [1, 0])
    """
    return _from_files("read_csv", path, test, options)


def from_parquet(
    path: str | Path, *, test: str | Path | None = None, **options: Any
) -> FederatedDataset:
    """Reads a Parquet file with a client column, as `from_csv` does a CSV file."""
    return _from_files("read_parquet", path, test, options)


def _from_files(
    reader: str, path: str | Path, test: str | Path | None, options: Mapping[str, Any]
) -> FederatedDataset:
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise MissingExtraError("a table from a file", "tables") from error

    def frame(file: str | Path, field: str) -> Any:
        if not Path(file).is_file():
            raise DataError(field, f"{file}, no such file", "a file with a client column")
        try:
            return getattr(pd, reader)(file)
        except ImportError as error:
            raise MissingExtraError("a Parquet file", "tables") from error
        except (ValueError, OSError) as error:  # pandas' errors about content are ValueErrors
            raise DataError(field, f"{file}, unreadable ({error})", "a table") from error

    return from_frame(
        frame(path, "path"), test=None if test is None else frame(test, "test"), **options
    )


def from_frame(
    frame: Any,
    *,
    client: str,
    label: str,
    name: str,
    features: Sequence[str] | None = None,
    classes: Sequence[Any] | None = None,
    num_classes: int | None = None,
    test: Any = None,
) -> FederatedDataset:
    """Takes a data frame of pandas, or whatever has `columns` and gives a column for its name.

    Args:
        frame: one row per example.
        client: column that tells clients apart; any values that can be sorted.
        label: column to predict: a class, or a number where neither `classes` nor `num_classes` is
            given.
        name: what summaries call the data.
        features: columns of numbers; None for all others, in their order.
        classes: values of the label column in the order of the classes. Public, as the next one.
        num_classes: for labels that are 0 to num_classes - 1 already.
        test: a data frame with the same columns; it needs no client column.

    Returns:
        "x" float32 [N, features] and "y" int32 [N], or float32 [N] where there are no classes.

    Raises:
        DataError: a column is missing, holds no numbers or has missing values; a label is unknown.
    """
    columns = [str(column) for column in frame.columns]
    for wanted in (client, label, *(features or ())):
        if wanted not in columns:
            raise DataError(f"column {wanted!r}", "none of that name", f"one of {columns}")
    chosen = features or [column for column in columns if column not in (client, label)]
    if not chosen:
        raise DataError("features", f"columns {columns}", "a column besides client and label")
    count = num_classes if classes is None else len(classes)

    def fields(table: Any, where: str) -> dict[str, Array]:
        for wanted in (label, *chosen):
            if wanted not in table.columns:
                raise DataError(
                    f"{where}column {wanted!r}", "none of that name", "the same columns"
                )
        x = np.stack([_numbers(table, column, where) for column in chosen], axis=1)
        if classes is not None:
            return {"x": x, "y": _coded(table[label], classes, f"{where}column {label!r}")}
        y = _numbers(table, label, where)
        return {"x": x, "y": y if count is None else _integers(y, f"{where}column {label!r}")}

    return FederatedDataset.from_arrays(
        fields(frame, ""),
        _client_ids(np.asarray(frame[client]), f"column {client!r}"),
        test=None if test is None else fields(test, "test, "),
        num_classes=count,
        name=name,
    )


def from_hugging_face(
    dataset: Any,
    *,
    client: str,
    fields: Mapping[str, str],
    name: str,
    num_classes: int | None = None,
    test: Any = None,
) -> FederatedDataset:
    """Takes a `datasets.Dataset` (one split) that was loaded by the caller.

    Nothing of that package is imported here: `column_names`, `features`, `select_columns` and
    `with_format("numpy")` are used. Floats become float32 and integers int32; bytes stay bytes.

    Args:
        dataset: one row per example.
        client: column that tells clients apart.
        fields: name of a field -> name of a column, such as {"x": "image", "y": "label"}; every
            row of a column has the same shape.
        name: what summaries call the data.
        num_classes: labels are 0 to num_classes - 1; None to take what the label column declares.
        test: another split with the columns of `fields`.

    Raises:
        DataError: a column is missing, or its rows are no numbers of one shape.
    """
    for wanted in (client, *fields.values()):
        if isinstance(dataset, Mapping) or wanted not in dataset.column_names:
            found = list(dataset) if isinstance(dataset, Mapping) else dataset.column_names
            raise DataError(f"column {wanted!r}", f"{found}", "one split that has this column")
    arrays = _columns_of(dataset, [client, *fields.values()])
    declared = getattr(dataset.features.get(fields.get("y", "")), "num_classes", None)
    return FederatedDataset.from_arrays(
        {field: _narrow(arrays[column], column) for field, column in fields.items()},
        _client_ids(arrays[client], f"column {client!r}"),
        test=None if test is None else {
            field: _narrow(array, field)
            for field, array in zip(
                fields, _columns_of(test, list(fields.values())).values(), strict=True
            )
        },
        num_classes=declared if num_classes is None else num_classes,
        name=name,
    )  # fmt: skip


def _columns_of(dataset: Any, names: list[str]) -> dict[str, Array]:
    rows = dataset.select_columns(list(dict.fromkeys(names))).with_format("numpy")[:]
    return {name: np.asarray(rows[name]) for name in names}


def _narrow(array: Array, column: str) -> Array:
    """Types that JAX keeps: it would cut 64 bits to 32 without a word."""
    kind = array.dtype.kind
    if kind == "f":
        return array.astype(np.float32)
    if kind in "iu" and array.dtype.itemsize == 1:
        return array
    if kind in "iub":
        return _integers(array, f"column {column!r}")
    got = f"{array.dtype} of shape {array.shape}"
    raise DataError(f"column {column!r}", got, "numbers, the same shape in every row")


def _numbers(table: Any, column: str, where: str) -> npt.NDArray[np.float32]:
    values = np.asarray(table[column])
    if values.dtype.kind not in "fiub":
        takes = "numbers: code categories with public constants first"
        raise DataError(f"{where}column {column!r}", f"values of type {values.dtype}", takes)
    numbers = values.astype(np.float32)
    missing = int(np.isnan(numbers).sum())
    if missing:
        takes = "no missing value: leave rows out or put a public constant"
        raise DataError(f"{where}column {column!r}", f"{missing} missing values", takes)
    return numbers


def _integers(values: Array, field: str) -> npt.NDArray[np.int32]:
    integers = values.astype(np.int32)
    if np.any(integers != values):
        raise DataError(field, "numbers that are no integers of 32 bits", "integers")
    return integers


def _coded(values: Any, classes: Sequence[Any], field: str) -> npt.NDArray[np.int32]:
    places = {value: k for k, value in enumerate(classes)}
    try:
        return np.array([places[value] for value in values], np.int32)
    except KeyError as error:
        raise DataError(field, f"the value {error.args[0]!r}", f"one of {list(classes)}") from None


def _client_ids(values: Array, field: str) -> npt.NDArray[np.int64]:
    # NaN and None would sort as clients of their own, or not at all.
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise DataError(field, "missing values", "a client for every row")
    if values.dtype.kind == "O" and any(value is None or value != value for value in values):
        raise DataError(field, "missing values", "a client for every row")
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
