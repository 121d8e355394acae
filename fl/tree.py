"""Parameters as one flat float32 vector, and the norm that bounds it.

Everything after local training works on flat vectors: gradients through many small leaves are
slow to scan over, and clipping, rotation and masking need one vector anyway.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from fl.types import FloatVector, PyTree


class Raveler(NamedTuple):
    """The shape of one message, for the way back from a vector.

    Attributes:
        dim: the length d of the vector.
        unravel: f32[d] -> pytree; traceable.
    """

    dim: int
    unravel: Callable[[jax.Array], PyTree]


def ravel(tree: PyTree) -> jax.Array:
    """Returns a tree of arrays as f32[d], leaves in canonical order; traceable."""
    return ravel_pytree(tree)[0].astype(jnp.float32)


def raveler(template: PyTree) -> Raveler:
    """Returns the Raveler of trees shaped like `template` (arrays or jax.ShapeDtypeStruct)."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), template)
    flat, unravel = ravel_pytree(zeros)

    return Raveler(int(flat.size), lambda vector: unravel(vector.astype(flat.dtype)))


def clip_by_l2(vector: jax.Array, max_norm: float) -> jax.Array:
    """Scales f32[d] to at most `max_norm` in l2; the traceable twin of `dp.clip_l2`.

    The norm is taken after dividing by the largest magnitude, so that it neither overflows nor
    underflows. A vector that is not finite comes back as NaN, for the caller to replace.
    """
    largest = jnp.max(jnp.abs(vector))
    safe = jnp.where(largest > 0, largest, 1.0)
    norm = safe * jnp.linalg.norm(vector / safe)
    scale = jnp.minimum(1.0, max_norm / jnp.where(norm > 0, norm, 1.0))
    return jnp.where(jnp.isfinite(norm), vector * scale, jnp.nan)


def sha256(params: PyTree) -> str:
    """Returns the hash of all leaves' bytes in canonical order (little-endian, C order)."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        array = np.asarray(leaf)
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def to_numpy(vector: jax.Array) -> FloatVector:
    """Returns a device vector as a float32 numpy array on the host."""
    return np.asarray(vector, dtype=np.float32)
