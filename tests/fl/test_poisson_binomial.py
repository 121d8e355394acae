"""Coins in place of noise shares: sizing, what rows claim, and what a client sends."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import dp
import fl
from fl.encoding import UPDATE, ClientValue, PrivateEncoding, round_rotation
from fl.privacy import ADVERSARIES
from tests.fl import helpers
from tests.fl.helpers import rows

ZERO_OUT = dp.NeighboringRelation.ZERO_OUT


def coins(**overrides: Any) -> fl.Privacy:
    return helpers.privacy(**{"mechanism": "poisson_binomial", "trials": 16, **overrides})


def resolve(num_clients: int = 40, **overrides: Any) -> fl.Resolved:
    plan = helpers.plan(**{"privacy": coins(), **overrides})
    return fl.resolve(plan, helpers.small_data(num_clients))


def mechanism_of(resolved: fl.Resolved) -> dp.PoissonBinomialMechanism:
    assert isinstance(resolved.exposure.mechanism, dp.PoissonBinomialMechanism)
    return resolved.exposure.mechanism


def spent(event: dp.Event) -> float:
    return dp.epsilon(event, 1e-3, neighboring=ZERO_OUT, accountant="rdp").upper


def stream(seed: int) -> dp.RandomBytes:
    return np.random.default_rng(seed).bytes


@pytest.mark.parametrize("against", ADVERSARIES)
def test_calibration_meets_the_target_from_below(against: str) -> None:
    resolved = resolve(privacy=coins(against=against))
    assert 8.0 * (1 - 1e-3) < helpers.upper(rows(resolved)[against].worst_case) <= 8.0


def test_worst_case_counts_the_honest_survivors_alone() -> None:
    resolved = resolve()
    table, mechanism = rows(resolved), mechanism_of(resolved)
    assert mechanism.shares == 40 - 10 - 4
    for adversary, shares in [("server", 26), ("participants", 26), ("outsider", 30)]:
        independent = spent(dp.SelfComposedEvent(mechanism.event(shares), 3))
        assert helpers.upper(table[adversary].worst_case) == pytest.approx(independent, rel=1e-6)
        assert helpers.upper(table[adversary].worst_case) >= independent
    assert helpers.upper(table["server"].worst_case) > helpers.upper(table["outsider"].worst_case)


def test_more_survivors_than_the_fewest_never_cost_more() -> None:
    resolved = resolve()
    ledger = dp.Ledger(40, max_releases=3, min_survivors=30, neighboring=ZERO_OUT)
    for t, last in enumerate((30, 35, 40)):
        ledger.charge(t, 0, range(40))
        ledger.release(t, 0, range(last), resolved.exposure.event("server", last))
    row = rows(resolved, ledger)["server"]
    events = tuple(mechanism_of(resolved).event(last - 4) for last in (30, 35, 40))
    assert helpers.upper(row.realised) == pytest.approx(spent(dp.ComposedEvent(events)), rel=1e-6)
    assert helpers.upper(row.realised) < helpers.upper(row.worst_case)
    assert helpers.upper(row.planned) <= helpers.upper(row.worst_case)


def test_the_figure_is_close_to_gaussian_noise_of_the_same_size() -> None:
    resolved = resolve(num_clients=200, privacy=coins(trials=4096))
    assert resolved.noise_multiplier is not None
    reference = spent(dp.SelfComposedEvent(dp.GaussianEvent(resolved.noise_multiplier), 3))
    assert reference < helpers.upper(rows(resolved)["server"].worst_case) < 1.05 * reference


def test_the_modulus_holds_all_coins_of_all_clients_and_no_more() -> None:
    resolved = resolve()
    assert isinstance(resolved.encoding, PrivateEncoding)
    length, bits = resolved.encoding.segments[UPDATE]
    assert length == resolved.messages.dim
    assert 2 ** (bits - 2) <= 40 * 16 // 2 < 2 ** (bits - 1)


def test_bits_asked_for_are_used_where_they_hold_all_coins() -> None:
    found = resolve(privacy=coins(modulus_bits=12))
    assert found.encoding is not None
    assert found.encoding.segments[UPDATE][1] == 12
    with pytest.raises(fl.PlanError, match="modulus_bits"):
        resolve(privacy=coins(modulus_bits=8))


def test_assumptions_say_that_the_others_coins_hide_a_client() -> None:
    text = " ".join(resolve().privacy.assumptions)
    assert "fair coins" in text
    assert "worst case over" in text
    assert "noise share" not in text


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_client_that_cannot_encode_tosses_fair_coins(bad: float) -> None:
    resolved = resolve()
    assert isinstance(resolved.encoding, PrivateEncoding)
    rotation = round_rotation(resolved.messages.dim, 7, 0)
    sent = []
    for value in (bad, 0.0):
        client = ClientValue(np.full(resolved.messages.dim, value, dtype=np.float32), 1, False)
        sent.append(resolved.encoding.encode(client, rotation, lambda _: stream(3)))
    np.testing.assert_array_equal(sent[0][UPDATE], sent[1][UPDATE])
    assert sent[0][UPDATE].any()


def test_a_run_with_a_broken_client_trains_and_tells_its_owner_alone() -> None:
    data = helpers.small_data()
    x = np.array(data.fields["x"], dtype=np.float32)
    x[data.client_slice(4)] = np.nan
    broken = helpers.small_data(x=x)
    for examples in (data, broken):
        plan = helpers.plan(privacy=coins(epsilon=50.0), seeded_secrets=True)
        *_, last = fl.rounds(plan, helpers.MODEL, examples)
        assert last.reason is None
        assert np.isfinite(np.asarray(last.params["w"])).all()


def test_a_released_mean_is_that_of_the_clients_and_does_not_follow_the_survivors() -> None:
    """Little noise: the mean of equal updates shrinks with who is absent, and is not shifted."""
    norms = helpers.released_norms(coins(epsilon=5000.0, trials=4096))
    assert [count for count, _ in norms] == [12, 9]
    assert norms[1][1] / norms[0][1] == pytest.approx(9 / 12, abs=0.05)


def test_a_secret_cohort_counts_participations_for_an_outsider() -> None:
    resolved = resolve(
        num_clients=200, cohort=fl.cohort.poisson(0.5), rounds=6, privacy=coins(epsilon=20.0)
    )
    table, exposure = rows(resolved), resolved.exposure
    event = exposure.composed("outsider", exposure.bounds.min_survivors, exposure.max_releases)
    assert isinstance(event, dp.SecretParticipationEvent)
    assert helpers.upper(table["outsider"].worst_case) < helpers.upper(table["server"].worst_case)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"trials": None}, "trials"),
        ({"trials": 0}, "trials"),
        ({"trials": 5000}, "trials"),
        ({"trials": True}, "trials"),
        ({"accountant": "zcdp"}, "accountant"),
        ({"wrap_probability": 1e-6}, "wrap_probability"),
        ({"unit": "record", "record_sampling": 1.0}, "unit"),
        ({"mechanism": "skellam"}, "trials"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides: dict[str, Any], field: str) -> None:
    assert [line.partition(":")[0] for line in coins(**overrides).faults()] == [field]


def test_central_use_is_refused() -> None:
    with pytest.raises(fl.PlanError, match="central"):
        resolve(aggregation=fl.Plain())


def test_a_job_says_it_in_strings_and_numbers() -> None:
    job = fl.Job(
        dataset="digits", clients=10, partition="iid", server="semi_honest", corrupt=0.1,
        dropout=0.2, mechanism="poisson_binomial", trials=4, against="server", epsilon=4.0,
        delta=1e-3, clip_norm=0.5,
    )  # fmt: skip
    plan, _, _ = job.build()
    assert plan.privacy == coins(epsilon=4.0, trials=4)
    with pytest.raises(fl.PlanError, match="trials"):
        dataclasses.replace(job, trials=None).build()
