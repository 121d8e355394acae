"""The Poisson binomial mechanism (Chen, Özgür, Kairouz 2022): coins instead of noise.

Each client turns every coordinate of its clipped, rotated vector into the bias of `trials` coins
and sends how many came up; a sum over clients is released. Nothing else is added: what hides one
client are its own coins and those of the others, so there is no central use, and shares count
honest clients whose coins are in the sum. docs/privacy.md, "Poisson binomial".
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import _validate, samplers
from dp.clipping import clip_l2
from dp.discretize import Rotation, choose_modulus_bits
from dp.errors import ParameterError, RoundingError
from dp.events import MOST_BIAS, PoissonBinomialEvent
from dp.random import RandomBytes

_SPREAD = 4.0  # utility: beyond four deviations of its coordinates a rotated vector is cut
_LEAST_BIAS = 64  # steps of a coordinate at least: cutting towards zero loses below 1 / 64
MAX_TRIALS = 4096
_HALF_DIGITS = 12  # biases are split here, so that sums of squares are exact in int64


@dataclass(frozen=True)
class PoissonBinomialMechanism:
    """Numbers of successes of biased coins, centred; built by `poisson_binomial`.

    Guarantees, for every input, with k = biases(x): |k_j| <= linf and sum k_j^2 <= l2_sq, exact
    integers, and k = 0 for the zero vector. What is sent, `unit` (successes - trials / 2), has no
    other law than that of coins with probability 1/2 + k_j 2^-24.

    Attributes:
        dim: length of the vectors.
        clip_norm: l2 norm to which vectors are clipped before they are rotated.
        coordinate_clip: to which their rotated coordinates are clipped, where |k| = linf.
        trials: coins of one client in each coordinate.
        linf: bound on every |k_j|; the largest bias theta is linf 2^-24.
        shares: honest clients that the noise multiplier was sized for.
        num_clients: vectors summed at most.
        modulus_bits: bits of the modulus, in which no sum wraps.
    """

    dim: int
    clip_norm: float
    coordinate_clip: float
    trials: int
    linf: int
    shares: int
    num_clients: int
    modulus_bits: int

    @functools.cached_property
    def l2_sq(self) -> int:
        """Bound on sum k_j^2: cutting towards zero only shrinks, so room is for rounding."""
        scaled = self.clip_norm * (self.linf / self.coordinate_clip)
        return math.ceil(scaled * scaled * (1.0 + 2.0**-30))

    @property
    def largest_bias(self) -> float:
        """Theta: no coin's probability is further from 1/2."""
        return self.linf * samplers.BIAS_UNIT

    @property
    def granularity(self) -> float:
        """What 1 in a sum of what is sent stands for, in the unit of `clip_norm`."""
        return self.coordinate_clip / (self.unit * self.trials * self.largest_bias)

    @property
    def reach(self) -> float:
        """The l2 norm of what one client moves the mean of a sum of what is sent by at most."""
        return self.unit * self.trials * samplers.BIAS_UNIT * math.sqrt(self.l2_sq)

    def noise_variance(self, clients: int) -> float:
        """Variance of a coordinate of a sum over `clients` with fair coins; with others less."""
        return clients * self.unit**2 * self.trials / 4.0

    @property
    def unit(self) -> int:
        """What one success counts: 1, or 2 where half of `trials` is no integer."""
        return 1 + self.trials % 2

    def event(self, shares: int) -> PoissonBinomialEvent:
        """What a sum over at least `shares` honest clients releases about one of them.

        Coins of further clients are independent post-processing and cost nothing.

        Raises:
            ParameterError: shares < 1 or above num_clients.
        """
        shares = _validate.integer("shares", shares, 1, self.num_clients)
        return PoissonBinomialEvent(self.trials, shares, self.linf, self.l2_sq, self.dim)

    def biases(self, x: ArrayLike, rotation: Rotation) -> NDArray[np.int64]:
        """The coins' biases for one vector, in units of 2^-24; int64[dim] within the bounds.

        Clipped in l2, rotated, every coordinate clipped, scaled and cut towards zero.

        Raises:
            NonFiniteError: x holds NaN or an infinity; encode the zero vector instead, so that
                fair coins are sent.
            ParameterError: wrong length or kind.
            RoundingError: the norm bound does not hold: a rotation that is none.
        """
        if rotation.dim != self.dim:
            raise ParameterError("rotation.dim", rotation.dim, f"dim={self.dim}")
        if np.shape(x) != (self.dim,):
            raise ParameterError("x", f"shape {np.shape(x)}", f"a real vector of length {self.dim}")
        turned = rotation.apply(clip_l2(x, self.clip_norm))
        turned *= self.linf / self.coordinate_clip
        found = np.trunc(np.clip(turned, -self.linf, self.linf)).astype(np.int64)
        if _sum_of_squares(found) > self.l2_sq:
            raise RoundingError("the rotated vector exceeds the norm bound")
        return found

    def encode(self, x: ArrayLike, rotation: Rotation, rng: RandomBytes) -> NDArray[np.int64]:
        """`unit` (successes - trials / 2) in each coordinate, int64[dim].

        Args:
            x: real vector [dim].
            rotation: of the same dim.
            rng: coins, 4 dim trials bytes whatever x is; secret, and used for nothing else.

        Raises:
            NonFiniteError, ParameterError, RoundingError: as `biases`.
        """
        sent = samplers.binomial(rng, self.trials, self.biases(x, rotation))
        sent *= self.unit
        sent -= self.unit * self.trials // 2
        return sent

    def decode(self, total: NDArray[np.int64], rotation: Rotation) -> NDArray[np.float64]:
        """Unbiased estimate of the sum of the clipped vectors from a sum of encoded ones.

        Absent clients have sent nothing, so no count of clients enters.

        Args:
            total: int64[dim], after `unwrap`.
            rotation: the one that the vectors were encoded with.

        Raises:
            ParameterError: wrong length or kind.
        """
        if rotation.dim != self.dim:
            raise ParameterError("rotation.dim", rotation.dim, f"dim={self.dim}")
        _validate.integer_vector("total", total, self.dim)
        return rotation.invert(total.astype(np.float64) * self.granularity)

    def total_variation(self, shares: int) -> float:
        """Sampler distance of one release: coins are exact, so 0."""
        del shares
        return 0.0


