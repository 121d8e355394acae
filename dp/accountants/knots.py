"""Where laws are discretised: cells of odd widths on one base grid, fine where the mass is.

Splitting or merging mass w inside a cell of width g moves epsilon by about w (theta + 1) g^2 / 8
per release, so that widths proportional to density^(-1/3) cost least for their number. All of
this chooses; any choice gives valid laws (docs/privacy.md, "Privacy loss distributions").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp.accountants.conversion import FloatArray
from dp.accountants.pairs import Pair, curves
from dp.accountants.saddle import Losses

IntArray = NDArray[np.int64]

_GROWTH = 0.35  # widths change by at most this per distance
_HALVINGS = 40
_WIDEST = 8.0  # cell: tangents are continued by a factor e^width, which grows their rounding
_NEGLIGIBLE = 0.01  # of the budget, spent on cutting off low losses


@dataclass(frozen=True)
class Knots:
    """Cells around points offset + step * integer.

    Attributes:
        step, offset: of the base grid, in loss.
        edges: int64[m + 1], ascending by odd numbers; cell j reaches from
            offset + step (edges[j] + 1/2) to the same with j + 1, its centre is on the grid.
    """

    step: float
    offset: float
    edges: IntArray

    @property
    def centres(self) -> IntArray:
        """int64[m]: on the base grid."""
        return (self.edges[:-1] + self.edges[1:] + 1) // 2

    def at(self, index: IntArray | FloatArray) -> FloatArray:
        """Losses of points of the base grid, or between them."""
        return np.asarray(self.offset + self.step * index)

    @property
    def borders(self) -> FloatArray:
        """float64[m + 1]: losses at the edges."""
        return np.asarray(self.offset + self.step * (self.edges + 0.5))


def centres_of(law: Losses) -> FloatArray:
    """float64[parts]: medians of the parts."""
    weights, _ = law.tilted(0.0)
    pieces = zip(law.pieces(law.losses), law.pieces(weights), strict=True)
    return np.array([np.interp(0.5, np.cumsum(w) - w / 2.0, loss) for loss, w in pieces])


def base_step(distances: FloatArray, costs: FloatArray, budget: float) -> float:
    """The largest step h whose grid alone costs at most `budget`.

    A mass at distance x from a grid point costs x h / 2 while x is small, h^2 / 8 on average
    beyond.

    Args:
        distances: float64[n], from each part's own grid point.
        costs: float64[n], as `Aim.costs`.
        budget: > 0.
    """
    order = np.argsort(distances)
    near, cost = distances[order], costs[order]
    mass = np.append(0.0, np.cumsum(cost))
    moment = np.append(0.0, np.cumsum(cost * near))

    def spent(step: float) -> float:
        inside = int(np.searchsorted(near, step / 4.0))
        rest = float(mass[-1] - mass[inside])
        return step / 2.0 * float(moment[inside]) + step**2 / 8.0 * rest

    low, high = -70.0, 10.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if spent(math.exp(middle)) > budget else (middle, high)
    return math.exp(low)


def widths(law: Losses, costs: FloatArray, theta: float, step: float, budget: float) -> FloatArray:
    """float64[n]: widths of cells, at least `step`, that cost about `budget` more than those.

    With y = (theta + 1) width, moving mass by a cell multiplies its tilted weight by up to e^y:
    y^3 e^y is kept inversely proportional to the density. `costs` as in `base_step`.
    """
    spacing = np.concatenate([np.gradient(piece) for piece in law.pieces(law.losses)])
    spacing = np.maximum(spacing, 1e-3 * step)
    scale = (theta + 1.0) * np.cbrt(spacing / np.maximum(costs, 1e-250))
    costs = costs / (8.0 * (theta + 1.0) ** 2)
    least = (theta + 1.0) * step
    most = max(least, (theta + 1.0) * _WIDEST)

    def scaled(factor: float) -> FloatArray:
        # y e^(y/3) = z is solved by y = 3 W(z / 3); W by an approximation within 4 %.
        grown = np.log1p(scale * (factor / 3.0))
        y = 3.0 * grown * (1.0 - np.log1p(grown) / (2.0 + grown))
        return np.asarray(np.clip(y, least, most))

    def spent(y: FloatArray) -> float:
        return float(costs @ (y**2 * np.exp(np.minimum(y, 60.0))))

    allowed = budget + spent(np.full_like(costs, least))
    low, high = -120.0, 40.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        fits = spent(scaled(math.exp(middle))) <= allowed
        low, high = (middle, high) if fits else (low, middle)
    return scaled(math.exp(low)) / (theta + 1.0)


def first_loss(
    losses: FloatArray, log_weights: FloatArray, theta: float, log_moment: float, share: float
) -> int:
    """First point kept: all mass up to it, moved there, has at most `share` of the tilted mass."""
    below = np.logaddexp.accumulate(log_weights) + theta * losses - log_moment
    return min(int(np.searchsorted(below, math.log(share))), losses.size - 2)


def densest(losses: FloatArray, weights: FloatArray, width: float) -> float:
    """Where an interval of this width holds most weight, about."""
    total = np.cumsum(weights) - weights / 2.0
    inside = np.interp(losses + width / 2.0, losses, total)
    inside -= np.interp(losses - width / 2.0, losses, total)
    return float(losses[int(np.argmax(inside))])


def placed(pairs: Sequence[Pair], guesses: FloatArray, step: float) -> FloatArray:
    """Offsets, one per pair, at which the cell of width `step` there has its mean (in e^-loss).

    Mass that is concentrated on less than a cell then costs neither end anything.
    """
    offsets = guesses.copy()
    ends = np.array([-step / 2.0, step / 2.0])
    left = np.arange(len(pairs))
    for _ in range(3):
        found = curves([pairs[int(i)] for i in left], list(offsets[left, None] + ends))
        tail = np.array([curve.tail for curve in found])
        mass = tail[:, 0] - tail[:, 1]
        # Masses of the cell in P and, times e^offset, in Q: their log ratio is its mean loss.
        other = (tail - np.array([curve.delta for curve in found])) @ (np.exp(-ends) * [1.0, -1.0])
        good = (mass > 0.0) & (other > 0.0)
        left, ratio = left[good], mass[good] / other[good]
        moved = np.clip(np.log(ratio), -step, step)
        offsets[left] += moved
        left = left[np.abs(moved) >= 1e-6 * step]
        if left.size == 0:
            break
    return offsets


def graded(losses: FloatArray, wanted: FloatArray, step: float, offset: float) -> Knots:
    """Cells over all `losses` (ascending), the one at `offset` of width `step`.

    Args:
        losses: float64[n], points at which widths are wanted.
        wanted: float64[n], widths.
        step: of the base grid.
        offset: of the base grid.
    """
    smooth = np.minimum(wanted, step + _GROWTH * np.abs(losses - offset))
    rise, fall = smooth - _GROWTH * losses, smooth + _GROWTH * losses
    smooth = np.minimum(
        np.minimum.accumulate(rise) + _GROWTH * losses,
        np.minimum.accumulate(fall[::-1])[::-1] - _GROWTH * losses,
    )
    smooth = np.maximum(smooth, step)
    right, left = losses > offset, losses < offset
    up = _edges((losses[right] - offset) / step, smooth[right] / step)
    down = _edges((offset - losses[left][::-1]) / step, smooth[left][::-1] / step)
    return Knots(step, offset, np.concatenate([-1 - down[::-1], up]))


def _edges(distances: FloatArray, gaps: FloatArray) -> IntArray:
    """Edges k_0 = 0 < k_1 < ... (at k + 1/2) by odd steps of about `gaps`, past all distances."""
    beyond = distances > 0.5
    y = np.concatenate([[0.5], distances[beyond]])
    g = np.concatenate([[1.0], gaps[beyond]])
    cells = np.append(0.0, np.cumsum(np.diff(y) * 0.5 * (1.0 / g[1:] + 1.0 / g[:-1])))
    whole = np.arange(math.floor(cells[-1]) + 1, dtype=np.float64)
    reached = np.interp(whole, cells, y) - 0.5
    inner = whole + 2.0 * np.floor((reached - whole) / 2.0 + 1e-9)
    inner = np.maximum.accumulate(np.maximum(inner - whole, 0.0)) + whole
    last = 2 * math.ceil(max(0.0, float(y[-1]) - 0.5 - float(inner[-1])) / 2.0) + 1
    return np.append(inner, inner[-1] + last).astype(np.int64)
