"""Fixtures shared by the tests of dp."""

from collections.abc import Callable

import numpy as np
import pytest

import dp


@pytest.fixture
def stream() -> Callable[[int], Callable[[int], bytes]]:
    """Seeded random bytes: repeatable, and good enough for statistics."""
    return lambda seed: np.random.default_rng(seed).bytes


@pytest.fixture
def zero_out() -> dp.NeighboringRelation:
    return dp.NeighboringRelation.ZERO_OUT
