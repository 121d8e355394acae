"""Clipping: l2, l-infinity, per layer, whole batches, and a clip norm that follows a quantile.

What holds exactly, and why: docs/privacy.md, "Clipping" and "Adaptive clipping".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import _validate
from dp.errors import NonFiniteError, ParameterError

# Outside this range squares of coordinates could overflow, or underflow enough to matter.
_SMALLEST_NORM, _LARGEST_NORM = 1e-100, 1e100
_BLOCK = 1 << 15  # columns of a batch at a time: the working set stays in the cache
_DEPTH = 64  # float32 squares added to one another before they are widened
_SLACK = 2.0**-46  # more than the rounding of a folded sum of up to 2^60 squares and its root


def fold_sum(values: NDArray[np.float64]) -> float:
    """Sum of a vector by halving it, elementwise: the same bits on every machine.

    A reduction's order of additions is the library's choice; this one is ours. The relative
    error for nonnegative terms is at most ceil(log2 n) 2^-53 (Higham 1993, pairwise summation).
    """
    while values.size > 1:
        half = values.size // 2
        folded = values[:half] + values[half : 2 * half]
        if values.size % 2:
            folded[0] += values[-1]
        values = folded
    return float(values[0]) if values.size else 0.0


def clip_l2(x: ArrayLike, clip_norm: float) -> NDArray[np.float64]:
    """`x` scaled down, if need be, so that its l2 norm is at most `clip_norm`.

    Guarantees, in exact real arithmetic on the returned doubles:
        the norm is at most clip_norm;
        a vector whose norm is below clip_norm (1 - 2^-45) comes back unchanged;
        the result is the same bits on every machine.

    | x | result |
    | --- | --- |
    | zero, subnormal | unchanged |
    | coordinates up to the largest double | scaled, no overflow |
    | NaN or an infinity | NonFiniteError: the caller sends the zero vector |

    Args:
        x: real vector [dim], any integer or float dtype; computed in float64.
        clip_norm: in [1e-100, 1e100].

    Returns:
        float64[dim], a new array.

    Raises:
        NonFiniteError: x holds NaN or an infinity.
        ParameterError: x is no real vector, or clip_norm is out of range.
    """
    clip_norm = _validate.real("clip_norm", clip_norm, _SMALLEST_NORM, _LARGEST_NORM)
    values = _validate.vector("x", x)
    largest = float(np.abs(values).max())  # NaN propagates through max
    if not math.isfinite(largest):
        raise NonFiniteError("x")
    if largest > _LARGEST_NORM:  # far outside any ball: bring it where squares are finite
        values = values * (1.0 / largest)
        factor_norm = math.sqrt(fold_sum(values * values)) * (1.0 + _SLACK)
        return values * (clip_norm / factor_norm * (1.0 - _SLACK))
    norm = math.sqrt(fold_sum(values * values)) * (1.0 + _SLACK)
    if norm <= clip_norm:
        return values
    return values * (clip_norm / norm * (1.0 - _SLACK))


def clip_linf(x: ArrayLike, bound: float) -> NDArray[np.float64]:
    """`x` with every coordinate brought into [-bound, bound]; exact; float64[dim], a new array.

    Raises:
        NonFiniteError: x holds NaN or an infinity.
        ParameterError: x is no real vector, or bound is not in (0, 1e100].
    """
    bound = _validate.positive("bound", bound, _LARGEST_NORM)
    values = _validate.vector("x", x)
    if not np.isfinite(values).all():
        raise NonFiniteError("x")
    return np.clip(values, -bound, bound)


def clip_layers(
    x: ArrayLike, lengths: Sequence[int], clip_norms: Sequence[float]
) -> NDArray[np.float64]:
    """`clip_l2` on consecutive groups of a flat vector, each with its own norm.

    The norm of the whole is at most `joint_norm(clip_norms)`, which is what noise is sized for.

    Args:
        x: real vector [dim].
        lengths: of the groups, each >= 1, in order; they sum to dim.
        clip_norms: one per group, each in [1e-100, 1e100].

    Returns:
        float64[dim], a new array.

    Raises:
        NonFiniteError: x holds NaN or an infinity.
        ParameterError: lengths or norms that do not fit x or each other.
    """
    sizes = [_validate.integer("lengths", length, 1) for length in lengths]
    if not sizes or len(sizes) != len(clip_norms):
        takes = f"one norm for each of {len(sizes)} groups, at least one"
        raise ParameterError("clip_norms", len(clip_norms), takes)
    values = _validate.vector("x", x, sum(sizes))
    ends = np.cumsum(sizes)
    parts = [
        clip_l2(values[end - size : end], norm)
        for end, size, norm in zip(ends, sizes, clip_norms, strict=True)
    ]
    return np.concatenate(parts)


def joint_norm(clip_norms: Sequence[float]) -> float:
    """l2 norm of a vector whose groups have these norms, rounded up."""
    norms = [_validate.real("clip_norms", c, _SMALLEST_NORM, _LARGEST_NORM) for c in clip_norms]
    return math.hypot(*norms) * (1.0 + 2.0**-50)


@dataclass(frozen=True, eq=False)
class ClippedSum:
    """Sum of the clipped rows of a batch.

    Attributes:
        total: [dim], in the batch's dtype.
        norms: float64[rows], before clipping, rounded up by a relative 2^-17 (float64: 2^-36).
    """

    total: NDArray[np.floating]
    norms: NDArray[np.float64]


def clip_and_sum(rows: NDArray[np.floating], clip_norm: float) -> ClippedSum:
    """Clip each row to `clip_norm` in l2 and add them up, in two passes over memory.

    Each row enters with a factor f, rounded down, such that |f row| <= clip_norm in exact
    arithmetic. The sum itself is a float sum: its rounding is that of the dtype, so a private
    release of it goes through a grid (`Discretizer`, `GridMechanism`), never as it is.

    Args:
        rows: float32 or float64 [rows, dim].
        clip_norm: in [1e-100, 1e100]; for float32 at least 1e-10.

    Raises:
        NonFiniteError: NaN, an infinity, or a row whose squared norm exceeds double precision.
        ParameterError: no such array, or clip_norm out of range.
    """
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.char not in "fd":
        got = getattr(rows, "dtype", type(rows).__name__)
        raise ParameterError("rows", got, "a float32 or float64 array [rows, dim]")
    if not rows.size:
        raise ParameterError("rows", f"shape {rows.shape}", "at least one row and column")
    least = 1e-10 if rows.dtype.char == "f" else _SMALLEST_NORM
    clip_norm = _validate.real("clip_norm", clip_norm, least, _LARGEST_NORM)
    with np.errstate(over="ignore", invalid="ignore"):
        squared = _squared_norms(rows)
    if not np.isfinite(squared).all():
        raise NonFiniteError("rows")
    norms = np.sqrt(squared) * (1.0 + (2.0**-17 if rows.dtype.char == "f" else 2.0**-36))
    exact = np.where(norms <= clip_norm, 1.0, clip_norm / np.maximum(norms, clip_norm))
    exact *= np.where(exact < 1.0, 1.0 - _SLACK, 1.0)
    factors = exact.astype(rows.dtype)
    factors = np.where(factors > exact, np.nextafter(factors, np.zeros_like(factors)), factors)
    total = np.empty(rows.shape[1], dtype=rows.dtype)
    for start in range(0, rows.shape[1], _BLOCK):
        np.matmul(factors, rows[:, start : start + _BLOCK], out=total[start : start + _BLOCK])
    return ClippedSum(total, norms)


def _squared_norms(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Squared norms, relative error below 2^-17 (float32) or 2^-36; float64[rows].

    float32 squares are added 64 deep at first, along whole vectors, and then in double
    precision; rows whose squares leave float32 are done again.
    """
    if rows.dtype.char == "d":
        return np.array([_wide_squared_norm(row) for row in rows])
    result = np.zeros(rows.shape[0])
    buffer = np.empty(_BLOCK, dtype=np.float32)
    for start in range(0, rows.shape[1], _BLOCK):
        width = min(_BLOCK, rows.shape[1] - start)
        even = width - width % _DEPTH
        lines = buffer[:even].reshape(_DEPTH, -1)
        for i in range(rows.shape[0]):
            part = rows[i, start : start + width]
            np.multiply(part, part, out=buffer[:width])
            result[i] += np.add.reduce(lines, axis=0).sum(dtype=np.float64)
            result[i] += buffer[even:width].sum(dtype=np.float64)
    for index in np.flatnonzero(~np.isfinite(result)).tolist():
        result[index] = _wide_squared_norm(rows[index])
    return result


