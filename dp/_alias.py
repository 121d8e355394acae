"""Exact table sampling: one table look-up and one comparison per value.

Walker's alias method (Walker 1977; construction of Vose 1991) in integers: 2^g columns of equal
capacity 2^(256 - g), each split between its own outcome and one other. A 64-bit word picks the
column by its top g bits and compares the next 44 bits with the split; only when those are equal
(once in 2^44 values) are further random bits drawn, so that 256 bits are compared in all.
Every value costs the same words and the same work, whatever it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp.random import RandomBytes, random_integer, random_words

PRECISION = 256  # bits of every probability
_COMPARED = 44  # bits of a split kept in the packed table
_OUTCOME = 64 - _COMPARED  # bits left for the other outcome of a column
_BLOCK = 1 << 16  # values per block: the working set stays in the cache


@dataclass(frozen=True, eq=False)
class AliasTable:
    """A law on the integers -offset .. columns - 1 - offset.

    Attributes:
        packed: uint64[2^index_bits]; split (44 bits) above the other outcome (20 bits).
        splits: the exact splits, in units of 2^-256; a Python int per column.
        index_bits: g.
        offset: what to subtract from a column's index to get its outcome.
    """

    packed: NDArray[np.uint64]
    splits: tuple[int, ...]
    index_bits: int
    offset: int

    def __repr__(self) -> str:
        return f"AliasTable(columns={len(self.splits)}, offset={self.offset})"

    def probabilities(self) -> list[int]:
        """Exact probability of each column's outcome in units of 2^-256; sums to 2^256."""
        capacity = 1 << (PRECISION - self.index_bits)
        mass = list(self.splits)
        for split, entry in zip(self.splits, self.packed.tolist(), strict=True):
            mass[entry & ((1 << _OUTCOME) - 1)] += capacity - split
        return mass


def build(weights: list[int]) -> AliasTable:
    """The table of the symmetric law with `weights` for 0, 1, ..., K.

    Each probability is rounded down to a multiple of 2^-256 and the rest goes to 0, so the
    rounding moves less than (2K + 1) 2^-256 in total variation.
    """
    total = 2 * sum(weights) - weights[0]
    scaled = [(w << PRECISION) // total for w in weights]
    scaled[0] = (1 << PRECISION) - 2 * sum(scaled[1:])
    mass = scaled[:0:-1] + scaled
    index_bits = max(1, (len(mass) - 1).bit_length())
    mass += [0] * ((1 << index_bits) - len(mass))
    splits, others = _pair(mass, 1 << (PRECISION - index_bits))
    shift = PRECISION - index_bits - _COMPARED
    # A full column has its own outcome on both sides, so its truncated split does not matter.
    packed = [
        (min(s >> shift, (1 << _COMPARED) - 1) << _OUTCOME) | o
        for s, o in zip(splits, others, strict=True)
    ]
    table = np.array(packed, dtype=np.uint64)
    table.setflags(write=False)
    return AliasTable(table, tuple(splits), index_bits, len(weights) - 1)


def _pair(mass: list[int], capacity: int) -> tuple[list[int], list[int]]:
    """Splits and other outcomes of Vose's construction; exact, sums are preserved."""
    rest = list(mass)
    splits = [capacity] * len(mass)
    others = list(range(len(mass)))
    small = [i for i, m in enumerate(rest) if m < capacity]
    large = [i for i, m in enumerate(rest) if m >= capacity]
    while small:
        low, high = small.pop(), large[-1]
        splits[low], others[low] = rest[low], high
        rest[high] -= capacity - rest[low]
        if rest[high] < capacity:
            small.append(large.pop())
    return splits, others


def sample(table: AliasTable, rng: RandomBytes, size: int) -> NDArray[np.int64]:
    """int64[size], independent draws; 8 bytes of `rng` each, in blocks."""
    result = np.empty(size, dtype=np.int64)
    for start in range(0, size, _BLOCK):
        part = result[start : start + _BLOCK]
        _fill(table, rng, part)
    return result


def _fill(table: AliasTable, rng: RandomBytes, out: NDArray[np.int64]) -> None:
    words = random_words(rng, out.size)
    columns = words >> np.uint64(64 - table.index_bits)
    entries = table.packed[columns]
    others = entries & np.uint64((1 << _OUTCOME) - 1)
    entries >>= np.uint64(_OUTCOME)
    compared = words << np.uint64(table.index_bits)
    compared >>= np.uint64(_OUTCOME)
    # Branch-free choice: others + (columns - others) * [compared < split], modulo 2^64.
    chosen = columns - others
    chosen *= compared < entries
    chosen += others
    np.subtract(chosen.view(np.int64), table.offset, out=out)
    ties = np.flatnonzero((compared == entries) & (columns != others))
    for i in ties:
        out[i] = _resolve(table, rng, int(columns[i]), int(others[i]))


def _resolve(table: AliasTable, rng: RandomBytes, column: int, other: int) -> int:
    """Outcome of a column whose first 44 bits tie with its split, by the bits after them."""
    bits = PRECISION - table.index_bits - _COMPARED
    below = table.splits[column] & ((1 << bits) - 1)
    chosen = column if random_integer(rng, bits) < below else other
    return chosen - table.offset
