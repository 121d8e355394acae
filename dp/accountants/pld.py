"""Privacy loss distributions: certified two-sided epsilon and delta of compositions.

One run composes, for each direction of the neighbouring relation, a law that dominates the
releases and one that they dominate. The step of the grid follows from the loss itself: refining
a grid of step h moves epsilon by about T (theta + 1) h^2 / 8, theta the tilt at which delta is
decided, so h is chosen to make that a small share of epsilon. Any step gives valid ends.
docs/privacy.md, "Privacy loss distributions".
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dp.accountants import fourier, grid
from dp.accountants.conversion import FloatArray
from dp.accountants.pairs import GaussianShift, Pair, SampledPair
from dp.events import Interval

MAX_CELLS = 1 << 19  # of one law, and twice that of a composition: about 150 MB in all
_SHARE = 2e-4  # of epsilon, aimed at for the width
_FLOOR = 2e-6  # epsilon below which the width need not shrink further
_ATOMS = 1 / 16  # of the step, for laws with atoms, which rarely lie on grid points
_WIDTH, _NARROW = 8e-4, 8e-6  # relative and absolute widths that need no finer grid
_REFINEMENTS = (1.0, 4.0, 16.0)  # of the grid, tried in turn
_TAIL = 1e-7  # of delta, that truncation and aliasing may cost each

Parts = Sequence[tuple[Pair, int]]


@dataclass(frozen=True)
class _Plan:
    """What the compositions of both ends share; `guess` is about the epsilon looked for."""

    parts: Parts
    grids: list[grid.Grid]
    theta: float
    deviation: float
    log_tail: float
    guess: float


def merged(parts: Parts) -> list[tuple[Pair, int]]:
    """Equal pairs counted together; all unsampled Gaussians as one, whose mu adds in squares."""
    counts: dict[Pair, int] = {}
    square = 0.0
    for pair, count in parts:
        if _is_gaussian(pair):
            assert isinstance(pair, SampledPair)  # noqa: S101 - tells the type checker
            assert isinstance(pair.shift, GaussianShift)  # noqa: S101
            square += count * pair.shift.mu**2
        else:
            counts[pair] = counts.get(pair, 0) + count
    result = list(counts.items())
    if square > 0.0:
        result.append((SampledPair(GaussianShift(math.sqrt(square)), 1.0, "remove"), 1))
    return result


def _is_gaussian(pair: Pair) -> bool:
    return (
        isinstance(pair, SampledPair)
        and pair.sampling_prob == 1.0
        and isinstance(pair.shift, GaussianShift)
    )


def upper_epsilon(directions: Sequence[Parts], delta: float) -> float:
    """The upper end of `epsilon` alone."""
    return max(_upper_epsilon(parts, delta)[0] for parts in _distinct(directions))


def epsilon(directions: Sequence[Parts], delta: float) -> Interval:
    """Epsilon at delta: the larger of the directions, each a composition of pairs.

    The lower end is computed for the direction with the larger upper end only.
    """
    lower, upper = 0.0, math.inf
    for finer in _REFINEMENTS:
        found = [_upper_epsilon(parts, delta, finer) for parts in _distinct(directions)]
        largest, parts, plan = max(found, key=lambda one: one[0])
        upper = min(upper, largest)
        lower = max(lower, _lower_epsilon(parts, plan, delta))
        if plan is None or upper - lower <= max(_WIDTH * upper, _NARROW):
            break
    return Interval(min(lower, upper), upper)


def delta(directions: Sequence[Parts], epsilon: float) -> Interval:
    """Delta at epsilon, likewise."""
    found = [_delta(parts, epsilon) for parts in _distinct(directions)]
    return Interval(max(one.lower for one in found), max(one.upper for one in found))


def _distinct(directions: Sequence[Parts]) -> list[list[tuple[Pair, int]]]:
    """Directions, merged, without repetition: both are the same for unsampled releases."""
    kept: list[list[tuple[Pair, int]]] = []
    for parts in directions:
        canonical = merged(parts)
        if canonical not in kept:
            kept.append(canonical)
    return kept


def _single(parts: Parts) -> Pair | None:
    """The pair, when there is only one release."""
    return parts[0][0] if len(parts) == 1 and parts[0][1] == 1 else None


def _upper_epsilon(
    parts: Parts, delta: float, finer: float = 1.0
) -> tuple[float, Parts, _Plan | None]:
    """(upper end, parts, plan of the composition; None for a single release)."""
    pair = _single(parts)
    if pair is not None:
        return _root(lambda e: _pair_delta(pair, e)[1], delta, None), parts, None
    plan = _plan(parts, lambda a: _saddle_for_delta(a, delta), delta, finer)
    law = _composed(plan, grid.upper_law)
    if law is None:
        return math.inf, parts, plan
    return _root(lambda e: law.delta(e, upper=True), delta, plan.guess), parts, plan


def _lower_epsilon(parts: Parts, plan: _Plan | None, delta: float) -> float:
    pair = _single(parts)
    if pair is not None:
        return _root(lambda e: _pair_delta(pair, e)[0], delta, None, below=True)
    law = None if plan is None else _composed(plan, grid.lower_law)
    if plan is None or law is None:
        return 0.0
    return _root(lambda e: law.delta(e, upper=False), delta, plan.guess, below=True)


def _delta(parts: Parts, epsilon: float) -> Interval:
    pair = _single(parts)
    if pair is not None:
        return Interval(*_pair_delta(pair, epsilon))
    # A first, rough composition says how small delta is, hence what may be truncated.
    approximate = _Approximation.of(parts, 1e-12)
    theta = _saddle_for_epsilon(approximate, epsilon)
    moment, _mean, variance = approximate.moments(theta)
    bound = moment - theta * epsilon
    target = math.exp(min(0.0, bound)) / (1.0 + theta * (1.0 + theta) * math.sqrt(variance))
    plan = _plan(parts, lambda a: _saddle_for_epsilon(a, epsilon), max(target, 1e-250))
    above, below = _composed(plan, grid.upper_law), _composed(plan, grid.lower_law)
    up = 1.0 if above is None else above.delta(epsilon, upper=True)
    low = 0.0 if below is None else below.delta(epsilon, upper=False)
    return Interval(min(low, up), up)


def _pair_delta(pair: Pair, epsilon: float) -> tuple[float, float]:
    curve = pair.curve(np.array([epsilon]))
    value, error = float(curve.delta[0]), float(curve.delta_error[0])
    return max(0.0, value - error), min(1.0, value + error)


@dataclass(frozen=True)
class _Approximation:
    """Quadratures of all losses, one after another, for everything that need not be exact."""

    losses: FloatArray
    log_weights: FloatArray
    starts: np.ndarray
    counts: FloatArray

    @classmethod
    def of(cls, parts: Parts, tail: float) -> "_Approximation":
        """Quadratures of every part, each leaving out about `tail`."""
        points = [pair.points(tail) for pair, _ in parts]
        sizes = [loss.size for loss, _ in points]
        weights = np.concatenate([weight for _, weight in points])
        return cls(
            losses=np.concatenate([loss for loss, _ in points]),
            log_weights=np.log(np.maximum(weights, 1e-300)),
            starts=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
            counts=np.array([float(count) for _, count in parts]),
        )

    def moments(self, theta: float) -> tuple[float, float, float]:
        """(log moment, mean, variance) of the tilted total loss."""
        exponents = self.log_weights + theta * self.losses
        largest = np.maximum.reduceat(exponents, self.starts)
        sizes = np.diff(np.append(self.starts, self.losses.size))
        weights = np.exp(exponents - np.repeat(largest, sizes))
        total = np.add.reduceat(weights, self.starts)
        mean = np.add.reduceat(weights * self.losses, self.starts) / total
        centred = self.losses - np.repeat(mean, sizes)
        variance = np.add.reduceat(weights * centred**2, self.starts) / total
        moment = float(self.counts @ (np.log(total) + largest))
        return moment, float(self.counts @ mean), max(float(self.counts @ variance), 1e-300)


def _saddle_for_delta(law: _Approximation, delta: float) -> float:
    """Tilt at whose mean the composition's delta is about `delta`."""

    def too_small(theta: float) -> bool:
        moment, mean, variance = law.moments(theta)
        prefactor = math.log1p(theta * (1.0 + theta) * math.sqrt(2.0 * math.pi * variance))
        return moment - theta * mean - prefactor < math.log(delta)

    return _bisect_tilt(law, too_small)


