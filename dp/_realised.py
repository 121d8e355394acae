"""The largest epsilon over many compositions of few distinct events."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dp.accountants import conversion
from dp.accountants.query import curve_of, epsilon
from dp.errors import UnsupportedEventError
from dp.events import ComposedEvent, Event, NeighboringRelation, SelfComposedEvent

IntArray = NDArray[np.int64]


def upper_of(
    events: list[Event], rows: IntArray, neighboring: NeighboringRelation, accountant: str
) -> Callable[[float], float]:
    """From delta to the largest upper epsilon over compositions `rows` int64[rows, events].

    Raises:
        ParameterError, UnsupportedEventError: as `dp.epsilon`.
    """
    if accountant != "pld":
        curves = [curve_of(event, neighboring, accountant) for event in events]
        return lambda delta: largest_epsilon(curves, rows, delta)
    return lambda delta: _largest_by_pld(events, rows, neighboring, delta)


def _largest_by_pld(
    events: list[Event], rows: IntArray, neighboring: NeighboringRelation, delta: float
) -> float:
    """Rows are analysed from the largest Rényi bound downwards, while it exceeds what was found."""
    rows = rows[rows.any(axis=1)]
    bounds = np.full(len(rows), np.inf)
    try:
        curves = [curve_of(event, neighboring, "rdp") for event in events]
        if len(rows):
            bounds = _coarse(curves, rows, delta)
    except UnsupportedEventError:
        pass  # no Rényi bound to order them by: every row is analysed
    found = 0.0
    for index in np.argsort(-bounds):
        if bounds[index] <= found:
            break
        parts = tuple(
            SelfComposedEvent(event, int(count))
            for event, count in zip(events, rows[index], strict=True)
            if count
        )
        got = epsilon(ComposedEvent(parts), delta, neighboring=neighboring, accountant="pld")
        found = max(found, got.upper)
    return found


def _coarse(curves: list[conversion.Curve], rows: IntArray, delta: float) -> conversion.FloatArray:
    """Bounds from above of every row, by one pass over the base grid of orders; float64[rows]."""
    a = conversion.base_grid()
    divergences = (rows @ np.stack([curve(a) for curve in curves])).astype(np.float64)
    bounds: conversion.FloatArray = divergences * (1.0 + 2.0**-33)
    bounds += conversion.conversion_term(a, delta)
    best: conversion.FloatArray = np.maximum(0.0, bounds.min(axis=1))
    return best


def largest_epsilon(curves: list[conversion.Curve], rows: IntArray, delta: float) -> float:
    """Largest upper epsilon at `delta` over compositions `rows` int64[rows, events].

    One pass over the base grid of orders bounds every row from above; rows are then searched
    finely from the largest bound downwards, until no bound exceeds what was found.
    """
    if not curves:
        return 0.0
    bounds = _coarse(curves, rows, delta)
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
