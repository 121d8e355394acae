"""Fast Walsh-Hadamard transform, elementwise: the same bits on every machine.

Only additions and subtractions of whole arrays, in an order fixed here: no BLAS, no reduction,
hence no dependence on threads, vector width or library version.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_SLAB = 1 << 16  # elements transformed at a time: with their copy 1 MiB, which a cache holds


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
    buffers = np.empty((2, min(vector.size, _SLAB)))
    _along_first(vector.reshape(rows, cols), scratch.reshape(cols, rows), buffers)
    _along_first(scratch.reshape(cols, rows), vector.reshape(rows, cols), buffers)


def _along_first(source: FloatArray, out: FloatArray, buffers: FloatArray) -> None:
    """Write the transform of [rows, cols] along its first axis to `out`, transposed."""
    rows, cols = source.shape
    width = max(1, buffers.shape[1] // rows)
    for start in range(0, cols, width):
        slab = source[:, start : start + width]
        flat, spare = buffers[:, : slab.size]
        np.copyto(flat.reshape(slab.shape), slab)
        np.copyto(out[start : start + width], _stages(flat, spare, rows).reshape(slab.shape).T)


def _stages(source: FloatArray, spare: FloatArray, rows: int) -> FloatArray:
    """Transform along the first axis of `rows` rows; the result lies in one of the two buffers."""
    half = source.size // 2
    for _ in range(rows.bit_length() - 1):
        pairs, out = source.reshape(-1, 2, half), spare.reshape(-1, 2, half)
        np.add(pairs[:, 0], pairs[:, 1], out=out[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=out[:, 1])
        source, spare = spare, source
        half //= 2
    return source