def _saddle_for_epsilon(law: _Approximation, epsilon: float) -> float:
    return _bisect_tilt(law, lambda theta: law.moments(theta)[1] > epsilon)


def _bisect_tilt(law: _Approximation, beyond: Callable[[float], bool]) -> float:
    scale = math.sqrt(law.moments(0.0)[2])
    # Rare large losses decide at tilts of the order of their inverse, far below 1 / scale.
    rare = 0.05 / max(float(np.abs(law.losses).max()), 1e-300)
    low, high = math.log(min(0.1 / scale, rare)), math.log(200.0 / scale)
    for _ in range(26):
        middle = (low + high) / 2.0
        low, high = (low, middle) if beyond(math.exp(middle)) else (middle, high)
    return math.exp(low)


def _plan(
    parts: Parts, saddle: Callable[[_Approximation], float], delta: float, finer: float = 1.0
) -> _Plan:
    """Tilt, grids and truncation for a composition whose delta is about `delta`."""
    releases = float(sum(count for _, count in parts))
    tail = max(delta * _TAIL / releases, 1e-280)
    approximate = _Approximation.of(parts, tail)
    theta = saddle(approximate)
    _, mean, variance = approximate.moments(theta)
    guess = max(mean, 0.0)
    step = math.sqrt(8.0 * max(_SHARE * guess, _FLOOR) / (releases * (theta + 1.0)))
    step = min(step, 0.5 * math.sqrt(variance / releases))
    if any(pair.has_atoms for pair, _ in parts):
        step *= _ATOMS
    step /= finer
    deviation = math.sqrt(variance)
    log_tail = math.log(_TAIL) - math.log1p(theta * (1.0 + theta) * 2.6 * deviation)
    grids = _grids(parts, approximate, step, deviation)
    return _Plan(parts, grids, theta, deviation, log_tail, guess)


