"""What no factorization of the prefix sums can beat, to compare others with.

Errors are those of `dp.matrix.strategy.Errors`.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dp import _validate
from dp.matrix.participation import MAX_ROUNDS, Participation
from dp.matrix.strategy import MAX_DENSE

FloatArray = NDArray[np.float64]

_STEPS, _GAP = 500, 1e-7


class Optimum(NamedTuple):
    """The least rms error of any factorization with one participation per client.

    Attributes:
        lower: no factorization is below.
        upper: that of `strategy`.
        strategy: C, float64[n, n], lower triangular with columns of norm at most 1.
    """

    lower: float
    upper: float
    strategy: FloatArray


def prefix_optimum(rounds: int) -> Optimum:
    """The optimal dense factorization for one participation, with a certificate.

    Denisov, McMahan, Rush, Smith, Thakurta 2022: with W = A^T A the problem is to minimise
    tr(W X^-1) over X = C^T C with unit diagonal. For every v > 0, with R the square root of
    D_v^(1/2) W D_v^(1/2), 2 tr R - sum v is a lower bound (the Lagrange dual), and
    X = D_v^(-1/2) R D_v^(-1/2) attains it where diag R = v, which is iterated for.

    Args:
        rounds: n, at most 1,024.

    Raises:
        ParameterError: rounds out of range.
    """
    n = _validate.integer("rounds", rounds, 1, MAX_DENSE)
    prefix = np.tri(n)
    work = prefix.T @ prefix
    v = np.sqrt(np.diag(work))
    for _ in range(_STEPS):
        root = _square_root(np.sqrt(v)[:, None] * work * np.sqrt(v))
        diagonal = np.diag(root)
        lower = 2.0 * float(diagonal.sum()) - float(v.sum())
        gram = root / np.sqrt(np.outer(v, v))
        scale = 1.0 / np.sqrt(np.diag(gram))
        gram = scale[:, None] * gram * scale
        upper = float(np.trace(np.linalg.solve(gram, work)))
        if upper - lower <= _GAP * upper:
            break
        v = diagonal
    # X = C^T C with C lower triangular: Cholesky of X with rows and columns in reverse order.
    reverse = np.linalg.cholesky(gram[::-1, ::-1])
    return Optimum(math.sqrt(lower / n), math.sqrt(upper / n), reverse.T[::-1, ::-1])


def _square_root(matrix: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(matrix)
    root: FloatArray = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root


def lower_bound(participation: Participation) -> float:
    """An rms error that no factorization of the prefix sums is below, for any number of rounds.

    |B|_F |C|_F is at least the nuclear norm of B C = A, whose singular values are
    1 / (2 sin((2 j - 1) pi / (4 n + 2))), and the squared sensitivity is at least the average over
    patterns of sum_i X_ii: docs/privacy.md, "Sensitivity of a strategy".
    """
    n, b = participation.rounds, participation.separation
    j = np.arange(1.0, n + 1.0)
    nuclear = float((0.5 / np.sin((2.0 * j - 1.0) * np.pi / (4.0 * n + 2.0))).sum())
    covered = participation.most / (b * -(-n // b))  # the chance of any round, at least
    return nuclear * math.sqrt(covered / n) * (1.0 - 2.0**-40)


def square_root_max_error(rounds: int) -> float:
    """Max error of the Toeplitz square root of the prefix sums, one participation.

    Coefficients are those of (1 - x)^(-1/2) on both sides (Fichtenberger, Henzinger, Upadhyay
    2023), so it is their sum of squares, 1 + log(n) / pi and less.
    """
    n = _validate.integer("rounds", rounds, 1, MAX_ROUNDS)
    return float((square_root(n) ** 2).sum())


def square_root(n: int) -> FloatArray:
    """The first n coefficients of (1 - x)^(-1/2): binomial(2 j, j) / 4^j, float64[n]."""
    j = np.arange(1.0, n)
    return np.concatenate([[1.0], np.cumprod((2.0 * j - 1.0) / (2.0 * j))])
