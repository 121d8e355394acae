"""t-of-n sharing of 32-byte secrets over p = 2^31 - 1, vectorised.

Shamir, "How to share a secret", CACM 1979. A secret is nine 30-bit limbs, least significant
first, each shared by its own polynomial of degree t - 1; a share is the nine values at x.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secureagg.prg import RandomBytes
from secureagg.primitives import KEY_BYTES

PRIME = (1 << 31) - 1
LIMB_BITS = 30
LIMBS = 9
SHARE_BYTES = 4 * LIMBS
WINDOWS = 64  # runs of holders that `candidates` tries

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


def candidates(xs: NDArray[Any], shares: NDArray[Any], threshold: int) -> Iterator[bytes]:
    """What a secret can be when some of its shares are wrong, for a caller who can tell which.

    The secret is among them if, of m shares, at most (m - t) / 2 are wrong; or at most 2 and at
    most m - t are; or the wrong ones lie in a cyclic run of at most m - t + 1 - ceil(m / 64).

    Args:
        xs: [m] distinct evaluation points.
        shares: [m, 9] limb shares below p.
        threshold: t, at most m.

    Yields:
        Secrets of 32 bytes: 1 decoded, 64 from runs of holders and, where m - t is 3 or less, up to
        (t + 2)(t + 1) / 2 without one share or two. Work grows as m^2 but for the runs' 64 t^2.
    """
    points, values = np.asarray(xs, dtype=np.uint64), np.asarray(shares, dtype=np.uint64)
    surplus = len(points) - threshold
    if surplus == 0:
        return
    yield from _present([_decode(points, values, threshold)])
    starts = np.arange(0, len(points), -(-len(points) // WINDOWS))
    runs = (starts[:, None] + np.arange(threshold)) % len(points)
    yield from _present(combine(points[runs], values[runs]))
    if surplus <= 3:
        used = threshold + min(2, surplus)
        yield from _present(_without_few(points[:used], values[:used], used - threshold))


def _present(secrets: Iterable[bytes | None]) -> Iterator[bytes]:
    return (secret for secret in secrets if secret is not None)


def _decode(xs: Field, shares: Field, threshold: int) -> bytes | None:
    """The secret if at most (m - t) / 2 values of each limb are wrong.

    Every limb is a word of a generalised Reed-Solomon code. Its syndromes, sum_i e_i x_i^j /
    prod_{j != i} (x_j - x_i) over the errors e_i, obey one linear recurrence, whose roots are the
    x_i in error: Massey, "Shift-register synthesis and BCH decoding", IEEE Trans. IT 1969.
    """
    terms = _times(_inverse_differences(xs[None, :])[0][:, None], shares)  # [m, 9]
    syndromes = np.zeros((len(xs) - threshold, LIMBS), dtype=np.uint64)
    for row in syndromes:
        row[:] = _reduced(terms.sum(axis=0))
        terms = _times(terms, xs[:, None])
    kept = np.empty((LIMBS, threshold), dtype=np.int64)
    for limb in range(LIMBS):
        locator = _recurrence(syndromes[:, limb])
        value = np.zeros_like(xs)
        for coefficient in locator:  # Horner: z^L C(1/z) vanishes at the points in error
            value = _reduced(value * xs + coefficient)
        right = np.flatnonzero(value)
        if len(xs) - len(right) != len(locator) - 1 or len(right) < threshold:
            return None
        kept[limb] = right[:threshold]
    terms = _times(_lagrange_at_zero(xs[kept]), shares[kept, np.arange(LIMBS)[:, None]])
    return _from_limbs(_reduced(terms.sum(axis=1))[None, :])[0]


def _recurrence(sequence: Field) -> Field:
    """[L + 1] C with C_0 = 1 and sum_i C_i s_(n - i) = 0, the shortest (Berlekamp, Massey)."""
    size = len(sequence) + 1
    current, previous = np.zeros((2, size), dtype=np.uint64)
    current[0] = previous[0] = 1
    length, shift, last = 0, 1, 1
    for n in range(len(sequence)):
        window = sequence[n - length : n + 1][::-1]
        gap = int(_times(current[: length + 1], window).sum()) % PRIME
        if gap == 0:
            shift += 1
            continue
        factor = PRIME - gap * pow(last, -1, PRIME) % PRIME
        changed = current.copy()
        changed[shift:] += _reduced(previous[: size - shift] * np.uint64(factor))
        if 2 * length <= n:
            length, previous, last, shift = n + 1 - length, current, gap, 0
        current, shift = _reduced(changed), shift + 1
    return current[: length + 1]


def _without_few(xs: Field, shares: Field, few: int) -> Iterator[bytes | None]:
    """Secrets from all shares but any one, or any two, of threshold + few.

    Without i and j the weight of share l at zero is that with all of them times (1 - x_l / x_i)
    (1 - x_l / x_j): so three sums, of y_l x_l^r times that weight, give every pair at once.
    """
    terms = _times(_lagrange_at_zero(xs[None, :])[0][:, None], shares)
    sums = []  # r = 0, 1, 2, each [9]
    for _ in range(few + 1):
        sums.append(_reduced(terms.sum(axis=0)))
        terms = _times(terms, xs[:, None])
    inverse = _inverse(xs)[:, None]  # [m, 1]
    if few == 1:
        yield from _from_limbs(_reduced(sums[0] + _P - _times(inverse, sums[1])))
        return
    for i in range(len(xs) - 1):
        one, other = inverse[i], inverse[i + 1 :]
        left = _times(_reduced(other + one), sums[1])
        yield from _from_limbs(_reduced(sums[0] + _P - left + _times(_times(other, one), sums[2])))


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
