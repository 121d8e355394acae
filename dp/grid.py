"""Central noise on real vectors, on a declared power-of-two grid.

The input is rounded to multiples of the grid, which the sensitivity pays for, integer noise is
added on the grid, and the event is that of the integers. Every output is a multiple of the grid
whatever the input, so that the spacing of floats reveals nothing (Mironov 2012 describes what
it reveals otherwise). docs/privacy.md, "Central noise on a grid".
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import _validate, samplers
from dp.errors import NonFiniteError, ParameterError
from dp.events import DiscreteGaussianEvent, DiscreteLaplaceEvent, l1_bound
from dp.random import RandomBytes

_LARGEST = 2.0**51  # grid units to which inputs are brought: sums with noise stay exact doubles
_FINENESS = 10  # rounding adds at most 2^-10 of the sensitivity, by default
_EXPONENTS = 300
_MAX_SIGMA = 1e6  # grid units: finer grids gain nothing


@dataclass(frozen=True)
class GridGaussian:
    """x rounded to multiples of 2^grid_exponent plus N_Z(0, sigma^2) per coordinate.

    Attributes:
        dim: length of the vectors.
        grid_exponent: the grid is 2^grid_exponent.
        sigma: in grid units.
        l2_sq: bound on the squared l2 distance of two neighbours on the grid, rounding included.
    """

    dim: int
    grid_exponent: int
    sigma: float
    l2_sq: int

    def event(self) -> DiscreteGaussianEvent:
        """What one release costs, for the relation that the sensitivity was stated for.

        State it for one contribution against none; `dp.epsilon` doubles for replace-one.
        """
        l1 = l1_bound(self.dim, self.l2_sq)
        return DiscreteGaussianEvent(self.sigma, self.l2_sq, l1, math.isqrt(self.l2_sq), self.dim)

    def release(self, x: ArrayLike, rng: RandomBytes) -> NDArray[np.float64]:
        """The noised vector, float64[dim], multiples of the grid. `rng` must be secret.

        Coordinates beyond 2^51 grid units are brought to that.

        Raises:
            NonFiniteError: x holds NaN or an infinity. An exception tells; check contributions.
            ParameterError: wrong length or kind.
        """
        noise = samplers.discrete_gaussian(rng, self.sigma, self.dim)
        return _released(x, self.dim, self.grid_exponent, noise)

    def total_variation(self) -> float:
        """Sampler distance of one release."""
        return samplers.total_variation(self.dim)


@dataclass(frozen=True)
class GridLaplace:
    """x rounded to multiples of 2^grid_exponent plus discrete Laplace noise per coordinate.

    Attributes:
        dim: length of the vectors.
        grid_exponent: the grid is 2^grid_exponent.
        scale: in grid units.
        l1: bound on the l1 distance of two neighbours on the grid, rounding included.
    """

    dim: int
    grid_exponent: int
    scale: float
    l1: int

    @property
    def pure_epsilon(self) -> float:
        """Epsilon at delta 0 of the named law: l1 / scale, rounded up.

        For the relation that the sensitivity was stated for; the sampler's distance is a delta.
        """
        return math.nextafter(self.l1 / self.scale, math.inf)

    def event(self) -> DiscreteLaplaceEvent:
        """What one release costs; as `GridGaussian.event`. The l1 bound is the one that binds."""
        return DiscreteLaplaceEvent(self.scale, self.l1**2, self.l1, self.l1, self.dim)

    def release(self, x: ArrayLike, rng: RandomBytes) -> NDArray[np.float64]:
        """The noised vector; as `GridGaussian.release`."""
        noise = samplers.discrete_laplace(rng, self.scale, self.dim)
        return _released(x, self.dim, self.grid_exponent, noise)

    def total_variation(self) -> float:
        """Sampler distance of one release."""
        return samplers.total_variation(self.dim)


def grid_gaussian(
    *, dim: int, l2_sensitivity: float, noise_multiplier: float, grid_exponent: int | None = None
) -> GridGaussian:
    """Central Gaussian noise of deviation noise_multiplier * l2_sensitivity on a grid.

    Args:
        dim: length of the vectors.
        l2_sensitivity: l2 distance of two neighbouring inputs at most.
        noise_multiplier: deviation over sensitivity.
        grid_exponent: in [-300, 300]; default: rounding adds at most 2^-10 to the sensitivity,
            or the finest grid on which the sampler draws the noise.

    Raises:
        ParameterError: an argument out of range, or noise that the sampler does not draw.
    """
    dim = _validate.integer("dim", dim, 1)
    sensitivity = _validate.real("l2_sensitivity", l2_sensitivity, 1e-60, 1e60)
    deviation = _validate.positive("noise_multiplier", noise_multiplier, 1e9) * sensitivity
    root = math.sqrt(dim)
    exponent = _exponent(grid_exponent, sensitivity / root, deviation / _MAX_SIGMA)
    sigma = math.ldexp(deviation, -exponent)
    if not 1e-3 <= sigma <= _MAX_SIGMA:
        raise ParameterError(
            "grid_exponent", exponent, f"a grid with sigma in [0.001, 1e6] ({sigma:g})"
        )
    # |rint(a) - rint(b)| <= |a - b| + 1 in each coordinate
    moved = (math.ldexp(sensitivity, -exponent) + root) * (1.0 + 2.0**-50)
    if moved >= _LARGEST:
        raise ParameterError("grid_exponent", exponent, "a grid coarser than sensitivity / 2^51")
    return GridGaussian(dim, exponent, sigma, math.floor(moved * moved * (1.0 + 2.0**-50)))


def grid_laplace(
    *, dim: int, l1_sensitivity: float, scale: float, grid_exponent: int | None = None
) -> GridLaplace:
    """Central Laplace noise of this scale (same units as the inputs) on a grid.

    Args:
        dim: length of the vectors.
        l1_sensitivity: l1 distance of two neighbouring inputs at most.
        scale: of the noise; epsilon is about l1_sensitivity / scale.
        grid_exponent: as `grid_gaussian`.

    Raises:
        ParameterError: an argument out of range, or noise that the sampler does not draw.
    """
    dim = _validate.integer("dim", dim, 1)
    sensitivity = _validate.real("l1_sensitivity", l1_sensitivity, 1e-60, 1e60)
    width = _validate.real("scale", scale, 1e-60, 1e60)
    largest = samplers.MAX_LAPLACE_SCALE
    exponent = _exponent(grid_exponent, sensitivity / dim, width / largest)
    units = math.ldexp(width, -exponent)
    if not 1e-3 <= units <= largest:
        raise ParameterError(
            "grid_exponent", exponent, f"a grid with scale in [0.001, 2^40] ({units:g})"
        )
    moved = math.ldexp(sensitivity, -exponent) * (1.0 + 2.0**-50) + dim
    if moved >= _LARGEST:
        raise ParameterError("grid_exponent", exponent, "a grid coarser than sensitivity / 2^51")
    return GridLaplace(dim, exponent, units, math.floor(moved))


def _exponent(given: int | None, step: float, coarsest: float) -> int:
    """The grid asked for, or one 2^10 finer than `step` but not finer than `coarsest`."""
    if given is not None:
        return _validate.integer("grid_exponent", given, -_EXPONENTS, _EXPONENTS)
    fine = math.floor(math.log2(step)) - _FINENESS
    return max(fine, math.ceil(math.log2(coarsest)))


def _released(
    x: ArrayLike, dim: int, exponent: int, noise: NDArray[np.int64]
) -> NDArray[np.float64]:
    values = _validate.vector("x", x, dim)
    if not np.isfinite(values).all():
        raise NonFiniteError("x")
    with np.errstate(over="ignore", under="ignore"):
        units = np.clip(np.ldexp(values, -exponent), -_LARGEST, _LARGEST)
    total = np.rint(units).astype(np.int64) + noise
    result: NDArray[np.float64] = np.ldexp(total.astype(np.float64), exponent)
    return result
