"""Parameters as one flat float32 vector, and the norm that bounds it.

Everything after local training works on flat vectors: gradients through many small leaves are
slow to scan over, and clipping, rotation and masking need one vector anyway.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from fl.types import PyTree


@dataclass(frozen=True)
class Unravel:
    """f32[d] -> a tree; traceable, and equal for equal trees, so that programs are shared.

    Attributes:
        structure: of the tree.
        shapes: of its leaves in canonical order.
        dtypes: of its leaves.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype[Any], ...]

    def __call__(self, vector: jax.Array) -> PyTree:
        """Returns the tree whose leaves lie in `vector` one after the other."""
        leaves, start = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            end = start + math.prod(shape)
            leaves.append(vector[start:end].reshape(shape).astype(dtype))
            start = end
        return jax.tree.unflatten(self.structure, leaves)


class Raveler(NamedTuple):
    """The shape of one message, for the way back from a vector.

    Attributes:
        dim: the length d of the vector.
        unravel: f32[d] -> pytree; traceable.
    """

    dim: int
    unravel: Unravel


def ravel(tree: PyTree) -> jax.Array:
    """Returns a tree of arrays as f32[d], leaves in canonical order; traceable."""
    return ravel_pytree(tree)[0].astype(jnp.float32)


def raveler(template: PyTree) -> Raveler:
    """Returns the Raveler of trees shaped like `template` (arrays or jax.ShapeDtypeStruct)."""
    leaves, structure = jax.tree.flatten(template)
    shapes = tuple(tuple(leaf.shape) for leaf in leaves)
    unravel = Unravel(structure, shapes, tuple(np.dtype(leaf.dtype) for leaf in leaves))
    return Raveler(sum(map(math.prod, shapes)), unravel)


def clip_by_l2(vector: jax.Array, max_norm: float) -> jax.Array:
    """Scales f32[d] to at most `max_norm` in l2; the traceable twin of `dp.clip_l2`.

    Args:
        vector: f32[d]; magnitudes below float32's smallest normal count as zero.
        max_norm: between 1e-12 and 1e12, so that no intermediate value over- or underflows.

    Returns:
        f32[d], within max_norm up to float32 rounding. NaN where the vector is not finite.
    """
    largest = jnp.max(jnp.abs(vector))
    # A reciprocal of a magnitude above 2^126 is subnormal, which devices flush to zero.
    small = jnp.where(largest > 2.0**60, vector * 2.0**-100, vector)
    top = jnp.max(jnp.abs(small))
    unit = small / jnp.where(top > 0, top, 1.0)  # largest magnitude 1
    norm = jnp.maximum(jnp.linalg.norm(unit), 1.0)
    clipped = unit * (max_norm / norm)
    return jnp.where(
        jnp.isfinite(largest), jnp.where(largest * norm > max_norm, clipped, vector), jnp.nan
    )


def sha256(params: PyTree) -> str:
    """Returns the hash of all leaves' bytes in canonical order (little-endian, C order)."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        array = np.asarray(leaf)
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
