"""The largest epsilon over many compositions of few distinct events."""

import numpy as np
from numpy.typing import NDArray

from dp.accountants import conversion

IntArray = NDArray[np.int64]


def largest_epsilon(curves: list[conversion.Curve], rows: IntArray, delta: float) -> float:
    """Largest upper epsilon at `delta` over compositions `rows` int64[rows, events].

    One pass over the base grid of orders bounds every row from above; rows are then searched
    finely from the largest bound downwards, until no bound exceeds what was found.
    """
    if not curves:
        return 0.0
    a = conversion.base_grid()
    coarse = (rows @ np.stack([curve(a) for curve in curves])).astype(np.float64)
    bounds = (coarse * (1.0 + 2.0**-33) + conversion.conversion_term(a, delta)).min(axis=1)
    found = 0.0
    for index in np.argsort(-bounds):
        if bounds[index] <= found:
            break
        row = rows[index]
        found = max(found, conversion.epsilon_from_curve(_composed(curves, row), delta))
    return found


def _composed(curves: list[conversion.Curve], row: IntArray) -> conversion.Curve:
    """The curve of a composition that holds event i row[i] times."""
    used = np.flatnonzero(row)

    def curve(a: conversion.FloatArray) -> conversion.FloatArray:
        total = np.zeros_like(a)
        for index in used:
            total = total + float(row[index]) * curves[index](a)
        return total

    return curve
