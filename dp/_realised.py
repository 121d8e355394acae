"""The largest epsilon over many compositions of few distinct events."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp.accountants import conversion
from dp.accountants.query import curve_of, epsilon
from dp.errors import UnsupportedEventError
from dp.events import ComposedEvent, Event, NeighboringRelation, SelfComposedEvent

IntArray = NDArray[np.int64]

_BLOCK = 1 << 12  # rows whose orders are summed at a time


@dataclass(frozen=True)
class Rows:
    """Compositions: row i holds events[j] counts[j] times, j in starts[i] .. starts[i + 1] - 1."""

    starts: IntArray
    events: IntArray
    counts: IntArray

    def __len__(self) -> int:
        return self.starts.size - 1

    def row(self, i: int) -> list[tuple[int, int]]:
        """[(event, count), ...] of row i."""
        held = slice(int(self.starts[i]), int(self.starts[i + 1]))
        return list(zip(self.events[held].tolist(), self.counts[held].tolist(), strict=True))


def patterns(survivors: list[list[IntArray]], num_clients: int) -> Rows:
    """The distinct compositions that clients have, without the empty one.

    One event after the other, each client carries the number of its row so far, and only those
    that took part move on to another: the table of clients and events is never built.

    Args:
        survivors: for each event, the ids of the survivors of each of its releases.
        num_clients: ids are below it.
    """
    held = np.zeros(num_clients, dtype=np.int64)
    rows: list[tuple[tuple[int, int], ...]] = [()]
    for event, releases in enumerate(survivors):
        ids, counts = np.unique(np.concatenate(releases), return_counts=True)
        width = len(releases) + 1
        steps, moved = np.unique(held[ids] * width + counts, return_inverse=True)
        held[ids] = len(rows) + moved.ravel()
        rows.extend((*rows[step // width], (event, step % width)) for step in steps.tolist())
    used = [rows[number] for number in np.unique(held).tolist() if number]
    starts = np.cumsum([0, *(len(row) for row in used)], dtype=np.int64)
    flat = np.array([pair for row in used for pair in row], dtype=np.int64).reshape(-1, 2)
    return Rows(starts, flat[:, 0], flat[:, 1])


def upper_of(
    events: list[Event], rows: Rows, neighboring: NeighboringRelation, accountant: str
) -> Callable[[float], float]:
    """From delta to the largest upper epsilon over compositions `rows`.

    Raises:
        ParameterError, UnsupportedEventError: as `dp.epsilon`.
    """
    if accountant != "pld":
        curves = [curve_of(event, neighboring, accountant) for event in events]
        return lambda delta: largest_epsilon(curves, rows, delta)
    return lambda delta: _largest_by_pld(events, rows, neighboring, delta)


def _largest_by_pld(
    events: list[Event], rows: Rows, neighboring: NeighboringRelation, delta: float
) -> float:
    """Rows are analysed from the largest Rényi bound downwards, while it exceeds what was found."""
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
            SelfComposedEvent(events[event], count) for event, count in rows.row(int(index))
        )
        got = epsilon(ComposedEvent(parts), delta, neighboring=neighboring, accountant="pld")
        found = max(found, got.upper)
    return found


def _coarse(curves: list[conversion.Curve], rows: Rows, delta: float) -> conversion.FloatArray:
    """Bounds from above of every row, by one pass over the base grid of orders; float64[rows]."""
    a = conversion.base_grid()
    table = np.stack([curve(a) for curve in curves])
    term = conversion.conversion_term(a, delta)
    best: conversion.FloatArray = np.zeros(len(rows))
    for start in range(0, len(rows), _BLOCK):
        stop = min(start + _BLOCK, len(rows))
        held = slice(int(rows.starts[start]), int(rows.starts[stop]))
        costs = table[rows.events[held]] * rows.counts[held, None].astype(np.float64)
        sums = np.add.reduceat(costs, rows.starts[start:stop] - rows.starts[start], axis=0)
        best[start:stop] = (sums * (1.0 + 2.0**-33) + term).min(axis=1)
    return np.maximum(0.0, best)


def largest_epsilon(curves: list[conversion.Curve], rows: Rows, delta: float) -> float:
    """Largest upper epsilon at `delta` over compositions `rows`.

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
        curve = _composed(curves, rows.row(int(index)))
        found = max(found, conversion.epsilon_from_curve(curve, delta))
    return found


def _composed(curves: list[conversion.Curve], row: list[tuple[int, int]]) -> conversion.Curve:
    """The curve of a composition that holds event i of every (i, count) that many times."""

    def curve(a: conversion.FloatArray) -> conversion.FloatArray:
        total = np.zeros_like(a)
        for event, count in row:
            total = total + float(count) * curves[event](a)
        return total

    return curve
