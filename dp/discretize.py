"""From a float vector to a bounded integer vector and back, and into Z_{2^b} and back.

clip > rotate > scale > round conditionally (one client), wrap > sum > unwrap > decode (server).
The bounds and why they hold: docs/privacy.md, "Rotation", "Conditional rounding", "Modulus".
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import _validate
from dp._hadamard import hadamard
from dp.clipping import clip_l2
from dp.errors import ModulusError, ParameterError, RoundingError
from dp.events import l1_bound
from dp.random import RandomBytes, random_halfwords

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_MODULUS_BITS = 62
_MAX_L2_SQ = 2.0**52  # sums of squares are exact, in int64 and in float64
_MIN_ROUNDING_BIAS = 1e-100
_MAX_ROUNDING_BIAS = 0.99
_COIN = 2.0**32  # rounding coins have 32 bits: the bias per coordinate is below 2^-32
_BLOCK = 1 << 15  # coordinates rounded at a time
_SIGN_TAG = b"dp/rotation/signs/1"


@dataclass(frozen=True)
class Rotation:
    """A public orthonormal map that spreads a vector over its coordinates; length unchanged.

    With p the largest power of two <= dim: signs and a Hadamard block on the first p
    coordinates, then signs and a Hadamard block on the last p. The signs are public; privacy
    rests on orthonormality alone.

    Attributes:
        dim: length of the vectors.
        seed: what the signs expand from (SHAKE-256); public.
    """

    dim: int
    seed: bytes
    _signs: FloatArray = field(repr=False, compare=False)  # [2, p], each sign / sqrt(p)

    @classmethod
    def from_seed(cls, dim: int, seed: bytes) -> Rotation:
        """The rotation of `dim` coordinates that every party derives from a public `seed`.

        Raises:
            ParameterError: dim < 1, or seed is no bytes.
        """
        dim = _validate.integer("dim", dim, 1)
        if not isinstance(seed, bytes):
            raise ParameterError("seed", type(seed).__name__, "bytes")
        block = 1 << (dim.bit_length() - 1)
        name = _SIGN_TAG + dim.to_bytes(8, "little") + seed
        raw = hashlib.shake_256(name).digest((2 * block + 7) // 8)
        bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little")
        signs: FloatArray = 1.0 - 2.0 * bits[: 2 * block].reshape(2, block).astype(np.float64)
        signs /= math.sqrt(block)
        signs.setflags(write=False)
        return cls(dim, seed, signs)

    def apply(self, x: FloatArray) -> FloatArray:
        """Rotate float64[dim]; a new array, the same bits on every machine."""
        y = _validate.vector("x", x, self.dim)
        scratch = np.empty(self._signs.shape[1])
        for part, signs in zip(self._blocks(y), self._signs, strict=True):
            part *= signs
            hadamard(part, scratch)
        return y

    def invert(self, y: FloatArray) -> FloatArray:
        """The inverse of `apply`, up to rounding."""
        x = _validate.vector("y", y, self.dim)
        scratch = np.empty(self._signs.shape[1])
        for part, signs in zip(self._blocks(x)[::-1], self._signs[::-1], strict=True):
            hadamard(part, scratch)
            part *= signs
        return x

    def _blocks(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Views of the first and the last p coordinates, which overlap."""
        block = self._signs.shape[1]
        return x[:block], x[self.dim - block :]


