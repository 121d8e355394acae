"""Uniform bits for the samplers, from a callable with the meaning of os.urandom.

`rng(n)` returns n independent uniform bytes. No source of randomness is chosen here: the
outermost caller passes os.urandom or a stream cipher keyed from it. A numpy generator is not
such a callable, and passing one fails at the first call.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dp.errors import ParameterError

RandomBytes = Callable[[int], bytes]


def random_bytes(rng: RandomBytes, count: int) -> bytes:
    """Exactly `count` bytes of `rng`.

    Raises:
        ParameterError: `rng` is not callable, or returned something else than `count` bytes;
            a short answer must never become predictable noise.
    """
    takes = "a callable that returns as many bytes as it is asked for"
    if not callable(rng):
        raise ParameterError("rng", type(rng).__name__, takes)
    data = rng(count)
    if not isinstance(data, (bytes, bytearray, memoryview)) or len(data) != count:
        got = len(data) if hasattr(data, "__len__") else type(data).__name__
        raise ParameterError("rng", got, takes)
    return bytes(data)


def random_words(rng: RandomBytes, count: int) -> NDArray[np.uint64]:
    """uint64[count], uniform, read little-endian on every machine; read-only."""
    raw = np.frombuffer(random_bytes(rng, 8 * count), dtype="<u8")
    return raw.astype(np.uint64, copy=False)


def random_halfwords(rng: RandomBytes, count: int) -> NDArray[np.uint32]:
    """uint32[count], uniform, read little-endian on every machine; read-only."""
    raw = np.frombuffer(random_bytes(rng, 4 * count), dtype="<u4")
    return raw.astype(np.uint32, copy=False)


def random_integer(rng: RandomBytes, bits: int) -> int:
    """A uniform integer in [0, 2**bits)."""
    data = random_bytes(rng, (bits + 7) // 8)
    return int.from_bytes(data, "little") & ((1 << bits) - 1)
