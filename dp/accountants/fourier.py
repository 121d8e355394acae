"""Composition of discrete laws in the Fourier domain, tilted, with every error on the books.

The tilted law x_j = p_j e^(theta l_j) / M(theta) is composed instead of p, since a Fourier
transform's rounding errors are relative to the largest mass: tilting moves the mass to where
delta is decided. docs/privacy.md, "Privacy loss distributions", "Errors".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dp.accountants.conversion import FloatArray
from dp.accountants.grid import GridLaw

_ULP = 2.0**-53
_FFT = 8.0  # error of a transform: at most this times 2^-53 log2(size), in Euclidean norm
_BLOCK = 256
_SHIFTS = (1.0, 2.0, 4.0, 7.0, 12.0)  # of the tilt, per deviation
_PARTS = (0.5, 0.9, 1.0)  # of the tilt


@dataclass(frozen=True)
class Tails:
    """Chernoff bounds on the tilted composition S: P[S >= c] <= exp(up_i - s_i c) for all i.

    Likewise P[S <= c] <= exp(down_i + s_i c).
    """

    shifts: FloatArray
    up: FloatArray
    down: FloatArray

    @classmethod
    def of(
        cls, log_moments: Callable[[FloatArray], FloatArray], theta: float, deviation: float
    ) -> "Tails":
        """Bounds from the composition's log moments at theta, theta + s and theta - s."""
        shifts = np.array([f / deviation for f in _SHIFTS] + [f * theta for f in _PARTS])
        tilts = np.concatenate([[0.0], shifts, -shifts]) + theta
        moments = log_moments(tilts)
        up, down = np.split(moments[1:] - moments[0], 2)
        return cls(shifts, up, down)

    def above(self, loss: float) -> float:
        """Bound on the tilted mass at and above `loss`."""
        return math.exp(min(0.0, float((self.up - self.shifts * loss).min())))

    def below(self, loss: float) -> float:
        """Bound on the tilted mass at and below `loss`."""
        return math.exp(min(0.0, float((self.down + self.shifts * loss).min())))

    def range(self, log_tail: float) -> tuple[float, float]:
        """(low, high): the tilted mass outside is at most e^log_tail on either side."""
        low = (log_tail - self.down) / self.shifts
        return float(low.max()), float(((self.up - log_tail) / self.shifts).min())


def composed_moments(laws: Sequence[GridLaw], tilts: FloatArray) -> FloatArray:
    """Log moments of the composition at `tilts`."""
    total = np.zeros(tilts.size)
    for law in laws:
        total += law.count * log_moments(law, tilts)
    return total


def log_moments(law: GridLaw, tilts: FloatArray) -> FloatArray:
    """Log of sum_j p_j e^(t l_j) for each t of `tilts`; float64 of their shape."""
    used = law.masses > 0.0
    exponents = np.log(law.masses[used]) + tilts[:, None] * law.losses[used]
    largest = exponents.max(axis=1, keepdims=True)
    total = np.exp(exponents - largest).sum(axis=1)
    return np.asarray(largest[:, 0] + np.log(total))


