"""Bug classes of values, noise and integers; their table is in test_bug_classes.py.

Each test is named by its class; the comment above says where the class was seen. Statistical
tests have fixed seeds and state their false-alarm rate.
"""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import math
import os
import pathlib
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import dp


def mechanism(**changes):
    given_ = {
        "dim": 40, "clip_norm": 2.0, "noise_multiplier": 1.0, "num_clients": 12, "shares": 8,
        **changes,
    }  # fmt: skip
    return dp.distributed(given_.pop("name", "skellam"), **given_)


def rotation(dim, seed=b"r"):
    return dp.Rotation.from_seed(dim, seed)


# ---- the float grid leaks the input (Mironov 2012; opacus#616)


def test_float_grid_client_values_are_integers_whatever_the_input(stream):
    m = mechanism()
    for x in (np.zeros(40), np.ones(40), np.full(40, 1 / 3), np.full(40, 2.0)):
        encoded = m.encode(x, rotation(40), stream(1))
        assert encoded.dtype == np.int64
        assert dp.wrap(encoded, m.modulus_bits).dtype == np.uint64


def test_float_grid_central_outputs_have_the_same_support_for_every_input(stream):
    laplace = dp.grid_laplace(dim=20_000, l1_sensitivity=1.0, scale=1.0, grid_exponent=-4)
    seen = []
    for x in (0.0, 1.0, 1 / 3, 0.999):
        out = laplace.release(np.full(20_000, x), stream(2))
        units = out * 16.0
        assert np.array_equal(units, np.rint(units))
        seen.append(set(units[np.abs(units) < 32].tolist()))
    # Each of these 63 points has probability above 0.002: missing one has chance below 1e-15.
    assert all(s == seen[0] for s in seen)
    assert len(seen[0]) == 63


# ---- seeds and streams reused across rounds, clients, processes (flower#7225, tmlt.core)


FORKING = """
import os, sys
import dp
dp.skellam(os.urandom, 50.0, 10)  # whatever is buffered would be copied by the forks
mine, children = sys.argv[1], []
for name in sys.argv[2:]:
    children.append(os.fork())
    if not children[-1]:
        mine, children = name, []
        break
with open(mine, "wb") as out:
    out.write(dp.skellam(os.urandom, 50.0, 4000).tobytes())
for child in children:
    os.waitpid(child, 0)
"""


def assert_apart(noise):
    """6 standard errors each: false alarm 2e-9 a pair; reused streams correlate fully."""
    for i, first in enumerate(noise):
        for second in noise[:i]:
            assert not np.array_equal(first, second)
            correlation = np.corrcoef(first.astype(float), second.astype(float))[0, 1]
            assert abs(correlation) < 6 / math.sqrt(len(first))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_streams_of_forked_processes_differ(tmp_path):
    names = [str(tmp_path / name) for name in ("parent", "child", "sibling")]
    root = pathlib.Path(dp.__file__).parents[1]
    subprocess.run([sys.executable, "-c", FORKING, *names], check=True, timeout=60, cwd=root)
    noise = [np.fromfile(name, dtype=np.int64) for name in names]
    assert [len(values) for values in noise] == [4000] * 3
    assert_apart(noise)


@pytest.mark.parametrize("name", ["skellam", "discrete_gaussian"])
def test_streams_of_two_rounds_and_two_clients_differ(name):
    # A mechanism is drawn from round after round: it must not keep bytes or values between calls.
    client, other = mechanism(name=name, dim=4000), mechanism(name=name, dim=4000)
    assert_apart([m.sample_share(os.urandom) for _ in range(2) for m in (client, other)])
    central = dp.central_gaussian(dim=4000, clip_norm=2.0, noise_multiplier=1.0, num_clients=12)
    assert_apart([central.sample_noise(os.urandom) for _ in range(2)])


