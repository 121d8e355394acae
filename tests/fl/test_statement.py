"""Statement rows: what counts for whom, and that nothing unproven is a number."""

import math

import numpy as np
import pytest

import dp
import fl
from fl.privacy import ADVERSARIES, cohort_bounds, floor_fraction
from fl.statement import so_far, statement
from tests.fl import helpers

RDP = {"neighboring": dp.NeighboringRelation.ZERO_OUT, "accountant": "rdp"}


def rows(resolved, **kwargs):
    return {row.adversary: row for row in statement(resolved.exposure, **kwargs).rows}


def resolve(num_clients=40, **overrides):
    return fl.resolve(helpers.plan(**overrides), helpers.small_data(num_clients))


def test_fractions_are_exact_decimals():
    assert floor_fraction(0.1, 30) == 3  # 0.1 * 30 is 3.0000000000000004 and 0.29 * 100 is below 29
    assert floor_fraction(0.29, 100) == 29
    bounds = cohort_bounds(200, 0.1, 0.1)
    assert (bounds.max_corrupt, bounds.min_survivors, bounds.honest_shares) == (20, 180, 160)


def test_noise_is_sized_for_the_honest_survivors():
    resolved = resolve()
    mechanism, bounds = resolved.exposure.mechanism, resolved.exposure.bounds
    assert bounds.honest_shares == 40 - 10 - 4
    grid = mechanism.discretizer.clip_norm / mechanism.discretizer.granularity
    expected = (resolved.noise_multiplier * grid) ** 2 / bounds.honest_shares
    assert mechanism.share_variance == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("against", ADVERSARIES)
def test_calibration_meets_the_target_from_below(mechanism, against):
    resolved = resolve(privacy=helpers.privacy(mechanism=mechanism, against=against))
    upper = rows(resolved)[against].worst_case.upper
    assert 8.0 * (1 - 1e-4) < upper <= 8.0


def test_worst_case_counts_min_survivors_less_colluders_in_every_release():
    resolved = resolve()
    table = rows(resolved)
    for adversary, shares in [("server", 26), ("participants", 26), ("outsider", 30)]:
        event = dp.SelfComposedEvent(resolved.exposure.mechanism.event(shares), 3)
        independent = dp.epsilon(event, 1e-3, **RDP).upper
        assert table[adversary].worst_case.upper == pytest.approx(independent, rel=1e-6)
        assert table[adversary].worst_case.upper >= independent
    assert table["server"].worst_case.upper > table["outsider"].worst_case.upper


def test_the_figure_is_that_of_a_gaussian_of_the_same_noise():
    resolved = resolve(num_clients=200)
    shares = resolved.exposure.bounds.honest_shares
    ours = rows(resolved)["server"].worst_case.upper
    gaussian = dp.GaussianEvent(resolved.noise_multiplier)
    reference = dp.epsilon(dp.SelfComposedEvent(gaussian, 3), 1e-3, **RDP).upper
    assert shares == 200 - 50 - 20
    assert reference < ours < 1.02 * reference  # rounding inflates the bound by at most 1 %


def test_planned_uses_expected_dropout_and_scheduled_rounds():
    spare = helpers.privacy(spare_releases=2)
    resolved = resolve(privacy=spare, aggregation=helpers.ideal(expected_dropout=0.05))
    table = rows(resolved)
    event = dp.SelfComposedEvent(resolved.exposure.mechanism.event(40 - 2 - 4), 3)
    assert table["server"].planned.upper == pytest.approx(dp.epsilon(event, 1e-3, **RDP).upper)
    assert table["server"].planned.upper < table["server"].worst_case.upper
    assert table["server"].max_releases == 5


def test_realised_is_the_worst_client_of_what_happened():
    resolved = resolve()
    ledger = dp.Ledger(
        40, max_releases=3, min_survivors=30, neighboring=dp.NeighboringRelation.ZERO_OUT
    )
    survivors = [range(40), range(1, 33), range(5, 35)]
    exposure = resolved.exposure
    for t, ids in enumerate(survivors):
        ledger.charge(t, 0, range(40))
        ledger.release(t, 0, ids, exposure.event("server", len(ids)))
    for adversary, c in [("server", 4), ("participants", 4), ("outsider", 0)]:
        by_client = []
        for client in range(40):
            events = [exposure.mechanism.event(len(ids) - c) for ids in survivors if client in ids]
            spent = dp.epsilon(dp.ComposedEvent(tuple(events)), 1e-3, **RDP).upper if events else 0
            by_client.append(spent)
        got = rows(resolved, ledger=ledger)[adversary].realised.upper
        assert got == pytest.approx(max(by_client), rel=1e-6)
    happened, worst = so_far(exposure, ledger)
    assert happened < worst <= rows(resolved)["server"].worst_case.upper


