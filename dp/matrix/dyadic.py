"""Tree aggregation: every dyadic interval of rounds is measured once.

Dwork, Naor, Pitassi, Rothblum 2010; Chan, Shi, Song 2011. A prefix sum is the sum over the
intervals of its binary expansion ("plain"), or of better estimates of the same intervals:
"honaker" weighs an interval's own measurement against the sum of its halves, as far as both are
over (Honaker 2015, estimation from below, as in Kairouz, McMahan, Song, Thakkar, Thakurta, Xu
2021). His full estimator needs later rounds, so it cannot be released on the way; its error is
`full_errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dp import _validate
from dp.errors import ParameterError
from dp.matrix.participation import Participation
from dp.matrix.strategy import (
    EXACT,
    MAX_DENSE,
    Arrays,
    Draw,
    Errors,
    IntArray,
    Slack,
    Strategy,
    Whitening,
    errors_of,
    rounded_quotient,
    whitening,
)

FloatArray = NDArray[np.float64]

ESTIMATORS = ("honaker", "plain")


@dataclass(frozen=True)
class TreeStrategy(Strategy):
    """Measurements of dyadic intervals; built by `tree`.

    The interval at level l that ends before round m 2^l is complete if m 2^l <= n; incomplete
    ones are not measured. Measurements are in the order in which they are complete, smaller first.

    Attributes:
        participation: what it is used for.
        estimator: "honaker" or "plain".
    """

    estimator: str

    @property
    def levels(self) -> int:
        """Sizes of intervals: 1, 2, 4, ... up to n."""
        return self.rounds.bit_length()

    @property
    def measurements(self) -> int:
        """Rows of C: independent draws of noise per coordinate."""
        return sum(self.rounds >> level for level in range(self.levels))

    def matrix(self) -> FloatArray:
        """C, float64[m, n]: 1 where the round is in the interval."""
        result, row = np.zeros((self.measurements, self.rounds)), 0
        for end in range(1, self.rounds + 1):
            for level in range(_completed(end)):
                result[row, end - (1 << level) : end] = 1.0
                row += 1
        return result

    def sensitivity_sq(self, participation: Participation) -> int:
        """Bound on |C u|^2 over one client's vectors u of norm at most 1.

        An interval of 2^l rounds holds at most M = ceil(2^l / b) of k participations, so a level
        costs at most (k // M) M^2 + (k mod M)^2, or M^2 for each of its intervals. Exact for
        one participation, and for participations b = 2^i apart where all start together.
        """
        total = 0
        for level in range(self.levels):
            most = min(participation.most, -(-(1 << level) // participation.separation))
            full, rest = divmod(participation.most, most)
            intervals = self.rounds >> level
            total += min(full * most**2 + rest**2, intervals * most**2)
        return total

    @cached_property
    def variances(self) -> FloatArray:
        """Variance of every prefix sum per unit of the variance of z, float64[n]."""
        costs = np.ones(self.levels)
        if self.estimator == "honaker":
            costs = np.array([_node_variance(level) for level in range(self.levels)])
        ends = np.arange(1, self.rounds + 1)
        bits = (ends[:, None] >> np.arange(self.levels)) & 1
        variances: FloatArray = bits @ costs
        return variances

    def full_errors(self, participation: Participation) -> Errors:
        """Errors of Honaker's full estimator, the least-squares fit to all measurements.

        Raises:
            ParameterError: more than 1,024 rounds.
        """
        _validate.integer("rounds", self.rounds, 1, MAX_DENSE)
        measured = self.matrix()
        prefix = np.tri(self.rounds)
        gram = measured.T @ measured
        variances = np.einsum("ti,it->t", prefix, np.linalg.solve(gram, prefix.T))
        return errors_of(variances, self.sensitivity_sq(participation))

    def slack(self, dim: int, sigma: float) -> Slack:
        """Nothing: streaming is exact."""
        del dim, sigma
        return EXACT

    def whitening(self, errors: IntArray) -> Whitening:
        """What is new in the estimate of the largest interval that ends with each round.

        The errors of an interval's rounds add up to that of its estimate, and so do those of the
        left halves that the estimate was made of, which older rounds released.
        """
        n = len(errors)
        matrix, variances = np.zeros((n, n)), np.ones(n)
        rounding = np.full(n, 0.0 if self.estimator == "plain" else 1.0)
        for end in range(1, n + 1):
            row, level = matrix[end - 1], _completed(end) - 1
            row[end - (1 << level) : end] = 1.0
            if self.estimator == "plain":
                continue
            carried = 1.0  # by what the halves' estimate counts in the whole's
            for whole in range(level, 0, -1):
                carried *= 1.0 - _node_variance(whole)
                row[end - (1 << whole) : end - (1 << whole - 1)] -= carried
            for whole in range(1, level + 1):
                own = _node_variance(whole)
                variances[end - 1] = own**2 + (1.0 - own) ** 2 * variances[end - 1]
        return whitening(matrix, variances, rounding, errors)

    def arrays(self, dim: int) -> Arrays:
        """The state before round 0: [levels, dim] of left halves, [dim] of the last prefix."""
        return {
            "nodes": np.zeros((self.levels, dim), dtype=np.int64),
            "prefix": np.zeros(dim, dtype=np.int64),
        }

    def advance(self, arrays: Arrays, row: int, draw: Draw) -> IntArray:
        """The noise of round `row`: how the noise of the prefix sum changes, int64[dim]."""
        self.skip(arrays, row, draw)
        end = row + 1
        prefix = np.zeros_like(arrays["prefix"])
        for level in range(end.bit_length()):
            if end >> level & 1:
                prefix += arrays["nodes"][level]
        error: IntArray = prefix - arrays["prefix"]
        arrays["prefix"] = prefix
        return error

    def skip(self, arrays: Arrays, row: int, draw: Draw) -> None:
        """Nothing is released in round `row`; the intervals that end with it are measured."""
        nodes, end = arrays["nodes"], row + 1
        halves = draw()
        for level in range(1, _completed(end)):
            halves = self._estimate(level, draw(), nodes[level - 1] + halves)
        nodes[_completed(end) - 1] = halves  # a left half: its right half is still to come

    def _estimate(self, level: int, own: IntArray, halves: IntArray) -> IntArray:
        """An interval's value from its own measurement and the sum of its halves' estimates.

        The weights 2^l and 2^l - 1 over 2^(l+1) - 1 add to 1, so that an exact value that both
        share passes through the rounding unchanged.
        """
        if self.estimator == "plain":
            return own
        whole = (2 << level) - 1
        weighted = (own << level) + ((1 << level) - 1) * halves
        return rounded_quotient(weighted, whole)

    def published(self, measured: IntArray) -> IntArray:
        """What is released, int64[n, dim], from C x + z, int64[m, dim], and nothing else."""
        rows = iter(measured)
        arrays = self.arrays(measured.shape[1])
        return np.stack([
            self.advance(arrays, row, lambda: next(rows)) for row in range(self.rounds)
        ])  # fmt: skip


def _completed(end: int) -> int:
    """Intervals that end before round `end`: one more than the zeros that `end` ends with."""
    return (end & -end).bit_length()


def _node_variance(level: int) -> float:
    """Variance of an interval's estimate from below: 2^l / (2^(l+1) - 1)."""
    return (1 << level) / ((2 << level) - 1)


def tree(participation: Participation, estimator: str = "honaker") -> TreeStrategy:
    """Tree aggregation for these rounds.

    Args:
        participation: of one client.
        estimator: "honaker" (from below, never worse) or "plain".

    Raises:
        ParameterError: another estimator.
    """
    if estimator not in ESTIMATORS:
        raise ParameterError("estimator", estimator, '"honaker" or "plain"')
    return TreeStrategy(participation, estimator)
