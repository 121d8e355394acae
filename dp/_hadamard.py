"""Fast Walsh-Hadamard transform, elementwise: the same bits on every machine.

Only additions and subtractions of whole arrays, in an order fixed here: no BLAS, no reduction,
hence no dependence on threads, vector width or library version.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def hadamard(vector: FloatArray, scratch: FloatArray) -> None:
    """H v in place, with the unnormalised Hadamard matrix of natural (Sylvester) order.

    The vector is laid out as a matrix and transformed along one axis, then along the other, so
    that all butterflies run over long contiguous rows. Each of the log2 p stages adds at most
    2^-53 of relative error to the norm.

    Args:
        vector: float64[p], contiguous, p a power of two; overwritten with the result.
        scratch: float64[p], contiguous; overwritten. (Fresh memory costs as much as a third of
            the transform.)
    """
    bits = vector.size.bit_length() - 1
    rows = 1 << ((bits + 1) // 2)
    cols = vector.size // rows
    done, spare = _stages(vector, scratch, rows)
    np.copyto(spare.reshape(cols, rows), done.reshape(rows, cols).T)
    done, spare = _stages(spare, done, cols)
    np.copyto(spare.reshape(rows, cols), done.reshape(cols, rows).T)
    if spare is not vector:
        np.copyto(vector, spare)


def _stages(source: FloatArray, spare: FloatArray, rows: int) -> tuple[FloatArray, FloatArray]:
    """Transform along the first axis of `rows` rows; returns (result, spare buffer)."""
    half = source.size // 2
    for _ in range(rows.bit_length() - 1):
        pairs, out = source.reshape(-1, 2, half), spare.reshape(-1, 2, half)
        np.add(pairs[:, 0], pairs[:, 1], out=out[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=out[:, 1])
        source, spare = spare, source
        half //= 2
    return source, spare
