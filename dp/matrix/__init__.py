"""Correlated noise for sums that a server noises itself: tree aggregation, BandMF, BLT.

A factorization A = B C of the prefix sums A: C x is measured with independent noise, and the prefix
sums are estimated as B times that. The rows of x are the rounds, so C says how a client's
participations add up, and B how noise does.

Example:
    >>> from dp import matrix
    >>> rounds = matrix.min_separation(256, separation=64)
    >>> independent = matrix.banded(rounds, bands=1).errors(rounds).rms_error
    >>> correlated = matrix.banded(rounds, bands=64).errors(rounds).rms_error
    >>> round(independent / correlated, 2)
    4.07
"""

from dp.matrix.bandmf import BandedStrategy, banded
from dp.matrix.buffered import MAX_BUFFERS, BltStrategy, blt
from dp.matrix.dyadic import TreeStrategy, tree
from dp.matrix.mechanism import CorrelatedMechanism, correlated_gaussian
from dp.matrix.optimum import (
    Optimum,
    lower_bound,
    prefix_optimum,
    square_root_max_error,
)
from dp.matrix.participation import (
    MAX_ROUNDS,
    Participation,
    cyclic,
    min_separation,
    single,
)
from dp.matrix.strategy import Errors, Strategy
from dp.matrix.stream import NoiseStream

__all__ = [
    "MAX_BUFFERS",
    "MAX_ROUNDS",
    "BandedStrategy",
    "BltStrategy",
    "CorrelatedMechanism",
    "Errors",
    "NoiseStream",
    "Optimum",
    "Participation",
    "Strategy",
    "TreeStrategy",
    "banded",
    "blt",
    "correlated_gaussian",
    "cyclic",
    "lower_bound",
    "min_separation",
    "prefix_optimum",
    "single",
    "square_root_max_error",
    "tree",
]