def poisson_binomial(
    *,
    dim: int,
    clip_norm: float,
    noise_multiplier: float,
    num_clients: int,
    shares: int,
    trials: int,
    spread: float = _SPREAD,
    modulus_bits: int | None = None,
) -> PoissonBinomialMechanism:
    """The mechanism whose `shares` honest clients' coins have the noise multiplier.

    Fair coins of `shares` clients estimate the sum with standard deviation noise_multiplier
    clip_norm in every coordinate; that fixes the largest bias theta = spread sqrt(shares)
    / (2 noise_multiplier sqrt(dim trials)). More trials make it smaller at the same noise:
    epsilon approaches that of Gaussian noise, for log2(trials) more bits a coordinate.

    Args:
        dim: length of the vectors.
        clip_norm: l2 norm of one client.
        noise_multiplier: as above; calibrate it.
        num_clients: invited clients: the most vectors that can be summed.
        shares: honest survivors whose coins count, min_survivors - c, the client itself included.
        trials: coins of one client in each coordinate, 1 to 4096.
        spread: rotated coordinates are clipped to spread clip_norm / sqrt(dim), at most
            clip_norm; a utility setting that costs theta.
        modulus_bits: default: the fewest bits in which nothing wraps.

    Raises:
        ParameterError: an argument out of range, or a bias that is not within (2^-18, 1/2).
        ModulusError: the modulus cannot hold the worst case.
    """
    dim = _validate.integer("dim", dim, 1, 2**50)
    clip_norm = _validate.real("clip_norm", clip_norm, 1e-100, 1e100)
    multiplier = _validate.positive("noise_multiplier", noise_multiplier, 1e9)
    num_clients = _validate.integer("num_clients", num_clients, 1)
    shares = _validate.integer("shares", shares, 1, num_clients)
    trials = _validate.integer("trials", trials, 1, MAX_TRIALS)
    spread = _validate.real("spread", spread, 1.0, 100.0)
    share = min(1.0, spread / math.sqrt(dim))  # of clip_norm in one coordinate
    theta = share * math.sqrt(shares) / (2.0 * multiplier * math.sqrt(trials))
    linf = math.floor(theta / samplers.BIAS_UNIT)
    if not _LEAST_BIAS <= linf <= MOST_BIAS:
        takes = f"a largest bias in [2^-18, 1/2), got {theta:g}; trials divide it by their root"
        raise ParameterError("noise_multiplier", noise_multiplier, takes)
    largest = (1 + trials % 2) * trials // 2
    bits = choose_modulus_bits(num_clients, largest, 0, modulus_bits)
    return PoissonBinomialMechanism(
        dim, clip_norm, share * clip_norm, trials, linf, shares, num_clients, bits
    )


def _sum_of_squares(k: NDArray[np.int64]) -> int:
    """Exact: with k = 2^12 a + b no partial sum exceeds 2^63."""
    high = k >> _HALF_DIGITS
    low = k - (high << _HALF_DIGITS)
    squares = [int(np.dot(a, b)) for a, b in ((high, high), (high, low), (low, low))]
    return (squares[0] << 2 * _HALF_DIGITS) + (squares[1] << _HALF_DIGITS + 1) + squares[2]
