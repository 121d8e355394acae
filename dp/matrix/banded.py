"""Banded strategies (BandMF), optimised for the prefix sums; integer noise that is streamed.

Choquette-Choo, Ganesh, McKenna, McMahan, Rush, Thakurta, Xu 2023, "(Amplified) Banded Matrix
Factorization". C is lower triangular with `bands` diagonals; released errors e solve C e = z, so
that a round's noise is that of the round less what the last bands - 1 rounds were noised with.
C is a matrix of integers: optimised in double precision, then rounded to multiples of 1 / SCALE,
and everything that is said of a strategy is said of the rounded one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from dp import _validate
from dp.errors import ParameterError
from dp.matrix import sensitivity, series
from dp.matrix._lbfgs import minimize
from dp.matrix.optimum import MAX_DENSE, Errors, square_root
from dp.matrix.participation import Participation
from dp.matrix.stream import Arrays, Draw, IntArray, rounded_quotient

FloatArray = NDArray[np.float64]

SCALE = 1 << 12
_STEPS = 400


@dataclass(frozen=True, eq=False)
class BandedStrategy:
    """A lower-triangular strategy with few diagonals; built by `banded`.

    Attributes:
        participation: what it was optimised for.
        rows: int64[n, bands] or, for a Toeplitz strategy, int64[1, bands]; rows[t, j] is
            SCALE C[t, t - j].
    """

    participation: Participation
    rows: IntArray

    @property
    def rounds(self) -> int:
        """The number n of rounds."""
        return self.participation.rounds

    @property
    def bands(self) -> int:
        """Diagonals of C."""
        return int(self.rows.shape[1])

    @property
    def toeplitz(self) -> bool:
        """Whether all rows have the same coefficients."""
        return self.rows.shape[0] == 1

    @property
    def measurements(self) -> int:
        """Rows of C: independent draws of noise per coordinate."""
        return self.rounds

    def matrix(self) -> FloatArray:
        """SCALE C, float64[n, n]: integers."""
        if self.toeplitz:
            return series.lower_triangular(self.rows[0].astype(np.float64), self.rounds)
        result = np.zeros((self.rounds, self.rounds))
        for j in range(self.bands):
            t = np.arange(j, self.rounds)
            result[t, t - j] = self.rows[t, j]
        return result

    def sensitivity_sq(self, participation: Participation) -> int:
        """Bound on |SCALE C u|^2 over one client's vectors u of norm at most 1; an integer."""
        if self.toeplitz:
            found = sensitivity.toeplitz_sq(self.rows[0], participation)
            if found is not None:
                return found
        return sensitivity.banded_sq(self._columns, participation)

    @property
    def _columns(self) -> IntArray:
        """int64[n, bands]: [j, i] is SCALE C[j + i, j]."""
        rows = np.broadcast_to(self.rows, (self.rounds, self.bands))
        result = np.zeros((self.rounds, self.bands), dtype=np.int64)
        for i in range(self.bands):
            result[: self.rounds - i, i] = rows[i:, i]
        return result

    @cached_property
    def variances(self) -> FloatArray:
        """Variance of every prefix sum per unit of the variance of z, float64[n]."""
        if self.toeplitz:
            inverse = series.inverse(self.rows[0].astype(np.float64), self.rounds)
            return np.cumsum(np.cumsum(inverse) ** 2)
        decoder = np.cumsum(series.triangular_inverse(self.matrix()), axis=0)
        result: FloatArray = (decoder**2).sum(axis=1)
        return result

    def errors(self, participation: Participation) -> Errors:
        """Errors of the prefix sums, sensitivity included."""
        return errors_of(self.variances, self.sensitivity_sq(participation))

    def noise_slack(self, dim: int, sigma: float) -> float:
        """What streaming moves a measurement by beyond C x: nothing, it is exact."""
        del dim, sigma
        return 0.0

    def arrays(self, dim: int) -> Arrays:
        """The state before round 0: the noise of the last bands - 1 rounds, [bands - 1, dim]."""
        return {"errors": np.zeros((max(1, self.bands - 1), dim), dtype=np.int64)}

    def advance(self, arrays: Arrays, row: int, draw: Draw) -> IntArray:
        """The noise of round `row`, int64[dim]; `arrays` moves on.

        e_t = round((z_t - sum_j C_tj e_{t-j}) / C_tt), in integers.
        """
        kept, depth = arrays["errors"], max(1, self.bands - 1)
        coefficients = self._row(row)
        past = np.zeros(depth, dtype=np.int64)
        for j in range(1, min(self.bands - 1, row) + 1):
            past[(row - j) % depth] = coefficients[j]
        error = rounded_quotient(draw() - past @ kept, int(coefficients[0]))
        kept[row % depth] = error
        return error

    def skip(self, arrays: Arrays, row: int, draw: Draw) -> None:
        """Nothing is released in round `row`: it counts as without noise."""
        del draw
        depth = max(1, self.bands - 1)
        arrays["errors"][row % depth] = 0

    def published(self, measured: IntArray) -> IntArray:
        """What is released, int64[n, dim], from SCALE C x + z, int64[n, dim], and nothing else."""
        result = np.zeros_like(measured)
        for t in range(self.rounds):
            row, rest = self._row(t), measured[t].copy()
            for j in range(1, min(self.bands - 1, t) + 1):
                rest -= int(row[j]) * result[t - j]
            result[t] = rounded_quotient(rest, int(row[0]))
        return result

    def _row(self, t: int) -> IntArray:
        row: IntArray = self.rows[0 if self.toeplitz else t]
        return row