@dataclass(frozen=True)
class Discretizer:
    """How one client's vector becomes a bounded integer vector.

    Guarantees, for every input and every outcome of the coins, with z = encode(x):
        sum z_j^2 <= l2_sq, sum |z_j| <= l1, max |z_j| <= linf, all exact integers;
        encode(0) = 0;
        the number of tries is neither returned nor stored.

    Attributes:
        dim: length of the vectors.
        clip_norm: l2 norm to which inputs are clipped (again, in float64).
        granularity: what one integer step is worth; gamma of Kairouz, Liu, Steinke 2021.
        rounding_bias: beta there, in [1e-100, 0.99]; smaller is less biased and a wider bound.
        max_tries: roundings tried before rounding toward zero.
    """

    dim: int
    clip_norm: float
    granularity: float
    rounding_bias: float
    max_tries: int

    def __post_init__(self) -> None:
        checked = {
            "dim": _validate.integer("dim", self.dim, 1, 2**50),
            "clip_norm": _validate.real("clip_norm", self.clip_norm, 1e-100, 1e100),
            "granularity": _validate.real("granularity", self.granularity, 1e-100, 1e100),
            "rounding_bias": _validate.real(
                "rounding_bias", self.rounding_bias, _MIN_ROUNDING_BIAS, _MAX_ROUNDING_BIAS
            ),
            "max_tries": _validate.integer("max_tries", self.max_tries, 1),
        }
        for name, value in checked.items():  # in working types: numpy's integers wrap
            object.__setattr__(self, name, value)
        largest = (self.clip_norm / self.granularity + math.sqrt(self.dim)) ** 2
        if largest >= _MAX_L2_SQ:
            raise ParameterError(
                "granularity",
                self.granularity,
                "a granularity with (clip_norm / granularity + sqrt(dim))^2 < 2^52",
            )

    @functools.cached_property
    def l2_sq(self) -> int:
        """Bound on the squared l2 norm of an encoded vector."""
        c = self.clip_norm / self.granularity
        return math.floor(rounded_l2_sq(c, self.dim, self.rounding_bias))

    @property
    def reach(self) -> float:
        """Bound on the l2 norm of an encoded vector, which is what it moves a sum by."""
        return math.sqrt(self.l2_sq)

    @property
    def linf(self) -> int:
        """Bound on every coordinate of an encoded vector."""
        return math.isqrt(self.l2_sq)

    @property
    def l1(self) -> int:
        """Bound on the l1 norm of an encoded vector."""
        return l1_bound(self.dim, self.l2_sq)

    def encode(
        self, x: ArrayLike, rotation: Rotation, rng: RandomBytes, *, scale: float = 1.0
    ) -> IntArray:
        """Clip, rotate, scale and round; docs/privacy.md, "Conditional rounding".

        Args:
            x: real vector [dim], any dtype.
            rotation: of the same dim.
            rng: rounding coins, 4 dim bytes per try; they need not be secret.
            scale: x is clipped to scale * clip_norm and encoded as x / scale. Nothing else
                changes, so a clip norm that moves keeps every integer bound.

        Returns:
            int64[dim] within the bounds.

        Raises:
            NonFiniteError: x holds NaN or an infinity; send the zero vector instead.
            ParameterError: wrong length or kind.
        """
        self._check_rotation(rotation)
        if np.shape(x) != (self.dim,):
            raise ParameterError("x", f"shape {np.shape(x)}", f"a real vector of length {self.dim}")
        scaled = rotation.apply(self._clipped(x, scale))
        scaled /= self.granularity
        for _ in range(self.max_tries):
            rounded = self._rounded(scaled, rng)
            if self._fits(rounded):
                return rounded
        rounded = np.trunc(scaled).astype(np.int64)
        if not self._fits(rounded):
            raise RoundingError("rounding toward zero exceeded the norm bound")
        return rounded

    def _clipped(self, x: ArrayLike, scale: float) -> FloatArray:
        """Returns x / scale within clip_norm; clipped first, so that dividing cannot overflow."""
        if scale == 1.0:
            return clip_l2(x, self.clip_norm)
        inner = clip_l2(x, _validate.scale(scale) * self.clip_norm)
        inner /= scale
        return clip_l2(inner, self.clip_norm)

    def _rounded(self, scaled: FloatArray, rng: RandomBytes) -> IntArray:
        """One stochastic rounding of every coordinate, in blocks that stay in the cache."""
        result = np.empty(self.dim, dtype=np.int64)
        for start in range(0, self.dim, _BLOCK):
            part = scaled[start : start + _BLOCK]
            floor = np.floor(part)
            floor += random_halfwords(rng, part.size) < (part - floor) * _COIN
            result[start : start + _BLOCK] = floor
        return result

    def _fits(self, rounded: IntArray) -> bool:
        """Whether integers keep the norm bound: exact, as their squares sum below 2^53."""
        return int(np.dot(rounded, rounded)) <= self.l2_sq

    def decode(
        self, total: NDArray[np.int64], rotation: Rotation, *, scale: float = 1.0
    ) -> FloatArray:
        """Undo scale and rotation of a sum of encoded vectors (and noise).

        Divides by nothing but the scale: means are the caller's matter.

        Args:
            total: int64[dim], after `unwrap`.
            rotation: the one that the vectors were encoded with.
            scale: the one that they were encoded with.

        Returns:
            float64[dim].

        Raises:
            ParameterError: wrong length or kind.
        """
        self._check_rotation(rotation)
        _validate.integer_vector("total", total, self.dim)
        step = self.granularity * _validate.scale(scale)
        return rotation.invert(total.astype(np.float64) * step)

    def _check_rotation(self, rotation: Rotation) -> None:
        if rotation.dim != self.dim:
            raise ParameterError("rotation.dim", rotation.dim, f"dim={self.dim}")