def test_streams_of_update_and_bit_are_not_shared(stream):
    m = mechanism(dim=1)
    bit = dp.bit_mechanism("skellam", stddev=5.0, num_clients=12, shares=8)
    rng = stream(11)
    pairs = [(m.sample_share(rng)[0], bit.encode(0, rng)[0]) for _ in range(4000)]
    assert_apart(list(np.array(pairs).T))


def test_streams_are_passed_in_and_used_once(stream):
    m = mechanism()
    rng = stream(5)
    first, second = m.sample_share(rng), m.sample_share(rng)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, m.sample_share(stream(5)))  # no state but the stream's


# ---- noise from a generator that is no secret (opacus#43)


def test_secret_generators_of_numpy_are_refused():
    for bad in (np.random.default_rng(0), np.random.default_rng(0).normal, 7, None):
        with pytest.raises((dp.ParameterError, TypeError)):
            mechanism().sample_share(bad)
    with pytest.raises(dp.ParameterError, match="rng"):
        dp.discrete_laplace(np.random.default_rng(0), 1.0, 1)


# ---- the modulus wraps (libprio-rs#1072)


@pytest.mark.parametrize("name", ["skellam", "discrete_gaussian"])
def test_wrap_worst_case_of_all_clients_survives(stream, name):
    m = mechanism(name=name, num_clients=8, shares=8)
    size = m.discretizer
    worst = np.zeros(40, dtype=np.int64)
    worst[0], worst[1] = size.linf, -size.linf
    noise = sum(m.sample_share(stream(i)) for i in range(8))
    total = 8 * worst + noise
    residues = [dp.wrap(worst + m.sample_share(stream(i)), m.modulus_bits) for i in range(8)]
    mask = np.uint64((1 << m.modulus_bits) - 1)
    np.testing.assert_array_equal(dp.unwrap(sum(residues) & mask, m.modulus_bits), total)


@pytest.mark.parametrize("name", ["skellam", "discrete_gaussian"])
@settings(max_examples=40, deadline=None)
@given(
    clients=st.integers(2, 2000), clip_norm=st.floats(1e-3, 1e3), noise=st.floats(0.3, 100.0),
    sigmas=st.floats(0.0, 11.0), sign=st.sampled_from([-1, 1]),
)  # fmt: skip
def test_wrap_worst_case_with_noise_far_out_fits(name, clients, clip_norm, noise, sigmas, sign):
    m = mechanism(
        name=name, clip_norm=clip_norm, noise_multiplier=noise, num_clients=clients, shares=clients
    )
    deviation = math.sqrt(clients * m.share_variance)
    total = sign * (clients * m.discretizer.linf + math.floor(sigmas * deviation))
    ends = np.array([total, -total])
    np.testing.assert_array_equal(
        dp.unwrap(dp.wrap(ends, m.modulus_bits), m.modulus_bits), ends
    )  # 11 deviations: probability 4e-28 a coordinate


def test_wrap_a_modulus_that_cannot_hold_the_sum_is_refused():
    m = mechanism()
    with pytest.raises(dp.ModulusError) as caught:
        mechanism(modulus_bits=m.modulus_bits - 1)
    assert caught.value.needed == m.modulus_bits


# ---- integers overflow before the modulus


