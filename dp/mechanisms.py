"""Mechanisms: how a vector is encoded, which noise is added where, which event that justifies.

`distributed`: every client adds a noise share before masking, so the server only ever sees the
noised sum. `central_gaussian`: a trusted server adds exact discrete noise to the integer sum.
Noise is sized for the sum; whoever divides by the number of clients divides signal and noise
alike. docs/privacy.md, "Noise shares" and "Central noise".
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import _laws, _validate, samplers
from dp.discretize import (
    Discretized,
    Discretizer,
    Rotation,
    choose_modulus_bits,
    default_granularity,
    rotated_linf,
)
from dp.errors import ParameterError
from dp.events import DiscreteGaussianEvent, DiscreteGaussianSumEvent, SkellamEvent
from dp.random import RandomBytes

MechanismName = Literal["skellam", "discrete_gaussian"]

# Utility settings, not privacy parameters: the event states the bound that they lead to.
_ROUNDING_BIAS = math.exp(-0.5)  # as in the code of Kairouz, Liu, Steinke 2021
_INFLATION = 0.01
_MAX_TRIES = 32
_MAX_SIGMA = 1e6  # grid units, of one release: finer grids gain nothing
_NOISE_WRAP = 2.0**-100  # what noise may exceed its tail with where inputs cannot wrap


@dataclass(frozen=True)
class DistributedMechanism:
    """Bounded integer vectors with one noise share per client; built by `distributed`.

    Attributes:
        name: "skellam" or "discrete_gaussian".
        discretizer: encodes one client's vector; its integer bounds are the event's.
        share_variance: variance parameter of one share, grid units squared.
        shares: honest shares that the noise multiplier was sized for.
        num_clients: vectors summed at most.
        modulus_bits: bits of the modulus in which the sum is taken.
        wrap_probability: bound on the chance that a sum of honest vectors wraps; a matter of
            utility, not of privacy.
    """

    name: MechanismName
    discretizer: Discretizer
    share_variance: float
    shares: int
    num_clients: int
    modulus_bits: int
    wrap_probability: float

    @property
    def share_sigma(self) -> float:
        """Scale parameter of one share: sqrt(share_variance), grid units."""
        return math.sqrt(self.share_variance)

    @property
    def granularity(self) -> float:
        """What 1 in a sum of what is sent stands for, in the unit of `clip_norm`."""
        return self.discretizer.granularity

    @property
    def reach(self) -> float:
        """The l2 norm of what one client moves the sum by at most, grid units."""
        return self.discretizer.reach

    def noise_variance(self, clients: int) -> float:
        """Variance of the noise in a coordinate of a sum over `clients`, grid units squared."""
        if self.name == "skellam":
            return clients * self.share_variance
        return clients * _laws.discrete_gaussian_variance(self.share_sigma)

    def event(self, shares: int) -> SkellamEvent | DiscreteGaussianSumEvent:
        """What a sum with at least `shares` honest noise shares releases.

        Shares beyond these are independent post-processing and cost nothing.

        Raises:
            ParameterError: shares < 1 or above num_clients.
        """
        shares = _validate.integer("shares", shares, 1, self.num_clients)
        size = self.discretizer
        if self.name == "skellam":
            # Rounded down: never more noise than was drawn.
            variance = math.nextafter(shares * self.share_variance, 0.0)
            return SkellamEvent(variance, size.l2_sq, size.l1, size.linf, size.dim)
        return DiscreteGaussianSumEvent(
            self.share_sigma, shares, size.l2_sq, size.l1, size.linf, size.dim
        )

    def sample_share(self, rng: RandomBytes) -> NDArray[np.int64]:
        """One client's noise share, int64[dim]. `rng` must be secret and used for nothing else."""
        return _share(self.name, self.share_variance, self.discretizer.dim, rng)

    def encode(
        self, x: ArrayLike, rotation: Rotation, rng: RandomBytes, *, scale: float = 1.0
    ) -> NDArray[np.int64]:
        """`discretizer.encode(x, scale=scale)` plus this client's noise share, int64[dim].

        Raises:
            NonFiniteError: x holds NaN or an infinity; encode the zero vector instead, so that
                the noise share is sent like everyone else's.
            ParameterError: wrong length or kind.
        """
        encoded = self.discretizer.encode(x, rotation, rng, scale=scale)
        encoded += self.sample_share(rng)
        return encoded

    def total_variation(self, shares: int) -> float:
        """Sampler distance of one release that counts `shares` noise shares."""
        return samplers.total_variation(shares * self.discretizer.dim)