class Discretized:
    """What mechanisms have in common whose clients send encoded vectors, and no noise with them.

    Attributes:
        discretizer: encodes one client's vector; its integer bounds are the event's.
    """

    discretizer: Discretizer

    @property
    def granularity(self) -> float:
        """What 1 in a sum of what is sent stands for, in the unit of `clip_norm`."""
        return self.discretizer.granularity

    @property
    def reach(self) -> float:
        """The l2 norm of what one client moves the sum of a round by at most, grid units."""
        return self.discretizer.reach

    def encode(
        self, x: ArrayLike, rotation: Rotation, rng: RandomBytes, *, scale: float = 1.0
    ) -> IntArray:
        """`discretizer.encode(x, scale=scale)`, int64[dim]; no noise leaves the client."""
        return self.discretizer.encode(x, rotation, rng, scale=scale)


def rounded_l2_sq(c: float, dim: int, rounding_bias: float) -> float:
    """Squared norm bound after rounding a vector of norm c; grid units squared.

    Kairouz, Liu, Steinke 2021, Proposition 22: a rounding stays below
    c^2 + d/4 + sqrt(2 ln(1/beta)) (c + sqrt(d)/2) with probability at least 1 - beta, and
    always below (c + sqrt d)^2.
    """
    spread = math.sqrt(2.0 * math.log(1.0 / rounding_bias))
    likely = c * c + dim / 4.0 + spread * (c + math.sqrt(dim) / 2.0)
    return min(likely, (c + math.sqrt(dim)) ** 2)


def rotated_linf(norm: float, dim: int, probability: float) -> float:
    """Bound on every coordinate of a rotated vector of this l2 norm, except with `probability`.

    The signs are uniform and independent of the vector. Each block makes a coordinate a signed
    sum of squared weights at most norm^2 / p, p the block length; Hoeffding's inequality and a
    union bound over dim coordinates and two signs; docs/privacy.md, "Modulus".
    """
    block = 1 << (dim.bit_length() - 1)
    tail = math.log(2.0 * dim) - math.log(probability)
    return min(norm, norm * math.sqrt(2.0 * tail / block)) * (1.0 + 2.0**-40)


