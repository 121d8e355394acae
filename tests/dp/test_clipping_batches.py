"""Clipping by coordinates, by layers, of batches; the adaptive clip norm and its bit."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import dp

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


def norm_sq(x):
    return sum((Fraction(float(v)) ** 2 for v in x), Fraction(0))


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=FINITE), st.floats(1e-9, 1e9))
def test_linf_bounds_every_coordinate_and_moves_no_other(x, bound):
    got = dp.clip_linf(x, bound)
    assert np.all(np.abs(got) <= bound)
    inside = np.abs(x) <= bound
    np.testing.assert_array_equal(got[inside], x[inside])
    assert np.all(np.sign(got) == np.sign(x))


@given(hnp.arrays(np.float64, 12, elements=FINITE), st.tuples(*[st.floats(1e-3, 1e3)] * 3))
def test_every_layer_keeps_its_own_norm_and_the_whole_the_joint_one(x, norms):
    lengths = (5, 1, 6)
    got = dp.clip_layers(x, lengths, norms)
    parts = np.split(got, [5, 6])
    for part, given_part, norm in zip(parts, np.split(x, [5, 6]), norms, strict=True):
        assert norm_sq(part) <= Fraction(norm) ** 2
        np.testing.assert_array_equal(part, dp.clip_l2(given_part, norm))
    assert norm_sq(got) <= Fraction(dp.joint_norm(norms)) ** 2
    assert dp.joint_norm(norms) <= math.sqrt(sum(n * n for n in norms)) * (1 + 1e-14)


@pytest.mark.parametrize(
    ("lengths", "norms", "field"),
    [
        ((2, 1), (1.0,), "clip_norms"),
        ((), (), "clip_norms"),
        ((2, 2), (1.0, 1.0), "x"),
        ((3, 0), (1.0, 1.0), "lengths"),
        ((2, 1), (1.0, 0.0), "clip_norm"),
    ],
    ids=str,
)
def test_layers_that_do_not_fit_are_refused(lengths, norms, field):
    with pytest.raises(dp.ParameterError) as caught:
        dp.clip_layers([1.0, 2.0, 3.0], lengths, norms)
    assert caught.value.field == field


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_vectors_are_refused(bad):
    with pytest.raises(dp.NonFiniteError):
        dp.clip_linf([bad, 1.0], 1.0)
    with pytest.raises(dp.NonFiniteError):
        dp.clip_layers([bad, 1.0], (1, 1), (1.0, 1.0))
    with pytest.raises(dp.NonFiniteError):
        dp.clip_and_sum(np.array([[bad, 1.0]]), 1.0)
    with pytest.raises(dp.ParameterError, match="bound"):
        dp.clip_linf([1.0], 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 63, 64, 1000, 70_001])
def test_clip_and_sum_is_the_sum_of_clipped_rows(dtype, dim):
    rng = np.random.default_rng(dim)
    rows = (rng.normal(size=(9, dim)) * rng.uniform(0.1, 3.0, size=(9, 1))).astype(dtype)
    clip_norm = float(np.linalg.norm(rows[0].astype(np.float64)))
    got = dp.clip_and_sum(rows, clip_norm)
    want = sum(dp.clip_l2(row, clip_norm) for row in rows)
    tolerance = 4e-5 if dtype is np.float32 else 1e-9
    assert got.total.dtype == dtype
    np.testing.assert_allclose(got.total, want, atol=tolerance * clip_norm)
    exact = np.linalg.norm(rows.astype(np.float64), axis=1)
    assert np.all(got.norms >= exact)
    assert np.all(got.norms <= exact * (1 + 2.0**-15))


@settings(max_examples=40)
@given(st.integers(1, 400), st.integers(0, 2**32), st.floats(1e-3, 10.0), st.booleans())
def test_one_row_keeps_the_norm_in_exact_arithmetic_up_to_float_products(
    dim, seed, clip_norm, wide
):
    dtype = np.float64 if wide else np.float32
    row = np.random.default_rng(seed).normal(size=(1, dim)).astype(dtype)
    got = dp.clip_and_sum(row, clip_norm)
    # total = fl(f row): each product is rounded once, which the factor's own slack need not cover
    unit = Fraction(1, 2**52 if wide else 2**23)
    assert norm_sq(got.total[:]) <= Fraction(clip_norm) ** 2 * (1 + unit) ** 2
    big = np.argmax(np.abs(row[0]))
    factor = Fraction(float(got.total[big])) / Fraction(float(row[0, big]))
    assert factor**2 * norm_sq(row[0]) <= Fraction(clip_norm) ** 2 * (1 + unit) ** 2


def test_rows_whose_squares_leave_float32_are_clipped():
    rows = np.array([[1e25, 0.0], [3e-30, 4e-30], [1.0, 1.0]], dtype=np.float32)
    got = dp.clip_and_sum(rows, 1.0)
    np.testing.assert_allclose(got.total, [1 + math.sqrt(0.5), math.sqrt(0.5)], rtol=1e-4)
    with pytest.raises(dp.NonFiniteError):
        dp.clip_and_sum(np.array([[1e200, 1e200]]), 1.0)


@pytest.mark.parametrize(
    "rows",
    [[[1.0]], np.ones(3), np.ones((2, 2), dtype=int), np.ones((0, 3)), np.ones((2, 0))],
    ids=["list", "vector", "integers", "no rows", "no columns"],
)
def test_what_is_no_batch_is_refused(rows):
    with pytest.raises(dp.ParameterError) as caught:
        dp.clip_and_sum(rows, 1.0)
    assert caught.value.field == "rows"


# ---- the adaptive norm


def quantile(**changes):
    given = {
        "target_quantile": 0.5,
        "clip_learning_rate": 0.2,
        "num_clients": 100,
        "smallest": 1e-3,
        "largest": 1e3,
        **changes,
    }
    return dp.ClipQuantile(**given)


def test_norm_follows_the_median_through_noise(stream):
    rng = np.random.default_rng(3)
    norms = np.exp(rng.normal(size=100))
    rule = quantile()
    mechanism = dp.bit_mechanism("skellam", stddev=5.0, num_clients=100, shares=80)
    for start in (0.01, 30.0):
        clip_norm = start
        for t in range(80):
            bits = [rule.bit([n], clip_norm) for n in norms]
            encoded = [mechanism.encode(b, stream(1000 * t + i)) for i, b in enumerate(bits)]
            total = dp.unwrap(
                sum(dp.wrap(e, mechanism.modulus_bits) for e in encoded)
                & np.uint64((1 << mechanism.modulus_bits) - 1),
                mechanism.modulus_bits,
            )
            clip_norm = rule.update(clip_norm, int(total[0]))
        assert 0.35 <= (norms <= clip_norm).mean() <= 0.65


def test_update_is_the_published_one():
    rule = quantile(target_quantile=0.3)
    assert rule.update(2.0, 20) == pytest.approx(2.0 * math.exp(-0.2 * (0.6 - 0.3)), rel=1e-15)
    assert rule.update(2.0, 10**9) == pytest.approx(2.0 * math.exp(-0.2 * 0.7), rel=1e-15)
    assert rule.update(1e-3, 100) == 1e-3
    assert rule.update(1e3, -100) == 1e3


def test_bit_tells_within_from_beyond():
    rule = quantile()
    assert rule.bit([3.0, 4.0], 5.1) == 1
    assert rule.bit([3.0, 4.0], 4.9) == -1
    with pytest.raises(dp.NonFiniteError):
        rule.bit([math.nan], 1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"target_quantile": 0.0},
        {"target_quantile": 1.0},
        {"clip_learning_rate": 0.0},
        {"num_clients": 0},
        {"smallest": 0.0},
        {"largest": 1e-4},
    ],
    ids=str,
)
def test_rules_out_of_range_are_refused(changes):
    with pytest.raises(dp.ParameterError):
        quantile(**changes)


def test_clip_norm_outside_the_rule_is_refused():
    with pytest.raises(dp.ParameterError, match="clip_norm"):
        quantile().update(1e4, 0)
    with pytest.raises(dp.ParameterError, match="noised_sum"):
        quantile().update(1.0, 0.5)


def test_joint_multiplier_costs_what_one_query_costs():
    z, z_bit = 1.0, 5.0
    both = dp.joint_multiplier(z, z_bit)
    assert both**-2 + z_bit**-2 == pytest.approx(z**-2, rel=1e-14)
    assert z < both
    with pytest.raises(dp.ParameterError, match="bit_multiplier"):
        dp.joint_multiplier(1.0, 1.0)


@pytest.mark.parametrize("name", ["skellam", "discrete_gaussian"])
def test_bit_is_a_query_of_its_own(stream, name, zero_out):
    mechanism = dp.bit_mechanism(name, stddev=6.0, num_clients=50, shares=40)
    event = mechanism.event(40)
    assert (event.l2_sq, event.l1, event.linf, event.dim) == (1, 1, 1, 1)
    # 5 standard errors of a variance over 1,500 sums of 40 shares: false alarm 6e-7
    rng = stream(9)
    shares = np.array([mechanism.encode(0, rng)[0] for _ in range(40 * 1500)])
    assert abs(shares.reshape(40, 1500).sum(axis=0).var() / 36.0 - 1) < 5 * math.sqrt(2 / 1500)
    alone = dp.epsilon(event, 1e-5, neighboring=zero_out, accountant="rdp").upper
    assert 0.5 < alone < 1.5
    for bit in (2, -2, 0.5, True):
        with pytest.raises(dp.ParameterError, match="bit"):
            mechanism.encode(bit, rng)
    assert mechanism.total_variation(40) == 40 * 2.0**-100
    with pytest.raises(dp.ParameterError, match="shares"):
        mechanism.event(51)


@pytest.mark.parametrize(
    "changes", [{"stddev": 0.0}, {"num_clients": 0}, {"shares": 51}, {"name": "laplace"}], ids=str
)
def test_bit_mechanisms_out_of_range_are_refused(changes):
    given = {"name": "skellam", "stddev": 6.0, "num_clients": 50, "shares": 40, **changes}
    with pytest.raises(dp.ParameterError):
        dp.bit_mechanism(given.pop("name"), **given)


# ---- the scale of the grid


@settings(max_examples=40)
@given(
    hnp.arrays(np.float64, 16, elements=FINITE),
    st.floats(1e-6, 1e6),
    st.integers(0, 2**32),
)
def test_scale_changes_no_integer_bound(x, scale, seed):
    discretizer = dp.Discretizer(16, 1.0, 0.05, math.exp(-0.5), 4)
    rotation = dp.Rotation.from_seed(16, b"r")
    z = discretizer.encode(x, rotation, np.random.default_rng(seed).bytes, scale=scale)
    assert int(np.dot(z, z)) <= discretizer.l2_sq
    back = discretizer.decode(z, rotation, scale=scale)
    want = dp.clip_l2(x, scale)
    assert np.linalg.norm(back - want) <= 0.05 * scale * math.sqrt(16) * (1 + 1e-9)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 1e-80, "1"])
def test_scales_of_the_grid_out_of_range_are_refused(stream, scale):
    discretizer = dp.Discretizer(4, 1.0, 0.05, math.exp(-0.5), 4)
    rotation = dp.Rotation.from_seed(4, b"r")
    with pytest.raises(dp.ParameterError, match="scale"):
        discretizer.encode(np.ones(4), rotation, stream(0), scale=scale)
    with pytest.raises(dp.ParameterError, match="scale"):
        discretizer.decode(np.ones(4, dtype=np.int64), rotation, scale=scale)


# ---- wrapping with a stated probability


@pytest.mark.parametrize("name", ["skellam", "discrete_gaussian"])
def test_wrap_probability_saves_bits_and_honest_sums_do_not_wrap(stream, name):
    given = {
        "dim": 3000, "clip_norm": 1.0, "noise_multiplier": 0.5, "num_clients": 20, "shares": 16
    }  # fmt: skip
    safe = dp.distributed(name, **given)
    tight = dp.distributed(name, **given, wrap_probability=1e-6)
    assert tight.modulus_bits < safe.modulus_bits
    assert tight.event(16) == safe.event(16)
    assert (safe.wrap_probability, tight.wrap_probability) == (2.0**-100, 1e-6)
    rng = np.random.default_rng(8)
    spike = np.zeros(3000)
    spike[5] = 1.0  # the same for all clients: the worst direction for a coordinate
    for trial, x in enumerate([spike, rng.normal(size=3000), np.ones(3000)]):
        rotation = dp.Rotation.from_seed(3000, bytes([trial]))
        encoded = [tight.encode(x, rotation, stream(100 * trial + i)) for i in range(20)]
        mask = np.uint64((1 << tight.modulus_bits) - 1)
        wrapped = sum(dp.wrap(z, tight.modulus_bits) for z in encoded) & mask
        np.testing.assert_array_equal(dp.unwrap(wrapped, tight.modulus_bits), sum(encoded))


def test_rotated_coordinates_stay_below_the_bound_with_its_probability():
    # 300 rotations of 100 coordinates at probability 0.05 each: fewer than 40 exceed it
    # (false alarm below 1e-6 if the bound were met with equality; Hoeffding is loose).
    from_dim = 100
    x = np.zeros(from_dim)
    x[:3] = math.sqrt(1 / 3)
    limit = dp.discretize.rotated_linf(1.0, from_dim, 0.05)
    beyond = sum(
        np.abs(dp.Rotation.from_seed(from_dim, i.to_bytes(4, "little")).apply(x)).max() > limit
        for i in range(300)
    )
    assert beyond < 40
    assert limit < 0.6


def test_wrap_probability_is_chosen_or_refused():
    given = {"dim": 3000, "clip_norm": 1.0, "noise_multiplier": 0.5, "num_clients": 20}
    central = dp.central_gaussian(**given)
    tight = dp.central_gaussian(**given, wrap_probability=1e-9)
    assert tight.modulus_bits < central.modulus_bits
    with pytest.raises(dp.ModulusError):
        dp.central_gaussian(**given, modulus_bits=tight.modulus_bits)
    assert dp.central_gaussian(
        **given, modulus_bits=tight.modulus_bits, wrap_probability=1e-9
    ).modulus_bits == tight.modulus_bits  # fmt: skip
    with pytest.raises(dp.ModulusError):
        dp.central_gaussian(**given, modulus_bits=tight.modulus_bits - 1, wrap_probability=1e-9)
    for bad in (0.0, 1.0, 1e-40, math.nan):
        with pytest.raises(dp.ParameterError, match="wrap_probability"):
            dp.central_gaussian(**given, wrap_probability=bad)
