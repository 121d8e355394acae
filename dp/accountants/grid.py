"""Discrete laws of the privacy loss, certainly above or certainly below a pair's.

In u = e^(-loss) a pair is the convex potential k -> E_P (k - u)_+ = k delta(-log k). A discrete
law whose potential is nowhere smaller dominates the pair, also after composition; one whose
potential is nowhere larger is dominated. docs/privacy.md, "Privacy loss distributions".
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dp.accountants.conversion import FloatArray
from dp.accountants.knots import IntArray, Knots
from dp.accountants.pairs import Curve

_ULP = 2.0**-52
_SWEEPS = 2  # of the borders of narrow cells; a third narrows intervals by less than a hundredth
_ABOVE = 1e-3  # of a step, by which the mean of the last cell of a run exceeds its kink


class HasCurve(Protocol):
    """A pair, or a composition that is used as one."""

    def curve(self, loss: FloatArray) -> Curve:
        """delta, tail and bounds on their errors."""


@dataclass(frozen=True)
class GridLaw:
    """Masses on points of a base grid and at infinite loss; `count` copies are composed.

    Attributes:
        step, offset: of the base grid.
        index: int64[n], ascending; the losses are offset + step * index.
        masses: float64[n].
        infinite: mass at losses beyond all of these, at infinity or wherever it has `other`.
        count: independent copies.
        other: mass of what is beyond in Q; 0 at infinity.
    """

    step: float
    offset: float
    index: IntArray
    masses: FloatArray
    infinite: float
    count: int
    other: float = 0.0

    @property
    def losses(self) -> FloatArray:
        """float64[n]."""
        return np.asarray(self.offset + self.step * self.index)


_Curves = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def _curve(pair: HasCurve, losses: FloatArray) -> _Curves:
    """(delta, tail, errors); includes what rounding of the losses themselves moves."""
    curve = pair.curve(losses)
    moved = 4.0 * _ULP * np.abs(losses) * (curve.tail + curve.tail_error)
    return curve.delta, curve.tail, curve.delta_error + moved, curve.tail_error


def upper_law(pair: HasCurve, knots: Knots, count: int) -> GridLaw:
    """The chords of the potential: every mass split onto the two knots around it.

    Slopes of the chords are tails of the law. Each is raised by its rounding error; the true
    slopes fall with the loss, so a running maximum from the right keeps them upper bounds.
    """
    index = np.append(knots.centres, knots.edges[-1] + 1)
    delta, _, error, _ = _curve(pair, knots.at(index))
    high, low = np.minimum(delta + error, 1.0), np.maximum(delta - error, 0.0)
    width = -np.expm1(-knots.step * np.diff(index))
    slopes = low[1:] + (high[:-1] - low[1:]) / width
    slopes += 8.0 * _ULP * (high[:-1] + high[1:]) / width
    slopes = np.append(slopes, high[-1])
    slopes = np.minimum(np.maximum.accumulate(slopes[::-1])[::-1], 1.0)
    masses = -np.diff(slopes, prepend=1.0)
    return GridLaw(knots.step, knots.offset, index, masses, float(slopes[-1]), count)


@dataclass(frozen=True)
class _Tangents:
    """Tangents of a potential at `points`, as bounds on its values and slopes.

    Attributes:
        points: float64[n], losses.
        delta, tail: float64[n], values and slopes there, on the scale of delta.
        delta_error, tail_error: float64[n].
    """

    points: FloatArray
    delta: FloatArray
    tail: FloatArray
    delta_error: FloatArray
    tail_error: FloatArray

    @classmethod
    def of(cls, pair: HasCurve, points: FloatArray) -> "_Tangents":
        """At every point."""
        return cls(points, *_curve(pair, points))

    def __getitem__(self, chosen: slice | IntArray | NDArray[np.bool_]) -> "_Tangents":
        """Some of them."""
        return _Tangents(
            self.points[chosen],
            self.delta[chosen],
            self.tail[chosen],
            self.delta_error[chosen],
            self.tail_error[chosen],
        )

    def at(self, losses: FloatArray, sign: float) -> FloatArray:
        """Values at `losses` (one each), certainly not too large (sign -1) or too small (1)."""
        right = losses - self.points
        grown, slope = np.exp(right), -np.expm1(right)
        tail = self.tail + sign * np.sign(slope) * self.tail_error
        slack = 8.0 * _ULP * (np.abs(self.delta) * grown + self.tail * np.abs(slope))
        value = grown * (self.delta + sign * self.delta_error) + tail * slope
        return np.asarray(value + sign * slack)


def lower_law(pair: HasCurve, knots: Knots, count: int) -> GridLaw:
    """Every cell's mass merged onto grid points that its own spread justifies.

    A measure is the sum of its restrictions to cells; a restriction's potential is that of the
    whole less its tangent at the upper border. Wide cells are split onto the two grid points
    around their mean. Runs of narrow cells are merged to their centres together, since their
    means are only close to these. What is below the first border is dropped; of all above the
    last, the two masses are kept.
    """
    fitted = _Fitted.of(pair, knots)
    low, high, masses = _split(pair, knots, fitted)
    index, weights = [low, high], list(masses)
    ends = np.flatnonzero(np.diff(np.concatenate([[True], fitted.wide, [True]])))
    for i, j in zip(ends[::2], ends[1::2], strict=True):
        where, mass = _run(
            fitted.lines[i : j + 1], fitted.kinks[i:j], float(fitted.floors[i]), knots
        )
        index.append(where)
        weights.append(mass)
    places, position = np.unique(np.concatenate(index).astype(np.int64), return_inverse=True)
    total = np.bincount(position, np.concatenate(weights), places.size)
    return GridLaw(
        knots.step,
        knots.offset,
        places,
        np.asarray(total * (1.0 - 16.0 * _ULP), np.float64),
        *_beyond(fitted.lines, count),
    )


def _beyond(lines: _Tangents, count: int) -> tuple[float, int, float]:
    """(mass above the last border, count, its mass in Q): not too large, not too small."""
    tail, error = float(lines.tail[-1]), float(lines.tail_error[-1])
    mass = max(0.0, tail - error) * (1.0 - 4.0 * _ULP)
    gap = tail - float(lines.delta[-1]) + error + float(lines.delta_error[-1])
    other = math.exp(-float(lines.points[-1])) * (gap + 4.0 * _ULP * tail)
    return (mass, count, other) if mass > 0.0 else (0.0, count, 0.0)


def _mass(borders: _Tangents) -> FloatArray:
    """float64[n - 1]: masses between borders, certainly not too large."""
    error = borders.tail_error[:-1] + borders.tail_error[1:] + 2.0 * _ULP * borders.tail[:-1]
    return np.maximum(borders.tail[:-1] - borders.tail[1:] - error, 0.0)


def _split(
    pair: HasCurve, knots: Knots, fitted: "_Fitted"
) -> tuple[FloatArray, FloatArray, tuple[FloatArray, FloatArray]]:
    """(lower points, upper points, masses at both) of the wide cells; points in steps.

    Left of the lower point the restriction is above its tangent at the left border, between
    the two above one that touches in the middle, if that is nonnegative at the upper point.
    """
    wide = fitted.wide
    left, right = fitted.borders[:-1][wide], fitted.borders[1:][wide]
    floor = np.floor(fitted.means[wide])
    # In an even density this tangent is high enough if it touches no farther from each of the
    # two points than the border is.
    touch = np.maximum(floor, 2.0 * floor + 2.0 - right) + np.minimum(
        floor + 1.0, 2.0 * floor - left
    )
    middle = _Tangents.of(pair, knots.at(np.clip(touch / 2.0, left, right)))
    outer, end = fitted.lines[:-1][wide], fitted.lines[1:][wide]
    a, b = knots.at(floor), knots.at(floor + 1.0)
    base = end.at(a, 1.0)
    below = outer.at(a, -1.0) - base
    value = np.where(middle.at(b, -1.0) >= end.at(b, 1.0), middle.at(a, -1.0) - base, 0.0)
    mass = _mass(fitted.lines)[wide]
    upper = np.minimum(below, value) / -math.expm1(-knots.step) * (1.0 - 8.0 * _ULP)
    upper = np.clip(upper, 0.0, mass)
    # A mean that is not certainly above the lower point: to below the cell.
    low = np.where(below >= 0.0, floor, np.minimum(floor, fitted.floors[:-1][wide]))
    return low, floor + 1.0, (mass - upper, upper)


def _run(
    lines: _Tangents, kinks: FloatArray, floor: float, knots: Knots
) -> tuple[FloatArray, FloatArray]:
    """(grid points, masses) of adjacent cells, each merged to about its kink.

    The values at the kinks are the smaller of the two tangents next to them, less the tangent
    at the end; then the lower convex hull, with slopes lowered by their rounding errors.
    """
    nothing = np.flatnonzero(lines.delta[1:-1] <= 4.0 * lines.delta_error[1:-1])
    if nothing.size:  # what is left beyond such a border is rounding
        lines, kinks = lines[: int(nothing[0]) + 2], kinks[: int(nothing[0]) + 1]
    losses = knots.at(kinks)
    end = lines[np.full(kinks.size, -1)].at(losses, 1.0)
    after = np.append(lines[1:-1].at(losses[:-1], -1.0) - end[:-1], 0.0)
    values = np.minimum(lines[:-1].at(losses, -1.0) - end, after)
    steepest = float(lines.tail[0] - lines.tail[-1])
    steepest -= float(lines.tail_error[0] + lines.tail_error[-1]) + 2.0 * _ULP
    steepest = max(steepest, 0.0)
    negative = np.flatnonzero(values < 0.0)
    last = int(negative[0]) - 1 if negative.size else kinks.size - 1
    if last < 0:  # a mean that is not certainly above its kink: to below the cells
        return np.array([min(floor, kinks[0])]), np.array([steepest])
    index, values = kinks[: last + 1], np.append(values[:last], 0.0)
    if last == 0:
        return index, np.array([steepest])
    index, slopes = _hull(index, values, knots.step)
    slopes = np.minimum.accumulate(np.append(steepest, slopes))
    return index, -np.diff(slopes, append=0.0)


@dataclass(frozen=True)
class _Fitted:
    """Cells whose borders have been moved, in steps from the origin of the grid.

    Any borders are valid. Those of narrow cells are moved so that the cells' mean losses come
    close to grid points.

    Attributes:
        borders, floors: float64[m + 1], and grid points certainly not above them.
        lines: tangents at the borders.
        means, kinks: float64[m], mean losses and the grid points they should be at.
        wide: bool[m], cells that keep their means by two grid points.
    """

    borders: FloatArray
    floors: FloatArray
    lines: _Tangents
    means: FloatArray
    kinks: FloatArray
    wide: NDArray[np.bool_]

    @classmethod
    def of(cls, pair: HasCurve, knots: Knots) -> "_Fitted":
        """Borders follow one another from low to high losses."""
        nominal = np.asarray(knots.edges + 0.5, np.float64)
        half = np.diff(nominal) / 2.0
        room = np.minimum(np.append(half, np.inf), np.append(np.inf, half)) / 2.0
        borders: FloatArray = nominal
        lines = _Tangents.of(pair, knots.at(borders))
        cells = _Cells.of(lines, knots, borders)
        floor = np.floor(cells.mean)
        wide = (floor - nominal[:-1] > 0.49) & (nominal[1:] - floor > 1.49)
        kinks = np.clip(np.rint(cells.mean), np.ceil(nominal[:-1]), np.floor(nominal[1:]))
        target = kinks + np.where(np.append(wide[1:], True), _ABOVE, 0.0)
        for _ in range(_SWEEPS):
            least, most = nominal - room - borders, nominal + room - borders
            borders = borders + cells.moves(target, wide, least, most)
            lines = _Tangents.of(pair, knots.at(borders))
            cells = _Cells.of(lines, knots, borders)
        means = np.clip(cells.mean, borders[:-1], borders[1:])
        return cls(borders, np.floor(borders - 1e-9), lines, means, kinks, wide)


@dataclass(frozen=True)
class _Cells:
    """Masses between borders; all in steps from the origin of the grid.

    Attributes:
        mean: float64[m], mean losses (in e^-loss).
        left, right: float64[m], by how much the mean moves when a border moves.
    """

    mean: FloatArray
    left: FloatArray
    right: FloatArray

    @classmethod
    def of(cls, lines: _Tangents, knots: Knots, borders: FloatArray) -> "_Cells":
        """From the tangents at the borders."""
        delta, tail = lines.delta, lines.tail
        mass = tail[:-1] - tail[1:]
        middle = (borders[:-1] + borders[1:]) / 2.0
        half = np.diff(borders) / 2.0
        scaled = tail - delta  # Q's tail, times e^loss
        grown = np.exp(knots.step * half)
        other = scaled[:-1] * grown - scaled[1:] / grown
        good = (mass > 0.0) & (other > 0.0)
        mean = np.zeros(mass.size)
        mean[good] = np.log(mass[good] / other[good]) / knots.step
        mean = np.clip(mean, -0.99 * half, 0.99 * half)
        density = np.maximum(mass, 1e-300) / half
        border = np.sqrt(np.append(density[0], density) * np.append(density, density[-1]))
        left = np.clip(border[:-1] * (half + mean) / (2.0 * half * density), 0.05, 4.0)
        right = np.clip(border[1:] * (half - mean) / (2.0 * half * density), 0.05, 4.0)
        return cls(middle + mean, left, right)

    def moves(
        self, kink: FloatArray, double: NDArray[np.bool_], least: FloatArray, most: FloatArray
    ) -> FloatArray:
        """Shifts of the borders, within limits, that bring means to their kinks, low to high."""
        shift, shifts = 0.0, [0.0]
        columns = (kink - self.mean, self.left, self.right, double, least[1:], most[1:])
        for miss, left, right, free, low, high in zip(
            *map(np.ndarray.tolist, columns), strict=True
        ):
            shift = 0.0 if free else max(low, min(high, (miss - left * shift) / right))
            shifts.append(shift)
        return np.array(shifts)


def _hull(index: FloatArray, values: FloatArray, step: float) -> tuple[FloatArray, FloatArray]:
    """(indices, slopes between them) of the lower convex hull of the potential's `values`."""
    while True:
        gap = -np.expm1(-step * np.diff(index))
        here, following = values[:-1], values[1:]
        slopes = following + (here - following) / gap
        # A point above the chord of its neighbours is no vertex, whatever else is removed.
        bad = np.flatnonzero(slopes[:-1] < slopes[1:] * (1.0 - 4.0 * _ULP)) + 1
        if bad.size == 0:
            break
        index, values = np.delete(index, bad), np.delete(values, bad)
    return index, np.maximum(slopes - 8.0 * _ULP * (here + following) / gap, 0.0)
