"""Noise that is correlated over rounds, made round by round with bounded memory, in integers.

A strategy C (integers) is measured as y = C x + z with independent integer noise z, and what is
released is a function of y alone; that function is chosen so that it equals x + e with e a function
of z alone. So the sum x of a round is released as x_t + e_t, and only what later rounds need of e
is kept. docs/privacy.md, "Correlated noise".
"""

import numpy as np

from dp import _validate
from dp.errors import ParameterError
from dp.matrix.strategy import Arrays, Draw, IntArray, Strategy


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