def default_granularity(
    dim: int, clip_norm: float, *, rounding_bias: float, inflation: float
) -> float:
    """Coarsest granularity whose rounding inflates the l2 bound by at most `inflation`.

    Solves c^2 + d/4 + s (c + sqrt(d)/2) = (1 + inflation)^2 c^2 for c = clip_norm / granularity,
    s = sqrt(2 ln(1/rounding_bias)). It does not depend on the noise, so that epsilon is monotone
    in the noise during calibration.

    Args:
        dim: length of the vectors.
        clip_norm: l2 norm of one client.
        rounding_bias: in [1e-100, 0.99].
        inflation: fraction in [1e-9, 1], e.g. 0.01 for one per cent.

    Returns:
        The granularity, in the units of clip_norm.

    Raises:
        ParameterError: an argument out of range.
    """
    dim = _validate.integer("dim", dim, 1)
    clip_norm = _validate.real("clip_norm", clip_norm, 1e-100, 1e100)
    bias = _validate.real("rounding_bias", rounding_bias, _MIN_ROUNDING_BIAS, _MAX_ROUNDING_BIAS)
    inflation = _validate.real("inflation", inflation, 1e-9, 1.0)
    spread = math.sqrt(2.0 * math.log(1.0 / bias))
    excess = (1.0 + inflation) ** 2 - 1.0
    constant = dim / 4.0 + spread * math.sqrt(dim) / 2.0
    c = (spread + math.sqrt(spread**2 + 4.0 * excess * constant)) / (2.0 * excess)
    return clip_norm / (c * (1.0 + 2.0**-40))  # rounding must not push past the fraction


def wrap(x: NDArray[np.int64], modulus_bits: int) -> NDArray[np.uint64]:
    """Residues of x modulo 2^modulus_bits, as uint64 in [0, 2^modulus_bits).

    Raises:
        ParameterError: x is no int64 array, or modulus_bits is not in [1, 62].
    """
    bits = _validate.integer("modulus_bits", modulus_bits, 1, MAX_MODULUS_BITS)
    _validate.integer_vector("x", x, None)
    if x.dtype != np.int64:
        raise ParameterError("x", f"dtype {x.dtype}", "int64")
    return x.astype(np.int64).view(np.uint64) & np.uint64((1 << bits) - 1)


def unwrap(u: NDArray[np.uint64], modulus_bits: int) -> IntArray:
    """The representative of u in [-2^(modulus_bits - 1), 2^(modulus_bits - 1)), int64.

    Raises:
        ParameterError: u is no uint64 array, holds a value >= 2^modulus_bits, or
            modulus_bits is not in [1, 62].
    """
    bits = _validate.integer("modulus_bits", modulus_bits, 1, MAX_MODULUS_BITS)
    _validate.integer_vector("u", u, None)
    if u.dtype != np.uint64:
        raise ParameterError("u", f"dtype {u.dtype}", "uint64")
    if u.size and int(u.max()) >> bits:
        raise ParameterError("u", int(u.max()), f"values below 2^{bits}")
    spare = np.int64(64 - bits)
    # Shift the top bit of the residue into the sign and back: arithmetic, no branch.
    return (u << spare.astype(np.uint64)).view(np.int64) >> spare


def choose_modulus_bits(
    num_clients: int, linf: int, noise_tail: int, modulus_bits: int | None = None
) -> int:
    """Smallest b with num_clients linf + noise_tail <= 2^(b-1) - 1: nothing wraps.

    Args:
        num_clients: vectors summed at most.
        linf: bound on a coordinate of one vector.
        noise_tail: bound on a coordinate of all noise together.
        modulus_bits: use this many bits instead, if they suffice.

    Raises:
        ModulusError: more than 62 bits are needed, or more than `modulus_bits`.
        ParameterError: an argument out of range.
    """
    num_clients = _validate.integer("num_clients", num_clients, 1)
    linf = _validate.integer("linf", linf, 0)
    noise_tail = _validate.integer("noise_tail", noise_tail, 0)
    needed = max(1, (num_clients * linf + noise_tail).bit_length() + 1)
    if needed > MAX_MODULUS_BITS:
        takes = f"at most {MAX_MODULUS_BITS} bits; take a coarser granularity"
        raise ModulusError(needed, takes, needed)
    if modulus_bits is None:
        return needed
    given = _validate.integer("modulus_bits", modulus_bits, 1, MAX_MODULUS_BITS)
    if given < needed:
        raise ModulusError(given, f"at least {needed} bits for the worst case", needed)
    return given
