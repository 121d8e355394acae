"""Flat vectors and the jitted clip, twin of dp.clip_l2."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import dp
from fl.tree import clip_by_l2, ravel, raveler, sha256

VECTORS = hnp.arrays(
    np.float32, st.sampled_from([1, 2, 7, 40]),  # one compilation per length
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
)  # fmt: skip


@given(VECTORS, st.sampled_from([1e-3, 0.5, 1.0, 1e4]))
def test_the_clip_agrees_with_its_twin(x: NDArray[np.float32], norm: float) -> None:
    # Magnitudes below float32's smallest normal are flushed to zero on the device.
    x = np.where(np.abs(x) < 1e-30, 0, x).astype(np.float32)
    ours = np.asarray(clip_by_l2(jnp.asarray(x), norm), dtype=np.float64)
    theirs = dp.clip_l2(x, norm)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * norm)
    assert np.linalg.norm(ours) <= norm * (1 + 1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_comes_back_as_nan(bad: float) -> None:
    assert np.isnan(np.asarray(clip_by_l2(jnp.asarray([1.0, bad]), 1.0))).all()


def test_short_vectors_and_zero_are_left_alone() -> None:
    for x in ([0.0, 0.0], [0.3, -0.4]):
        assert np.asarray(clip_by_l2(jnp.asarray(x), 1.0)).tolist() == pytest.approx(x)


def test_ravel_and_unravel_are_inverse_and_in_canonical_order() -> None:
    tree = {"b": jnp.arange(3.0), "a": [jnp.ones((2, 2)), jnp.float32(7)]}
    shape = raveler(tree)
    flat = ravel(tree)
    assert shape.dim == 8
    assert flat.tolist() == [1, 1, 1, 1, 7, 0, 1, 2]
    back = shape.unravel(flat)
    assert back["a"][0].tolist() == [[1, 1], [1, 1]]
    assert back["b"].tolist() == [0, 1, 2]


def test_the_model_hash_is_that_of_its_bytes() -> None:
    tree = {"b": jnp.arange(3.0), "a": jnp.float32(7)}
    expected = np.array([7, 0, 1, 2], dtype="<f4").tobytes()
    assert sha256(tree) == hashlib.sha256(expected).hexdigest()
