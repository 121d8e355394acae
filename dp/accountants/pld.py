"""Privacy loss distributions: certified two-sided epsilon and delta of compositions.

One run composes, for each direction of the neighbouring relation, a law that dominates the
releases and one that they dominate. The step of the grid follows from the loss itself: refining
a grid of step h moves epsilon by about T (theta + 1) h^2 / 8, theta the tilt at which delta is
decided, so h is chosen to make that a small share of epsilon. Any step gives valid ends.
docs/privacy.md, "Privacy loss distributions".
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dp.accountants import grid, plan, saddle
from dp.accountants.pairs import GaussianShift, Pair, SampledPair
from dp.accountants.saddle import Parts
from dp.intervals import Interval

_WIDTH, _NARROW = 8e-4, 8e-6  # relative and absolute widths that need no finer grid
_PROMISED, _PROMISED_ABSOLUTE = 1e-3, 1e-5  # widths beyond which `note` says why
_ROUNDS = 4  # of planning, each with what the one before found
_FARTHER = 4.0  # where epsilon is looked for when it was above all losses
_FINER = 3.0  # when the plan was right but the interval is wide
_ROUGH = 0.3  # finer than usual by this, for a direction that seems smaller
_SMALLER = 0.99  # by this share, of the largest


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
    sides = [_Side.of(parts, delta) for parts in _distinct(directions)]
    return max(side.upper for side in _uppers(sides, delta))


def epsilon(directions: Sequence[Parts], delta: float) -> Interval:
    """Epsilon at delta: the larger of the directions, each a composition of pairs.

    The lower end is computed for the direction with the larger upper end only.
    """
    sides = _uppers([_Side.of(parts, delta) for parts in _distinct(directions)], delta)
    lower, finer = 0.0, 1.0
    for again in range(_ROUNDS):
        if again:
            sides = [s.refined(delta, finer) if s.upper > lower else s for s in sides]
        largest = max(sides, key=lambda side: side.upper)
        lower = max(lower, largest.lower(delta))
        if _is_narrow(lower, largest.upper, _WIDTH, _NARROW) or largest.settled:
            break
        finer = finer if largest.moved else finer * _FINER
    if _is_narrow(lower, largest.upper, _PROMISED, _PROMISED_ABSOLUTE):
        return Interval(min(lower, largest.upper), largest.upper)
    return _wide(sides, lower, delta)


def _uppers(sides: Sequence["_Side"], delta: float) -> list["_Side"]:
    """With upper ends, the one that seems largest first.

    The others' are rough where that suffices to show that they are smaller.
    """
    first, *others = sorted(sides, key=lambda side: side.expected, reverse=True)
    found = [first.refined(delta, 1.0)]
    for side in others:
        if 0.0 < side.expected < _SMALLER * first.expected:
            rough = side.refined(delta, _ROUGH)
            if rough.upper <= found[0].upper:
                found.append(rough)
                continue
        found.append(side.refined(delta, 1.0))
    return found


def _is_narrow(lower: float, upper: float, relative: float, absolute: float) -> bool:
    return math.isfinite(upper) and upper - lower <= max(relative * upper, absolute)


def _wide(sides: Sequence["_Side"], lower: float, delta: float) -> Interval:
    """What is left where no affordable grid is fine enough: the smaller upper end, and a note."""
    upper = max(side.upper for side in sides)
    by_orders = max(min(side.upper, side.renyi(delta)) for side in sides)
    capped = any(side.used is not None and side.used.capped for side in sides)
    reason = "the grid is capped" if capped else "rare large losses decide"
    if by_orders < upper:
        return Interval(min(lower, by_orders), by_orders, f"upper end by rdp: {reason}")
    return Interval(min(lower, upper), upper, f"wider than 0.1 %: {reason}")


@dataclass(frozen=True)
class _Side:
    """One direction: its composition, how it was last discretised, and its upper end so far.

    `moved` says that the composition found epsilon far from where it was looked for.
    """

    parts: Parts
    losses: saddle.Losses | None
    aim: saddle.Aim | None
    used: plan.Plan | None = None
    upper: float = math.inf
    moved: bool = False

    @property
    def settled(self) -> bool:
        """Whether another round would change nothing: nothing moved, and nothing finer is left."""
        return self.used is not None and self.used.capped and not self.moved

    @classmethod
    def of(cls, parts: Parts, delta: float) -> "_Side":
        """Not discretised yet; a single release never is."""
        if _single(parts) is not None:
            return cls(parts, None, None)
        losses = plan.losses_of(parts, delta)
        return cls(parts, losses, saddle.for_delta(losses, delta))

    @property
    def expected(self) -> float:
        """About epsilon; 0 for a single release."""
        return 0.0 if self.aim is None else self.aim.epsilon

    def refined(self, delta: float, finer: float) -> "_Side":
        """With the upper end of a (finer) discretisation, and where to look for the next."""
        if self.losses is None or self.aim is None:
            pair = self.parts[0][0]
            upper = _root(lambda e: _pair_delta(pair, e)[1], delta, None)
            return dataclasses.replace(self, upper=upper)
        used = plan.made(self.parts, self.losses, self.aim, finer)
        law = plan.composed(used, grid.upper_law)
        if law is None:
            return dataclasses.replace(self, used=used)
        found = _root(lambda e: law.delta(e, upper=True), delta, self.aim.epsilon)
        if math.isinf(found):  # the last losses were too small: look farther
            aim = dataclasses.replace(self.aim, epsilon=_FARTHER * self.aim.epsilon)
            return dataclasses.replace(self, aim=aim, used=used, moved=True)
        moved = abs(found - self.aim.epsilon) > 0.1 * found
        aim = saddle.Aim.found(found, math.log(delta), law.rate(found))
        return _Side(self.parts, self.losses, aim, used, min(self.upper, found), moved)

    def renyi(self, delta: float) -> float:
        """Upper end by Rényi divergences."""
        if self.losses is None:
            return math.inf
        return plan.renyi(self.parts, self.losses, saddle.for_delta(self.losses, delta), delta)

    def lower(self, delta: float) -> float:
        """Lower end by the last discretisation."""
        if self.used is None:
            pair = self.parts[0][0]
            return _root(lambda e: _pair_delta(pair, e)[0], delta, None, below=True)
        law = plan.composed(self.used, grid.lower_law)
        if law is None:
            return 0.0
        guess = self.upper if math.isfinite(self.upper) else self.used.aim.epsilon
        return _root(lambda e: law.delta(e, upper=False), delta, guess, below=True)


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


def _delta(parts: Parts, epsilon: float) -> Interval:
    pair = _single(parts)
    if pair is not None:
        return Interval(*_pair_delta(pair, epsilon))
    # A first, rough composition says how small delta is, hence what may be truncated.
    aim = saddle.for_epsilon(plan.losses_of(parts, 1e-12), epsilon)
    up, low = 1.0, 0.0
    for _ in range(_ROUNDS):
        losses = plan.losses_of(parts, max(math.exp(aim.log_delta), 1e-250))
        used = plan.made(parts, losses, aim)
        above, below = plan.composed(used, grid.upper_law), plan.composed(used, grid.lower_law)
        up = up if above is None else min(up, above.delta(epsilon, upper=True))
        low = low if below is None else max(low, below.delta(epsilon, upper=False))
        if above is None or up - low <= _WIDTH * up:
            break
        log_delta = max(math.log(max(up, 1e-300)), -690.0)
        aim = saddle.Aim.found(epsilon, log_delta, above.rate(epsilon))
    return Interval(min(low, up), up)


def _pair_delta(pair: Pair, epsilon: float) -> tuple[float, float]:
    curve = pair.curve(np.array([epsilon]))
    value, error = float(curve.delta[0]), float(curve.delta_error[0])
    return max(0.0, value - error), min(1.0, value + error)


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
