"""Moments of a composition's tilted loss, from quadratures; they choose, and prove nothing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp.accountants.conversion import FloatArray
from dp.accountants.pairs import Pair

Parts = Sequence[tuple[Pair, int]]

_HALVINGS = 24  # of the tilt's bracket, on a logarithmic scale
_FARTHER = 30.0  # times the quadrature's tail may be cut off at large losses
_DEVIATIONS = 8.0  # of the total loss below its mean, that are as good as impossible
_LEAST = 1e-7  # epsilon whose digits matter
_TINY = 1e-300
_POINTS = 1 << 16  # of all parts together, about; fewer for each where there are many
_FEWEST = 64  # of one part


@dataclass(frozen=True)
class Losses:
    """Quadratures of all parts, one after another, each ascending in the loss.

    Attributes:
        losses, log_weights: float64[n], points and log masses in P.
        starts: int64[parts], where each part begins.
        counts: float64[parts], copies composed.
    """

    losses: FloatArray
    log_weights: FloatArray
    starts: NDArray[np.int64]
    counts: FloatArray

    @classmethod
    def of(cls, parts: Parts, tail: float) -> "Losses":
        """Quadratures that leave out about `tail` each at large losses."""
        points = []
        for pair, _ in parts:
            loss, weight = pair.points(tail)
            order = np.argsort(loss, kind="stable")
            loss, weight = loss[order], weight[order]
            # Sampling makes large losses rarer still than the noise that brings them. Of what is
            # cut off delta(l) counts: P's mass beyond l less e^l times Q's.
            above = np.cumsum(weight[::-1])[::-1]
            other = np.cumsum((weight * np.exp(-np.clip(loss, -600.0, 600.0)))[::-1])[::-1]
            gain = above - np.exp(np.clip(loss, -600.0, 600.0)) * other
            far = np.flatnonzero(gain > _FARTHER * tail)
            kept = max(3, int(far[-1]) + 2 if far.size else 0)
            rest = float(weight[kept:].sum())
            weight[kept - 1] += rest
            points.append(_thinned(loss[:kept], weight[:kept], _POINTS // len(parts)))
        sizes = [loss.size for loss, _ in points]
        return cls(
            losses=np.concatenate([loss for loss, _ in points]),
            log_weights=np.log(np.maximum(np.concatenate([w for _, w in points]), _TINY)),
            starts=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
            counts=np.array([float(count) for _, count in parts]),
        )

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64[parts]: points of each part."""
        return np.diff(np.append(self.starts, self.losses.size))

    def pieces(self, values: FloatArray) -> list[FloatArray]:
        """`values`, one array per part."""
        return np.split(values, self.starts[1:])

    def ended(self, last: float) -> "Losses":
        """With all mass beyond the loss `last` at the last point up to it."""
        ended = []
        for loss, log_weight in zip(
            self.pieces(self.losses), self.pieces(self.log_weights), strict=True
        ):
            kept = min(max(3, int(np.searchsorted(loss, last)) + 1), loss.size)
            rest = np.logaddexp.reduce(log_weight[kept - 1 :])
            ended.append((loss[:kept], np.append(log_weight[: kept - 1], rest)))
        sizes = [loss.size for loss, _ in ended]
        return Losses(
            np.concatenate([loss for loss, _ in ended]),
            np.concatenate([log_weight for _, log_weight in ended]),
            np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
            self.counts,
        )

    def tilted(self, theta: float, cap: float = math.inf) -> tuple[FloatArray, FloatArray]:
        """(weights that sum to 1 in every part, log moment of every part).

        The weights are those in P times e^min(theta l, cap).
        """
        exponents = self.log_weights + np.minimum(theta * self.losses, cap)
        largest = np.maximum.reduceat(exponents, self.starts)
        weights = np.exp(exponents - np.repeat(largest, self.sizes))
        total = np.add.reduceat(weights, self.starts)
        return weights / np.repeat(total, self.sizes), np.log(total) + largest

    def moments(self, theta: float, cap: float = math.inf) -> tuple[float, float, float]:
        """(log moment, mean, variance) of the tilted total loss; beyond the cap losses count 0."""
        weights, moments = self.tilted(theta, cap)
        losses = np.where(theta * self.losses > cap, 0.0, self.losses)
        mean = np.add.reduceat(weights * losses, self.starts)
        centred = losses - np.repeat(mean, self.sizes)
        variance = np.add.reduceat(weights * centred**2, self.starts)
        counts = self.counts
        return float(counts @ moments), float(counts @ mean), max(float(counts @ variance), _TINY)

    def capped(self, theta: float, cap: float) -> float:
        """Expected number of releases, under the tilt, whose loss is beyond the cap."""
        weights, _ = self.tilted(theta, cap)
        beyond = np.where(theta * self.losses > cap, weights, 0.0)
        return float(self.counts @ np.add.reduceat(beyond, self.starts))