def _wide_squared_norm(row: NDArray[np.floating]) -> float:
    """Squared norm of one row in double precision, a block at a time."""
    total = 0.0
    for start in range(0, row.size, _BLOCK):
        wide = row[start : start + _BLOCK].astype(np.float64)
        total += float(np.dot(wide, wide))
    return total


@dataclass(frozen=True)
class ClipQuantile:
    """A clip norm that follows a quantile of the clients' norms (Andrew et al. 2021).

    Each client sends +1 if its vector is within the clip norm and -1 if not, as a segment of its
    own with its own noise (`dp.bit_mechanism`); a client without data sends 0. The norm then
    moves geometrically. Pure functions: the clip norm is the caller's state. Only the scale of
    the integer grid follows it (`scale=` of `encode` and `decode`), so integer bounds, noise,
    modulus and events stay those fixed in advance.

    Attributes:
        target_quantile: gamma of the paper, in (0, 1); the fraction of clients within the norm.
        clip_learning_rate: eta_C there, in (0, 10].
        num_clients: public denominator; clients that are missing count as one half.
        smallest, largest: the clip norm stays between them.
    """

    target_quantile: float
    clip_learning_rate: float
    num_clients: int
    smallest: float
    largest: float

    def __post_init__(self) -> None:
        _validate.open_unit("target_quantile", self.target_quantile)
        _validate.positive("clip_learning_rate", self.clip_learning_rate, 10.0)
        _validate.integer("num_clients", self.num_clients, 1)
        _validate.real("smallest", self.smallest, _SMALLEST_NORM, _LARGEST_NORM)
        _validate.real("largest", self.largest, self.smallest, _LARGEST_NORM)

    def bit(self, x: ArrayLike, clip_norm: float) -> int:
        """+1 if the l2 norm of `x` is at most `clip_norm` (up to rounding), else -1.

        Raises:
            NonFiniteError: x holds NaN or an infinity; the client sends 0.
            ParameterError: x is no real vector, or clip_norm is out of range.
        """
        values = _validate.vector("x", x)
        clipped = clip_l2(values, self._norm(clip_norm))
        return 1 if np.array_equal(clipped, values) else -1

    def update(self, clip_norm: float, noised_sum: int) -> float:
        """The next clip norm from the noised sum of the bits: post-processing.

        C exp(-eta (b - gamma)) with b = (noised_sum / num_clients + 1) / 2 brought into [0, 1].
        """
        clip_norm = self._norm(clip_norm)
        total = _validate.integer("noised_sum", noised_sum, -(2**62), 2**62)
        within = min(1.0, max(0.0, (total / self.num_clients + 1.0) / 2.0))
        moved = clip_norm * math.exp(-self.clip_learning_rate * (within - self.target_quantile))
        return min(self.largest, max(self.smallest, moved))

    def _norm(self, clip_norm: float) -> float:
        return _validate.real("clip_norm", clip_norm, self.smallest, self.largest)


def joint_multiplier(noise_multiplier: float, bit_multiplier: float) -> float:
    """Noise multiplier z' of the vector so that vector and bit together cost as much as z alone.

    z' = (z^-2 - z_b^-2)^(-1/2) for Gaussian noise (Andrew et al. 2021, Theorem 1, with bits
    +1, 0 and -1, so that one client moves their sum by at most 1 from 0: their 2 sigma_b is
    z_b here). A sizing rule; the guarantee is that of the composed events.

    Args:
        noise_multiplier: z, target for both together.
        bit_multiplier: z_b, standard deviation of the noise on the sum of bits.

    Raises:
        ParameterError: not positive, or z_b <= z: the bit alone spends everything.
    """
    z = _validate.positive("noise_multiplier", noise_multiplier, 1e9)
    z_bit = _validate.positive("bit_multiplier", bit_multiplier, 1e9)
    if z_bit <= z:
        raise ParameterError("bit_multiplier", bit_multiplier, f"more than noise_multiplier={z:g}")
    return z / math.sqrt((1.0 - z / z_bit) * (1.0 + z / z_bit))