@dataclass(frozen=True)
class BitMechanism:
    """One of -1, 0, 1 from each client, with one noise share each; built by `bit_mechanism`.

    Attributes:
        name, share_variance, shares, num_clients, modulus_bits: as in DistributedMechanism.
    """

    name: MechanismName
    share_variance: float
    shares: int
    num_clients: int
    modulus_bits: int

    def event(self, shares: int) -> SkellamEvent | DiscreteGaussianSumEvent:
        """What a sum with at least `shares` honest noise shares releases: a shift by 1.

        Raises:
            ParameterError: shares < 1 or above num_clients.
        """
        shares = _validate.integer("shares", shares, 1, self.num_clients)
        if self.name == "skellam":
            return SkellamEvent(math.nextafter(shares * self.share_variance, 0.0), 1, 1, 1, 1)
        return DiscreteGaussianSumEvent(math.sqrt(self.share_variance), shares, 1, 1, 1, 1)

    def encode(self, bit: int, rng: RandomBytes) -> NDArray[np.int64]:
        """`bit` plus this client's noise share, int64[1]. `rng` must be secret.

        Raises:
            ParameterError: bit is not -1, 0 or 1.
        """
        value = _validate.integer("bit", bit, -1, 1)
        return value + _share(self.name, self.share_variance, 1, rng)

    def total_variation(self, shares: int) -> float:
        """Sampler distance of one release that counts `shares` noise shares."""
        return samplers.total_variation(shares)


@dataclass(frozen=True)
class CentralMechanism(Discretized):
    """Bounded integer vectors, and exact noise that the server adds to their sum.

    Attributes:
        discretizer: encodes one client's vector; its integer bounds are the event's.
        sigma: scale of the noise, grid units.
        num_clients: vectors summed at most.
        modulus_bits: bits of the modulus in which the sum is taken.
    """

    discretizer: Discretizer
    sigma: float
    num_clients: int
    modulus_bits: int

    def noise_variance(self, clients: int) -> float:
        """As in DistributedMechanism; whoever is in the sum, the server adds all of it."""
        del clients
        return _laws.discrete_gaussian_variance(self.sigma)

    def event(self) -> DiscreteGaussianEvent:
        """What the noised sum releases to whoever does not see the sum itself."""
        size = self.discretizer
        return DiscreteGaussianEvent(self.sigma, size.l2_sq, size.l1, size.linf, size.dim)

    def sample_noise(self, rng: RandomBytes) -> NDArray[np.int64]:
        """The server's noise, int64[dim]. `rng` must be secret and used for nothing else."""
        return samplers.discrete_gaussian(rng, self.sigma, self.discretizer.dim)

    def total_variation(self) -> float:
        """Sampler distance of one release."""
        return samplers.total_variation(self.discretizer.dim)


