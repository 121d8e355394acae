"""Sums of floats that do not depend on how many processes share the work.

Float addition is not associative, so sums in the open are taken along fixed lanes: client i adds to
lane i mod 8, in the runner's order, and lanes are added up in theirs. A process holds whole lanes
as long as the number of processes divides 8.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fl.arrays import from_npz, to_npz
from fl.types import FloatVector

LANES = 8
_BLOCK = 2**14  # values that are summed over all lanes while they are in cache


class LaneSums:
    """Weighted sums by lane, one round after the other.

    Memory traffic is what a sum costs: a lane's first vector is kept as it came, lanes stay
    allocated between rounds, and the mean is taken a cached block at a time.

    Attributes:
        weights: int64[LANES].
    """

    def __init__(self) -> None:
        self._sums: dict[int, FloatVector | NDArray[np.float64]] = {}
        self._kept: dict[int, NDArray[np.float64]] = {}
        self.weights = np.zeros(LANES, dtype=np.int64)

    def clear(self) -> None:
        """Begins a round: nothing is summed."""
        self._sums.clear()
        self.weights[:] = 0

    def add(self, client: int, vector: FloatVector, weight: int) -> None:
        """Adds weight * vector, f32[d], which nobody may change until the round is over."""
        lane = client % LANES
        weighted = vector if weight == 1 else np.multiply(vector, weight, dtype=np.float64)
        before = self._sums.get(lane)
        if before is None:
            self._sums[lane] = weighted
        else:
            if lane not in self._kept:
                self._kept[lane] = np.empty(len(vector), dtype=np.float64)
            total = self._kept[lane]
            self._sums[lane] = np.add(before, weighted, out=total, dtype=np.float64)
        self.weights[lane] += weight

    def mean(self) -> NDArray[np.float64] | None:
        """Returns the weighted mean over all lanes; None where every weight is 0."""
        weight = int(self.weights.sum())
        if not weight:
            return None
        first, *others = (self._sums[lane] for lane in sorted(self._sums))
        total = np.empty(len(first), dtype=np.float64)
        for start in range(0, len(first), _BLOCK):
            block = slice(start, start + _BLOCK)
            total[block] = first[block]
            for lane in others:
                total[block] += lane[block]
            total[block] /= weight
        return total

    def to_bytes(self) -> bytes:
        """Returns sums and weights, without the metrics."""
        return to_npz({"weights": self.weights} | {str(k): v for k, v in self._sums.items()})

    def merge(self, data: bytes) -> None:
        """Takes the lanes of another process, all of them new here."""
        found = from_npz(data)
        self.weights += found.pop("weights")
        self._sums |= {int(lane): total for lane, total in found.items()}


Totals = dict[int, dict[str, tuple[float, float]]]  # lane -> name -> (sum, count)


def add_metrics(
    totals: Totals,
    client: int,
    metrics: Iterable[tuple[str, float, float]],
) -> None:
    """Adds one client's (name, sum, count) to its lane."""
    lane = totals.setdefault(client % LANES, {})
    for name, total, count in metrics:
        before = lane.get(name, (0.0, 0.0))
        lane[name] = (before[0] + total, before[1] + count)


def metric_totals(totals: Totals) -> dict[str, tuple[float, float]]:
    """Returns name -> (sum, count) over all lanes."""
    found: dict[str, tuple[float, float]] = {}
    for lane in sorted(totals):
        for name, (total, count) in totals[lane].items():
            before = found.get(name, (0.0, 0.0))
            found[name] = (before[0] + total, before[1] + count)
    return found