@dataclass(frozen=True)
class Composed:
    """The tilted composition on a circle of grid points, read from loss `first` upward.

    Attributes:
        step, first: the points are first + step * j.
        tilted: float64[size], the tilted masses, off by at most `noise` in Euclidean norm from
            the true ones wrapped around the circle.
        log_scale: log of the composition's moment generating function at theta.
        tails: bounds on the tilted mass outside.
        relative: relative error of all masses together, at most.
        beyond: outcomes in which some release is beyond its law's last point.
    """

    theta: float
    step: float
    first: float
    tilted: FloatArray
    log_scale: float
    noise: float
    tails: Tails
    relative: float
    beyond: "_Beyond"

    @property
    def last(self) -> float:
        """The largest loss on the circle."""
        return self.first + self.step * (self.tilted.size - 1)

    @cached_property
    def _suffixes(self) -> tuple[FloatArray, FloatArray]:
        """Sums of e^(-theta x) x_j over all points from a block's first one on, per block.

        x is the distance from there; also the same times 1 - e^-x. All terms are nonnegative,
        so rounding stays relative.
        """
        blocks = -(-self.tilted.size // _BLOCK)
        padded = np.zeros(blocks * _BLOCK)
        padded[: self.tilted.size] = self.tilted
        rows = padded.reshape(blocks, _BLOCK)
        x = self.step * np.arange(_BLOCK)
        plain = rows @ np.exp(-self.theta * x)
        gains = rows @ (-np.expm1(-x) * np.exp(-self.theta * x))
        length = self.step * _BLOCK
        decay, shrink = math.exp(-self.theta * length), math.exp(-length)
        grow = -math.expm1(-length)
        sums, excess = np.zeros(blocks + 1), np.zeros(blocks + 1)
        s = e = 0.0
        for i in range(blocks - 1, -1, -1):
            e = float(gains[i]) + decay * (grow * s + shrink * e)
            s = float(plain[i]) + decay * s
            sums[i], excess[i] = s, e
        return sums, excess

    def _sums(self, loss: float) -> tuple[float, float]:
        """Sums over points above `loss`: of e^(-theta x) x_j, and times 1 - e^-x."""
        position = (loss - self.first) / self.step
        start = max(0, min(math.floor(position) + 1, self.tilted.size))
        if start == self.tilted.size:
            return 0.0, 0.0
        block = -(-start // _BLOCK)
        stop = min(block * _BLOCK, self.tilted.size)
        x = (self.first - loss) + self.step * np.arange(start, stop)
        weights = np.exp(-self.theta * x)
        near = self.tilted[start:stop] * weights
        sums, excess = self._suffixes
        far = self.first - loss + self.step * block * _BLOCK
        decay = math.exp(-self.theta * far)
        s, e = float(sums[block]), float(excess[block])
        gain = float(near @ -np.expm1(-x)) + decay * (-math.expm1(-far) * s + math.exp(-far) * e)
        return float(near.sum()) + decay * s, gain

    def _bounds(self, loss: float) -> tuple[float, float]:
        """(weight norm) x noise, for `_sums`: sums of squares of the weights over the points.

        Bounded by integrals plus the largest term, since the weights rise at most once.
        """
        a, size = 2.0 * self.theta, float(self.tilted.size)
        plain = min(size, 1.0 + 1.0 / (a * self.step))
        largest = (1.0 + self.theta) ** -2.0
        gain = min(size, largest + 2.0 / (a * (a + 1.0) * (a + 2.0) * self.step))
        return math.sqrt(plain) * self.noise, math.sqrt(gain) * self.noise

    def _outside(self, loss: float) -> tuple[float, float]:
        """(tilted mass missing above the circle, mass wrapped onto points above `loss`)."""
        length = self.step * self.tilted.size
        wrapped = self.tails.above(loss + length) + self.tails.below(self.last - length)
        weight = math.exp(-self.theta * max(0.0, self.last - loss))
        return self.tails.above(self.last) * weight, wrapped

    def _slack(self, loss: float) -> float:
        """Relative error of a sum that is scaled back from the tilt."""
        size = max(abs(self.first), abs(self.last))
        exponent = abs(self.log_scale) + self.theta * abs(loss) + 1.0
        chain = 8.0 * _ULP * (self.tilted.size / _BLOCK + _BLOCK)
        return (
            self.relative + 16.0 * _ULP * exponent + 8.0 * _ULP * (1.0 + self.theta) * size + chain
        )

    def rate(self, epsilon: float) -> float:
        """About -d log delta / d epsilon."""
        sums, gain = self._sums(epsilon)
        return max((sums - gain) / gain if gain > 0.0 else self.theta, 1e-3 * self.theta)

    def delta(self, epsilon: float, *, upper: bool) -> float:
        """Delta at `epsilon`, certainly not below it (upper) or not above it."""
        if upper and epsilon < self.first:
            return 1.0  # what lies left of the circle would count as well
        _, total = self._sums(epsilon)
        _, noise = self._bounds(epsilon)
        missing, wrapped = self._outside(epsilon)
        exponent, slack = self.log_scale - self.theta * epsilon, self._slack(epsilon)
        if upper:
            total += noise + missing
            finite = math.exp(min(0.0, exponent + math.log(max(total, 1e-300)) + slack))
            return min(1.0, finite + self.beyond.mass * (1.0 + self.beyond.relative))
        total -= noise + wrapped
        below = 0.0
        if total > 0.0:
            below = math.exp(min(0.0, exponent + math.log(total) - slack))
        return min(1.0, below + self.beyond.least(epsilon))


@dataclass(frozen=True)
class _Beyond:
    """Outcomes in which some release is beyond the last point of its law.

    Attributes:
        mass, other: in P and in Q.
        relative: relative error of either, at most.
    """

    mass: float
    other: float
    relative: float

    @classmethod
    def of(cls, laws: Sequence[GridLaw]) -> "_Beyond":
        """All outcomes less those with no such release, in P and in Q."""
        whole, escaped = np.zeros(2), np.zeros(2)
        relative = 1e-12
        for law in laws:
            losses = law.losses
            finite = np.array([law.masses.sum(), (law.masses * np.exp(-losses)).sum()])
            beyond = np.array([law.infinite, law.other])
            whole += law.count * np.log(finite + beyond)
            escaped += law.count * np.log1p(beyond / finite)
            relative += law.count * 2.0**-48 * (1.0 + float(np.abs(losses[[0, -1]]).max()))
        mass, other = np.exp(np.minimum(whole, 1.0)) * -np.expm1(-escaped)
        return cls(float(mass), float(other), relative)

    def least(self, epsilon: float) -> float:
        """Their share of delta, at least: P less e^epsilon times Q, where that is positive."""
        if self.mass <= 0.0:
            return 0.0
        other = math.exp(min(epsilon, 700.0)) * self.other * (1.0 + self.relative)
        return max(0.0, self.mass * (1.0 - self.relative) - other * (1.0 + 8.0 * _ULP))


def compose(
    laws: Sequence[GridLaw], theta: float, tails: Tails, low: float, high: float
) -> Composed:
    """The composition of all laws, each `count` times, read on a circle from `low` to `high`."""
    step = laws[0].step
    offset = math.fsum(law.count * law.offset for law in laws)
    start = math.floor((low - offset) / step)
    size = transform_size(math.ceil((high - offset) / step) - start + 1)
    product: NDArray[np.complex128] | None = None
    log_scale = noise = relative = 0.0
    transform = _FFT * _ULP * math.log2(size)
    for law in laws:
        tilted, log_mass, rounding = _tilted(law, theta, size)
        log_scale += law.count * log_mass
        noise += law.count * transform * float(np.sqrt(tilted @ tilted))
        relative += law.count * rounding
        part = _power(np.fft.rfft(tilted), law.count)
        product = part if product is None else product * part
    assert product is not None  # noqa: S101 - laws is never empty
    powers = sum(law.count for law in laws)
    composed = np.fft.irfft(product, size)
    growth = math.exp(min(50.0, noise * math.sqrt(size)))
    noise = noise * growth + (4.0 * _ULP * powers + transform) * float(np.sqrt(composed @ composed))
    return Composed(
        theta=theta,
        step=step,
        first=offset + step * start,
        tilted=np.maximum(np.roll(composed, -(start % size)), 0.0),  # no farther from the truth
        log_scale=log_scale,
        noise=noise,
        tails=tails,
        relative=relative,
        beyond=_Beyond.of(laws),
    )


def transform_size(least: int) -> int:
    """The smallest 2^k, 3 2^k or 5 2^k that is at least `least` and 16."""
    least = max(16, least)
    return min(odd << max(0, (-(-least // odd) - 1).bit_length()) for odd in (1, 3, 5))


def _tilted(law: GridLaw, theta: float, size: int) -> tuple[FloatArray, float, float]:
    """(tilted masses folded to `size`, log of their sum before, relative rounding error)."""
    losses = law.losses
    log_mass = float(log_moments(law, np.array([theta]))[0])
    tilted = law.masses * np.exp(theta * losses - log_mass)
    folds = int(law.index[-1] - law.index[0]) // size + 2
    exponent = theta * float(np.abs(losses[[0, -1]]).max()) + abs(log_mass)
    rounding = _ULP * (64.0 + 4.0 * exponent + folds)
    folded = np.asarray(np.bincount(law.index % size, tilted, size), np.float64)
    return folded, log_mass, rounding


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
