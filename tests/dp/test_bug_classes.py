"""One test or more for each class of bug that privacy libraries are known for.

Each test is named by its class; the comment above says where the class was seen. Statistical
tests have fixed seeds and state their false-alarm rate.
"""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, special

import dp

ADD_REMOVE = dp.NeighboringRelation.ADD_REMOVE
REPLACE_ONE = dp.NeighboringRelation.REPLACE_ONE
ZERO_OUT = dp.NeighboringRelation.ZERO_OUT
ACCOUNTANTS = ("rdp", "zcdp")
EVENT = dp.SkellamEvent(400.0, 100, 60, 10, 9)


def spent(event, delta=1e-5, relation=ZERO_OUT, accountant="rdp"):
    return dp.epsilon(event, delta, neighboring=relation, accountant=accountant).upper


def exact_gaussian(mu, delta):
    """Epsilon of N(0, 1) against N(mu, 1) (Balle, Wang 2018, Theorem 8)."""

    def excess(eps):
        upper = special.log_ndtr(mu / 2 - eps / mu)
        lower = special.log_ndtr(-mu / 2 - eps / mu) + eps
        return math.exp(upper) - math.exp(min(lower, 50.0)) - delta

    if excess(0.0) <= 0.0:
        return 0.0
    return optimize.brentq(excess, 0.0, mu * mu + 20.0 * mu + 1.0, xtol=1e-12)


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


# ---- replace-one is off by two (google/differential-privacy#378)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_replace_one_is_add_remove_at_half_the_noise(sigma, accountant):
    full = spent(dp.GaussianEvent(sigma), relation=REPLACE_ONE, accountant=accountant)
    half = spent(dp.GaussianEvent(sigma / 2), relation=ADD_REMOVE, accountant=accountant)
    assert full == pytest.approx(half, rel=1e-12)


def test_replace_one_is_above_its_exact_curve():
    assert exact_gaussian(2.0, 1e-5) == pytest.approx(9.997, abs=1e-3)
    assert spent(dp.GaussianEvent(1.0), relation=REPLACE_ONE) >= exact_gaussian(2.0, 1e-5)
    integers = dp.DiscreteGaussianEvent(10.0, 100, 100, 10, 1)
    assert spent(integers, relation=REPLACE_ONE) >= exact_gaussian(2.0, 1e-5) * 0.99


# ---- fixed batches or shuffling accounted as Poisson (opacus#813)


def test_sampling_public_participation_is_composed_in_full():
    one = spent(EVENT)
    many = spent(dp.SelfComposedEvent(EVENT, 50))
    assert many > 5 * one
    ledger = dp.Ledger(4, max_releases=50, min_survivors=1, neighboring=ZERO_OUT)
    for t in range(50):  # cyclic cohorts: nothing is claimed from their order
        ledger.charge(t, 0, [t % 4])
        ledger.release(t, 0, [t % 4], EVENT)
    assert ledger.realised(1e-5, "rdp").upper == pytest.approx(
        spent(dp.SelfComposedEvent(EVENT, 13)), rel=1e-9
    )


# ---- a central limit reported as a guarantee (opacus#384)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@settings(max_examples=60)
@given(st.floats(0.3, 50.0), st.integers(1, 10_000), st.floats(1e-12, 1e-2))
def test_central_limit_every_accountant_is_above_the_exact_curve(accountant, sigma, count, delta):
    event = dp.SelfComposedEvent(dp.GaussianEvent(sigma), count)
    exact = exact_gaussian(math.sqrt(count) / sigma, delta)
    assert spent(event, delta, accountant=accountant) >= exact * (1 - 1e-9)


def test_central_limit_no_mu_for_events_that_are_not_gaussian():
    with pytest.raises(dp.UnsupportedEventError):
        dp.gdp_parameter(dp.SelfComposedEvent(EVENT, 10_000))


# ---- instability at small delta, many rounds, huge epsilon (prv_accountant#17, #36)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_instability_finite_and_monotone_over_a_sweep(accountant):
    def at(z, count, delta):
        return spent(dp.SelfComposedEvent(dp.GaussianEvent(z), count), delta, accountant=accountant)

    noises, counts, deltas = (0.2, 1.0, 30.0, 1e3), (1, 100, 10**6), (1e-3, 1e-8, 1e-12, 1e-100)
    table = np.array([[[at(z, t, d) for d in deltas] for t in counts] for z in noises])
    assert np.all(np.isfinite(table))
    assert np.all(table >= 0)
    assert np.all(np.diff(table, axis=0) <= 0)
    assert np.all(np.diff(table, axis=1) >= 0)
    assert np.all(np.diff(table, axis=2) >= 0)


# ---- delta forgotten (PipelineDP#549)


