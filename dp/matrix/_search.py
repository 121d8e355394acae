"""The search for coefficients with the least rms error of prefix sums; analytic gradients."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dp.matrix import sensitivity, series
from dp.matrix._lbfgs import minimize
from dp.matrix.optimum import square_root
from dp.matrix.participation import Participation

FloatArray = NDArray[np.float64]
Loss = Callable[[FloatArray], tuple[float, FloatArray]]

_STEPS = 400
_GENERAL_GAIN = 1e-7  # a step costs a second at 1,024 rounds, and rounding costs more


def toeplitz_loss(column: FloatArray, participation: Participation) -> tuple[float, FloatArray]:
    """(log of the mean squared error times squared sensitivity, its gradient in `column`).

    With g = 1 / c and B = g / (1 - x), the mean over rounds of sum_{j <= t} B_j^2 is
    sum_j B_j^2 (n - j) / n, and dB = -B g dc; the client moves v = c (1 + x^b + x^2b + ...).

    Args:
        column: float64[bands], c_0 > 0.
        participation: of one client; its worst pattern is taken to be 0, b, 2b, ...
    """
    n, b = participation.rounds, participation.separation
    inverse = series.inverse(column, n)
    decoder = np.cumsum(inverse)
    weights = (n - np.arange(n)) / n
    error = float(weights @ decoder**2)
    product = series.multiply(decoder, inverse, n)
    error_slope = -2.0 * series.transposed(product, weights * decoder)[: len(column)]
    moved = sensitivity.moved_by(column, participation)
    moved_sq = float(moved @ moved)
    moved_slope = np.zeros(len(column))
    for i in range(participation.most):
        part = moved[i * b : i * b + len(column)]
        moved_slope[: len(part)] += 2.0 * part
    slope: FloatArray = error_slope / error + moved_slope / moved_sq
    return math.log(error * moved_sq), slope


def toeplitz_column(participation: Participation, bands: int) -> FloatArray:
    """The best coefficients c_0 = 1, c_1, ... that the search finds, float64[bands].

    Past the separation it is among non-negative coefficients that do not increase, where the
    pattern 0, b, 2b, ... is the worst; up to there that pattern is the worst for all.
    """
    if bands == 1:
        return np.ones(1)
    if bands > participation.separation and participation.most > 1:
        return _ordered_column(participation, bands)

    def loss(free: FloatArray) -> tuple[float, FloatArray]:
        value, slope = toeplitz_loss(np.append(1.0, free), participation)
        return value, slope[1:]

    best, _ = minimize(loss, square_root(bands)[1:], steps=_STEPS)
    return np.append(1.0, best)


def _ordered_column(participation: Participation, bands: int) -> FloatArray:
    """As `toeplitz_column` among 1 = c_0 >= c_1 >= ... >= 0.

    The falls from one coefficient to the next are free squares over their sum, the last of them
    the fall to 0 behind the last band.
    """

    def column_of(free: FloatArray) -> FloatArray:
        shares = free**2
        column: FloatArray = 1.0 - np.cumsum(np.append(0.0, shares[:-1])) / shares.sum()
        return column

    def loss(free: FloatArray) -> tuple[float, FloatArray]:
        column = column_of(free)
        value, slope = toeplitz_loss(column, participation)
        later = np.append(np.cumsum(slope[:0:-1])[::-1], 0.0)  # sum of slopes behind each fall
        shares = (float(slope @ (1.0 - column)) - later) / float((free**2).sum())
        return value, 2.0 * free * shares

    start = np.sqrt(-np.diff(np.append(square_root(bands), 0.0)))
    best, _ = minimize(loss, start, steps=_STEPS)
    return column_of(best)


def general_rows(n: int, column: FloatArray) -> FloatArray:
    """All entries of the bands, columns of norm 1, from a Toeplitz start; float64[n, bands].

    With X = C^T C the problem is convex, and every banded X has a banded factor, so a stationary
    point is the optimum (tested by its duality gap).

    Args:
        n: rounds.
        column: float64[bands], the start.
    """
    bands = len(column)
    mask = np.arange(bands) < (n - np.arange(n))[:, None]  # entries of a column inside C
    unit_loss = banded_loss(n, bands)

    def loss(free: FloatArray) -> tuple[float, FloatArray]:
        raw = np.where(mask, free.reshape(n, bands), 0.0)
        norms = np.sqrt((raw**2).sum(axis=1, keepdims=True))
        unit = raw / norms
        value, slope = unit_loss(unit)
        slope = (slope - unit * (slope * unit).sum(axis=1, keepdims=True)) / norms
        return value, np.where(mask, slope, 0.0).ravel()

    start = np.where(mask, column, 0.0).ravel()
    best, _ = minimize(loss, start, steps=_STEPS, gain=_GENERAL_GAIN)
    columns = np.where(mask, best.reshape(n, bands), 0.0)
    columns /= np.sqrt((columns**2).sum(axis=1, keepdims=True))
    rows = np.zeros((n, bands))
    for i in range(bands):
        rows[i:, i] = columns[: n - i, i]
    return rows


def banded_loss(n: int, bands: int) -> Loss:
    """The function columns [n, bands] -> (log of the mean squared error, gradient)."""
    j, i = np.meshgrid(np.arange(n), np.arange(bands), indexing="ij")
    inside = j + i < n
    down, across = (j + i)[inside], j[inside]

    def loss(columns: FloatArray) -> tuple[float, FloatArray]:
        matrix = np.zeros((n, n))
        matrix[down, across] = columns[inside]
        inverse = series.triangular_inverse(matrix)
        decoder = np.cumsum(inverse, axis=0)
        error = float((decoder**2).sum()) / n
        # d tr B^T B = -2 <C^-T (A^T B) C^-T, dC>
        summed = np.cumsum(decoder[::-1], axis=0)[::-1]
        full = inverse.T @ summed @ inverse.T
        slope = np.zeros((n, bands))
        slope[inside] = full[down, across] * (-2.0 / (n * error))
        return math.log(error), slope

    return loss
