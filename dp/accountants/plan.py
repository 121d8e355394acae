"""How a composition is discretised: tilt, base step, cells of every part, range of the circle.

All of this chooses; any choice gives valid ends. docs/privacy.md, "Privacy loss distributions".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dp.accountants import fourier, grid, knots
from dp.accountants.saddle import Aim, Losses, Parts

MAX_CELLS = 1 << 19  # points of a composition: about 50 MB in all
_SHARE = 2e-4  # of epsilon, aimed at for the width
_FLOOR = 2e-6  # epsilon below which the width need not shrink further
_ATOMS = 1 / 16  # of the step, for laws with atoms, which rarely lie on grid points
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


def made(parts: Parts, losses: Losses, aim: Aim, finer: float = 1.0) -> Plan:
    """A plan whose ends are about a ten thousandth of epsilon apart, less for `finer` > 1."""
    theta = aim.tilt(losses)
    moment, _, variance = losses.moments(theta)
    deviation = math.sqrt(variance)
    budget = max(_SHARE * aim.epsilon, _FLOOR) / finer**2
    costs = aim.costs(losses) * (aim.theta + 1.0)
    distances = np.abs(losses.losses - np.repeat(knots.centres_of(losses), losses.sizes))
    step = min(knots.base_step(distances, costs, budget / 2.0), deviation / 4.0)
    if any(pair.has_atoms for pair, _ in parts):
        step *= _ATOMS
    least = 16.0 * deviation / MAX_CELLS
    capped, step = step < least, max(step, least)
    wanted = knots.widths(losses, costs, aim.theta, step, budget / 2.0)
    places = _places(parts, losses, theta, step, wanted, min(1e-6, 0.01 * budget * aim.theta))
    log_total = aim.log_delta + theta * aim.epsilon - moment
    log_tail = math.log(_TAIL) + min(0.0, log_total)
    return Plan(parts, places, aim, theta, deviation, log_tail, capped)


def _places(
    parts: Parts, losses: Losses, theta: float, step: float, wanted: np.ndarray, share: float
) -> list[knots.Knots]:
    """Cells of every part; low losses with less than `share` of all tilted mass are cut off."""
    weights, moments = losses.tilted(theta)
    releases = float(losses.counts.sum())
    columns = (losses.losses, losses.log_weights, weights, wanted)
    result = []
    for (pair, _), moment, loss, log_weight, weight, width in zip(
        parts, moments, *(losses.pieces(column) for column in columns), strict=True
    ):
        centre = knots.densest(loss, weight, step)
        start = knots.first_loss(loss, log_weight, theta, float(moment), share / releases)
        start = min(start, max(0, int(np.searchsorted(loss, centre)) - 1))
        offset = knots.placed(pair, centre, step)
        if pair.has_atoms:
            width = np.full_like(width, step)
        result.append(knots.graded(loss[start:], width[start:], step, offset))
    return result


def composed(plan: Plan, law: Law) -> fourier.Composed | None:
    """The composition of one end; None if that end of some part is void."""
    laws = [law(pair, one, n) for (pair, n), one in zip(plan.parts, plan.knots, strict=True)]
    if any(one.masses.max() <= 0.0 for one in laws):
        return None
    tails = fourier.Tails.of(laws, plan.theta, plan.deviation)
    low, high = tails.range(plan.log_tail)
    guess, theta = plan.aim.epsilon, plan.theta
    last = min(high, guess + plan.deviation - plan.log_tail / theta)
    last = max(last, low + high - guess + plan.deviation)
    return fourier.compose(laws, theta, tails, low, last)
