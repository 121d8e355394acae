"""Clipping: the norm bound in exact arithmetic, for every kind of float vector."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import dp
from dp.clipping import fold_sum

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)
VECTORS = hnp.arrays(np.float64, st.integers(1, 40), elements=FINITE)


def exact_norm_sq(x: np.ndarray) -> Fraction:
    return sum((Fraction(float(v)) ** 2 for v in x), Fraction(0))


@given(VECTORS, st.floats(1e-100, 1e100))
def test_norm_is_bounded_in_exact_arithmetic(x, clip_norm):
    assert exact_norm_sq(dp.clip_l2(x, clip_norm)) <= Fraction(clip_norm) ** 2


@given(VECTORS, st.floats(1e-3, 1e3))
def test_vectors_inside_are_unchanged_and_others_keep_direction_and_reach(x, clip_norm):
    got = dp.clip_l2(x, clip_norm)
    norm_sq = exact_norm_sq(x)
    if norm_sq <= Fraction(clip_norm) ** 2 * (1 - Fraction(1, 2**40)):
        np.testing.assert_array_equal(got, x)
    elif norm_sq > Fraction(clip_norm) ** 2:
        assert exact_norm_sq(got) >= Fraction(clip_norm) ** 2 * (1 - Fraction(1, 2**40))
        assert np.all(np.sign(got) * np.sign(x) >= 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.int8])
def test_dtypes_are_computed_in_float64(dtype):
    x = np.array([3, 4], dtype=dtype)
    got = dp.clip_l2(x, 1.0)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [0.6, 0.8], rtol=1e-12)


@pytest.mark.slow
def test_float32_norm_of_many_entries_does_not_lose_the_bound():
    # Summed one by one in float32 this squared norm would stop growing at 2^24.
    x = np.full(20_000_000, 1.0, dtype=np.float32)
    got = np.unique(dp.clip_l2(x, 10.0))
    assert got.size == 1
    norm_sq = x.size * Fraction(float(got[0])) ** 2
    assert 100 * (1 - Fraction(1, 2**40)) <= norm_sq <= 100


def test_extreme_inputs():
    biggest = np.finfo(np.float64).max
    assert exact_norm_sq(dp.clip_l2([biggest] * 4, 2.0)) <= 4
    np.testing.assert_allclose(dp.clip_l2([biggest] * 4, 2.0), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(dp.clip_l2([0.0, 0.0], 1.0), [0.0, 0.0])
    np.testing.assert_array_equal(dp.clip_l2([5e-324], 1.0), [5e-324])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_raises(bad):
    with pytest.raises(dp.NonFiniteError):
        dp.clip_l2([1.0, bad], 1.0)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, np.nan, np.inf, 1e-200, "1"])
def test_clip_norm_out_of_range_is_refused(clip_norm):
    with pytest.raises(dp.ParameterError) as caught:
        dp.clip_l2([1.0], clip_norm)
    assert caught.value.field == "clip_norm"


@pytest.mark.parametrize("x", [[], [[1.0]], [1j], ["a"], 3.0, [True]])
def test_what_is_no_real_vector_is_refused(x):
    with pytest.raises(dp.ParameterError) as caught:
        dp.clip_l2(x, 1.0)
    assert caught.value.field == "x"


def test_result_is_a_new_array():
    x = np.array([0.1, 0.2])
    assert not np.shares_memory(dp.clip_l2(x, 1.0), x)


@given(hnp.arrays(np.float64, st.integers(0, 70), elements=st.floats(0, 1e6)))
def test_fold_sum_is_a_sum(values):
    exact = float(sum((Fraction(float(v)) for v in values), Fraction(0)))
    assert abs(fold_sum(values) - exact) <= 1e-14 * exact
