"""Columns of tables as features: fixed constants only, nothing computed from the data.

A mean or a deviation of private training data would be a query of its own, outside the guarantee.
So centres, scales and categories are public constants in the loaders, rounded from what is
published about each set.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fl.errors import DataError

Column = npt.NDArray[np.float64]


def numbers(values: Sequence[str], missing: str) -> Column:
    """Strings as float64 [N]; `missing` becomes nan."""
    return np.array([np.nan if value == missing else float(value) for value in values])


def scaled(column: Column, centre: float, scale: float) -> Column:
    """(column - centre) / scale; a missing value becomes 0, as if it were the centre."""
    return np.where(np.isnan(column), 0.0, (column - centre) / scale)


def missing(column: Column) -> Column:
    """1 where a value is missing, else 0."""
    return np.isnan(column).astype(np.float64)


def codes(
    values: Sequence[str], categories: Sequence[str], field: str, absent: str | None = None
) -> npt.NDArray[np.int64]:
    """Positions in `categories`, int64 [N]; -1 for `absent`.

    Raises:
        DataError: a value is not among them.
    """
    places: Mapping[str, int] = {category: k for k, category in enumerate(categories)}
    unknown = sorted(set(values) - set(places) - {absent or ""})
    if unknown:
        raise DataError(field, f"the value {unknown[0]!r}", f"one of {', '.join(categories)}")
    return np.array([places.get(value, -1) for value in values], np.int64)


def one_hot(places: npt.NDArray[np.int64], count: int) -> Column:
    """[N, count] with one 1 a row; a row of zeros for -1."""
    return np.equal(places[:, None], np.arange(count)).astype(np.float64)


def table(*columns: Column) -> npt.NDArray[np.float32]:
    """Columns [N] and blocks [N, k] side by side, float32 [N, d]."""
    blocks = [column[:, None] if column.ndim == 1 else column for column in columns]
    return np.concatenate(blocks, axis=1).astype(np.float32)
