"""Integer noise laws as Rényi accounting sees them: exact divergences from their own shifts.

For a symmetric law P on the integers, f(k) = D_alpha(P shifted by k, P); both directions agree
by reflection. Two families cover all noise of this package:

    Skellam: log P from exact Bessel functions, tails bounded by quotients (Amos 1974);
    the sum of h draws of N_Z(0, s^2): P(z) = exp(-z^2 / (2 h s^2)) psi(z) with psi h-periodic.

Everything returned is an upper bound that includes truncation and rounding. Proofs are in
docs/privacy.md, "Exact Rényi divergence" and "Curvature".
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dp import _laws

FloatArray = NDArray[np.float64]

_LAST = 1024  # outcomes 0.._LAST of a Skellam law are tabulated
_SKELLAM_EXACT = 256.0  # largest variance summed exactly; above, the curvature bound is tight
_QUOTIENT_EXACT = 1e4  # largest variance whose Bessel quotient is computed by recurrence
_CELLS = 8_000  # terms summed per order, at most: shifts times outcomes
_SUMMED = 2.0**-40  # relative rounding of a sum of at most 2^12 positive exponentials
MAX_SHARE_SIGMA = 2.0  # above, the sum of discrete Gaussians is Gaussian to double precision
MAX_SHARES = 4096


@dataclass(frozen=True, eq=False)
class SkellamLaw:
    """Skellam noise of variance mu; `above` and `below` bracket log P(0), log P(1), ..."""

    mu: float
    curvature: float  # at least -log P(x+1) + 2 log P(x) - log P(x-1) for every x
    above: FloatArray
    below: FloatArray
    left: int  # sums start at -left

    def shifts(self, a: float, wanted: int) -> int:
        """How many shifts 1, 2, ... `divergences` can do at this order, at most `wanted`."""
        if self.above.size == 0:
            return 0
        best = 0
        for k in range(1, wanted + 1):
            right = self._right(a, k)
            if right > _LAST or k * (self.left + right) > _CELLS:
                break
            best = k
        return best

    def _right(self, a: float, k: int) -> int:
        """Where sums for shift k end: past the largest term, which is at most at alpha k."""
        peak = (1.0 + a) * k
        return math.ceil(peak + 10.0 * math.sqrt(math.hypot(self.mu, peak))) + 16

    def divergences(self, a: float, count: int) -> FloatArray:
        """Upper bounds on f(1), ..., f(count) at order 1 + a; float64[count]."""
        k = np.arange(1, count + 1)[:, None]
        right = self._right(a, count)
        x = np.arange(-self.left, right + 1)[None, :]
        logs = (1.0 + a) * self.above[np.abs(x - k)] - a * self.below[np.abs(x)]
        top = logs.max(axis=1, keepdims=True)
        terms = np.exp(logs - top)
        total = terms.sum(axis=1) * (1.0 + _SUMMED)
        # Quotients of neighbouring terms fall outwards: geometric series bound what is cut.
        asinh = np.arcsinh
        shift = k[:, 0]
        outward = (1.0 + a) * asinh((right - shift + 0.5) / self.mu)
        right_rate = outward - a * asinh((right + 1.0) / self.mu)
        total += terms[:, -1] * _series(right_rate)
        total += terms[:, 0] * _series(asinh((self.left + shift + 0.5) / self.mu))
        result: FloatArray = (top[:, 0] + np.log(total) + _SUMMED) / a
        return result


def _series(rate: FloatArray) -> FloatArray:
    """Sum of exp(-j rate) over j >= 1, rounded up; infinite unless rate > 0."""
    with np.errstate(divide="ignore"):
        result: FloatArray = np.where(
            rate > 0.0, (1.0 + 2.0**-30) / np.expm1(np.maximum(rate, 1e-300)), np.inf
        )
    return result


@dataclass(frozen=True, eq=False)
class PeriodicLaw:
    """P(z) proportional to exp(-z^2 / (2 variance)) psi(z); psi has period len(above).

    `above` and `below` bracket log psi, up to one common constant.
    """

    variance: float
    curvature: float  # at least the curvature of -log P, as in SkellamLaw
    above: FloatArray
    below: FloatArray

    def _radius(self, a: float) -> int:
        spread = float(self.above.max() - self.below.min())
        return math.ceil(math.sqrt(2.0 * self.variance * (45.0 + (1.0 + a) * spread))) + 1

    def shifts(self, a: float, wanted: int) -> int:
        """How many shifts 1, 2, ... `divergences` can do at this order, at most `wanted`."""
        width = 2 * self._radius(a) + 1
        return min(wanted, _CELLS // width)

    def divergences(self, a: float, count: int) -> FloatArray:
        """Upper bounds on f(1), ..., f(count) at order 1 + a; float64[count].

        Completing the square: f(k) = alpha k^2 / (2 v) + log(sum_x exp(-(x - alpha k)^2 / (2v))
        psi(x - k)^alpha psi(x)^(1 - alpha) / sum_x exp(-x^2 / (2v)) psi(x)) / (alpha - 1).
        """
        radius, v, order = self._radius(a), self.variance, 1.0 + a
        k = np.arange(1, count + 1, dtype=np.int64)[:, None]
        centre = order * k
        x = np.rint(centre).astype(np.int64) + np.arange(-radius, radius + 1)[None, :]
        h = self.above.size
        weights = order * self.above[(x - k) % h] - a * self.below[x % h]
        logs = weights - (x - centre) ** 2 / (2.0 * v)
        top = logs.max(axis=1, keepdims=True)
        total = np.exp(logs - top).sum(axis=1)
        # Beyond the window: a Gaussian tail times the largest that psi can contribute.
        worst = order * float(self.above.max()) - a * float(self.below.min())
        edge = radius - 0.5
        cut = 2.0 / -math.expm1(-edge / v) * np.exp(worst - edge**2 / (2.0 * v) - top[:, 0])
        inner = np.arange(-radius, radius + 1)
        norm = np.exp(self.below[inner % h] - inner**2 / (2.0 * v)).sum()
        # alpha k is rounded once; that moves exponents by at most radius / v of its error.
        slack = _SUMMED * 2.0 + 2.0**-50 * centre[:, 0] * (radius + 1.0) / v
        extra = top[:, 0] + np.log(total + cut) - math.log(norm) + slack
        result: FloatArray = order * (k[:, 0].astype(np.float64) ** 2) / (2.0 * v) + extra / a
        return result


@functools.lru_cache(maxsize=16)
def skellam_law(mu: float) -> SkellamLaw:
    """The law of Skellam noise of variance mu, tabulated up to variance 256."""
    none = np.zeros(0)
    if not 1e-6 <= mu <= _SKELLAM_EXACT:
        return SkellamLaw(mu, skellam_curvature(mu), none, none, 0)
    left = _laws.skellam_tail(mu, 64)
    logs = np.array(_laws.skellam_log_law(Fraction(mu), _LAST + left))
    error = 2.0**-46 + 2.0**-48 * np.abs(logs)  # and the rounding of sums and products of logs
    return SkellamLaw(mu, skellam_curvature(mu), logs + error, logs - error, left)


def skellam_curvature(mu: float) -> float:
    """2 log(I_0(mu) / I_1(mu)), rounded up: the largest curvature of -log P, at 0.

    Above variance 1e4 by I_1 / I_0 >= mu / (1/2 + sqrt(mu^2 + 9/4)) (Amos 1974, (16)), which is
    looser by a relative 3 / (2 mu).
    """
    if mu > _QUOTIENT_EXACT:
        excess = 0.5 / mu + 2.25 / mu / (mu + math.hypot(mu, 1.5))
        return 2.0 * math.log1p(excess) * (1.0 + 2.0**-48)
    complement = float(_laws.bessel_quotient_complement(Fraction(mu))) * (1.0 + 2.0**-52)
    if complement >= 1.0:  # mu near 0: the quotient is about mu / 2, and this bounds it
        return 2.0 * math.log((0.5 + math.hypot(mu, 1.5)) / mu) * (1.0 + 2.0**-40)
    return -2.0 * math.log1p(-complement) * (1.0 + 2.0**-30)


@functools.lru_cache(maxsize=16)
def gaussian_sum_law(sigma: float, shares: int) -> PeriodicLaw:
    """The law of the sum of up to 4096 draws of N_Z(0, sigma^2), sigma in [1/2, 2]."""
    variance = shares * sigma**2
    if shares == 1:
        flat = np.zeros(1)
        return PeriodicLaw(variance, (1.0 + 2.0**-50) / variance, flat, flat)
    half = _log_psi(sigma, shares)
    above, below = (np.concatenate([h, h[1 : (shares + 1) // 2][::-1]]) for h in half)
    bend = 2.0 * above - np.roll(below, 1) - np.roll(below, -1)
    curvature = (1.0 / variance + float(bend.max())) * (1.0 + 2.0**-50)
    return PeriodicLaw(variance, curvature, above, below)


def _log_psi(sigma: float, shares: int) -> tuple[FloatArray, FloatArray]:
    """Brackets of log psi(0), ..., log psi(shares // 2), up to one constant.

    psi(z) is the mean over t of Theta(t)^h with Theta(t) = sum_x exp(-(x-c)^2 / (2 s^2) +
    i t (x-c)), c = z / h. Equal steps 2 pi / M in t add the images psi(z + mM)
    exp(-(mM)^2 / (2 h s^2)), which are all positive.
    """
    variance = shares * sigma**2
    reach = math.ceil(9.0 * sigma) + 2
    x = np.arange(-reach, reach + 1.0)
    points = _points(sigma, shares)
    t = 2.0 * np.pi * np.arange(points) / points
    phases = np.exp(1j * np.outer(x, t))
    above, below = [], []
    block = max(1, 2**18 // points)
    for start in range(0, shares // 2 + 1, block):
        z = np.arange(start, min(start + block, shares // 2 + 1))
        high, low = _psi_block(sigma, shares, z, x, t, phases)
        above.append(high)
        below.append(low)
    high, low = np.concatenate(above), np.concatenate(below)
    top = float(high.max())
    images = math.log(2.2) - points**2 / (2.0 * variance)
    share = np.exp(np.minimum(images + top - low, 0.0))
    if not share.max() < 2.0**-20:
        raise ArithmeticError("psi was not resolved: its images are too large")
    return high - top, low + np.log1p(-share) - top


def _points(sigma: float, shares: int) -> int:
    """Steps in t at which images are worth less than 2^-64 of psi."""
    x = np.arange(-12.0, 14.0)
    most = np.exp(-(x**2) / (2.0 * sigma**2)).sum()
    least = np.exp(-((x - 0.5) ** 2) / (2.0 * sigma**2) + 0.125 / sigma**2).sum()
    spread = shares * (math.log(most / least) + 0.125 / sigma**2)
    return math.ceil(math.sqrt(2.0 * shares * sigma**2 * (45.0 + max(0.0, spread)))) + 2


def _psi_block(
    sigma: float,
    shares: int,
    z: NDArray[np.int64],
    x: FloatArray,
    t: FloatArray,
    phases: NDArray[np.complex128],
) -> tuple[FloatArray, FloatArray]:
    """Brackets of the log of the mean over t, for a block of z; images still in it."""
    c = (z / shares)[:, None]
    weights = np.exp(-((x[None, :] - c) ** 2) / (2.0 * sigma**2))
    scale = weights.sum(axis=1, keepdims=True)
    quotient = (weights / scale) @ phases * np.exp(-1j * c * t[None, :])
    size = np.minimum(np.abs(quotient), 1.0)
    angle = np.angle(quotient)
    with np.errstate(divide="ignore"):
        power = np.exp(shares * np.log(size))
        lower_power = np.exp((shares - 1) * np.log(size))
    mean = (power * np.cos(shares * angle)).mean(axis=1)
    # A quotient off by e moves its power by at most h e |quotient|^(h-1) (1 + small).
    error = shares * 2.0**-46 * lower_power.mean(axis=1)
    logs = shares * np.log(scale[:, 0])
    rounding = shares * 2.0**-48 * (1.0 + np.abs(np.log(scale[:, 0])))
    high = logs + np.log(mean + error) + rounding
    low = logs + np.log(np.maximum(mean - error, 1e-300)) - rounding
    return high, low
