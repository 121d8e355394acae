"""Banded strategies (BandMF), optimised for the prefix sums; integer noise that is streamed.

Choquette-Choo, Ganesh, McKenna, McMahan, Rush, Thakurta, Xu 2023, "(Amplified) Banded Matrix
Factorization". C is lower triangular with `bands` diagonals; released errors e solve C e = z, so
that a round's noise is that of the round less what the last bands - 1 rounds were noised with.
C is a matrix of integers: optimised in double precision, then rounded to multiples of 1 / SCALE,
and everything that is said of a strategy is said of the rounded one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from dp import _validate
from dp.errors import ParameterError
from dp.matrix import sensitivity, series
from dp.matrix._search import general_rows, toeplitz_column
from dp.matrix.participation import Participation
from dp.matrix.strategy import (
    EXACT,
    MAX_DENSE,
    Arrays,
    Draw,
    IntArray,
    Slack,
    Strategy,
    Whitening,
    rounded_quotient,
    whitening,
)

FloatArray = NDArray[np.float64]

SCALE = 1 << 12


@dataclass(frozen=True, eq=False)
class BandedStrategy(Strategy):
    """A lower-triangular strategy with few diagonals; built by `banded`.

    Attributes:
        participation: what it was optimised for.
        rows: int64[n, bands] or, for a Toeplitz strategy, int64[1, bands]; rows[t, j] is
            SCALE C[t, t - j].
    """

    rows: IntArray

    @property
    def bands(self) -> int:
        """Diagonals of C."""
        return int(self.rows.shape[1])

    @property
    def toeplitz(self) -> bool:
        """Whether all rows have the same coefficients."""
        return len(self.rows) == 1

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

    def slack(self, dim: int, sigma: float) -> Slack:
        """Nothing: streaming is exact."""
        del dim, sigma
        return EXACT

    def whitening(self, errors: IntArray) -> Whitening:
        """C e = z but for rounding, which is half of C_tt at most."""
        n = len(errors)
        matrix = self.matrix()[:n, :n]
        return whitening(matrix, np.ones(n), np.diag(matrix) / 2.0, errors)

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
    column = toeplitz_column(participation, bands)
    if toeplitz:
        rows = np.rint(SCALE * column).astype(np.int64)[None, :]
    else:
        rows = np.rint(SCALE * general_rows(participation.rounds, column)).astype(np.int64)
    rows.setflags(write=False)
    return BandedStrategy(participation, rows)
