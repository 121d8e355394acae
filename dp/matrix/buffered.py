"""Buffered linear Toeplitz strategies (BLT): noise with a memory of a few vectors.

Dvijotham, McMahan, Pillutla, Steinke, Thakurta 2024, "Efficient and Near-Optimal Noise Generation
for Streaming Differential Privacy"; McMahan, Xu, Zhang 2024, "A Hassle-free Algorithm for Private
Learning in Practice". C is Toeplitz with c_0 = 1 and c_j = sum_i w_i t_i^(j - 1), so what earlier
rounds add to a round is a sum over buffers that decay by t_i a round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from dp import _validate
from dp.errors import ParameterError
from dp.matrix import sensitivity, series
from dp.matrix._lbfgs import minimize
from dp.matrix._search import toeplitz_loss
from dp.matrix.participation import Participation
from dp.matrix.strategy import (
    Arrays,
    Draw,
    IntArray,
    Slack,
    Strategy,
    Whitening,
    rounded_quotient,
    whitening,
)

FloatArray = NDArray[np.float64]

SCALE = 1 << 14
MAX_BUFFERS = 12
_TAIL_FAILURE = 2.0**-100
_UNIT = 2.0**-53
_STEPS = 600


@dataclass(frozen=True)
class BltStrategy(Strategy):
    """A Toeplitz strategy with geometric tails; built by `blt`.

    Attributes:
        participation: what it was optimised for.
        decays: t_i in (0, 1), each buffer's factor from one round to the next.
        weights: w_i > 0, summing to at most 1, so that coefficients do not increase.
    """

    decays: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        takes = f"one weight above 0 for each of 1 to {MAX_BUFFERS} decays in (0, 1), at most 1 all"
        decays = [_validate.open_unit("decays", value) for value in self.decays]
        weights = [_validate.positive("weights", value, 1.0) for value in self.weights]
        fits = len(decays) == len(weights) and 1 <= len(decays) <= MAX_BUFFERS
        if not fits or math.fsum(weights) > 1.0:
            raise ParameterError("weights", self.weights, takes)

    @property
    def measurements(self) -> int:
        """Rows of C: independent draws of noise per coordinate."""
        return self.rounds

    @cached_property
    def column(self) -> FloatArray:
        """The coefficients c_0 .. c_{n-1}, float64[n]."""
        return _column(np.array(self.decays), np.array(self.weights), self.rounds)

    def matrix(self) -> FloatArray:
        """SCALE C, float64[n, n]."""
        return series.lower_triangular(SCALE * self.column, self.rounds)

    def sensitivity_sq(self, participation: Participation) -> int:
        """Bound on |SCALE C u|^2 over one client's vectors u of norm at most 1, rounded up.

        Coefficients are positive and do not increase: Kalinin, Lampert 2024, Theorem 2.
        """
        moved = sensitivity.moved_by(self.column, participation)
        # Sums of positive terms: doubles are within 2^-30 of the truth.
        return math.ceil(SCALE**2 * float(moved @ moved) * (1.0 + 2.0**-30))

    @cached_property
    def variances(self) -> FloatArray:
        """Variance of every prefix sum per unit of the variance of z, float64[n]."""
        return np.cumsum(np.cumsum(series.inverse(SCALE * self.column, self.rounds)) ** 2)

    def slack(self, dim: int, sigma: float) -> Slack:
        """What streaming moves a coordinate of a measurement by beyond C x.

        Twice the distance between what the buffers give and the exact sum, unless noise exceeds
        its 2^-100 tail; docs/privacy.md, "Buffers".

        Args:
            dim: length of the vectors.
            sigma: of z.

        Raises:
            ParameterError: buffers in double precision would be off by more than a quotient.
        """
        n, noising = self.rounds, series.inverse(self.column, self.rounds)
        tail = math.sqrt(2.0 * math.log(2.0 * dim * n / _TAIL_FAILURE))
        largest = sigma / SCALE * float(np.linalg.norm(noising)) * tail
        largest = (largest + float(np.abs(noising).sum())) * (1.0 + 2.0**-20)
        distance = self._distance(largest)
        if distance > SCALE / 2:
            raise ParameterError("sigma", sigma, "noise whose buffers fit into double precision")
        return Slack(2.0 * distance, _TAIL_FAILURE)

    def _distance(self, largest: float) -> float:
        """Between what the buffers give and the exact sum over errors within `largest`."""
        error = 0.0
        for decay, weight in zip(self.decays, self.weights, strict=True):
            horizon = min(float(self.rounds), 1.0 / (1.0 - decay))
            error += weight * horizon * (2.1 * horizon + len(self.decays) + 3.0)
        return 0.5 + SCALE * largest * _UNIT * error

    def whitening(self, errors: IntArray) -> Whitening:
        """C e = z but for rounding to SCALE and what the buffers are off by."""
        n = len(errors)
        rounding = SCALE / 2 + self._distance(float(np.abs(errors).max(initial=0)))
        return whitening(self.matrix()[:n, :n], np.ones(n), np.full(n, rounding), errors)

    def arrays(self, dim: int) -> Arrays:
        """The state before round 0: one buffer per decay, float64[buffers, dim]."""
        return {"buffers": np.zeros((len(self.decays), dim))}

    def advance(self, arrays: Arrays, row: int, draw: Draw) -> IntArray:
        """The noise of round `row`, int64[dim]; `arrays` moves on.

        e_t = round((z_t - round(SCALE sum_i w_i b_i)) / SCALE), then b_i <- t_i b_i + e_t.
        """
        del row
        buffers = arrays["buffers"]
        carried = np.zeros(buffers.shape[1])
        for weight, buffer in zip(self.weights, buffers, strict=True):
            carried += weight * buffer
        carried *= SCALE
        error = rounded_quotient(draw() - np.rint(carried).astype(np.int64), SCALE)
        self._decay(buffers)
        buffers += error
        return error

    def skip(self, arrays: Arrays, row: int, draw: Draw) -> None:
        """Nothing is released in round `row`: it counts as without noise."""
        del row, draw
        self._decay(arrays["buffers"])

    def _decay(self, buffers: FloatArray) -> None:
        for decay, buffer in zip(self.decays, buffers, strict=True):
            buffer *= decay


def blt(participation: Participation, buffers: int) -> BltStrategy:
    """The BLT strategy with the least rms error of the prefix sums that the search finds.

    It starts from a quadrature of (1 - x)^(-1/2), whose coefficients are the moments of the
    arcsine law, and moves decays and weights by their analytic gradients.

    Args:
        participation: of one client.
        buffers: 1 to 12; the state is as many vectors. Four are within 1 % of many.

    Raises:
        ParameterError: buffers out of range.
    """
    return _optimised(participation, _validate.integer("buffers", buffers, 1, MAX_BUFFERS))


@lru_cache(maxsize=64)
def _optimised(participation: Participation, buffers: int) -> BltStrategy:
    best, lowest = None, math.inf
    for spread in (0.5, 1.0, 2.0):
        point, value = minimize(
            lambda free: _loss(free, participation), _start(participation.rounds, buffers, spread),
            steps=_STEPS,
        )  # fmt: skip
        if value < lowest:
            best, lowest = point, value
    if best is None:
        raise AssertionError("every start has a finite value")
    decays, weights = _parameters(best)
    order = np.argsort(-decays)
    return BltStrategy(participation, tuple(decays[order].tolist()), tuple(weights[order].tolist()))


def _start(rounds: int, buffers: int, spread: float) -> FloatArray:
    """Decays 1 - e^-u at even steps of u up to log(spread rounds); weights of the arcsine law."""
    top = math.log(spread * rounds + 3.0)
    u = (np.arange(buffers) + 0.5) * top / buffers
    decays = -np.expm1(-u)
    mass = np.exp(-u) / (np.pi * np.sqrt(decays * np.exp(-u))) * top / buffers
    weights = mass * decays
    weights *= min(1.0, 0.5 / float(weights.sum()))
    return np.concatenate([u, np.log(weights)])


def _parameters(free: FloatArray) -> tuple[FloatArray, FloatArray]:
    half = len(free) // 2
    return -np.expm1(-free[:half]), np.exp(free[half:])


def _column(decays: FloatArray, weights: FloatArray, n: int) -> FloatArray:
    powers = decays[:, None] ** np.arange(n - 1.0)
    return np.concatenate([[1.0], weights @ powers])


def _loss(free: FloatArray, participation: Participation) -> tuple[float, FloatArray]:
    half, n = len(free) // 2, participation.rounds
    if (free[:half] <= 1e-6).any() or (free[:half] > 30.0).any() or (free[half:] > 0.0).any():
        return math.inf, free
    decays, weights = _parameters(free)
    if float(weights.sum()) > 1.0 - 1e-9:
        return math.inf, free
    exponents = np.arange(n - 1.0)
    powers = decays[:, None] ** exponents
    column = np.concatenate([[1.0], weights @ powers])
    value, slope = toeplitz_loss(column, participation)
    by_weight = powers @ slope[1:]
    by_decay = weights * ((powers * exponents) @ slope[1:]) / decays
    return value, np.concatenate([by_decay * (1.0 - decays), by_weight * weights])
