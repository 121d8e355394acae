"""Correlated noise as a central mechanism: bounded integers in, one event for all rounds.

docs/privacy.md, "Correlated noise". Noise of this kind cannot be made of clients' shares: later
rounds subtract what earlier rounds were noised with, and a client that is absent by then cannot
subtract its share.
"""

import math
from dataclasses import dataclass

from dp import _laws, _validate, samplers
from dp.discretize import Discretized, Discretizer
from dp.errors import ParameterError
from dp.events import MatrixEvent
from dp.matrix.participation import Participation
from dp.matrix.strategy import Draw, Strategy
from dp.matrix.stream import NoiseStream
from dp.mechanisms import central_sizes
from dp.random import RandomBytes

_MAX_SIGMA = 2.0**40  # beyond, sums of a strategy's products could leave int64


@dataclass(frozen=True)
class CorrelatedMechanism(Discretized):
    """Bounded integer vectors, and noise that the server adds to their sums round after round.

    Attributes:
        strategy: how the rounds are correlated.
        discretizer: encodes one client's vector; its integer bounds are the event's.
        sigma: scale of every independent draw, in units of the strategy's measurements.
        num_clients: vectors summed at most.
        modulus_bits: bits of the modulus in which a sum is taken.
    """

    strategy: Strategy
    discretizer: Discretizer
    sigma: float
    num_clients: int
    modulus_bits: int

    @property
    def noise_variance(self) -> float:
        """Of every independent draw in a coordinate; what rounds release is made of these."""
        return _laws.discrete_gaussian_variance(self.sigma)

    def event(self, participation: Participation | None = None) -> MatrixEvent:
        """What all rounds together release to whoever does not see the sums themselves.

        Args:
            participation: of the client in question; by default what the strategy was made for.

        Raises:
            ParameterError: a participation in another number of rounds.
        """
        strategy, size = self.strategy, self.discretizer
        told = strategy.participation if participation is None else participation
        if told.rounds != strategy.rounds:
            raise ParameterError("participation", told, f"one in {strategy.rounds} rounds")
        l2_sq = strategy.sensitivity_sq(told) * size.l2_sq
        slack = strategy.slack(size.dim, self.sigma).distance
        if slack:
            norm = math.sqrt(l2_sq) + slack * math.sqrt(size.dim * strategy.rounds)
            l2_sq = math.ceil(norm**2 * (1.0 + 2.0**-40))
        return MatrixEvent(self.sigma, l2_sq)

    def stream(self) -> NoiseStream:
        """The noise of a run, before its first round."""
        return NoiseStream(self.strategy, self.discretizer.dim)

    def draw(self, rng: RandomBytes) -> Draw:
        """Fresh independent noise at every call, for `NoiseStream.advance`; `rng` is secret."""
        return lambda: samplers.discrete_gaussian(rng, self.sigma, self.discretizer.dim)

    def total_variation(self) -> float:
        """Sampler distance of all rounds, and the chance that noise is beyond its slack's bound."""
        dim = self.discretizer.dim
        drawn = samplers.total_variation(self.strategy.measurements * dim)
        return drawn + self.strategy.slack(dim, self.sigma).failure


def correlated_gaussian(
    strategy: Strategy,
    *,
    dim: int,
    clip_norm: float,
    noise_multiplier: float,
    num_clients: int,
    granularity: float | None = None,
    modulus_bits: int | None = None,
    wrap_probability: float | None = None,
) -> CorrelatedMechanism:
    """Central correlated noise whose event has the ratio `noise_multiplier`.

    Every independent draw has sigma noise_multiplier S clip_norm / granularity, S the strategy's
    sensitivity; rounding widens the bounds by at most 1 % with the default granularity, as in
    `central_gaussian`, and is accounted.

    Args:
        strategy: from `tree`, `banded` or `blt`.
        dim: length of the vectors.
        clip_norm: l2 norm of one client.
        noise_multiplier: noise over what one client moves the measurements by in all rounds.
        num_clients: the most vectors that can be summed.
        granularity: as `dp.central_gaussian`.
        modulus_bits: as `dp.central_gaussian`.
        wrap_probability: as `dp.central_gaussian`.

    Raises:
        ParameterError: an argument out of range, or noise that the sampler does not draw.
        ModulusError: the modulus cannot hold the worst case.
    """
    multiplier = _validate.positive("noise_multiplier", noise_multiplier, 1e9)
    discretizer, clients, bits = central_sizes(
        dim, clip_norm, num_clients, granularity, modulus_bits, wrap_probability
    )
    sensitivity = math.sqrt(strategy.sensitivity_sq(strategy.participation))
    sigma = multiplier * sensitivity * (discretizer.clip_norm / discretizer.granularity)
    if not 1e-3 <= sigma <= _MAX_SIGMA:
        takes = f"a sigma in [0.001, {_MAX_SIGMA:g}] grid units, got {sigma:g}"
        raise ParameterError("noise_multiplier", noise_multiplier, takes)
    return CorrelatedMechanism(strategy, discretizer, sigma, clients, bits)
