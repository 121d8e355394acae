"""Noise that is correlated over rounds, made round by round with bounded memory, in integers.

A strategy C (integers) is measured as y = C x + z with independent integer noise z, and what is
released is a function of y alone; that function is chosen so that it equals x + e with e a function
of z alone. So the sum x of a round is released as x_t + e_t, and only what later rounds need of e
is kept. docs/privacy.md, "Correlated noise".
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dp import _validate
from dp.errors import ParameterError
from dp.matrix.optimum import Errors
from dp.matrix.participation import Participation

IntArray = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
Draw = Callable[[], IntArray]  # fresh independent noise z, int64[dim]


def rounded_quotient(values: IntArray, divisor: int) -> IntArray:
    """Nearest integer to values / divisor; adding m divisor to a value adds exactly m."""
    result: IntArray = (values + divisor // 2) // divisor
    return result


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

    def noise_slack(self, dim: int, sigma: float) -> float:
        """What streaming moves a coordinate of a measurement by beyond C x, at most."""

    def arrays(self, dim: int) -> Arrays:
        """The state before round 0."""

    def advance(self, arrays: Arrays, row: int, draw: Draw) -> IntArray:
        """The noise of round `row`, int64[dim]; `arrays` moves on."""

    def skip(self, arrays: Arrays, row: int, draw: Draw) -> None:
        """Passes over round `row`, in which nothing is released and no input counts."""


class NoiseStream:
    """The noise of one run, round after round; used up as it goes.

    Attributes:
        row: the round that comes next.

    Args:
        strategy: how the rounds are correlated.
        dim: length of the vectors.
    """

    def __init__(self, strategy: Strategy, dim: int) -> None:
        self._strategy = strategy
        self._dim = _validate.integer("dim", dim, 1)
        self._arrays = strategy.arrays(self._dim)
        self.row = 0

    def advance(self, draw: Draw) -> IntArray:
        """The noise of the next round, int64[dim]; the round counts as released.

        Args:
            draw: fresh independent integer noise at every call, int64[dim]; secret.

        Raises:
            ParameterError: all rounds are used.
        """
        self._check()
        error = self._strategy.advance(self._arrays, self.row, draw)
        self.row += 1
        return error

    def skip(self, draw: Draw) -> None:
        """Passes over the next round, in which nothing is released and no input counts.

        Raises:
            ParameterError: all rounds are used.
        """
        self._check()
        self._strategy.skip(self._arrays, self.row, draw)
        self.row += 1

    def _check(self) -> None:
        if self.row >= self._strategy.rounds:
            takes = f"at most {self._strategy.rounds} rounds, which this noise was made for"
            raise ParameterError("row", self.row, takes)

    def to_arrays(self) -> Arrays:
        """The state, to be kept as secret as the noise: named arrays."""
        return {"row": np.array(self.row), **{k: v.copy() for k, v in self._arrays.items()}}

    @classmethod
    def from_arrays(cls, strategy: Strategy, dim: int, arrays: Arrays) -> "NoiseStream":
        """The stream that `to_arrays` wrote.

        Raises:
            ParameterError: arrays of another strategy or length.
        """
        stream = cls(strategy, dim)
        expected = stream.to_arrays()
        shapes = {name: (value.shape, value.dtype) for name, value in arrays.items()}
        if shapes != {name: (value.shape, value.dtype) for name, value in expected.items()}:
            raise ParameterError("arrays", shapes, "the state of this strategy and length")
        stream.row = _validate.integer("row", int(arrays["row"]), 0, strategy.rounds)
        stream._arrays = {name: arrays[name].copy() for name in stream._arrays}
        return stream