def errors_of(variances: FloatArray, sensitivity_sq: float) -> Errors:
    """Errors from the variances of the prefix sums per unit of noise."""
    scale = math.sqrt(sensitivity_sq)
    return Errors(
        math.sqrt(float(variances.max())) * scale, math.sqrt(float(variances.mean())) * scale
    )


def banded(participation: Participation, bands: int, *, toeplitz: bool = True) -> BandedStrategy:
    """The banded strategy with the least rms error of the prefix sums.

    Args:
        participation: of one client; the optimum is the best known for bands <= separation,
            where columns of one pattern are orthogonal.
        bands: diagonals; the state is bands - 1 vectors. 1 is independent noise.
        toeplitz: constant diagonals (any number of rounds, at once), or every entry of the bands
            (up to 1,024 rounds, seconds to minutes; a little better, most for few rounds).

    Raises:
        ParameterError: bands or rounds out of range.
    """
    n = participation.rounds
    bands = _validate.integer("bands", bands, 1, n)
    if not toeplitz and n > MAX_DENSE:
        takes = f"at most {MAX_DENSE}, or toeplitz=True"
        raise ParameterError("rounds", n, takes)
    if not toeplitz and bands > participation.separation and participation.most > 1:
        takes = "at most the separation, or toeplitz=True"
        raise ParameterError("bands", bands, takes)
    return _optimised(participation, bands, bool(toeplitz))


@lru_cache(maxsize=64)
def _optimised(participation: Participation, bands: int, toeplitz: bool) -> BandedStrategy:
    column = _toeplitz_column(participation, bands)
    if toeplitz:
        rows = np.rint(SCALE * column).astype(np.int64)[None, :]
    else:
        rows = np.rint(SCALE * _general_rows(participation.rounds, column)).astype(np.int64)
    rows.setflags(write=False)
    return BandedStrategy(participation, rows)


