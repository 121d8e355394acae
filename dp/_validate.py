"""Checks of arguments; each returns the value in its working type or raises ParameterError."""

import math
import warnings
from collections.abc import Iterable
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp.errors import DeltaWarning, ParameterError


def real(field: str, value: object, low: float, high: float, *, open_low: bool = False) -> float:
    """`value` as a float in [low, high], or in (low, high] with `open_low`."""
    takes = f"a finite number in {'(' if open_low else '['}{low:g}, {high:g}]"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise ParameterError(field, value, takes)
    number = _as_float(value)
    inside = low < number <= high if open_low else low <= number <= high
    if not (math.isfinite(number) and inside):  # NaN compares false everywhere
        raise ParameterError(field, value, takes)
    return number


def _as_float(value: Real) -> float:
    """`value` as a float; an integer that no float holds becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def positive(field: str, value: object, high: float = math.inf) -> float:
    """`value` as a finite float in (0, high]."""
    return real(field, value, 0.0, high, open_low=True)


def integer(field: str, value: object, low: int, high: int | None = None) -> int:
    """`value` as an int in [low, high]."""
    takes = f"an integer >= {low}" if high is None else f"an integer in [{low}, {high}]"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise ParameterError(field, value, takes)
    number = int(value)
    if number < low or (high is not None and number > high):
        raise ParameterError(field, value, takes)
    return number


def scale(value: object) -> float:
    """A factor of the integer grid, in [2^-200, 2^200]."""
    return real("scale", value, 2.0**-200, 2.0**200)


def probability(field: str, value: object) -> float:
    """`value` as a float in [0, 1)."""
    number = real(field, value, 0.0, 1.0)
    if number == 1.0:
        raise ParameterError(field, value, "a number in [0, 1)")
    return number


def open_unit(field: str, value: object) -> float:
    """`value` as a float in (0, 1): neither end is meaningful."""
    takes = "a number strictly between 0 and 1"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise ParameterError(field, value, takes)
    number = _as_float(value)
    if not 0.0 < number < 1.0:
        raise ParameterError(field, value, takes)
    return number


def small_delta(delta: float, num_clients: int) -> None:
    """Warn of a delta that publishing one client picked at random, in full, would satisfy."""
    if num_clients > 1 and delta * num_clients >= 1.0:
        warnings.warn(
            f"delta={delta:g} is at least 1/{num_clients}: publishing the data of one client "
            "picked at random would meet it; take delta well below 1 / num_clients",
            DeltaWarning,
            stacklevel=3,
        )


def identifiers(field: str, values: Iterable[int], count: int) -> NDArray[np.int64]:
    """Distinct ids in [0, count), ascending, int64.

    Raises:
        ParameterError: an id is not an integer, out of range or repeated.
    """
    found = np.asarray(list(values))
    if found.size == 0:
        return np.zeros(0, dtype=np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ParameterError(field, found.dtype.name, "integers")
    ids = np.unique(found.astype(np.int64))
    if ids.size != found.size:
        raise ParameterError(field, "repeated ids", "distinct ids")
    if ids[0] < 0 or ids[-1] >= count:
        outside = int(ids[0] if ids[0] < 0 else ids[-1])
        raise ParameterError(field, outside, f"ids in [0, {count - 1}]")
    return ids


def vector(field: str, value: ArrayLike, dim: int | None = None) -> NDArray[np.float64]:
    """`value` as float64[dim]; shape only, finiteness is the caller's matter.

    Raises:
        ParameterError: wrong shape or kind (complex, bool, object), or empty.
    """
    array = np.asarray(value)
    takes = "a non-empty real vector" if dim is None else f"a real vector of length {dim}"
    if array.ndim != 1 or array.size == 0 or (dim is not None and array.size != dim):
        raise ParameterError(field, f"shape {array.shape}", takes)
    if array.dtype.kind not in "iuf":
        raise ParameterError(field, f"dtype {array.dtype}", takes)
    return array.astype(np.float64)


def integer_vector(field: str, value: NDArray[np.generic], dim: int | None) -> None:
    """Check for an integer array [dim] (any shape with dim=None).

    Raises:
        ParameterError: wrong shape or a dtype that is not an integer.
    """
    takes = "an integer array" if dim is None else f"an integer vector of length {dim}"
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        raise ParameterError(field, getattr(value, "dtype", type(value).__name__), takes)
    if dim is not None and value.shape != (dim,):
        raise ParameterError(field, f"shape {value.shape}", takes)
