"""Composition of grid laws in the Fourier domain, tilted, with every error on the books.

The tilted law x_j = p_j e^(theta l_j) / M(theta) is composed instead of p, since a Fourier
transform's rounding errors are relative to the largest mass: tilting moves the mass to where
delta is decided. docs/privacy.md, "Privacy loss distributions", "Errors".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp.accountants.conversion import FloatArray
from dp.accountants.grid import GridLaw

_ULP = 2.0**-53
_NEGLIGIBLE = 60.0  # weights below exp(-60) are an error instead
_FFT = 8.0  # error of a transform: at most this times 2^-53 log2(size), in Euclidean norm


@dataclass(frozen=True)
class Composed:
    """The tilted composition on a window of losses, and what bounds its errors.

    Attributes:
        losses: float64[size], ascending.
        tilted: float64[size], the tilted masses, off by at most `noise` in Euclidean norm.
        log_scale: log of the composition's moment generating function at theta.
        below, above: tilted mass outside the window on either side, at most.
        relative: relative error of all masses together, at most.
        infinite: mass at infinite loss.
    """

    theta: float
    losses: FloatArray
    tilted: FloatArray
    log_scale: float
    noise: float
    below: float
    above: float
    relative: float
    infinite: float

    def delta(self, epsilon: float, *, upper: bool) -> float:
        """Delta at `epsilon`, certainly not below it (upper) or not above it."""
        if upper and epsilon < self.losses[0]:
            return 1.0  # what lies left of the window would count as well
        start = int(np.searchsorted(self.losses, epsilon, side="right"))
        stop = int(np.searchsorted(self.losses, epsilon + _NEGLIGIBLE / self.theta)) + 1
        excess = self.losses[start:stop] - epsilon
        weights = -np.expm1(-excess) * np.exp(-self.theta * excess)
        total = float(weights @ self.tilted[start:stop])
        error = float(np.sqrt(weights @ weights)) * self.noise + math.exp(-_NEGLIGIBLE)
        exponent = self.log_scale - self.theta * epsilon
        slack = self.relative + 16.0 * _ULP * (abs(self.log_scale) + self.theta * abs(epsilon) + 1)
        slack += 4.0 * _ULP * (1.0 + self.theta) * float(np.abs(self.losses[[0, -1]]).max())
        if upper:
            total += error + self.above
            if total <= 0.0:
                return min(1.0, self.infinite)
            finite = math.exp(min(0.0, exponent + math.log(total) + slack))
            return min(1.0, finite + self.infinite * math.exp(slack))
        total -= error + self.below + self.above
        if total <= 0.0:
            return 0.0
        return math.exp(min(0.0, exponent + math.log(total) - slack))


def log_moment(law: GridLaw, theta: float) -> float:
    """Log of sum_j p_j e^(theta l_j)."""
    used = law.masses > 0.0
    if not used.any():
        return -math.inf
    exponents = np.log(law.masses[used]) + theta * law.grid.losses[used]
    largest = float(exponents.max())
    return largest + math.log(float(np.exp(exponents - largest).sum()))


def _total(laws: Sequence[GridLaw], theta: float) -> float:
    return sum(law.count * log_moment(law, theta) for law in laws)


def window(
    laws: Sequence[GridLaw], theta: float, deviation: float, log_tail: float
) -> tuple[float, float]:
    """(low, high): outside, the tilted composition has mass at most e^log_tail on either side.

    Chernoff: P[S >= c] <= exp(K(theta + s) - K(theta) - s c) for every s > 0, likewise below.
    """
    centre = _total(laws, theta)
    high, low = math.inf, -math.inf
    for factor in (2.0, 4.0, 7.0, 12.0):
        s = factor / deviation
        high = min(high, (_total(laws, theta + s) - centre - log_tail) / s)
        low = max(low, (centre + log_tail - _total(laws, theta - s)) / s)
    return low, high


def compose(
    laws: Sequence[GridLaw], theta: float, low: float, high: float, log_tail: float
) -> Composed:
    """The composition of all laws, each `count` times, on a window that covers [low, high]."""
    step = laws[0].grid.step
    offset = math.fsum(law.count * law.grid.offset for law in laws)
    start = math.floor((low - offset) / step)
    size = 1 << max(4, math.ceil((high - offset) / step) - start + 1).bit_length()
    product: NDArray[np.complex128] | None = None
    log_scale = noise = relative = log_all = escaped = 0.0
    transform = _FFT * _ULP * math.log2(size)
    for law in laws:
        tilted, log_mass, rounding = _tilted(law, theta, size)
        log_scale += law.count * log_mass
        noise += law.count * transform * float(np.sqrt(tilted @ tilted))
        relative += law.count * rounding
        finite = float(law.masses.sum())
        escaped += law.count * math.log1p(law.infinite / finite)
        log_all += law.count * math.log(finite + law.infinite)
        part = _power(np.fft.rfft(tilted), law.count)
        product = part if product is None else product * part
    assert product is not None  # noqa: S101 - laws is never empty
    powers = sum(law.count for law in laws)
    composed = np.fft.irfft(product, size)
    growth = math.exp(min(50.0, noise * math.sqrt(size)))
    noise = noise * growth + (4.0 * _ULP * powers + transform) * float(np.sqrt(composed @ composed))
    infinite = math.exp(log_all) * -math.expm1(-escaped) * (1.0 + 1e-9)
    return Composed(
        theta=theta,
        losses=np.asarray(offset + step * (start + np.arange(size, dtype=np.float64))),
        tilted=np.roll(composed, -(start % size)),
        log_scale=log_scale,
        noise=noise,
        below=math.exp(log_tail),
        above=math.exp(log_tail),
        relative=relative,
        infinite=infinite,
    )


def _tilted(law: GridLaw, theta: float, size: int) -> tuple[FloatArray, float, float]:
    """(tilted masses folded to `size`, log of their sum before, relative rounding error)."""
    losses = law.grid.losses
    log_mass = log_moment(law, theta)
    tilted = law.masses * np.exp(theta * losses - log_mass)
    folds = -(-tilted.size // size) + 1
    begin = law.grid.first % size
    padded = np.zeros((folds + 1) * size)
    padded[begin : begin + tilted.size] = tilted
    exponent = theta * float(np.abs(losses[[0, -1]]).max()) + abs(log_mass)
    rounding = _ULP * (64.0 + 4.0 * exponent + folds)
    return padded.reshape(-1, size).sum(axis=0), log_mass, rounding


def _power(values: NDArray[np.complex128], count: int) -> NDArray[np.complex128]:
    """values**count by repeated squaring, whose rounding errors are bounded."""
    result: NDArray[np.complex128] | None = None
    while True:
        if count & 1:
            result = values if result is None else result * values
        count >>= 1
        if not count:
            break
        values = values * values
    assert result is not None  # noqa: S101 - count is at least 1
    return result