def _thinned(loss: FloatArray, weight: FloatArray, most: int) -> tuple[FloatArray, FloatArray]:
    """At most about `most` points: neighbours merged at their mean loss, all of them evenly."""
    stride = -(-loss.size // max(most, _FEWEST))
    starts = np.arange(0, loss.size, stride)
    total = np.maximum(np.add.reduceat(weight, starts), _TINY)
    mean = np.add.reduceat(weight * loss, starts) / total
    last = np.append(starts[1:], loss.size) - 1
    return np.clip(mean, loss[starts], loss[last]), total


@dataclass(frozen=True)
class Aim:
    """Where delta is decided: at `epsilon` it is about e^log_delta and falls at this `rate`.

    The value of a release of loss l is about e^(theta l) delta, at most 1.
    """

    theta: float
    epsilon: float
    log_delta: float
    rate: float

    @classmethod
    def found(cls, epsilon: float, log_delta: float, rate: float) -> "Aim":
        """From a composition: the value of a loss rises from delta to about 1 at epsilon."""
        theta = rate
        for _ in range(3):
            theta = max(rate, (-log_delta - math.log1p(theta)) / max(epsilon, _LEAST))
        return cls(theta, epsilon, log_delta, rate)

    def last(self, law: Losses) -> float:
        """A loss so large that one release of it is beyond epsilon, whatever the others are.

        Beyond it delta is linear in e^-loss: the upper law may split mass between it and
        infinity, the lower law may merge it, at no cost.
        """
        below = np.minimum(law.losses, max(self.epsilon, _LEAST))
        weights, _ = law.tilted(0.0)
        counts = np.repeat(law.counts, law.sizes)
        mean = float(counts @ (weights * below))
        square = float(counts @ (weights * below**2))
        return 2.0 * self.epsilon + _DEVIATIONS * math.sqrt(square) + max(0.0, -mean)

    def tilt(self, law: Losses) -> float:
        """Tilt for the transform: theta, or less where the tilted mean would pass epsilon.

        There the Chernoff bound, relative to which the transform's errors count, is smallest.
        """
        if law.moments(self.theta)[1] <= self.epsilon:
            return self.theta
        low, high = math.log(self.theta * 1e-4), math.log(self.theta)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2.0
            fits = law.moments(math.exp(middle))[1] <= self.epsilon
            low, high = (middle, high) if fits else (low, middle)
        return math.exp(low)

    def costs(self, law: Losses) -> FloatArray:
        """float64[n]: by how much epsilon moves when the quadrature points' variances grow by 2.

        Beyond the losses that decide, delta is linear in e^-loss: there moving mass costs little.
        """
        cap = max(1.0, -self.log_delta - math.log1p(self.theta))
        weights, _ = law.tilted(self.theta, cap)
        weights = weights * np.exp(-np.clip(self.theta * law.losses - cap, 0.0, 600.0))
        curvature = self.theta * (self.theta + 1.0) / self.rate
        return np.asarray(np.repeat(law.counts, law.sizes) * (weights * curvature))


def for_delta(law: Losses, delta: float) -> Aim:
    """Where the composition's delta is about `delta`."""
    cap = -math.log(delta)

    def too_small(theta: float) -> bool:
        if law.capped(theta, cap) > 1.0:  # delta is less than that epsilon is beyond cap / theta
            return True
        moment, mean, variance = law.moments(theta, cap)
        prefactor = math.log1p(theta * (1.0 + theta) * math.sqrt(2.0 * math.pi * variance))
        return moment - theta * mean - prefactor < -cap

    theta = _bisect(law, too_small)
    return Aim(theta, max(law.moments(theta, cap)[1], 0.0), -cap, theta)


def for_epsilon(law: Losses, epsilon: float) -> Aim:
    """Delta at `epsilon`, roughly."""
    cap = 690.0
    for _ in range(2):

        def too_far(theta: float, cap: float = cap) -> bool:
            return law.capped(theta, cap) > 1.0 or law.moments(theta, cap)[1] > epsilon

        theta = _bisect(law, too_far)
        moment, _, variance = law.moments(theta, cap)
        bound = min(0.0, moment - theta * epsilon)
        cap = min(690.0, math.log1p(theta * (1.0 + theta) * math.sqrt(variance)) - bound)
    return Aim(theta, epsilon, -cap, theta)


def _bisect(law: Losses, beyond: Callable[[float], bool]) -> float:
    scale = math.sqrt(law.moments(0.0)[2])
    # Rare large losses decide at tilts of the order of their inverse, far below 1 / scale.
    rare = 0.05 / max(float(np.abs(law.losses).max()), _TINY)
    low, high = math.log(min(0.1 / scale, rare)), math.log(200.0 / scale)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if beyond(math.exp(middle)) else (middle, high)
    return math.exp(low)
