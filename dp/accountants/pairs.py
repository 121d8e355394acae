"""Dominating pairs of single releases, as curves of the privacy loss.

A pair (P, Q) is given by its hockey-stick curve delta(l) = sup_S P(S) - e^l Q(S) and the
tail P[L > l] of its loss L = log dP/dQ. Both come with bounds on their rounding errors.
docs/privacy.md, "Privacy loss distributions" and "Sampling", say which pair dominates what.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, Protocol

import numpy as np

from dp import _laws, _special
from dp.accountants.conversion import FloatArray

Direction = Literal["remove", "add"]
DIRECTIONS: tuple[Direction, ...] = ("remove", "add")

ULP = 2.0**-52
POINTS = 400
_NEGLIGIBLE = 1e-290  # mass beyond the tables of discrete laws


@dataclass(frozen=True)
class Curve:
    """delta(l) and P[L > l] at losses l; float64[n] each, with bounds on absolute errors."""

    delta: FloatArray
    tail: FloatArray
    delta_error: FloatArray
    tail_error: FloatArray


class Shift(Protocol):
    """Symmetric log-concave noise F0 and its shift F1, through their log ratio lambda."""

    def above(self, ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(log F0, log F1) of the set {lambda > ratio}."""

    def points(self, tail: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(lambda, weight in F0, weight in F1): a quadrature that leaves out about `tail`."""


@dataclass(frozen=True)
class GaussianShift:
    """N(0, 1) against N(mu, 1)."""

    mu: float

    def above(self, ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The set is {x > ratio / mu + mu / 2}."""
        return _gaussian_above(self.mu, ratio)

    def points(self, tail: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Trapezoidal rule."""
        far = far_end(tail)
        count = POINTS + min(2000, math.ceil(POINTS * self.mu / (2.0 * far)))
        x = np.linspace(-far, far + self.mu, count)
        scale = (x[1] - x[0]) / math.sqrt(2.0 * math.pi)
        first = scale * np.exp(-0.5 * x * x)
        second = scale * np.exp(-0.5 * (x - self.mu) ** 2)
        return self.mu * (x - self.mu / 2.0), first, second


def _gaussian_above(mu: float | FloatArray, ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
    z = -ratio / mu
    return _special.log_ndtr(z - mu / 2.0), _special.log_ndtr(z + mu / 2.0)


@dataclass(frozen=True)
class LaplaceShift:
    """Laplace noise of scale b against its shift by 1; lambda lies in [-1/b, 1/b]."""

    scale: float

    def above(self, ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The set is {x > (b ratio + 1) / 2}, everything or nothing outside the range."""
        b = self.scale
        x = np.clip((b * ratio + 1.0) / 2.0, 0.0, 1.0)
        first = -x / b - math.log(2.0)
        second = np.log1p(-0.5 * np.exp(-(1.0 - x) / b))
        inside, whole = ratio < 1.0 / b, ratio < -1.0 / b
        first = np.where(whole, 0.0, np.where(inside, first, -np.inf))
        second = np.where(whole, 0.0, np.where(inside, second, -np.inf))
        return first, second

    def points(self, tail: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The two atoms and cells between them."""
        edges = np.linspace(-1.0 / self.scale, 1.0 / self.scale, POINTS + 1)
        log_first, log_second = self.above(edges[:-1])
        first = np.append(np.exp(log_first), 0.0)
        second = np.append(np.exp(log_second), 0.0)
        middle = (edges[1:] + edges[:-1]) / 2.0
        ratio = np.concatenate([edges[:1], middle, edges[-1:]])
        # Cells have F0[j] = F0(lambda > edge j) - F0(lambda > edge j + 1); the last holds the atom.
        atom1 = 0.5
        atom0 = 0.5 * math.exp(-1.0 / self.scale)
        first[-1], second[-1] = atom0, atom1
        weights0 = np.concatenate([[1.0 - first[0]], first[:-1] - first[1:], [atom0]])
        weights1 = np.concatenate([[1.0 - second[0]], second[:-1] - second[1:], [atom1]])
        return ratio, np.maximum(weights0, 0.0), np.maximum(weights1, 0.0)


class IntegerShift:
    """A symmetric law on integers against its shift by `shift`.

    Args:
        log_weights: log probabilities of 0, 1, ..., K, up to a constant; float64[K + 1].
        shift: >= 1.
    """

    def __init__(self, log_weights: FloatArray, shift: int) -> None:
        logs = np.concatenate([log_weights[:0:-1], log_weights])
        extended = np.exp((logs - log_weights[0]).astype(np.longdouble))
        tails = np.cumsum(extended[::-1])[::-1]
        total = tails[0]
        nothing = np.full(shift, -np.inf)
        log_tails = np.log(tails / total).astype(np.float64)
        mass = (extended / total).astype(np.float64)
        # Outcomes -K .. K + shift; the first tail is over x >= outcome, the second its shift.
        self._first = np.concatenate([log_tails, nothing, [-np.inf]])
        self._second = np.concatenate([np.zeros(shift), log_tails, [-np.inf]])
        self._mass0 = np.concatenate([mass, np.zeros(shift)])
        self._mass1 = np.concatenate([np.zeros(shift), mass])
        ratio = np.concatenate([nothing, logs]) - np.concatenate([logs, nothing])
        self._ratio = np.maximum.accumulate(ratio)

    def above(self, ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Tails from the first outcome whose lambda exceeds the ratio."""
        start = np.searchsorted(self._ratio, ratio, side="right")
        return self._first[start], self._second[start]

    def points(self, tail: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The outcomes themselves, a subset if there are many."""
        keep = np.isfinite(self._ratio) & (np.exp(self._second[:-1]) > tail)
        keep &= -np.expm1(self._first[:-1]) > tail
        index = np.flatnonzero(keep)
        if index.size == 0:
            index = np.flatnonzero(np.isfinite(self._ratio))[:1]
        step = max(1, index.size // (4 * POINTS))
        chosen = index[::step]
        ends = np.append(chosen[1:], index[-1] + 1)
        middle = np.minimum((chosen + ends) // 2, index[-1])
        first = np.add.reduceat(self._mass0, chosen)
        second = np.add.reduceat(self._mass1, chosen)
        return self._ratio[middle], first, second


@lru_cache(maxsize=64)
def discrete_gaussian_shift(sigma: float, shift: int) -> IntegerShift:
    """N_Z(0, sigma^2) and its shift; tables reach to mass exp(-680)."""
    k = np.arange(math.ceil(37.0 * sigma) + 2 + shift)
    return IntegerShift(-0.5 * (k / sigma) ** 2, shift)


@lru_cache(maxsize=64)
def discrete_laplace_shift(scale: float, shift: int) -> IntegerShift:
    """The law proportional to exp(-|x| / scale) and its shift."""
    return IntegerShift(-np.arange(math.ceil(680.0 * scale) + 2 + shift) / scale, shift)


@lru_cache(maxsize=64)
def skellam_shift(variance: float, shift: int) -> IntegerShift:
    """Skellam noise and its shift."""
    last = _laws.skellam_tail(variance, 960) + shift
    return IntegerShift(_special.log_bessel_i(last, variance), shift)


@lru_cache(maxsize=64)
def far_end(tail: float) -> float:
    """Quantile of the standard normal law beyond which `tail` is left."""
    return -float(_special.ndtri(tail))


def _log_shifted(loss: FloatArray, q: float | FloatArray) -> FloatArray:
    """log(e^loss - 1 + q), -inf where that is not positive."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        small = np.log(np.maximum(np.expm1(np.minimum(loss, 1.0)) + q, 0.0))
        large = loss + np.log1p(-(1.0 - q) * np.exp(-np.maximum(loss, 0.0)))
    return np.asarray(np.where(loss > 0.5, large, small))


def _sampled_curve(
    above: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    q: float | FloatArray,
    direction: Direction,
    loss: FloatArray,
) -> Curve:
    """The curve of F1 against F0 with participation q; `above` as in `Shift`, q may vary."""
    log_q = np.log(q)
    sign = 1.0 if direction == "remove" else -1.0
    log_a = _log_shifted(sign * loss, q)
    whole = np.isneginf(log_a)
    ratio = np.where(whole, 0.0, log_a - log_q)
    log_0, log_1 = above(sign * ratio)
    size = np.where(whole, 0.0, np.abs(log_a)) + np.abs(loss)
    if direction == "remove":
        plus = q * np.exp(log_1)
        minus = np.exp(np.where(whole, -np.inf, log_a) + log_0)
        delta = np.where(whole, -np.expm1(np.minimum(loss, 0.0)), plus - minus)
        tail = np.where(whole, 1.0, (1.0 - q) * np.exp(log_0) + plus)
        kernel = np.exp(log_0) * (q + np.abs(np.expm1(np.minimum(loss, 1.0))))
    else:  # the set is {lambda < ratio}, by symmetry {lambda > -ratio} with laws exchanged
        in_0, in_1 = log_1, log_0
        plus = np.where(whole, 0.0, np.exp(np.where(whole, 0.0, log_a) + loss + in_0))
        minus = np.where(whole, 0.0, np.exp(log_q + loss + in_1))
        delta = plus - minus
        tail = np.where(whole, 0.0, np.exp(in_0))
        low = np.maximum(loss, -1.0)
        kernel = np.where(whole, 0.0, np.exp(in_0 + low) * (q + np.abs(np.expm1(-low))))
    error = term_error(plus, log_1, size) + term_error(minus, log_0, size) + 4.0 * ULP * kernel
    return checked(delta, tail, error, term_error(tail, log_0, size) + term_error(tail, log_1, 0.0))


@dataclass(frozen=True)
class SampledPair:
    """F1 against F0 with participation probability q (1: no sampling).

    "remove": P = (1 - q) F0 + q F1, Q = F0. "add": the same two, exchanged.
    """

    shift: Shift
    sampling_prob: float
    direction: Direction

    @property
    def has_atoms(self) -> bool:
        """Whether the loss has atoms."""
        return not isinstance(self.shift, GaussianShift)

    def curve(self, loss: FloatArray) -> Curve:
        """delta, tail and their errors."""
        return _sampled_curve(self.shift.above, self.sampling_prob, self.direction, loss)

    def points(self, tail: float) -> tuple[FloatArray, FloatArray]:
        """(loss, weight in P), approximately, leaving out about `tail`."""
        ratio, first, second = self.shift.points(tail)
        q = self.sampling_prob
        rest = math.log1p(-q) if q < 1.0 else -math.inf
        far = np.logaddexp(rest, math.log(q) + ratio)  # exact where log1p would meet -1 or overflow
        near = np.log1p(q * np.expm1(np.clip(ratio, -1.0, 1.0)))
        loss = np.where(np.abs(ratio) < 1.0, near, far)
        if self.direction == "remove":
            return loss, (1.0 - q) * first + q * second
        return -loss, first


class Pair(Protocol):
    """A dominating pair: its curve, and where its loss lies. Equal pairs compare equal."""

    @property
    def has_atoms(self) -> bool:
        """Whether the loss has atoms."""

    def curve(self, loss: FloatArray) -> Curve:
        """delta, tail and their errors."""

    def points(self, tail: float) -> tuple[FloatArray, FloatArray]:
        """(loss, weight in P), approximately, leaving out about `tail`."""


def curves(pairs: Sequence["Pair"], losses: Sequence[FloatArray]) -> list[Curve]:
    """Every pair's curve at its own losses; those of sampled Gaussians in one pass each way."""
    found: dict[int, Curve] = {}
    for way in DIRECTIONS:
        chosen = [
            (i, pair, pair.shift)
            for i, pair in enumerate(pairs)
            if isinstance(pair, SampledPair)
            and pair.direction == way
            and isinstance(pair.shift, GaussianShift)
        ]
        if not chosen:
            continue
        sizes = [losses[i].size for i, _, _ in chosen]
        q = np.repeat([pair.sampling_prob for _, pair, _ in chosen], sizes)
        mu = np.repeat([shift.mu for _, _, shift in chosen], sizes)
        whole = _sampled_curve(
            partial(_gaussian_above, mu), q, way, np.concatenate([losses[i] for i, _, _ in chosen])
        )
        columns = (whole.delta, whole.tail, whole.delta_error, whole.tail_error)
        pieces = zip(*(np.split(c, np.cumsum(sizes)[:-1]) for c in columns), strict=True)
        found |= {i: Curve(*piece) for (i, _, _), piece in zip(chosen, pieces, strict=True)}
    return [found[i] if i in found else pair.curve(losses[i]) for i, pair in enumerate(pairs)]


def term_error(term: FloatArray, log: FloatArray, size: FloatArray | float) -> FloatArray:
    """Bound on the error of exp(log ...) computed from sums of logarithms of that size."""
    magnitude = np.where(np.isfinite(log), np.abs(log), 0.0) + size
    return np.asarray(term * (8.0 + 4.0 * magnitude) * (2.0 * ULP))


def checked(
    delta: FloatArray, tail: FloatArray, delta_error: FloatArray, tail_error: FloatArray
) -> Curve:
    """The curve within its range; clipping moves values toward the truth."""
    return Curve(
        np.clip(delta, 0.0, 1.0),
        np.clip(tail, 0.0, 1.0),
        delta_error + _NEGLIGIBLE,
        tail_error + _NEGLIGIBLE,
    )
