"""t-of-n sharing of 32-byte secrets over p = 2^31 - 1, vectorised.

Shamir, "How to share a secret", CACM 1979. A secret is nine 30-bit limbs, least significant
first, each shared by its own polynomial of degree t - 1; a share is the nine values at x.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secureagg.prg import RandomBytes
from secureagg.primitives import KEY_BYTES

PRIME = (1 << 31) - 1
LIMB_BITS = 30
LIMBS = 9
SHARE_BYTES = 4 * LIMBS

Field = NDArray[np.uint64]

_P = np.uint64(PRIME)
_BITS = np.uint64(31)


def split(
    secrets: tuple[bytes, ...], xs: NDArray[Any], threshold: int, rand: RandomBytes
) -> NDArray[np.uint32]:
    """Shares secrets so that any `threshold` shares rebuild them and fewer say nothing.

    Args:
        secrets: S secrets of 32 bytes.
        xs: [k] distinct evaluation points, 1..2^30.
        threshold: t, 1..k.
        rand: secret random bytes.

    Returns:
        [S, k, 9] limb shares below p.
    """
    limbs = _to_limbs(secrets).reshape(-1)
    coefficients = _draw(rand, threshold - 1, len(limbs))
    points = np.asarray(xs, dtype=np.uint64)[None, :]
    value = np.zeros((len(limbs), points.shape[1]), dtype=np.uint64)
    for row in (*coefficients, limbs):  # Horner, highest coefficient first
        # points <= 2^30 keeps value <= 2^32: 2^31 + 2^32 2^30 / 2^31
        value *= points
        value += row[:, None]
        value = (value & _P) + (value >> _BITS)
    shares = _canonical(value).reshape(len(secrets), LIMBS, -1)
    return shares.transpose(0, 2, 1).astype(np.uint32)


def combine(xs: NDArray[Any], shares: NDArray[Any]) -> tuple[bytes | None, ...]:
    """Rebuilds one secret per row from exactly as many shares as its threshold.

    Args:
        xs: [G, t] evaluation points, distinct within a row.
        shares: [G, t, 9] limb shares below p.

    Returns:
        G secrets of 32 bytes; None where the shares do not belong to any 32-byte secret.
    """
    rows, which = np.unique(np.asarray(xs, dtype=np.uint64), axis=0, return_inverse=True)
    weights = _lagrange_at_zero(rows)[which.reshape(-1)]
    terms = _times(weights[:, :, None], np.asarray(shares, dtype=np.uint64))
    return _from_limbs(_reduced(terms.sum(axis=1)))


def consistent(
    xs: NDArray[Any], shares: NDArray[Any], threshold: int, rand: RandomBytes
) -> NDArray[np.bool_]:
    """Tells which rows of more shares than the threshold lie on one polynomial per limb.

    A row that does not is taken for one that does with probability 1/p. The test is of the dual
    code (Cascudo, David, "SCRAPE", ACNS 2017, Lemma 1): sum_i g(x_i) f(x_i) / prod_{j != i}
    (x_j - x_i) vanishes for every g of degree below m - t exactly if deg f < t; here for one
    random g, which all rows share.

    Args:
        xs: [G, m] evaluation points, distinct within a row.
        shares: [G, m, 9] limb shares below p.
        threshold: t, below m.
        rand: bytes that the dealer could not foresee.
    """
    rows, which = np.unique(np.asarray(xs, dtype=np.uint64), axis=0, return_inverse=True)
    points, at = np.unique(rows, return_inverse=True)
    value = np.zeros_like(points)
    for coefficient in _draw(rand, rows.shape[1] - threshold, 1):  # Horner
        value = _reduced(value * points + coefficient)
    inverses = _inverse_differences(rows)
    weights = _times(value[at.reshape(rows.shape)], inverses)[which.reshape(-1)]
    terms = _times(weights[:, :, None], np.asarray(shares, dtype=np.uint64))
    clean: NDArray[np.bool_] = (_reduced(terms.sum(axis=1)) == 0).all(axis=1)
    return clean


def _lagrange_at_zero(xs: Field) -> Field:
    """[G, t] weights w, f(0) = sum_i w_i f(x_i): prod_j x_j / (x_i prod_{j != i} (x_j - x_i))."""
    numerator = np.ones((len(xs), 1), dtype=np.uint64)
    for j in range(xs.shape[1]):
        numerator = _times(numerator, xs[:, j : j + 1])
    return _times(_times(numerator, _inverse(xs)), _inverse_differences(xs))


def _inverse_differences(xs: Field) -> Field:
    """[G, m] 1 / prod_{j != i} (x_j - x_i).

    Rows that lack a few of the points that occur at all, as on the complete graph, take the
    product over all points, once, without the factors of those they lack: m^2 + G m steps for
    each point lacking in place of G m^2.
    """
    points, at = np.unique(xs, return_inverse=True)
    at = at.reshape(xs.shape)
    lacking = len(points) - xs.shape[1]
    if lacking >= xs.shape[1]:
        return _inverse(_differences(xs))
    absent = np.ones((len(xs), len(points)), dtype=np.bool_)
    absent[np.arange(len(xs))[:, None], at] = False
    others = points[np.nonzero(absent)[1]].reshape(len(xs), lacking)
    inverse: Field = _inverse(_differences(points[None, :]))[0][at]
    for j in range(lacking):
        inverse = _times(inverse, others[:, j : j + 1] + _P - xs)
    return inverse


def _differences(xs: Field) -> Field:
    """[G, m] prod_{j != i} (x_j - x_i), with 1 in place of the zero factor at j = i."""
    product = np.ones_like(xs)
    for j in range(xs.shape[1]):
        factor = xs[:, j : j + 1] + _P - xs
        factor[:, j] = 1
        product = _times(product, factor)
    return product


def _inverse(values: Field) -> Field:
    """Fermat: v^(p - 2)."""
    result = np.ones_like(values)
    for bit in f"{PRIME - 2:b}":
        result = _times(result, result)
        if bit == "1":
            result = _times(result, values)
    return result


def _reduced(values: Field) -> Field:
    """Any uint64 mod p: numpy divides by a constant faster than it takes remainders or shifts."""
    return values - values // _P * _P


def _times(a: Field, b: Field) -> Field:
    """Product mod p; operands whose product stays below 2^64."""
    return _reduced(a * b)


def _canonical(values: Field) -> Field:
    """Values of at most 2^32 to 0..p - 1."""
    values = (values & _P) + (values >> _BITS)
    return np.where(values >= _P, values - _P, values)


def _draw(rand: RandomBytes, rows: int, width: int) -> Field:
    """[rows, width] uniform field elements: 31-bit words, the one value p rejected."""
    count = rows * width
    words = np.frombuffer(rand(4 * count), dtype="<u4").astype(np.uint64) & _P
    while (redo := np.flatnonzero(words == _P)).size:
        words[redo] = np.frombuffer(rand(4 * redo.size), dtype="<u4").astype(np.uint64) & _P
    return words.reshape(rows, width)


def _to_limbs(secrets: tuple[bytes, ...]) -> Field:
    """[S, 9] limbs."""
    numbers = [int.from_bytes(secret, "little") for secret in secrets]
    low = (1 << LIMB_BITS) - 1
    limbs = [[number >> (LIMB_BITS * i) & low for i in range(LIMBS)] for number in numbers]
    return np.array(limbs, dtype=np.uint64).reshape(len(secrets), LIMBS)


def _from_limbs(limbs: Field) -> tuple[bytes | None, ...]:
    """G secrets; None where a limb passes 30 bits or the whole passes 32 bytes."""
    secrets: list[bytes | None] = []
    for row in limbs.tolist():
        number = sum(limb << (LIMB_BITS * i) for i, limb in enumerate(row))
        fits = max(row) >> LIMB_BITS == 0 and number >> (8 * KEY_BYTES) == 0
        secrets.append(number.to_bytes(KEY_BYTES, "little") if fits else None)
    return tuple(secrets)