def test_delta_parts_sum_to_the_delta_that_is_returned():
    delta, failure, distance = 1e-5, 4e-6, 1e-9
    got = dp.epsilon_with_failures(
        EVENT, delta, neighboring=ZERO_OUT, accountant="rdp",
        failure_prob=failure, total_variation=distance,
    ).upper  # fmt: skip
    reserve = failure + distance * (1 + math.exp(got))
    left = dp.delta(EVENT, got, neighboring=ZERO_OUT, accountant="rdp").upper
    assert left + reserve <= delta * (1 + 1e-9)


def test_delta_sampler_distance_is_charged_for_every_value():
    m = mechanism()
    assert m.total_variation(8) == 8 * 40 * 2.0**-100
    given_ = {"neighboring": ZERO_OUT, "accountant": "rdp"}
    many = dp.epsilon_with_failures(EVENT, 1e-5, total_variation=4e-7, **given_).upper
    few = dp.epsilon_with_failures(EVENT, 1e-5, total_variation=1e-9, **given_).upper
    assert many > few > spent(EVENT)


# ---- RDP orders: the edge of the grid, orders near 1 (tensorflow/privacy#166)


def test_orders_optimum_beyond_any_fixed_grid_is_found():
    # mu = 1e-5 and delta = 1e-12: the best order is about 1e6; exact epsilon about 4e-5.
    got = spent(dp.GaussianEvent(1e5), 1e-12)
    assert got < 1e-4
    # mu = 1000: the best order is about 1 + 5e-3.
    huge = spent(dp.GaussianEvent(1e-3), 1e-5)
    assert exact_gaussian(1e3, 1e-5) <= huge <= 1.01 * exact_gaussian(1e3, 1e-5)


def test_orders_near_one_are_continuous():
    a = np.array([1e-12, 1e-9, 1e-6, 1e-3])
    for event in (dp.GaussianEvent(1.0), EVENT, dp.SkellamEvent(2.0, 9, 9, 3, 9)):
        curve = dp.rdp_curve(event, a)
        assert np.all(np.isfinite(curve))
        assert curve[0] > 0
        assert curve[-1] <= curve[0] * 1.01 + 1e-9


# ---- seeds and streams reused across rounds, clients, processes (flower#7225, tmlt.core)