def test_overflow_sums_at_the_limit_agree_with_python_integers():
    bits, count = 62, 3
    top = (1 << (bits - 1)) - 1
    values = np.array([top // count, -(top // count), 2**31, -(2**31), 2**53 + 1])
    total = sum(dp.wrap(values, bits) for _ in range(count)) & np.uint64((1 << bits) - 1)
    assert dp.unwrap(total, bits).tolist() == [count * v for v in values.tolist()]


def test_overflow_squares_are_kept_below_exact_doubles():
    with pytest.raises(dp.ParameterError, match="granularity"):
        dp.Discretizer(4, 1.0, 2.0**-27, 0.5, 1)


# ---- the clip is no bound (fedbiomed#1443)

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(max_examples=60)
@given(hnp.arrays(np.float64, 24, elements=FINITE), st.integers(0, 2**32))
def test_clip_integers_are_within_the_bound_for_every_vector(x, seed):
    m = mechanism(dim=24)
    z = m.discretizer.encode(x, rotation(24), np.random.default_rng(seed).bytes)
    exact = sum(int(v) ** 2 for v in z)
    assert exact <= m.discretizer.l2_sq
    assert m.event(1).l2_sq == m.discretizer.l2_sq


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clip_non_finite_vectors_never_become_integers(stream, bad):
    x = np.zeros(40)
    x[7] = bad
    with pytest.raises(dp.NonFiniteError):
        mechanism().encode(x, rotation(40), stream(0))


def test_clip_float32_vectors_are_bounded_in_exact_arithmetic():
    x = np.full(1_000_000, 1e-3, dtype=np.float32)
    got = dp.clip_l2(x, 0.5)
    assert x.size * Fraction(float(got.max())) ** 2 <= Fraction(1, 4)


# ---- stochastic rounding without the inflation of the norm (Kairouz et al. 2021)


def test_rounding_bound_is_enforced_where_rounding_would_break_it(stream):
    d = dp.Discretizer(400, 1.0, 0.5, 0.6, 50)  # c = 2: rounding adds far more than the norm
    x = np.ones(400) / 20.0
    c_sq = 4.0
    assert d.l2_sq > c_sq + 50
    lengths = []
    for seed in range(30):
        z = d.encode(x, rotation(400), stream(seed))
        lengths.append(int(np.dot(z, z)))
    assert max(lengths) <= d.l2_sq
    assert max(lengths) > c_sq  # the event must not state the norm before rounding
    assert d.l1 >= max(np.abs(d.encode(x, rotation(400), stream(s))).sum() for s in range(5))


# ---- noise of the sum put on the mean (jax_privacy#383, opacus#420)


def test_mean_noise_of_the_sum_has_the_nominal_scale(stream):
    m = mechanism(dim=2000, num_clients=10, shares=10)
    turn = rotation(2000)
    total = sum(m.encode(np.zeros(2000), turn, stream(i)) for i in range(10))
    noise = m.discretizer.decode(total, turn)
    # 5 standard errors of a deviation over 2,000 coordinates: false alarm 6e-7
    assert abs(noise.std() / (1.0 * 2.0) - 1) < 5 / math.sqrt(2 * 2000)


# ---- rejection samplers betray their value by their time (libprio-rs#645)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: dp.discrete_gaussian(rng, 30.0, 1),
        lambda rng: dp.skellam(rng, 900.0, 1),
        lambda rng: dp.discrete_laplace(rng, 30.0, 1),
    ],
    ids=["discrete gaussian", "skellam", "discrete laplace"],
)
def test_timing_every_value_costs_the_same_random_bytes(stream, draw):
    source, bytes_of = stream(4), {}
    for _ in range(500):
        asked: list[int] = []

        def rng(count, asked=asked):
            asked.append(count)
            return source(count)

        value = int(draw(rng)[0])
        bytes_of[value] = tuple(asked)
    assert len(bytes_of) > 60  # many values
    assert set(bytes_of.values()) == {(8,)}


@pytest.mark.parametrize("name", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("multiplier", [0.5, 20.0])
def test_timing_a_share_costs_the_same_random_bytes_whatever_it_is(stream, name, multiplier):
    m = mechanism(name=name, dim=64, noise_multiplier=multiplier)
    source = stream(6)
    asked: list[list[int]] = []

    def rng(count):
        asked[-1].append(count)
        return source(count)

    norms = []
    for _ in range(100):
        asked.append([])
        norms.append(float(np.linalg.norm(m.sample_share(rng))))
    assert max(norms) > 1.2 * min(norms)  # shares of different size
    assert all(calls == asked[0] for calls in asked)
    assert sum(asked[0]) == 8 * 64
