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
