"""What a strategy is, and how good: what tree, banded and BLT strategies have in common."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dp.matrix.participation import Participation

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
Draw = Callable[[], IntArray]  # fresh independent noise z, int64[dim]

MAX_DENSE = 1024  # rounds of matrices that are held in full


class Errors(NamedTuple):
    """Errors of the prefix sums, sensitivity included.

    They are those of A x estimated as B (C x + z), z standard normal, times the sensitivity of C:
    the deviation of the released prefix sums per unit of noise multiplier and clip norm.

    Attributes:
        max_error: the largest deviation over rounds.
        rms_error: the root of the mean variance over rounds.
    """

    max_error: float
    rms_error: float


def errors_of(variances: FloatArray, sensitivity_sq: float) -> Errors:
    """Errors from the variances of the prefix sums per unit of noise."""
    scale = math.sqrt(sensitivity_sq)
    return Errors(
        math.sqrt(float(variances.max())) * scale, math.sqrt(float(variances.mean())) * scale
    )


class Slack(NamedTuple):
    """What streaming moves a coordinate of a measurement by beyond C x.

    Attributes:
        distance: at most.
        failure: but for this chance over a run.
    """

    distance: float
    failure: float


EXACT = Slack(0.0, 0.0)


class Whitening(NamedTuple):
    """How the errors of the first rounds are turned back into independent noise.

    Of errors e, int64[n, dim], K e = f + r: the rows of f are independent of one another, each a
    combination of draws z with coefficients within [-1, 1], and r is what rounding left.
    docs/privacy.md, "Whitening".

    Attributes:
        matrix: K, float64[n, n], lower triangular.
        variances: float64[n], of a coordinate of each row of f per unit of the variance of z.
        slack: float64[n], no coordinate of each row of r is beyond it.
    """

    matrix: FloatArray
    variances: FloatArray
    slack: FloatArray


@dataclass(frozen=True, eq=False)
class Strategy(ABC):
    """What tree, banded and BLT strategies have in common.

    Attributes:
        participation: what it was made for.
    """

    participation: Participation

    @property
    def rounds(self) -> int:
        """The number n of rounds."""
        return self.participation.rounds

    @property
    @abstractmethod
    def measurements(self) -> int:
        """Rows m of C: independent draws of noise per coordinate."""

    @abstractmethod
    def matrix(self) -> FloatArray:
        """C in the units in which noise is drawn, float64[m, n]."""

    @abstractmethod
    def sensitivity_sq(self, participation: Participation) -> int:
        """Bound on |C u|^2 over one client's vectors u of norm at most 1, rounded up."""

    @property
    @abstractmethod
    def variances(self) -> FloatArray:
        """Variance of every prefix sum per unit of the variance of z, float64[n]."""

    def errors(self, participation: Participation) -> Errors:
        """Errors of the prefix sums, sensitivity included."""
        return errors_of(self.variances, self.sensitivity_sq(participation))

    @abstractmethod
    def slack(self, dim: int, sigma: float) -> Slack:
        """What streaming moves a coordinate of a measurement by beyond C x.

        Args:
            dim: length of the vectors.
            sigma: of z.

        Raises:
            ParameterError: noise that streaming cannot hold.
        """

    @abstractmethod
    def whitening(self, errors: IntArray) -> Whitening:
        """How the errors of the first rounds, int64[n, dim], become independent noise again."""

    @abstractmethod
    def arrays(self, dim: int) -> Arrays:
        """The state before round 0."""

    @abstractmethod
    def advance(self, arrays: Arrays, row: int, draw: Draw) -> IntArray:
        """The noise of round `row`, int64[dim]; `arrays` moves on."""

    @abstractmethod
    def skip(self, arrays: Arrays, row: int, draw: Draw) -> None:
        """Passes over round `row`, in which nothing is released and no input counts."""


def whitening(
    matrix: FloatArray, variances: FloatArray, rounding: FloatArray, errors: IntArray
) -> Whitening:
    """A `Whitening` whose slack also covers the product of K and errors in doubles.

    A sum of n <= 4096 products is off by a relative 2^-40 of the sum of their sizes at most.
    """
    sizes = np.abs(matrix) @ np.abs(errors).max(axis=1, initial=0.0)
    return Whitening(matrix, variances, rounding + 2.0**-40 * sizes)


def rounded_quotient(values: IntArray, divisor: int) -> IntArray:
    """Nearest integer to values / divisor; adding m divisor to a value adds exactly m."""
    result: IntArray = (values + divisor // 2) // divisor
    return result
