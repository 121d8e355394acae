"""Trees of arrays as npz bytes: what checkpoints hold and what processes hand each other."""

import io
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from fl.types import PyTree

Arrays = dict[str, NDArray[Any]]


def to_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Returns the arrays as npz; no Python objects."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def from_npz(data: bytes) -> Arrays:
    """Undoes `to_npz`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def tree_to_npz(tree: PyTree) -> bytes:
    """Returns a tree's leaves in canonical order as npz."""
    return to_npz({str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))})


def leaves_from_npz(data: bytes) -> list[NDArray[Any]]:
    """Returns the leaves that `tree_to_npz` wrote."""
    found = from_npz(data)
    return [found[str(i)] for i in range(len(found))]


def tree_to_bytes(tree: PyTree) -> bytes:
    """Returns the bytes of a tree's leaves, little-endian, one after another."""
    leaves = (np.asarray(leaf) for leaf in jax.tree.leaves(tree))
    return b"".join(leaf.astype(leaf.dtype.newbyteorder("<")).tobytes() for leaf in leaves)


def tree_bytes(like: PyTree) -> int:
    """Returns the length of what `tree_to_bytes` makes of such a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))


def tree_from_bytes(data: bytes, like: PyTree) -> PyTree:
    """Undoes `tree_to_bytes`; nothing in the bytes says how many there are.

    Args:
        data: as they came.
        like: a tree of the same structure, shapes and dtypes.

    Raises:
        ValueError: another length.
    """
    if len(data) != tree_bytes(like):
        raise ValueError(f"{len(data)} bytes of arrays; takes {tree_bytes(like)}")
    leaves, start = [], 0
    for leaf in jax.tree.leaves(like):
        kind = np.dtype(leaf.dtype).newbyteorder("<")
        found = np.frombuffer(data, dtype=kind, count=leaf.size, offset=start)
        leaves.append(found.reshape(leaf.shape).astype(leaf.dtype))
        start += found.nbytes
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