def distributed(
    name: MechanismName,
    *,
    dim: int,
    clip_norm: float,
    noise_multiplier: float,
    num_clients: int,
    shares: int,
    granularity: float | None = None,
    modulus_bits: int | None = None,
    wrap_probability: float | None = None,
) -> DistributedMechanism:
    """The distributed mechanism whose `shares` honest shares give the noise multiplier.

    The total of `shares` shares has variance (noise_multiplier clip_norm / granularity)^2 grid
    units. Rounding widens the l2 bound (by at most 1 % with the default granularity), so the
    event's own ratio is slightly below the nominal noise multiplier.

    Args:
        name: "skellam" (sums stay Skellam) or "discrete_gaussian".
        dim: length of the vectors.
        clip_norm: l2 norm of one client.
        noise_multiplier: standard deviation of the counted noise over clip_norm.
        num_clients: invited clients: the most vectors that can be summed.
        shares: honest survivors whose noise counts, min_survivors - c.
        granularity: default: `default_granularity` with one per cent.
        modulus_bits: default: the fewest bits in which nothing wraps, except with probability
            2^-100 per vector.
        wrap_probability: in [2^-100, 1/2]: the bits need only hold what honest vectors sum to
            except with this probability over the public signs and the noise. Default: whatever
            the vectors are.

    Raises:
        ParameterError: an argument out of range, or noise that the samplers do not draw.
        ModulusError: the modulus cannot hold the worst case.
    """
    if name not in ("skellam", "discrete_gaussian"):
        raise ParameterError(
            "name",
            name,
            '"skellam" or "discrete_gaussian": noise that is correlated over rounds has no shares, '
            "since a client that is absent later could not subtract its own",
        )
    num_clients = _validate.integer("num_clients", num_clients, 1)
    shares = _validate.integer("shares", shares, 1, num_clients)
    discretizer = _discretizer(dim, clip_norm, granularity)
    variance = _sigma(discretizer, noise_multiplier) ** 2 / shares
    largest = samplers.MAX_VARIANCE if name == "skellam" else _MAX_SIGMA**2
    _check_drawn(noise_multiplier, "a share variance", variance, 1e-6, largest)
    wrap = _wrap(wrap_probability)
    linf, noise_failure = _summand(discretizer, num_clients, wrap)
    tail = _noise_tail(name, num_clients * variance, noise_failure, discretizer.dim)
    bits = choose_modulus_bits(num_clients, linf, tail, modulus_bits)
    failure = noise_failure if wrap is None else wrap
    return DistributedMechanism(name, discretizer, variance, shares, num_clients, bits, failure)


def bit_mechanism(
    name: MechanismName, *, stddev: float, num_clients: int, shares: int
) -> BitMechanism:
    """The mechanism for sums of -1, 0, 1 whose `shares` honest shares have this deviation.

    Args:
        name: "skellam" or "discrete_gaussian".
        stddev: of the counted noise on the sum of bits.
        num_clients: invited clients: the most bits that can be summed.
        shares: honest survivors whose noise counts.

    Raises:
        ParameterError: an argument out of range.
        ModulusError: the modulus cannot hold the worst case.
    """
    if name not in ("skellam", "discrete_gaussian"):
        raise ParameterError("name", name, '"skellam" or "discrete_gaussian"')
    num_clients = _validate.integer("num_clients", num_clients, 1)
    shares = _validate.integer("shares", shares, 1, num_clients)
    deviation = _validate.real("stddev", stddev, 1e-2 * math.sqrt(shares), 1e4)
    variance = deviation**2 / shares
    tail = _noise_tail(name, num_clients * variance, _NOISE_WRAP, 1)
    bits = choose_modulus_bits(num_clients, 1, tail)
    return BitMechanism(name, variance, shares, num_clients, bits)


def central_gaussian(
    *,
    dim: int,
    clip_norm: float,
    noise_multiplier: float,
    num_clients: int,
    granularity: float | None = None,
    modulus_bits: int | None = None,
    wrap_probability: float | None = None,
) -> CentralMechanism:
    """Central discrete Gaussian noise of sigma noise_multiplier clip_norm / granularity.

    Args: as `distributed`; the modulus holds the sum of the encoded vectors, which carry no
        noise, so that it never wraps.

    Raises:
        ParameterError: an argument out of range, or noise that the sampler does not draw.
        ModulusError: the modulus cannot hold the worst case.
    """
    discretizer, num_clients, bits = central_sizes(
        dim, clip_norm, num_clients, granularity, modulus_bits, wrap_probability
    )
    sigma = _sigma(discretizer, noise_multiplier)
    _check_drawn(noise_multiplier, "a sigma", sigma, 1e-3, _MAX_SIGMA)
    return CentralMechanism(discretizer, sigma, num_clients, bits)


