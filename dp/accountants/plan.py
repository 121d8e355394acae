"""How a composition is discretised: tilt, base step, cells of every part, range of the circle.

All of this chooses; any choice gives valid ends. docs/privacy.md, "Privacy loss distributions".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dp.accountants import conversion, fourier, grid, knots
from dp.accountants.conversion import FloatArray
from dp.accountants.saddle import Aim, Losses, Parts

MAX_CELLS = 1 << 20  # points of a composition: about 100 MB in all
_SHARE = 2e-4  # of epsilon, aimed at for the width
_MANY, _MANY_SHARE = 100, 5e-4  # different laws, each of which costs a transform
_FLOOR = 2e-6  # epsilon below which the width need not shrink further
_ATOMS = 1 / 16  # of the step, for laws with atoms, which rarely lie on grid points
_EVEN = 1 << 14  # cells at most, of laws with atoms: theirs are all alike
_SPARE = 0.01  # of the budget, for what has to be certain and costs little
_TAIL = 1e-6  # of delta, that truncation and aliasing may cost each

Law = Callable[[grid.HasCurve, knots.Knots, int], grid.GridLaw]


@dataclass(frozen=True)
class Plan:
    """What the compositions of both ends share.

    Attributes:
        theta: tilt of the transforms.
        deviation: of the tilted total loss, about.
        log_tail: log of the tilted mass that may lie outside on either side.
        capped: the step is wider than wanted, because of `MAX_CELLS`.
    """

    parts: Parts
    knots: list[knots.Knots]
    aim: Aim
    theta: float
    deviation: float
    log_tail: float
    capped: bool


def losses_of(parts: Parts, delta: float) -> Losses:
    """Quadratures that together leave out little of `delta`."""
    releases = float(sum(count for _, count in parts))
    return Losses.of(parts, max(delta * _TAIL / releases, 1e-280))


def made(
    parts: Parts, losses: Losses, aim: Aim, finer: float = 1.0, points: float | None = None
) -> Plan:
    """A plan whose ends are about a ten thousandth of epsilon apart, less for `finer` > 1.

    `points`: of the composition, at most; `MAX_CELLS` if there is to be one.
    """
    if points is None:
        losses = losses.ended(aim.last(losses))
    theta = aim.tilt(losses)
    moment, _, variance = losses.moments(theta)
    deviation = math.sqrt(variance)
    share = _SHARE if len(parts) < _MANY else _MANY_SHARE
    budget = max(share * aim.epsilon, _FLOOR) / finer**2
    costs = aim.costs(losses)
    distances = np.abs(losses.losses - np.repeat(knots.centres_of(losses), losses.sizes))
    step = min(knots.base_step(distances, costs, budget / 2.0), deviation / 4.0)
    if any(pair.has_atoms for pair, _ in parts):
        step = max(step * _ATOMS, float(np.ptp(losses.losses)) / _EVEN)
    log_total = aim.log_delta + theta * aim.epsilon - moment
    log_tail = math.log(_TAIL) + min(0.0, log_total)
    tails = fourier.Tails.of(
        lambda tilts: np.array([losses.moments(tilt)[0] for tilt in tilts]), theta, deviation
    )
    low, high = _range(tails, log_tail, aim, theta, deviation)
    least = (high - low) / (MAX_CELLS if points is None else points)
    capped, step = step < least, max(step, least)
    wanted = knots.widths(losses, costs, aim.theta, step, budget / 2.0)
    places = _places(parts, losses, theta, step, wanted, _SPARE * budget)
    return Plan(parts, places, aim, theta, deviation, log_tail, capped)


def _places(
    parts: Parts, losses: Losses, theta: float, step: float, wanted: FloatArray, spare: float
) -> list[knots.Knots]:
    """Cells of every part.

    `spare` of epsilon pays for cutting off low losses, and as much for means of the cells around
    the origins that are certainly above these.
    """
    weights, moments = losses.tilted(theta)
    releases = float(losses.counts.sum())
    share = min(1e-6, spare * theta)
    columns = (losses.losses, losses.log_weights, weights, wanted)
    pieces = [losses.pieces(column) for column in columns]
    centres = [knots.densest(x, w, step) for x, w in zip(pieces[0], pieces[2], strict=True)]
    offsets = knots.placed([pair for pair, _ in parts], np.array(centres), step) - spare / releases
    result = []
    for (pair, _), moment, centre, offset, loss, log_weight, _, width in zip(
        parts, moments, centres, offsets, *pieces, strict=True
    ):
        start = knots.first_loss(loss, log_weight, theta, float(moment), share / releases)
        start = min(start, max(0, int(np.searchsorted(loss, centre)) - 1))
        if pair.has_atoms:
            width = np.full_like(width, step)
        result.append(knots.graded(loss[start:], width[start:], step, float(offset)))
    return result


def composed(plan: Plan, law: Law) -> fourier.Composed | None:
    """The composition of one end; None if that end of some part is void."""
    laws = [law(pair, one, n) for (pair, n), one in zip(plan.parts, plan.knots, strict=True)]
    if any(one.masses.max() <= 0.0 for one in laws):
        return None
    tails = fourier.Tails.of(
        lambda tilts: fourier.composed_moments(laws, tilts), plan.theta, plan.deviation
    )
    low, high = _range(tails, plan.log_tail, plan.aim, plan.theta, plan.deviation)
    return fourier.compose(laws, plan.theta, tails, low, high)


def renyi(parts: Parts, losses: Losses, aim: Aim, delta: float) -> float:
    """Upper end of epsilon from Rényi divergences of upper laws, whose grids need no cap.

    Their order a + 1 has (log sum_j p_j e^(a l_j)) / a, T times; infinite losses take from delta.
    """
    places = made(parts, losses, aim, points=math.inf).knots
    laws = [grid.upper_law(pair, k, n) for (pair, n), k in zip(parts, places, strict=True)]
    rest = delta - sum(law.count * law.infinite for law in laws) * (1.0 + 2.0**-40)
    if rest <= 0.0:
        return math.inf
    releases = sum(law.count for law in laws)

    def curve(a: FloatArray) -> FloatArray:
        moments = fourier.composed_moments(laws, a)
        reach = max(float(np.abs(law.losses[[0, -1]]).max()) for law in laws)
        rounding = releases * 2.0**-48 * (1.0 + a * reach)
        return np.asarray(np.maximum(moments + rounding, 0.0) / a)

    return conversion.epsilon_from_curve(curve, rest)


def _range(
    tails: fourier.Tails, log_tail: float, aim: Aim, theta: float, deviation: float
) -> tuple[float, float]:
    """Losses that the circle covers.

    Mass above the last one is missing and counts e^(-theta x) at distance x from epsilon; the
    circle is long enough that little wraps onto losses above epsilon from either side.
    """
    low, high = tails.range(log_tail)
    last = min(high, aim.epsilon + deviation - log_tail / theta)
    return low, max(last, low + high - aim.epsilon + deviation)
