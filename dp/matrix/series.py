"""Lower-triangular Toeplitz matrices as power series: products and inverses by FFT.

The matrix with first column c_0, c_1, ... acts as multiplication by c(x) modulo x^n, so products
are products of series, and the inverse has first column 1 / c(x).
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_WHOLE = 64  # rows below which halves gain nothing


def multiply(a: FloatArray, b: FloatArray, n: int) -> FloatArray:
    """The first n coefficients of a(x) b(x), float64[n]."""
    size = 1 << (min(len(a), n) + min(len(b), n) - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(a[:n], size) * np.fft.rfft(b[:n], size), size)
    return np.pad(product, (0, max(0, n - size)))[:n]


def transposed(a: FloatArray, v: FloatArray) -> FloatArray:
    """The transpose of the matrix of a(x) times v, float64[len(v)]: sum_i a_i v_{i + j}."""
    return multiply(a, v[::-1], len(v))[::-1]


def inverse(c: FloatArray, n: int) -> FloatArray:
    """The first n coefficients of 1 / c(x), by Newton's iteration; c_0 is not 0."""
    result = np.array([1.0 / c[0]])
    while len(result) < n:
        size = min(2 * len(result), n)
        error = -multiply(c, result, size)
        error[0] += 2.0
        result = multiply(result, error, size)
    return result


def lower_triangular(c: FloatArray, n: int) -> FloatArray:
    """The matrix float64[n, n] with first column c, padded with zeros."""
    column = np.zeros(n)
    column[: min(len(c), n)] = c[:n]
    index = np.subtract.outer(np.arange(n), np.arange(n))
    return np.where(index >= 0, column[np.maximum(index, 0)], 0.0)


def triangular_inverse(matrix: FloatArray) -> FloatArray:
    """The inverse of a lower-triangular matrix, by halves: a third of the work of a general one."""
    n = len(matrix)
    if n <= _WHOLE:
        return np.tril(np.linalg.inv(matrix))
    half = n // 2
    first, second = (
        triangular_inverse(matrix[:half, :half]),
        triangular_inverse(matrix[half:, half:]),
    )
    result = np.zeros((n, n))
    result[:half, :half], result[half:, half:] = first, second
    result[half:, :half] = -second @ (matrix[half:, :half] @ first)
    return result