def central_sizes(
    dim: int,
    clip_norm: float,
    num_clients: int,
    granularity: float | None,
    modulus_bits: int | None,
    wrap_probability: float | None,
) -> tuple[Discretizer, int, int]:
    """(discretizer, num_clients, modulus bits) of sums that carry no noise; as `central_gaussian`.

    Raises:
        ParameterError: an argument out of range.
        ModulusError: the modulus cannot hold the worst case.
    """
    num_clients = _validate.integer("num_clients", num_clients, 1)
    discretizer = _discretizer(dim, clip_norm, granularity)
    linf, _ = _summand(discretizer, num_clients, _wrap(wrap_probability))
    return discretizer, num_clients, choose_modulus_bits(num_clients, linf, 0, modulus_bits)


def _discretizer(dim: int, clip_norm: float, granularity: float | None) -> Discretizer:
    if granularity is None:
        granularity = default_granularity(
            dim, clip_norm, rounding_bias=_ROUNDING_BIAS, inflation=_INFLATION
        )
    return Discretizer(dim, clip_norm, granularity, _ROUNDING_BIAS, _MAX_TRIES)


def _sigma(discretizer: Discretizer, noise_multiplier: float) -> float:
    multiplier = _validate.positive("noise_multiplier", noise_multiplier, 1e9)
    return multiplier * (discretizer.clip_norm / discretizer.granularity)


def _check_drawn(multiplier: float, what: str, scale: float, least: float, most: float) -> None:
    if not least <= scale <= most:
        takes = f"{what} in [{least:g}, {most:g}] grid units, got {scale:g}"
        takes = f"{takes}; the granularity scales it"
        raise ParameterError("noise_multiplier", multiplier, takes)


def _share(name: MechanismName, variance: float, size: int, rng: RandomBytes) -> NDArray[np.int64]:
    if name == "skellam":
        return samplers.skellam(rng, variance, size)
    return samplers.discrete_gaussian(rng, math.sqrt(variance), size)


def _wrap(wrap_probability: float | None) -> float | None:
    if wrap_probability is None:
        return None
    return _validate.real("wrap_probability", wrap_probability, _NOISE_WRAP, 0.5)


def _summand(
    discretizer: Discretizer, num_clients: int, wrap_probability: float | None
) -> tuple[int, float]:
    """(bound on one client's part of a coordinate of the sum, what noise may fail with).

    A sum of n vectors has l2 norm n clip_norm at most; half of wrap_probability goes to its
    rotated coordinates, half to the noise. Rounding moves a coordinate by less than 1 a client.
    """
    if wrap_probability is None:
        return discretizer.linf, _NOISE_WRAP
    c = discretizer.clip_norm / discretizer.granularity
    rotated = rotated_linf(c, discretizer.dim, wrap_probability / 2.0)
    return min(discretizer.linf, math.ceil(rotated) + 1), wrap_probability / 2.0


def _noise_tail(name: MechanismName, variance: float, failure: float, dim: int) -> int:
    """Bound t with P[some coordinate of noise of this variance exceeds t] <= failure.

    Union bound over dim coordinates and two signs; docs/privacy.md, "Modulus".
    """
    bits = math.ceil(math.log2(dim) - math.log2(failure)) + 1  # one bit to spare for rounding
    if name == "skellam":
        return _laws.skellam_tail(variance, bits)
    # N_Z(0, s^2) is sub-Gaussian with proxy s^2, hence the sum of n with proxy n s^2.
    return math.ceil(math.sqrt(2.0 * variance * (bits + 1) * math.log(2.0)))
