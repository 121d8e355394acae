"""Laws of the privacy loss on a uniform grid, certainly above or certainly below a pair's.

In u = e^(-loss) a pair is the convex potential k -> E_P (k - u)_+ = k delta(-log k). A law on
the grid whose potential is nowhere smaller dominates the pair, also after composition; one whose
potential is nowhere larger is dominated. docs/privacy.md, "Privacy loss distributions".
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp.accountants.conversion import FloatArray
from dp.accountants.pairs import Pair

IntArray = NDArray[np.intp]

_ULP = 2.0**-52
_SWEEPS = 1  # of the points where the lower law touches the potential
_NEAR = 3  # cells from there within which the heaviest cell is merged as well
_POOLED = 1e-4  # of the mass, at the lowest losses, that the lower law merges into one point


@dataclass(frozen=True)
class Grid:
    """Losses offset + step (first + 0, 1, ..., count - 1)."""

    step: float
    offset: float
    first: int
    count: int

    @property
    def losses(self) -> FloatArray:
        """float64[count]."""
        points = np.arange(self.first, self.first + self.count, dtype=np.float64)
        return np.asarray(self.offset + self.step * points)


@dataclass(frozen=True)
class GridLaw:
    """Masses on a grid and at infinite loss; `count` independent copies of it are composed."""

    grid: Grid
    masses: FloatArray
    infinite: float
    count: int


def choose_grid(pair: Pair, step: float, low: float, high: float) -> Grid:
    """A grid over [low, high] with the heaviest cell's mean on a grid point.

    Mass concentrated on less than a cell costs the lower end much when it lies between grid
    points, so the offset is the conditional mean of the heaviest cell (in u).
    """
    offset = 0.0
    probe = Grid(step, offset, math.floor(low / step) - 1, 3 + math.ceil((high - low) / step))
    tails = pair.curve(probe.losses).tail
    heaviest = int(np.argmax(tails[:-1] - tails[1:]))
    offset = float(probe.losses[heaviest]) + step / 2.0
    for _ in range(4):
        edges = pair.curve(np.array([offset - step / 2.0, offset + step / 2.0]))
        mass = float(edges.tail[0] - edges.tail[1])
        if mass <= 0.0:
            break
        # Masses of the cell in P and, times e^offset, in Q: their log ratio is its mean loss.
        scaled = np.exp(np.array([step / 2.0, -step / 2.0])) * (edges.tail - edges.delta)
        other = float(scaled[0] - scaled[1])
        if other <= 0.0:
            break
        moved = max(-step, min(step, math.log(mass / other)))
        offset += moved
        if abs(moved) < 1e-6 * step:
            break
    first = math.floor((low - offset) / step) - 1
    return Grid(step, offset, first, math.ceil((high - offset) / step) + 2 - first)


_Curves = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def _curve(pair: Pair, losses: FloatArray) -> _Curves:
    """(delta, tail, errors); includes what rounding of the losses themselves moves."""
    curve = pair.curve(losses)
    moved = 4.0 * _ULP * np.abs(losses) * (curve.tail + curve.tail_error)
    return curve.delta, curve.tail, curve.delta_error + moved, curve.tail_error


def upper_law(pair: Pair, grid: Grid, count: int) -> GridLaw:
    """The chords of the potential: every mass split onto its two neighbours on the grid.

    Slopes of the chords are tails of the law. Each is raised by its rounding error; the true
    slopes fall with the loss, so a running maximum from the right keeps them upper bounds.
    """
    delta, _, error, _ = _curve(pair, grid.losses)
    high, low = np.minimum(delta + error, 1.0), np.maximum(delta - error, 0.0)
    width = -math.expm1(-grid.step)
    slopes = low[1:] + (high[:-1] - low[1:]) / width
    slopes += 8.0 * _ULP * (high[:-1] + high[1:]) / width
    slopes = np.append(slopes, high[-1])
    slopes = np.minimum(np.maximum.accumulate(slopes[::-1])[::-1], 1.0)
    masses = -np.diff(slopes, prepend=1.0)
    return GridLaw(grid, masses, float(slopes[-1]), count)


def lower_law(pair: Pair, grid: Grid, count: int) -> GridLaw:
    """A convex function below the tangents of the potential, one in each cell.

    At each grid point the smaller of its two tangents; then the lower convex hull; then slopes
    lowered by their rounding errors. On the low side all mass below a point is merged into its
    mean (the potential is at least k - 1 everywhere); on the high side the law is cut off.
    """
    start, cell, touch = _low_end(pair, grid)
    points, (delta, tail, error, tail_error) = _tangents(pair, grid, cell, touch)
    left_gap, right_gap = points - grid.losses[:-1], grid.losses[1:] - points
    delta = delta - error
    slack = 8.0 * _ULP * (np.abs(delta) + tail * grid.step)
    right = np.exp(-left_gap) * delta - (tail - tail_error) * np.expm1(-left_gap) - slack
    left = np.exp(right_gap) * delta - (tail + tail_error) * np.expm1(right_gap) - slack
    values = np.minimum(right[1:], left[:-1])  # at points 1, 2, ... of the grid
    values = np.concatenate([right[cell : cell + 1], values[cell:], left[-1:]])
    index = np.arange(cell, grid.count)
    if start < cell:
        index = np.append(start, index)
        values = np.append(-math.expm1(grid.losses[start]), values)
    else:
        values[0] = min(values[0], -math.expm1(grid.losses[start]))
    return GridLaw(grid, _masses(index, values, grid), 0.0, count)


def _masses(index: IntArray, values: FloatArray, grid: Grid) -> FloatArray:
    """Masses of the largest convex potential below `values` at the grid points `index`."""
    masses = np.zeros(grid.count)
    ends = np.flatnonzero(values <= 0.0)
    if ends.size:  # the law ends here: nothing positive is known of the next point
        last = max(0, int(ends[0]) - 1)
        index, values = index[: last + 1], np.append(values[:last], 0.0)
    if values.size < 2:
        return masses
    index, slopes = _hull(index, values, grid.step)
    slopes = np.minimum.accumulate(np.append(1.0, slopes))
    if ends.size:
        masses[index] = -np.diff(slopes, append=0.0)
    else:  # dropping what lies beyond the last point takes its slope from every other slope
        masses[index[:-1]] = -np.diff(slopes)
    return masses


def _low_end(pair: Pair, grid: Grid) -> tuple[int, int, float]:
    """(point, cell, touch): the mass below loss `touch`, inside `cell`, has its mean at `point`.

    What is wrong there costs tightness only, not validity.
    """
    tails = pair.curve(grid.losses[:-1] + grid.step / 2.0).tail
    below = int(np.searchsorted(-tails, -(1.0 - _POOLED)))
    heaviest = 1 + int(np.argmax(tails[:-1] - tails[1:]))
    below = heaviest if below <= heaviest <= below + _NEAR else below
    low = float(grid.losses[min(below, grid.count - 4)]) + grid.step / 2.0
    mean = float(_mean_below(pair, np.array([low]))[0])
    start = math.ceil((mean - grid.offset) / grid.step - 1e-3)
    low, high = low - grid.step, low + 2.0 * grid.step
    target = grid.offset + start * grid.step
    for _ in range(3):
        tries = np.linspace(low, high, 65)
        means = _mean_below(pair, tries)
        at = int(np.clip(np.searchsorted(means, target), 1, 64))
        low, high = float(tries[at - 1]), float(tries[at])
    touch = (low + high) / 2.0
    cell = math.floor((touch - grid.offset) / grid.step) - grid.first
    cell = max(0, min(cell, grid.count - 3))
    return max(0, min(start - grid.first, cell)), cell, touch


def _mean_below(pair: Pair, losses: FloatArray) -> FloatArray:
    """Mean loss (in u) of the mass of loss below each of `losses`."""
    curve = pair.curve(losses)
    mass = np.maximum(1.0 - curve.tail, 1e-300)
    other = np.maximum(1.0 - np.exp(-losses) * (curve.tail - curve.delta), 1e-300)
    return np.maximum.accumulate(np.log(mass / other))


def _tangents(pair: Pair, grid: Grid, cell: int, touch: float) -> tuple[FloatArray, _Curves]:
    """(where in each cell the potential is touched, curves there); at `touch` in `cell`.

    Any point is valid. Tangents meet at the mean loss of the mass between them; moving the
    points so that these means come close to the grid makes the lower end tight.
    """
    half = grid.step / 2.0
    losses = grid.losses
    middles = losses[:-1] + half
    first = min(max(touch, float(losses[cell])), float(losses[cell + 1])) - float(middles[cell])
    moved = np.zeros(middles.size)
    moved[cell] = first
    for _ in range(_SWEEPS):
        delta, tail, _, _ = _curve(pair, middles + moved)
        mass = tail[:-1] - tail[1:]
        scaled = tail - delta  # Q's tail, times e^loss
        other = np.exp(half - moved[:-1]) * scaled[:-1] - np.exp(-half - moved[1:]) * scaled[1:]
        good = (mass > 0.0) & (other > 0.0)
        mean = np.zeros(mass.size)
        mean[good] = np.log(mass[good] / other[good])
        mean = np.clip(mean, -half / 4.0, half / 4.0)
        moved[1:-1] -= (mean[1:] + mean[:-1]) / 2.0
        heaviest = int(np.argmax(mass))  # on the grid already, see `choose_grid`
        moved[heaviest : heaviest + 2] = 0.0
        moved = np.clip(moved, -half / 2.0, half / 2.0)
        moved[cell] = first
    return middles + moved, _curve(pair, middles + moved)


def _hull(index: IntArray, values: FloatArray, step: float) -> tuple[IntArray, FloatArray]:
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