def test_a_smaller_delta_is_a_row_of_its_own_and_calibrates_nothing():
    plain = resolve()
    both = resolve(privacy=helpers.privacy(report_deltas=(1e-5,)))
    assert both.noise_multiplier == pytest.approx(plain.noise_multiplier)
    table = both.privacy.rows
    assert [row.delta for row in table] == [1e-3] * 3 + [1e-5] * 3
    assert table[3].worst_case.upper > table[0].worst_case.upper


def test_protocol_failure_is_charged_to_the_servers_delta_alone():
    near = helpers.secure(security_bits=12)
    resolved = resolve(aggregation=near, privacy=helpers.privacy(delta=2.0**-11))
    table = rows(resolved)
    event = dp.SelfComposedEvent(resolved.exposure.mechanism.event(26), 3)
    assert table["server"].worst_case.upper == pytest.approx(
        dp.epsilon(event, 2.0**-12, **RDP).upper, rel=1e-6
    )
    assert table["participants"].worst_case.upper == pytest.approx(
        dp.epsilon(event, 2.0**-11, **RDP).upper, rel=1e-6
    )


def test_a_protocol_that_fails_more_often_than_delta_gives_no_server_figure():
    resolved = resolve(
        aggregation=helpers.secure(security_bits=5),
        privacy=helpers.privacy(against="participants"),
    )
    server = rows(resolved)["server"]
    assert server.worst_case is server.planned is None
    assert "not proven" in server.reason
    assert rows(resolved)["participants"].worst_case is not None


@pytest.mark.parametrize("aggregation", [fl.Plain(), helpers.ideal(), helpers.secure()])
def test_central_noise_claims_nothing_against_the_server(aggregation):
    resolved = resolve(
        privacy=helpers.privacy(mechanism="gaussian", against="participants"),
        aggregation=aggregation,
    )
    table = rows(resolved)
    assert table["server"].worst_case is None
    assert "central noise" in table["server"].reason
    assert table["participants"].worst_case.upper == pytest.approx(8.0, rel=1e-4)


def test_without_privacy_or_with_seeded_secrets_no_row_is_a_number():
    for overrides, words in [
        ({"privacy": fl.NotPrivate(1.0)}, "not private"),
        ({"seeded_secrets": True}, "seeded_secrets"),
    ]:
        table = resolve(**overrides).privacy
        assert {row.adversary for row in table.rows} == set(ADVERSARIES)
        for row in table.rows:
            assert row.planned is row.realised is row.worst_case is None
            assert words in row.reason
        assert table.assumptions == ()


def test_rows_serialise_as_the_summary_holds_them():
    row = resolve().privacy.to_dict()["rows"][0]
    assert set(row) == {
        "adversary", "relation", "delta", "epsilon", "reason", "c", "min_survivors",
        "max_releases",
    }  # fmt: skip
    assert row["relation"] == "zero_out"
    assert set(row["epsilon"]) == {"planned", "realised", "worst_case"}
    assert row["epsilon"]["realised"] is None
    assert row["epsilon"]["worst_case"]["lower"] == 0.0
    assert math.isfinite(row["epsilon"]["worst_case"]["upper"])


def test_the_realised_noise_in_the_mean_is_what_the_statement_counts():
    """Variance of the released mean over coordinates of clients that all send zero.

    400 rounds x 15 coordinates: the relative standard error of the variance is about
    sqrt(2 / 6000) = 1.8 %, so 9 % is five standard errors (false alarms below 1e-6).
    """
    data = helpers.small_data(num_clients=40, examples=0)
    plan = helpers.plan(rounds=400, eval_every=400, aggregation=helpers.ideal())
    resolved = fl.resolve(plan, data)
    previous, noise = np.zeros(15), []
    for r in fl.rounds(plan, helpers.MODEL, data):
        flat = np.concatenate([np.asarray(r.params["b"]), np.asarray(r.params["w"]).ravel()])
        noise.append(flat - previous)
        previous = flat
    steps = np.array(noise)
    means = steps[1:] - 0.5 * steps[:-1]  # the server optimizer's momentum taken out
    expected = (resolved.noise_multiplier * 0.5) ** 2 * 40 / 26 / 40**2
    assert means.var() == pytest.approx(expected, rel=0.09)
