"""How far one client can move C x, squared, for each pattern of participation.

x has one row per round; one client adds vectors u_i of norm at most 1 in the rounds i of its
pattern, so it moves C x by |sum_i C_i u_i|^2 = sum_{i, l} X_il <u_i, u_l> <= sum_{i, l} |X_il| with
columns C_i and X = C^T C. Everything here is in exact integers. Proofs and the theorem on Toeplitz
matrices: docs/privacy.md, "Sensitivity of a strategy".
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.matrix.participation import Participation

IntArray = NDArray[np.int64]


def toeplitz_sq(column: IntArray, participation: Participation) -> int | None:
    """The squared sensitivity of a Toeplitz strategy; None where the theorem does not apply.

    With non-negative coefficients that do not increase the worst pattern is 0, b, 2b, ... with
    all vectors equal (Kalinin, Lampert 2024, Theorem 2).

    Args:
        column: int64[bands], the coefficients c_0, c_1, ...; zero beyond.
        participation: of one client.
    """
    column = column[: participation.rounds]
    if int(column[-1]) < 0 or bool((np.diff(column) > 0).any()):
        return None
    moved: list[int] = moved_by(column, participation).tolist()
    return sum(value * value for value in moved)


def moved_by(column: NDArray[Any], participation: Participation) -> NDArray[Any]:
    """C u for a Toeplitz C and u = 1 in the rounds 0, b, 2b, ..., else 0; [n], as `column`."""
    n = participation.rounds
    moved = np.zeros(n, dtype=column.dtype)
    for start in range(0, participation.most * participation.separation, participation.separation):
        size = min(len(column), n - start)
        moved[start : start + size] += column[:size]
    return moved


def banded_sq(columns: IntArray, participation: Participation) -> int:
    """The squared sensitivity of a banded strategy, or an upper bound.

    Exact where bands <= separation: columns of one pattern share no row. Else every column is
    charged with the largest overlaps that a pattern allows it.

    Args:
        columns: int64[n, bands]; columns[j, i] is C[j + i, j], zero beyond the last row.
        participation: of one client.
    """
    bands, separation = columns.shape[1], participation.separation
    charged = np.einsum("ji,ji->j", columns, columns)
    windows = -(-bands // separation) if participation.most > 1 else 1
    for s in range(1, windows):
        # At most one participation has a distance in [s b, (s + 1) b), on either side.
        charged = charged + _largest_overlap(columns, s * separation, (s + 1) * separation)
    return best_pattern(charged, participation)


def _largest_overlap(columns: IntArray, low: int, high: int) -> IntArray:
    """Per column the largest |X| at a distance in [low, high) before it plus that after it."""
    n, bands = columns.shape
    after, before = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    for distance in range(low, min(high, bands, n)):
        first, second = columns[: n - distance, distance:], columns[distance:, : bands - distance]
        overlap = np.abs(np.einsum("ji,ji->j", first, second))
        after[: n - distance] = np.maximum(after[: n - distance], overlap)
        before[distance:] = np.maximum(before[distance:], overlap)
    return after + before


def best_pattern(charged: IntArray, participation: Participation) -> int:
    """The largest sum of charged[i] over the rounds i of a pattern; charges are non-negative."""
    separation, n = participation.separation, participation.rounds
    if participation.fixed:
        classes = [np.sort(charged[o::separation]) for o in range(separation)]
        return max(int(places[-participation.most :].sum()) for places in classes)
    best = np.maximum.accumulate(charged)
    for _ in range(1, participation.most):
        grown = charged.copy()
        grown[separation:] += best[: n - separation]
        best = np.maximum(best, np.maximum.accumulate(grown))
    return int(best[-1])
