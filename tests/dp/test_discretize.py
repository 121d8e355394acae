"""Rotation, conditional rounding, modulus: bounds that hold exactly, for every input."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import hadamard as matrix

import dp
from dp import _hadamard
from dp.discretize import rounded_l2_sq

DIMS = st.integers(1, 70)
ANY_FLOAT = st.floats(allow_nan=False, allow_infinity=False, width=64)


def make(dim, c=10.0, **changes):
    fields = {
        "dim": dim,
        "clip_norm": 1.0,
        "granularity": 1.0 / c,
        "rounding_bias": math.exp(-0.5),
        "max_tries": 8,
    }
    return dp.Discretizer(**{**fields, **changes})


def assert_bounded(discretizer, z):
    exact = [int(v) for v in z]
    assert z.dtype == np.int64
    assert sum(v * v for v in exact) <= discretizer.l2_sq
    assert sum(abs(v) for v in exact) <= discretizer.l1
    assert max(abs(v) for v in exact) <= discretizer.linf


@pytest.mark.parametrize("bits", range(11))
def test_hadamard_is_the_sylvester_matrix(bits):
    rng = np.random.default_rng(bits)
    x = rng.integers(-1000, 1000, 1 << bits).astype(float)
    y = x.copy()
    _hadamard.hadamard(y, np.empty_like(y))
    np.testing.assert_array_equal(y, matrix(1 << bits) @ x)  # integers: exact


def test_hadamard_of_a_vector_beyond_the_cache_is_the_matrix_on_both_sides():
    x = np.random.default_rng(18).integers(-1000, 1000, (512, 512)).astype(float)
    y = x.copy().reshape(-1)
    _hadamard.hadamard(y, np.empty_like(y))
    side = matrix(512).astype(float)
    np.testing.assert_array_equal(y.reshape(512, 512), side @ x @ side.T)


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 8, 100, 650, 4097])
def test_rotation_is_orthonormal_and_inverted(dim):
    rotation = dp.Rotation.from_seed(dim, b"seed")
    rng = np.random.default_rng(dim)
    x, y = rng.standard_normal((2, dim))
    assert abs(rotation.apply(x) @ rotation.apply(y) - x @ y) < 1e-12 * dim
    np.testing.assert_allclose(rotation.invert(rotation.apply(x)), x, atol=1e-12)
    np.testing.assert_allclose(rotation.apply(rotation.invert(x)), x, atol=1e-12)
    assert rotation.apply(x).shape == (dim,)


def test_rotation_as_a_matrix_is_orthonormal():
    rotation = dp.Rotation.from_seed(13, b"seed")
    columns = np.array([rotation.apply(e) for e in np.eye(13)])
    np.testing.assert_allclose(columns @ columns.T, np.eye(13), atol=1e-14)


def test_rotation_spreads_a_spike():
    y = dp.Rotation.from_seed(3000, b"seed").apply(np.eye(1, 3000)[0])
    # A spike in the first block has magnitude 2048^-1/2 outside the overlap; inside, a second
    # block mixes it again. Far below 1 either way.
    assert np.abs(y).max() < 0.2


def test_rotation_depends_on_the_seed_alone():
    x = np.arange(1.0, 101.0)
    first = dp.Rotation.from_seed(100, b"a")
    np.testing.assert_array_equal(first.apply(x), dp.Rotation.from_seed(100, b"a").apply(x))
    assert first == dp.Rotation.from_seed(100, b"a")
    assert not np.array_equal(first.apply(x), dp.Rotation.from_seed(100, b"b").apply(x))


PINNED = [
    "-0x1.3651a0eb63341p-1",
    "0x1.6a09e667f3bccp+0",
    "0x1.9dc22be484453p-3",
    "0x1.2ef7b6dfdcf78p-3",
    "-0x1.01f304931e008p+1",
    "0x1.0c02d41db35a6p+0",
    "0x1.a4087c591a0f7p-1",
    "-0x1.705036dc8986dp-1",
    "0x1.2878524ace4a4p+0",
    "0x1.86d01d400e036p-2",
    "-0x1.fdd8ccd21f19cp-3",
]


def test_rotation_bits_are_pinned():
    # The same bits on every machine and numpy version: elementwise arithmetic in fixed order.
    x = np.arange(1.0, 12.0) / 7.0
    got = [v.hex() for v in dp.Rotation.from_seed(11, b"pinned").apply(x)]
    assert got == PINNED


def test_rotation_refuses():
    with pytest.raises(dp.ParameterError, match="dim"):
        dp.Rotation.from_seed(0, b"")
    with pytest.raises(dp.ParameterError, match="seed"):
        dp.Rotation.from_seed(3, "text")
    with pytest.raises(dp.ParameterError, match="x"):
        dp.Rotation.from_seed(3, b"").apply(np.zeros(4))


@settings(max_examples=200)
@given(
    hnp.arrays(np.float64, DIMS, elements=ANY_FLOAT),
    st.floats(0.01, 1e4),
    st.integers(0, 2**32),
    st.integers(1, 4),
)
def test_encode_never_exceeds_its_bounds(x, c, seed, max_tries):
    discretizer = make(x.size, c, max_tries=max_tries)
    rotation = dp.Rotation.from_seed(x.size, b"r")
    z = discretizer.encode(x, rotation, np.random.default_rng(seed).bytes)
    assert_bounded(discretizer, z)


@settings(max_examples=100)
@given(DIMS, st.integers(0, 20), st.booleans(), st.integers(0, 2**32))
def test_adversarial_halves_and_coins_never_exceed_the_bounds(dim, k, high, seed):
    # All rotated coordinates at k + 1/2, and coins that always round up.
    rotation = dp.Rotation.from_seed(dim, b"r")
    target = np.full(dim, k + 0.5)
    c = float(np.sqrt(target @ target))
    discretizer = make(dim, c, clip_norm=c, granularity=1.0)
    x = rotation.invert(target)
    rng = bytes if high else np.random.default_rng(seed).bytes
    assert_bounded(discretizer, discretizer.encode(x, rotation, rng))


def test_rounding_up_everywhere_would_exceed_the_bound():
    # The check is what holds the bound: the first rounding of this vector is beyond it.
    dim, rotation = 400, dp.Rotation.from_seed(400, b"r")
    target = np.full(dim, 0.6)  # the nearest integer is above, too
    discretizer = make(dim, clip_norm=12.001, granularity=1.0)
    assert dim > discretizer.l2_sq  # all coordinates rounded up: norm^2 = dim
    z = discretizer.encode(rotation.invert(target), rotation, bytes)  # zero coins round up
    np.testing.assert_array_equal(z, 0)  # after max_tries it rounds toward zero
    assert_bounded(discretizer, z)


def test_tries_stop_at_max_tries_and_are_not_visible():
    asked = []

    def rng(count):
        asked.append(count)
        return bytes(count)

    rotation = dp.Rotation.from_seed(400, b"r")
    discretizer = make(400, clip_norm=10.0, granularity=1.0, max_tries=3)
    discretizer.encode(rotation.invert(np.full(400, 0.5)), rotation, rng)
    assert asked == [1600] * 3
    assert set(vars(discretizer)) <= {
        "dim", "clip_norm", "granularity", "rounding_bias", "max_tries", "l2_sq",
    }  # fmt: skip


def test_zero_is_encoded_as_zero(stream):
    # The zero-out relation compares with the zero vector, which must be exactly zero.
    discretizer, rotation = make(50), dp.Rotation.from_seed(50, b"r")
    np.testing.assert_array_equal(discretizer.encode(np.zeros(50), rotation, stream(0)), 0)
    tiny = discretizer.encode(np.full(50, 5e-324), rotation, stream(0))
    np.testing.assert_array_equal(tiny, 0)


def test_encode_clips_again(stream):
    discretizer, rotation = make(64, 100.0), dp.Rotation.from_seed(64, b"r")
    x = np.random.default_rng(0).standard_normal(64)
    z = discretizer.encode(1e6 * x, rotation, stream(0))
    assert_bounded(discretizer, z)
    decoded = discretizer.decode(z, rotation)
    cosine = decoded @ x / np.linalg.norm(x) / np.linalg.norm(decoded)
    assert cosine > 0.99


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_encode_takes_any_real_dtype(stream, dtype):
    discretizer, rotation = make(5), dp.Rotation.from_seed(5, b"r")
    x = np.array([1, 0, -1, 2, 0], dtype=dtype)
    want = discretizer.encode(x.astype(np.float64), rotation, stream(1))
    np.testing.assert_array_equal(discretizer.encode(x, rotation, stream(1)), want)


def test_decode_is_nearly_unbiased(stream):
    dim, repeats = 300, 400
    discretizer, rotation = make(dim, 60.0), dp.Rotation.from_seed(dim, b"r")
    x = np.random.default_rng(3).standard_normal(dim)
    x /= 1.01 * np.linalg.norm(x)
    rng = stream(4)
    total = sum(discretizer.encode(x, rotation, rng) for _ in range(repeats))
    error = discretizer.decode(np.asarray(total), rotation) / repeats - x
    # Rounding noise is at most 1/2 step per coordinate; 6 standard errors, false alarm below
    # 300 * 2e-9. Conditioning shrinks by far less.
    assert np.abs(error).max() < 6 * 0.5 * discretizer.granularity / math.sqrt(repeats)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_encode_refuses_non_finite(stream, bad):
    with pytest.raises(dp.NonFiniteError):
        make(2).encode([1.0, bad], dp.Rotation.from_seed(2, b""), stream(0))


def test_encode_and_decode_refuse_wrong_shapes(stream):
    discretizer, rotation = make(4), dp.Rotation.from_seed(4, b"")
    with pytest.raises(dp.ParameterError, match="x"):
        discretizer.encode(np.zeros(5), rotation, stream(0))
    with pytest.raises(dp.ParameterError, match=r"rotation\.dim"):
        discretizer.encode(np.zeros(4), dp.Rotation.from_seed(5, b""), stream(0))
    with pytest.raises(dp.ParameterError, match="total"):
        discretizer.decode(np.zeros(4), rotation)
    with pytest.raises(dp.ParameterError, match="total"):
        discretizer.decode(np.zeros(5, dtype=np.int64), rotation)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("dim", 1.5),
        ("clip_norm", 0.0),
        ("clip_norm", math.nan),
        ("granularity", -1.0),
        ("granularity", 1e-9),
        ("rounding_bias", 0.0),
        ("rounding_bias", 1.0),
        ("max_tries", 0),
    ],
)
def test_discretizer_refuses(field, value):
    with pytest.raises(dp.ParameterError) as caught:
        make(**{"dim": 10, field: value})
    assert caught.value.field == field


@given(st.floats(0.1, 1e5), st.integers(1, 10**6), st.floats(1e-6, 0.99))
def test_bound_is_the_published_one_and_admits_truncation(c, dim, beta):
    got = rounded_l2_sq(c, dim, beta)
    spread = math.sqrt(2 * math.log(1 / beta))
    first = c**2 + dim / 4 + spread * (c + math.sqrt(dim) / 2)
    second = (c + math.sqrt(dim)) ** 2
    assert got == pytest.approx(min(first, second), rel=1e-12)
    assert got > c**2 * (1 + 2.0**-44)


@given(st.integers(1, 10**7), st.floats(1e-6, 1e6), st.floats(0.01, 0.9), st.floats(1e-3, 1.0))
def test_default_granularity_meets_its_inflation(dim, clip_norm, bias, inflation):
    step = dp.default_granularity(dim, clip_norm, rounding_bias=bias, inflation=inflation)

    def ratio(granularity):
        c = clip_norm / granularity
        spread = math.sqrt(2 * math.log(1 / bias))
        return math.sqrt(1 + (dim / 4 + spread * (c + math.sqrt(dim) / 2)) / c**2)

    assert ratio(step) <= (1 + inflation) * (1 + 1e-12)
    assert ratio(step * 1.001) > 1 + inflation  # no coarser one would do


@given(st.integers(1, 62), st.data())
def test_wrap_and_unwrap_are_inverse_on_the_centred_range(bits, data):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    values = [*data.draw(st.lists(st.integers(low, high), max_size=20)), low, high]
    x = np.array(values, dtype=np.int64)
    u = dp.wrap(x, bits)
    assert u.dtype == np.uint64
    assert [int(v) for v in u] == [v % (1 << bits) for v in values]
    np.testing.assert_array_equal(dp.unwrap(u, bits), x)


@given(st.integers(1, 62), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_wrap_is_reduction_of_any_int64(bits, values):
    got = dp.wrap(np.array(values, dtype=np.int64), bits)
    assert [int(v) for v in got] == [v % (1 << bits) for v in values]


@given(st.integers(2, 62), st.integers(1, 30), st.data())
def test_modular_sum_is_the_integer_sum_when_it_fits(bits, clients, data):
    bound = ((1 << (bits - 1)) - 1) // clients
    values = data.draw(st.lists(st.integers(-bound, bound), min_size=clients, max_size=clients))
    mask = (1 << bits) - 1
    words = [dp.wrap(np.array([v], dtype=np.int64), bits) for v in values]
    total = np.array([sum(int(w[0]) for w in words) & mask], dtype=np.uint64)
    assert int(dp.unwrap(total, bits)[0]) == sum(values)


def test_wrap_and_unwrap_refuse():
    for bits in (0, 63, 1.0):
        with pytest.raises(dp.ParameterError, match="modulus_bits"):
            dp.wrap(np.zeros(1, dtype=np.int64), bits)
    with pytest.raises(dp.ParameterError, match="x"):
        dp.wrap(np.zeros(1), 8)
    with pytest.raises(dp.ParameterError, match="x"):
        dp.wrap(np.zeros(1, dtype=np.int32), 8)
    with pytest.raises(dp.ParameterError, match="u"):
        dp.unwrap(np.zeros(1, dtype=np.int64), 8)
    with pytest.raises(dp.ParameterError, match="u"):
        dp.unwrap(np.array([256], dtype=np.uint64), 8)


@given(st.integers(1, 10**6), st.integers(0, 10**9), st.integers(0, 10**12))
def test_modulus_is_the_smallest_that_holds_the_worst_case(clients, linf, tail):
    bits = dp.choose_modulus_bits(clients, linf, tail)
    worst = clients * linf + tail
    assert worst <= (1 << (bits - 1)) - 1 or bits == 1
    assert bits == 1 or worst > (1 << (bits - 2)) - 1
    assert dp.choose_modulus_bits(clients, linf, tail, modulus_bits=62) == 62


def test_modulus_that_is_too_small_is_refused():
    needed = dp.choose_modulus_bits(100, 1000, 500)
    with pytest.raises(dp.ModulusError) as caught:
        dp.choose_modulus_bits(100, 1000, 500, modulus_bits=needed - 1)
    assert caught.value.needed == needed
    with pytest.raises(dp.ModulusError):
        dp.choose_modulus_bits(2**31, 2**31, 0)


def test_numpy_scalars_do_not_wrap_the_bounds():
    plain = dp.Discretizer(200_000, 0.5, 0.001, 0.6, 4)
    narrow = dp.Discretizer(np.int32(200_000), np.float64(0.5), np.float64(0.001), 0.6, np.int8(4))
    assert (narrow.l2_sq, narrow.l1, narrow.linf) == (plain.l2_sq, plain.l1, plain.linf)
    assert type(narrow.dim) is int
