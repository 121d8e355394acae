"""Seeds to uniform words of Z_2^b, and to a byte source, by AES-128-CTR."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from secureagg._packing import Words, low_bits, word_dtype
from secureagg.primitives import CIPHER_BYTES, KEY_BYTES, Usage, hkdf, key_stream, label

RandomBytes = Callable[[int], bytes]
"""os.urandom's meaning: a number of bytes to that many bytes."""

BLOCK_BYTES = 1 << 18
"""Key stream made at a time: stays in the second-level cache."""

BATCH = 64
"""Streams open at a time: bounds memory while blocks are walked stream by stream."""

THREAD_BYTES = 1 << 22
"""Vectors of fewer bytes per core are not worth a thread: calls get too short."""

_ZEROS = bytes(BLOCK_BYTES)

Stream = tuple[bytes, bytes, bool]
"""(key, counter, add): 16 bytes, 16 bytes, and whether it is added or subtracted."""


def expand(key: bytes, counter: bytes, length: int, modulus_bits: int) -> Words:
    """Expands a key to uniform residues.

    Words of 2, 4 or 8 bytes for modulus_bits <= 16, 32, 62 are read from the key stream in
    little-endian order; their low modulus_bits bits are kept.

    Args:
        key: 16 bytes.
        counter: 16 bytes, the first 128-bit big-endian counter block.
        length: words.
        modulus_bits: b, 1..62.

    Returns:
        [length] words below 2^b.
    """
    words = np.zeros(length, dtype=word_dtype(modulus_bits))
    accumulate(words, [(key, counter, True)])
    return low_bits(words, modulus_bits)


def accumulate(words: Words, streams: Iterable[Stream]) -> None:
    """Adds or subtracts key streams in place, modulo the word size.

    As 2^b divides the word size, reducing the result mod 2^b afterwards is exact.

    Args:
        words: [length] contiguous unsigned words.
        streams: what to add; no list of expanded masks is ever held.
    """
    cores = min(_cores(), words.nbytes // THREAD_BYTES)
    batch: list[Stream] = []
    with ThreadPoolExecutor(max(1, cores)) as pool:
        for stream in streams:
            batch.append(stream)
            if len(batch) == BATCH:
                _share_out(pool, words, batch, cores)
                batch.clear()
        _share_out(pool, words, batch, cores)


def _cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _share_out(pool: ThreadPoolExecutor, words: Words, batch: list[Stream], cores: int) -> None:
    """Cuts the vector into a run of blocks for each core; the cipher releases the lock."""
    if cores < 2:
        _accumulate_batch(words, batch)
        return
    step = -(-len(words) // (cores * CIPHER_BYTES)) * CIPHER_BYTES  # words: whole cipher blocks
    runs = []
    for start in range(0, len(words), step):
        moved = [(k, _ahead(c, start * words.itemsize), add) for k, c, add in batch]
        runs.append(pool.submit(_accumulate_batch, words[start : start + step], moved))
    for run in runs:
        run.result()


def _ahead(counter: bytes, size: int) -> bytes:
    """The counter block `size` bytes further down the stream; it wraps as the cipher's does."""
    number = int.from_bytes(counter, "big") + size // CIPHER_BYTES
    return (number % (1 << (8 * CIPHER_BYTES))).to_bytes(CIPHER_BYTES, "big")


def _accumulate_batch(words: Words, batch: list[Stream]) -> None:
    # update_into wants room for one block more than it writes
    room = bytearray(min(words.nbytes, BLOCK_BYTES) + CIPHER_BYTES)
    zeros = memoryview(_ZEROS)
    step = BLOCK_BYTES // words.itemsize
    contexts = [(key_stream(key, counter), add) for key, counter, add in batch]
    for start in range(0, len(words), step):
        block = words[start : start + step]
        mask = np.frombuffer(room, dtype=words.dtype, count=len(block))
        for context, add in contexts:
            context.update_into(zeros[: block.nbytes], room)
            (np.add if add else np.subtract)(block, mask, out=block)


def byte_stream(seed: bytes) -> RandomBytes:
    """Makes a deterministic byte source with os.urandom's signature.

    The bytes depend on how many were asked for in total, not on how requests are cut. As secret
    as its seed; not safe to share between threads.

    Args:
        seed: 32 bytes.

    Returns:
        A callable: number of bytes to that many next bytes of the stream.

    Raises:
        ValueError: the seed is not 32 bytes.
    """
    if len(seed) != KEY_BYTES:
        raise ValueError(f"seed of {len(seed)} bytes, takes {KEY_BYTES}")
    return stream_of(hkdf(seed, 2 * CIPHER_BYTES, label(Usage.BYTE_STREAM)))


def stream_of(material: bytes) -> RandomBytes:
    """Makes a byte source from 16 key bytes and 16 counter bytes of a KDF's output."""
    context = key_stream(material[:CIPHER_BYTES], material[CIPHER_BYTES:])
    zeros = memoryview(_ZEROS)

    def draw(size: int) -> bytes:
        if size <= BLOCK_BYTES:
            return context.update(zeros[:size])
        room = bytearray(size + CIPHER_BYTES)
        view = memoryview(room)
        for start in range(0, size, BLOCK_BYTES):
            context.update_into(zeros[: min(BLOCK_BYTES, size - start)], view[start:])
        return bytes(view[:size])

    return draw