def _toeplitz_column(participation: Participation, bands: int) -> FloatArray:
    """Coefficients c_0 = 1, c_1, ... that minimise rms error times sensitivity, float64[bands].

    The sensitivity is that of the pattern 0, b, 2b, ...; past the separation the search is
    among non-negative coefficients that do not increase, where that pattern is the worst.
    """
    n = participation.rounds
    if bands == 1:
        return np.ones(1)
    ordered = bands > participation.separation and participation.most > 1
    start = square_root(bands)[1:]
    if not ordered:

        def loss(free: FloatArray) -> tuple[float, FloatArray]:
            value, slope = toeplitz_loss(np.concatenate([[1.0], free]), participation)
            return value, slope[1:]

        best, _ = minimize(loss, start, steps=_STEPS)
        return np.concatenate([[1.0], best])

    def falls(free: FloatArray) -> FloatArray:
        """c_j = 1 - (sums of falls), every fall a square; the last fall is to zero or above."""
        shares = free**2
        return 1.0 - np.cumsum(shares[:-1]) / shares.sum()

    def ordered_loss(free: FloatArray) -> tuple[float, FloatArray]:
        total = float((free**2).sum())
        column = falls(free)
        value, slope = toeplitz_loss(np.concatenate([[1.0], column]), participation)
        back = np.cumsum(slope[:0:-1])[::-1]  # sum of slopes from j on
        inner = float(slope[1:] @ (1.0 - column))
        shares = (np.append(-back, 0.0) + inner) / total
        return value, 2.0 * free * shares

    steps = np.sqrt(-np.diff(np.concatenate([[1.0], start, [0.0]])))
    best, _ = minimize(ordered_loss, steps, steps=_STEPS)
    return np.concatenate([[1.0], falls(best)])


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
    moved = np.zeros(n)
    for i in range(participation.most):
        moved[i * b : i * b + len(column)] += column[: n - i * b]
    moved_sq = float(moved @ moved)
    moved_slope = np.zeros(len(column))
    for i in range(participation.most):
        part = moved[i * b : i * b + len(column)]
        moved_slope[: len(part)] += 2.0 * part
    slope = error_slope / error + moved_slope / moved_sq
    return math.log(error * moved_sq), slope


def _general_rows(n: int, column: FloatArray) -> FloatArray:
    """All entries of the bands with columns of norm 1, from the Toeplitz optimum; [n, bands]."""
    bands = len(column)
    mask = np.arange(bands) < (n - np.arange(n))[:, None]  # entries of a column inside C
    prefix_loss = _general_loss(n, bands)

    def loss(free: FloatArray) -> tuple[float, FloatArray]:
        raw = np.where(mask, free.reshape(n, bands), 0.0)
        norms = np.sqrt((raw**2).sum(axis=1, keepdims=True))
        unit = raw / norms
        value, slope = prefix_loss(unit)
        slope = (slope - unit * (slope * unit).sum(axis=1, keepdims=True)) / norms
        return value, np.where(mask, slope, 0.0).ravel()

    best, _ = minimize(loss, np.where(mask, column, 0.0).ravel(), steps=_STEPS)
    columns = np.where(mask, best.reshape(n, bands), 0.0)
    columns /= np.sqrt((columns**2).sum(axis=1, keepdims=True))
    rows = np.zeros((n, bands))
    for i in range(bands):
        rows[i:, i] = columns[: n - i, i]
    return rows


def _general_loss(n: int, bands: int):  # type: ignore[no-untyped-def]
    """columns [n, bands] -> (log of the mean squared error, gradient)."""
    j, i = np.meshgrid(np.arange(n), np.arange(bands), indexing="ij")
    inside = j + i < n

    def loss(columns: FloatArray) -> tuple[float, FloatArray]:
        matrix = np.zeros((n, n))
        matrix[(j + i)[inside], j[inside]] = columns[inside]
        inverse = series.triangular_inverse(matrix)
        decoder = np.cumsum(inverse, axis=0)
        error = float((decoder**2).sum()) / n
        # d tr B^T B = -2 <C^-T (A^T B) C^-T, dC>
        summed = np.cumsum(decoder[::-1], axis=0)[::-1]
        full = inverse.T @ summed @ inverse.T
        slope = np.zeros((n, bands))
        slope[inside] = full[(j + i)[inside], j[inside]] * (-2.0 / (n * error))
        return math.log(error), slope

    return loss
