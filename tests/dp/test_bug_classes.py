"""One test or more for each class of bug that privacy libraries are known for.

Statistical tests have fixed seeds and state their false-alarm rate; the comment above a test says
where its class was seen. The table: class of bug > beginnings of the names of tests that catch it,
here or in test_MODULE.py.

    float grid leaks the input > noise_bugs.test_float_grid, laplace_and_grid.test_every_output
    a float leaves the client > fl/train.test_no_float_and_no_clear_count
    replace-one sensitivity > test_replace_one, pld.test_replace_one, events.test_replace_one
    fixed batches accounted as Poisson > test_sampling, ledger.test_sampled_events_are_refused
    public cohorts amplified > fl/cohort.test_only_secret_coins, pld.test_noise_shares_are_never
    inclusions that depend on each other > fl/cohort.test_poisson_inclusions
    only the remove direction > pld.test_both_directions, record_sampling.test_the_other_direction
    a central limit as a guarantee > test_central_limit, oracles.test_intervals_contain
    instability: tiny q or delta, huge epsilon > test_instability, pld.test_extreme_settings
    not monotone in an argument > pld.test_monotone, test_instability
    delta of failures forgotten > test_delta, fl/statement.test_protocol_failure_is_charged
    delta of truncation forgotten > grids.test_window_and_noise, participation.test_what_lies_beyond
    edge of the orders, orders near 1 > test_orders
    streams reused: rounds, clients > noise_bugs.test_streams_of_two, fl/train.test_noise_differs
    streams reused: update and bit > noise_bugs.test_streams_of_update
    streams reused after a fork > noise_bugs.test_streams_of_forked
    noise from a generator that is no secret > noise_bugs.test_secret
    noise from a seed that is known > fl/statement.test_without_privacy_or_with_seeded
    the modulus wraps > noise_bugs.test_wrap, clipping_batches.test_wrap, mechanisms.test_modulus
    integers overflow before the modulus > noise_bugs.test_overflow, discretize.test_numpy_scalars
    the clip is no bound > noise_bugs.test_clip, clipping.test_float32, discretize.test_adversarial
    a layer's clip taken for the whole > clipping_batches.test_every_layer
    a client without data or with NaN > fl/train.test_a_client_with_nan, discretize.test_zero
    rounding without inflation of the norm > noise_bugs.test_rounding, discretize.test_bound
    noise of the sum on the mean > noise_bugs.test_mean, fl/statement.test_the_realised_noise
    division by the survivors > fl/train.test_a_private_plan_divides, fl/records.test_the_public
    fewer survivors, colluders > test_survivors, fl/statement.test_worst_case_counts
    the count of adaptive clipping is free > test_adaptive_clip
    the accountant changes when asked > test_query, ledger.test_realised_charges_failures
    the accountant is not saved > test_query, ledger.test_save_load_continue
    epsilon 0, inf, None; delta 0, >= 1/n > test_edges
    time of rejection samplers > noise_bugs.test_timing, samplers.test_draws_per_value
    another law accounted than drawn > test_law, samplers.test_table_of_another_scale
    an auditor that raises false alarms > auditing.test_null_scores, detectors.test_honest_noise
"""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import itertools
import json
import math
import pathlib
import re

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


def test_adaptive_clip_rounds_compose_in_a_ledger():
    update = mechanism().event(8)
    bit = dp.bit_mechanism("skellam", stddev=5.0, num_clients=12, shares=8).event(8)
    both = dp.ComposedEvent((update, bit))
    orders = np.array([0.5, 1.0, 7.0, 30.0])
    np.testing.assert_allclose(
        dp.rdp_curve(both, orders), dp.rdp_curve(update, orders) + dp.rdp_curve(bit, orders), 1e-9
    )
    realised = []
    for event in (both, update):
        ledger = dp.Ledger(12, max_releases=3, min_survivors=8, neighboring=ZERO_OUT)
        for t in range(3):
            ledger.charge(t, 0, range(12))
            ledger.release(t, 0, range(8), event)
        realised.append(ledger.realised(1e-5, "rdp").upper)
        assert realised[-1] == pytest.approx(spent(dp.SelfComposedEvent(event, 3)), rel=1e-9)
    assert realised[0] > realised[1]


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


# ---- the table itself


def test_every_row_of_the_table_names_tests_that_exist():
    here = pathlib.Path(__file__).parent
    rows = [line for line in (__doc__ or "").splitlines() if line.startswith("    ")]
    for row in rows:
        names = re.findall(r"(?:([\w/]+)\.)?(test_\w+)", row.split(" > ")[1])
        assert names, row
        for module, start in names:
            folder, _, name = (module or "bug_classes").rpartition("/")
            path = (here.parent / folder if folder else here) / f"test_{name}.py"
            assert re.search(rf"^def {start}", path.read_text(), re.MULTILINE), (path.name, start)
    assert len(rows) >= 30
