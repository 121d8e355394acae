"""Strategies that tests of correlated noise share, and noise through them."""

# mypy: allow-untyped-calls

from typing import Any

import numpy as np
import pytest

from dp import matrix

N = 21
TOLD = matrix.min_separation(N, 7)
EXACT: dict[str, Any] = {
    "independent": matrix.banded(TOLD, 1),
    "toeplitz": matrix.banded(TOLD, 6),
    "wide": matrix.banded(TOLD, 15),
    "general": matrix.banded(TOLD, 5, toeplitz=False),
    "honaker": matrix.tree(TOLD),
    "plain": matrix.tree(TOLD, "plain"),
}
ALL: dict[str, Any] = {**EXACT, "blt": matrix.blt(TOLD, 3)}
each = pytest.mark.parametrize("strategy", ALL.values(), ids=ALL)


def draws(strategy, dim, sigma=1e6, seed=0):
    """Noise for all measurements, int64[m, dim]."""
    rng = np.random.default_rng(seed)
    return np.rint(sigma * rng.normal(size=(strategy.measurements, dim))).astype(np.int64)


def streamed(strategy, noise, stream=None, rounds=N):
    """(errors of the next rounds, the stream), drawing `noise` row by row."""
    stream = matrix.NoiseStream(strategy, noise.shape[1]) if stream is None else stream
    rows = iter(noise)
    return np.stack([stream.advance(lambda: next(rows)) for _ in range(rounds)]), stream
