"""Noise that is correlated over rounds, as the server of a run keeps it.

Round t of a plan is row t of the noise, whatever becomes of the round. The state after a round's
noise is drawn is committed with the release, before the sum is read: a crash can neither lose the
correlation nor bring the same noise to two sums. docs/privacy.md, "Correlated noise in a run".
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import dp
from fl.arrays import from_npz, to_npz
from fl.errors import StoreError
from fl.plan import Resolved
from fl.streams import SERVER, streams
from fl.types import Purpose, RandomBytes


class CorrelatedNoise:
    """The noise of a run, used up round by round.

    Args:
        mechanism: what is drawn.
        source: round -> secret bytes for it.
    """

    def __init__(
        self, mechanism: dp.matrix.CorrelatedMechanism, source: Callable[[int], RandomBytes]
    ) -> None:
        self._mechanism, self._source = mechanism, source
        self._stream = mechanism.stream()
        self._drawn: NDArray[np.int64] | None = None

    def release(self, round_index: int) -> None:
        """Draws the noise of a round, which counts as released from here on."""
        self._check(round_index)
        self._drawn = self._stream.advance(self._mechanism.draw(self._source(round_index)))

    def take(self) -> NDArray[np.int64]:
        """Returns the noise of the round that is released, int64[d]; once."""
        if self._drawn is None:
            raise AssertionError("noise is drawn when a release is recorded, and used once")
        drawn, self._drawn = self._drawn, None
        return drawn

    def end(self, round_index: int) -> bool:
        """Ends a round; whether it drew no noise, released nothing and is passed over."""
        self._drawn = None
        if self._stream.row != round_index:
            return False
        self._stream.skip(self._mechanism.draw(self._source(round_index)))
        return True

    def _check(self, round_index: int) -> None:
        if self._stream.row != round_index:
            raise AssertionError(f"noise of row {self._stream.row} for round {round_index}")

    def to_bytes(self) -> bytes:
        """Returns the state, as secret as the noise."""
        return to_npz(self._stream.to_arrays())

    def load(self, data: bytes) -> None:
        """Takes up a state that `to_bytes` wrote.

        Raises:
            StoreError: it is that of other noise.
        """
        try:
            self._stream = dp.matrix.NoiseStream.from_arrays(
                self._mechanism.strategy, self._mechanism.discretizer.dim, from_npz(data)
            )
        except dp.ParameterError as error:
            raise StoreError("noise", str(error), "the state of this plan's noise") from error


def correlated_noise(resolved: Resolved) -> CorrelatedNoise | None:
    """Returns the noise of a run before its first round; None where rounds are independent."""
    mechanism = resolved.exposure.mechanism
    if not isinstance(mechanism, dp.matrix.CorrelatedMechanism):
        return None
    return CorrelatedNoise(
        mechanism, lambda index: streams(resolved.plan, index, SERVER)(Purpose.CENTRAL_NOISE)
    )
