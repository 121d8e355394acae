"""Dominating pairs of sampled releases in which both inputs, and the others', may move.

One release is (1 - q) F_c + q F_a against (1 - q) F_c + q F_b: F is the noise, a and b are the
client's vectors in the two inputs, c is what stands in their place where the client is not drawn.
For symmetric log-concave noise the worst places are known, and at losses l >= 0 the best set
against e^l is a half-line {x > t}. Below 0 a pair is the exchange of another one.
docs/privacy.md, "Three places".
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from dp import _special
from dp.accountants.conversion import FloatArray
from dp.accountants.pairs import (
    POINTS,
    ULP,
    Curve,
    GaussianShift,
    SampledPair,
    Shift,
    checked,
    far_end,
    term_error,
)

# opposite: a = 1, c = 0, b = -1.  aside: a = 1, c = -1, b = 0. In units of the bound.
Arrangement = Literal["opposite", "aside"]
Logs = tuple[FloatArray, FloatArray, FloatArray]


class Places(Protocol):
    """Symmetric log-concave noise at the three places of an arrangement."""

    @property
    def has_atoms(self) -> bool:
        """Whether the loss has atoms."""

    def split(self, loss: FloatArray, q: float) -> tuple[Logs, Logs]:
        """Log masses (F_c, F_a, F_b) of the best half-line for each loss, and of the rest.

        For the arrangement "opposite" losses are >= 0. For "aside" and losses below 0 it is the
        best half-line that is not the whole line, if there is one.
        """

    def points(self, tail: float) -> Logs:
        """(weights of F_c, F_a, F_b): a quadrature that leaves out about `tail`."""


@dataclass(frozen=True)
class GaussianPlaces:
    """N(0, 1) at places that are multiples of mu."""

    mu: float
    arrangement: Arrangement

    @property
    def has_atoms(self) -> bool:
        """None."""
        return False

    def split(self, loss: FloatArray, q: float) -> tuple[Logs, Logs]:
        """The threshold solves a quadratic equation in e^(mu x)."""
        mu = self.mu
        log_c = _log_common(loss, q)
        if self.arrangement == "opposite":
            # y = e^(mu x - l/2), divided by F_c e^(l/2 - mu^2/2): y - 1/y = 2 sinh(log y) = e^gap
            gap = log_c + mu * mu / 2.0 - loss / 2.0
            log_y = np.where(gap > 300.0, gap, np.arcsinh(np.exp(np.minimum(gap, 300.0)) / 2.0))
            x = (loss / 2.0 + log_y) / mu
        else:
            # y = e^(mu x) / r with r = e^(l + mu^2/2): y^2 - y = e^gap, or -e^gap below loss 0
            root = loss + mu * mu / 2.0
            gap = log_c - 2.0 * root
            inside = 0.25 + np.sign(loss) * np.exp(np.minimum(gap, 300.0))
            small = np.log(0.5 + np.sqrt(np.maximum(inside, 0.0)))
            x = (root + np.where(gap > 300.0, gap / 2.0, small)) / mu
            x = np.where(inside < 0.0, -np.inf, x)
        places = _places(self.arrangement)
        above = [_special.log_ndtr(mu * place - x) for place in places]
        below = [_special.log_ndtr(x - mu * place) for place in places]
        return _three(above), _three(below)

    def points(self, tail: float) -> Logs:
        """Trapezoidal rule."""
        far = far_end(tail)
        count = POINTS + min(4000, math.ceil(POINTS * self.mu / far))
        x = np.linspace(-far - self.mu, far + self.mu, count)
        scale = (x[1] - x[0]) / math.sqrt(2.0 * math.pi)
        return _three(
            [scale * np.exp(-0.5 * (x - self.mu * p) ** 2) for p in _places(self.arrangement)]
        )


@dataclass(frozen=True)
class LaplacePlaces:
    """Laplace noise of this scale at places -1, 0, 1."""

    scale: float
    arrangement: Arrangement

    @property
    def has_atoms(self) -> bool:
        """At both ends."""
        return True

    def split(self, loss: FloatArray, q: float) -> tuple[Logs, Logs]:
        """The threshold lies in [0, 1]; where it would be beyond, no set gains."""
        s = self.scale
        log_c = _log_common(loss, q)
        if self.arrangement == "opposite":
            x = 0.5 * s * np.logaddexp(log_c + 1.0 / s, loss)
        else:
            least = loss + 1.0 / s
            with np.errstate(divide="ignore"):
                less = least + np.log1p(-np.exp(np.minimum(log_c - least, 0.0)))
            x = 0.5 * s * np.where(loss < 0.0, less, np.logaddexp(log_c, least))
            x = np.where(x < 0.0, -np.inf, x)  # the loss is least at 0
        x = np.where(x >= 1.0, np.inf, x)
        places = _places(self.arrangement)
        above = [_laplace_tail((x - place) / s) for place in places]
        below = [_laplace_tail((place - x) / s) for place in places]
        return _three(above), _three(below)

    def points(self, tail: float) -> Logs:
        """Cells between -1 and 1 and the two atoms, by differences of tails."""
        x = np.concatenate([[-np.inf], np.linspace(-1.0, 1.0, POINTS + 1), [np.inf]])
        return _three(
            [
                -np.diff(np.exp(_laplace_tail((x - place) / self.scale)))
                for place in _places(self.arrangement)
            ]
        )


class IntegerPlaces:
    """A symmetric log-concave law on integers at places -shift, 0, shift.

    Args:
        log_weights: log probabilities of 0, 1, ..., K, up to a constant; float64[K + 1].
        shift: >= 1.
        arrangement: which place is whose.
    """

    has_atoms = True

    def __init__(self, log_weights: FloatArray, shift: int, arrangement: Arrangement) -> None:
        logs = np.concatenate([log_weights[:0:-1], log_weights])
        extended = np.exp((logs - log_weights[0]).astype(np.longdouble))
        tails = np.cumsum(extended[::-1])[::-1]
        self._log_tails = np.append(np.log(tails / tails[0]).astype(np.float64), -np.inf)
        self._reach = log_weights.size - 1
        self._ends = (-self._reach - shift, self._reach + shift)  # of all outcomes
        self._places = [shift * place for place in _places(arrangement)]
        log_total = float(np.log(tails[0])) + log_weights[0]
        outcomes = self._ends[1] - self._ends[0] + 1
        self._log_masses = [np.full(outcomes, -np.inf) for _ in range(3)]
        for log_mass, place in zip(self._log_masses, self._places, strict=True):
            start = place + shift
            log_mass[start : start + logs.size] = logs - log_total
        self._losses = functools.lru_cache(maxsize=4)(self._sampled_losses)

    def _sampled_losses(self, q: float) -> FloatArray:
        """Least loss from each outcome on: where it grows, that is the outcome's own."""
        common, first, second = self._log_masses
        rest = math.log1p(-q)
        up = np.logaddexp(rest + common, math.log(q) + first)
        down = np.logaddexp(rest + common, math.log(q) + second)
        result: FloatArray = np.minimum.accumulate((up - down)[::-1])[::-1]
        return result

    def split(self, loss: FloatArray, q: float) -> tuple[Logs, Logs]:
        """Tails from the first outcome whose loss is larger."""
        start = np.searchsorted(self._losses(q), loss, side="right") + self._ends[0]
        above = [self._tail(start - place) for place in self._places]
        below = [self._tail(place - start + 1) for place in self._places]  # by symmetry
        return _three(above), _three(below)

    def _tail(self, outcome: np.ndarray) -> FloatArray:
        """Log P[Z >= outcome]."""
        index = np.clip(outcome + self._reach, 0, self._log_tails.size - 1)
        return np.asarray(self._log_tails[index])

    def points(self, tail: float) -> Logs:
        """The outcomes themselves, in runs if there are many."""
        masses = [np.exp(log_mass) for log_mass in self._log_masses]
        index = np.flatnonzero(np.maximum.reduce(masses) > tail * 1e-3)
        if index.size == 0:
            index = np.array([masses[0].size // 2])
        chosen = index[:: max(1, index.size // (4 * POINTS))]
        return _three([np.add.reduceat(mass, chosen) for mass in masses])


@functools.lru_cache(maxsize=64)
def discrete_gaussian_places(sigma: float, shift: int, arrangement: Arrangement) -> IntegerPlaces:
    """N_Z(0, sigma^2); tables reach to mass exp(-680)."""
    k = np.arange(math.ceil(37.0 * sigma) + 2 + 2 * shift)
    return IntegerPlaces(-0.5 * (k / sigma) ** 2, shift, arrangement)


@functools.lru_cache(maxsize=64)
def discrete_laplace_places(scale: float, shift: int, arrangement: Arrangement) -> IntegerPlaces:
    """The law proportional to exp(-|x| / scale)."""
    k = np.arange(math.ceil(680.0 * scale) + 2 + 2 * shift)
    return IntegerPlaces(-k / scale, shift, arrangement)


@dataclass(frozen=True)
class Opposed:
    """Curves of three places."""

    places: Places

    @property
    def has_atoms(self) -> bool:
        """Whether the loss has atoms."""
        return self.places.has_atoms

    def curve(self, loss: FloatArray, q: float) -> Curve:
        """The pair's own curve at losses >= 0."""
        (common, first, second), _ = self.places.split(loss, q)
        return _mixed(loss, q, (common, first, second))

    def exchanged(self, loss: FloatArray, q: float) -> Curve:
        """The curve of the exchanged pair at losses <= 0."""
        _, (common, first, second) = self.places.split(-loss, q)
        return _mixed(loss, q, (common, second, first))

    def points(self, q: float, tail: float) -> Logs:
        """(loss, weight in P, weight in Q) where the loss is positive."""
        common, first, second = self.places.points(tail)
        up, down = (1.0 - q) * common + q * first, (1.0 - q) * common + q * second
        keep = (up > down) & (down > 0.0)
        # Without cancellation where q is small
        gain = q * (first[keep] - second[keep]) / down[keep]
        return np.log1p(gain), up[keep], down[keep]


@dataclass(frozen=True)
class Single:
    """Curves of F_1 sampled against F_0: b and c in one place."""

    shift: Shift

    @property
    def has_atoms(self) -> bool:
        """Whether the loss has atoms."""
        return not isinstance(self.shift, GaussianShift)

    def curve(self, loss: FloatArray, q: float) -> Curve:
        """The removing curve."""
        return SampledPair(self.shift, q, "remove").curve(loss)

    def exchanged(self, loss: FloatArray, q: float) -> Curve:
        """The adding curve."""
        return SampledPair(self.shift, q, "add").curve(loss)

    def points(self, q: float, tail: float) -> Logs:
        """(loss, weight in P, weight in Q) where the loss is positive."""
        loss, up = SampledPair(self.shift, q, "remove").points(tail)
        keep = loss > 0.0
        return loss[keep], up[keep], up[keep] * np.exp(-loss[keep])


Half = Opposed | Single


@dataclass(frozen=True)
class SplicedPair:
    """At losses >= 0 the curve of one pair, below 0 that of another one, exchanged."""

    above: Half
    below: Half
    sampling_prob: float

    @property
    def has_atoms(self) -> bool:
        """Whether the loss has atoms."""
        return self.above.has_atoms or self.below.has_atoms

    def curve(self, loss: FloatArray) -> Curve:
        """Piece by piece."""
        right = loss >= 0.0
        up = self.above.curve(np.maximum(loss, 0.0), self.sampling_prob)
        down = self.below.exchanged(np.minimum(loss, 0.0), self.sampling_prob)
        return Curve(
            np.where(right, up.delta, down.delta),
            np.where(right, up.tail, down.tail),
            np.where(right, up.delta_error, down.delta_error),
            np.where(right, up.tail_error, down.tail_error),
        )

    def points(self, tail: float) -> tuple[FloatArray, FloatArray]:
        """(loss, weight in P) of both pieces; the rest of the mass sits at zero."""
        gain, more, _ = self.above.points(self.sampling_prob, tail)
        drop, _, less = self.below.points(self.sampling_prob, tail)
        rest = max(0.0, 1.0 - float(more.sum()) - float(less.sum()))
        return np.concatenate([-drop, [0.0], gain]), np.concatenate([less, [rest], more])


@dataclass(frozen=True)
class HalfLines:
    """What half-lines alone tell of the pair of three places: less than the pair itself.

    Some inputs produce that pair, so this is for lower ends.
    """

    places: Places
    sampling_prob: float
    exchanged: bool

    @property
    def has_atoms(self) -> bool:
        """The rest of the line acts as one."""
        return True

    def curve(self, loss: FloatArray) -> Curve:
        """The larger of the best half-line's and of the whole line's gain."""
        q = self.sampling_prob
        above, below = self.places.split(-loss if self.exchanged else loss, q)
        common, first, second = above
        if self.exchanged:
            common, second, first = below
        found = _mixed(loss, q, (common, first, second))
        whole = -np.expm1(np.minimum(loss, 0.0))
        better = whole >= found.delta
        return Curve(
            np.where(better, whole, found.delta),
            np.where(better, 1.0, found.tail),
            np.where(better, 4.0 * ULP * whole, found.delta_error),
            found.tail_error,
        )

    def points(self, tail: float) -> tuple[FloatArray, FloatArray]:
        """(loss, weight in P) of the pair itself."""
        q = self.sampling_prob
        common, first, second = self.places.points(tail)
        up, down = (1.0 - q) * common + q * first, (1.0 - q) * common + q * second
        keep = (up > 0.0) & (down > 0.0)
        loss = np.log(up[keep] / down[keep])
        return (-loss, down[keep]) if self.exchanged else (loss, up[keep])


def _mixed(loss: FloatArray, q: float, logs: Logs) -> Curve:
    """P(S) - e^l Q(S) and P(S) from the masses (F_c, F_a, F_b) of S."""
    common, first, second = logs
    kept = (1.0 - q) * np.exp(common)
    plus = q * np.exp(first)
    with np.errstate(over="ignore"):
        minus = np.where(np.isneginf(second), 0.0, q * np.exp(loss + second))
        # Not as kept expm1(loss): masses of far tails are small where e^l is large.
        lost = (1.0 - q) * np.exp(common + np.maximum(loss, 0.0)) * np.expm1(-np.abs(loss))
    lost = np.where(np.isneginf(common), 0.0, lost)  # never positive
    delta = plus - minus + np.where(loss > 0.0, lost, -lost)
    tail = kept + plus
    size = np.abs(loss)
    error = term_error(plus, first, size) + term_error(minus, second, size)
    error = error + term_error(np.abs(lost), common, size)
    tail_error = term_error(tail, common, size) + term_error(tail, first, 0.0)
    return checked(delta, tail, error, tail_error)


def _log_common(loss: FloatArray, q: float) -> FloatArray:
    """Log of (1 - q) |e^l - 1| / q, the weight of F_c; -inf at 0."""
    with np.errstate(divide="ignore"):
        grown = np.maximum(loss, 0.0) + np.log(-np.expm1(-np.abs(loss)))
    return np.asarray(grown + (math.log1p(-q) - math.log(q)))


def _places(arrangement: Arrangement) -> tuple[int, int, int]:
    """Where F_c, F_a and F_b stand, in units of the bound."""
    return (0, 1, -1) if arrangement == "opposite" else (-1, 1, 0)


def _laplace_tail(x: FloatArray) -> FloatArray:
    """Log P[Z > x] for Laplace noise of scale 1."""
    right = -np.maximum(x, 0.0) - math.log(2.0)
    left = np.log1p(-0.5 * np.exp(np.minimum(x, 0.0)))
    return np.asarray(np.where(x >= 0.0, right, left))


def _three(values: list[FloatArray]) -> Logs:
    common, first, second = values
    return common, first, second