FORKING = """
import os, sys
import dp
dp.skellam(os.urandom, 50.0, 10)  # whatever is buffered would be copied by the fork
child = os.fork()
with open(sys.argv[1 if child else 2], "wb") as out:
    out.write(dp.skellam(os.urandom, 50.0, 4000).tobytes())
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_streams_of_forked_processes_differ(tmp_path):
    names = [str(tmp_path / name) for name in ("parent", "child")]
    root = pathlib.Path(dp.__file__).parents[1]
    subprocess.run([sys.executable, "-c", FORKING, *names], check=True, timeout=60, cwd=root)
    parent, child = (np.fromfile(name, dtype=np.int64).astype(float) for name in names)
    # 6 standard errors: false alarm 2e-9; these draws are not seeded
    assert abs(np.corrcoef(parent, child)[0, 1]) < 6 / math.sqrt(4000)


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


# ---- fewer survivors than planned, colluders know their shares


def test_survivors_fewer_of_them_cost_more_and_add_less_noise(stream):
    m = mechanism(dim=4000, num_clients=12, shares=8)
    full, half = spent(m.event(8)), spent(m.event(4))
    assert half > 1.3 * full
    for count in (8, 4):
        total = sum(m.sample_share(stream(i)) for i in range(count))
        # 5 standard errors over 4,000 coordinates
        assert abs(total.var() / (count * m.share_variance) - 1) < 5 * math.sqrt(2 / 4000)
    ledger = dp.Ledger(12, max_releases=1, min_survivors=8, neighboring=ZERO_OUT)
    ledger.charge(0, 0, range(12))
    with pytest.raises(dp.SurvivorsError):
        ledger.release(0, 0, range(4), m.event(4))


def test_survivors_a_sum_of_shares_is_not_one_discrete_gaussian():
    # Share sigma 1/2: the sum's exact divergence exceeds that of N_Z(0, h sigma^2).
    shares = dp.DiscreteGaussianSumEvent(0.5, 100, 1, 1, 1, 1)
    single = dp.DiscreteGaussianEvent(math.sqrt(25.0), 1, 1, 1, 1)
    assert dp.rdp_curve(shares, np.ones(1))[0] > 1.1 * dp.rdp_curve(single, np.ones(1))[0]


# ---- the count of adaptive clipping is free (tensorflow-federated)


def test_adaptive_clip_the_count_is_charged():
    update = mechanism().event(8)
    bit = dp.bit_mechanism("skellam", stddev=5.0, num_clients=12, shares=8).event(8)
    assert spent(dp.ComposedEvent((update, bit))) > spent(update)


def test_adaptive_clip_noise_formula_keeps_the_joint_cost():
    z, z_bit = 1.0, 10.0
    pair = dp.ComposedEvent(
        (dp.GaussianEvent(dp.joint_multiplier(z, z_bit)), dp.GaussianEvent(z_bit))
    )
    assert spent(pair) == pytest.approx(spent(dp.GaussianEvent(z)), rel=1e-9)


# ---- the accountant changes when asked, or is not saved (opacus#535, #429)


def test_query_changes_nothing_and_text_continues():
    ledger = dp.Ledger(3, max_releases=3, min_survivors=1, neighboring=ZERO_OUT)
    ledger.charge(0, 0, [0, 1])
    ledger.release(0, 0, [0, 1], EVENT)
    before = ledger.to_json()
    assert ledger.realised(1e-5, "rdp") == ledger.realised(1e-5, "rdp")
    assert ledger.to_json() == before
    restored = dp.Ledger.from_json(before)
    for book in (ledger, restored):
        book.charge(1, 0, [0])
        book.release(1, 0, [0], EVENT)
    assert restored.realised(1e-5, "rdp") == ledger.realised(1e-5, "rdp")


# ---- epsilon 0, inf, None; delta 0 or too large (Safe-Synthesizer#367)


@pytest.mark.parametrize(
    "delta", [0, 0.0, 1, 1.0, -1e-5, 2.0, math.nan, math.inf, None, "1", True], ids=repr
)
def test_edges_of_delta_are_refused(delta):
    with pytest.raises(dp.ParameterError) as caught:
        spent(EVENT, delta)
    assert caught.value.field == "delta"


@pytest.mark.parametrize("sigma", [0, 0.0, -1.0, math.nan, math.inf, None, "1", True], ids=repr)
def test_edges_of_noise_are_refused(sigma):
    with pytest.raises(dp.ParameterError):
        dp.GaussianEvent(sigma)
    with pytest.raises(dp.ParameterError):
        dp.SkellamEvent(sigma, 1, 1, 1, 1)


@pytest.mark.parametrize("epsilon", [0, 0.0, -1.0, math.nan, math.inf, None, "1", True], ids=repr)
def test_edges_of_a_target_are_refused(epsilon):
    with pytest.raises(dp.ParameterError) as caught:
        dp.calibrate(
            dp.GaussianEvent, epsilon=epsilon, delta=1e-5, neighboring=ZERO_OUT, accountant="rdp"
        )
    assert caught.value.field == "epsilon"


def test_edges_empty_compositions_and_unknown_relations_are_refused():
    with pytest.raises(dp.ParameterError):
        dp.ComposedEvent(())
    with pytest.raises(dp.ParameterError):
        dp.SelfComposedEvent(EVENT, 0)
    with pytest.raises(dp.ParameterError, match="neighboring"):
        dp.epsilon(EVENT, 1e-5, neighboring=None, accountant="rdp")
    with pytest.raises(dp.CalibrationError):
        dp.calibrate(
            lambda z: dp.ComposedEvent((dp.GaussianEvent(z), dp.GaussianEvent(1.0))),
            epsilon=1e-3, delta=1e-5, neighboring=ZERO_OUT, accountant="rdp",
        )  # fmt: skip


def test_edges_delta_of_one_client_in_full_warns():
    ledger = dp.Ledger(100, max_releases=1, min_survivors=1, neighboring=ZERO_OUT)
    with pytest.warns(dp.DeltaWarning, match="1/100"):
        ledger.worst_case(EVENT, 0.01, "rdp")
    with pytest.warns(dp.DeltaWarning, match="in full|at random"):
        ledger.realised(0.02, "rdp")
    ledger.worst_case(EVENT, 0.0099, "rdp")  # a warning would be an error here
    own = dp.Ledger(1, max_releases=1, min_survivors=1, neighboring=ZERO_OUT)
    own.worst_case(EVENT, 0.5, "rdp")


def test_edges_text_never_turns_infinity_into_a_figure():
    ledger = dp.Ledger(2, max_releases=1, min_survivors=1, neighboring=ZERO_OUT)
    data = json.loads(ledger.to_json())
    for bad in (math.inf, math.nan, None, 0):
        with pytest.raises((dp.ParameterError, dp.LedgerMismatchError)):
            dp.Ledger.from_json(json.dumps({**data, "max_releases": bad}))


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


# ---- a divergence of the law that was not added


def test_law_the_event_is_that_of_the_noise_drawn(stream):
    m = mechanism(name="discrete_gaussian", noise_multiplier=0.3, shares=4, num_clients=4)
    event = m.event(3)
    assert (event.share_sigma, event.shares) == (m.share_sigma, 3)
    skellam = mechanism(shares=4, num_clients=4)
    assert skellam.event(3).variance <= 3 * skellam.share_variance
    with mpmath.workdps(30):
        assert skellam.event(3).variance >= 3 * skellam.share_variance * (1 - 1e-15)
    for less, more in itertools.pairwise((1, 2, 3, 4)):
        assert spent(skellam.event(less)) > spent(skellam.event(more))
