"""What a strategy is, and how good: what tree, banded and BLT strategies have in common."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

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


class Strategy(Protocol):
    """What tree, banded and BLT strategies have in common."""

    @property
    def participation(self) -> Participation:
        """What it was made for."""

    @property
    def rounds(self) -> int:
        """The number n of rounds."""

    @property
    def measurements(self) -> int:
        """Rows m of C: independent draws of noise per coordinate."""

    def matrix(self) -> NDArray[np.float64]:
        """C in the units in which noise is drawn, float64[m, n]."""

    def sensitivity_sq(self, participation: Participation) -> int:
        """Bound on |C u|^2 over one client's vectors u of norm at most 1."""

    def errors(self, participation: Participation) -> Errors:
        """Errors of the prefix sums, sensitivity included."""

    @property
    def noise_failure(self) -> float:
        """Chance, over a run, that noise is larger than `noise_slack` counts on."""

    def noise_slack(self, dim: int, sigma: float) -> float:
        """What streaming moves a coordinate of a measurement by beyond C x, at most."""

    def arrays(self, dim: int) -> Arrays:
        """The state before round 0."""

    def advance(self, arrays: Arrays, row: int, draw: Draw) -> IntArray:
        """The noise of round `row`, int64[dim]; `arrays` moves on."""

    def skip(self, arrays: Arrays, row: int, draw: Draw) -> None:
        """Passes over round `row`, in which nothing is released and no input counts."""


def rounded_quotient(values: IntArray, divisor: int) -> IntArray:
    """Nearest integer to values / divisor; adding m divisor to a value adds exactly m."""
    result: IntArray = (values + divisor // 2) // divisor
    return result