def _composed(
    plan: _Plan, law: Callable[[Pair, grid.Grid, int], grid.GridLaw]
) -> fourier.Composed | None:
    """The composition of one end; None if that end of some part is void."""
    laws = [law(pair, one, n) for (pair, n), one in zip(plan.parts, plan.grids, strict=True)]
    if any(one.masses.max() <= 0.0 for one in laws):
        return None
    low, high = fourier.window(laws, plan.theta, plan.deviation, plan.log_tail)
    return fourier.compose(laws, plan.theta, low, high, plan.log_tail)


def _grids(
    parts: Parts, approximate: _Approximation, step: float, deviation: float
) -> list[grid.Grid]:
    """One grid per part, all with one step; coarser where the caps on cells require it."""
    ends = np.append(approximate.starts, approximate.losses.size)
    pieces = [approximate.losses[i:j] for i, j in itertools.pairwise(ends)]
    spans = [(float(piece.min()), float(piece.max())) for piece in pieces]
    widest = max(high - low for low, high in spans)
    step = max(step, widest / MAX_CELLS, 16.0 * deviation / (2 * MAX_CELLS))
    return [
        grid.choose_grid(pair, step, low, high)
        for (pair, _), (low, high) in zip(parts, spans, strict=True)
    ]


def _root(
    curve: Callable[[float], float], delta: float, guess: float | None, *, below: bool = False
) -> float:
    """An epsilon with curve(epsilon) <= delta (with `below`: > delta, or 0), close to the edge.

    `curve` falls. Bracket, then regula falsi on log delta with halving (Illinois).
    """
    low = _start_below(curve, delta, guess) if below and guess else 0.0
    if curve(low) <= delta:
        return 0.0
    target = math.log(delta)

    def excess(epsilon: float) -> float:
        value = curve(epsilon)
        return (math.log(value) if value > 0.0 else -800.0) - target

    high = max(low, guess or 1.0) * 1.001 + 1e-9
    at_low, at_high = excess(low), excess(high)
    while at_high > 0.0:
        low, at_low = high, at_high
        high *= 1.1 if guess else 2.0
        if high > 1e12:
            return low if below else math.inf
        at_high = excess(high)
    side = 0
    for _ in range(80):
        if high - low <= 1e-9 * high + 1e-300:
            break
        middle = high - at_high * (high - low) / (at_high - at_low)
        margin = 2e-10 * high
        middle = min(max(middle, low + margin), high - margin)
        value = excess(middle)
        if value > 0.0:
            low, at_low = middle, value
            at_high = at_high / 2.0 if side == 1 else at_high
            side = 1
        else:
            high, at_high = middle, value
            at_low = at_low / 2.0 if side == -1 else at_low
            side = -1
    return low if below else high


def _start_below(curve: Callable[[float], float], delta: float, guess: float) -> float:
    """A point left of the edge, near the guess: a lower curve is void far left of its window."""
    for share in (0.001, 0.01, 0.05, 0.2, 0.5):
        low = guess * (1.0 - share)
        if curve(low) > delta:
            return low
    return 0.0
