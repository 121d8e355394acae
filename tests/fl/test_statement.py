"""Statement rows: what counts for whom, and that nothing unproven is a number."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import dp
import fl
from fl.privacy import ADVERSARIES, cohort_bounds, floor_fraction
from fl.statement import so_far, statement
from tests.fl import helpers
from tests.fl.helpers import rows


def spent(event: dp.Event, delta: float) -> float:
    """The event's own upper epsilon, without the statement."""
    zero_out = dp.NeighboringRelation.ZERO_OUT
    return dp.epsilon(event, delta, neighboring=zero_out, accountant="rdp").upper


def sigma_of(resolved: fl.Resolved) -> float:
    assert resolved.noise_multiplier is not None
    return resolved.noise_multiplier


def resolve(num_clients: int = 40, **overrides: Any) -> fl.Resolved:
    return fl.resolve(helpers.plan(**overrides), helpers.small_data(num_clients))


def test_fractions_are_exact_decimals() -> None:
    assert floor_fraction(0.1, 30) == 3  # 0.1 * 30 is 3.0000000000000004 and 0.29 * 100 is below 29
    assert floor_fraction(0.29, 100) == 29
    bounds = cohort_bounds(200, 0.1, 0.1)
    assert (bounds.max_corrupt, bounds.min_survivors, bounds.honest_shares) == (20, 180, 160)


def test_noise_is_sized_for_the_honest_survivors() -> None:
    resolved = resolve()
    mechanism, bounds = helpers.mechanism_of(resolved), resolved.exposure.bounds
    assert bounds.honest_shares == 40 - 10 - 4
    grid = mechanism.discretizer.clip_norm / mechanism.discretizer.granularity
    expected = (sigma_of(resolved) * grid) ** 2 / bounds.honest_shares
    assert mechanism.share_variance == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("against", ADVERSARIES)
def test_calibration_meets_the_target_from_below(mechanism: str, against: str) -> None:
    resolved = resolve(privacy=helpers.privacy(mechanism=mechanism, against=against))
    assert 8.0 * (1 - 1e-4) < helpers.upper(rows(resolved)[against].worst_case) <= 8.0


def test_worst_case_counts_min_survivors_less_colluders_in_every_release() -> None:
    resolved = resolve()
    table = rows(resolved)
    for adversary, shares in [("server", 26), ("participants", 26), ("outsider", 30)]:
        independent = spent(
            dp.SelfComposedEvent(helpers.mechanism_of(resolved).event(shares), 3), 1e-3
        )
        assert helpers.upper(table[adversary].worst_case) == pytest.approx(independent, rel=1e-6)
        assert helpers.upper(table[adversary].worst_case) >= independent
    assert helpers.upper(table["server"].worst_case) > helpers.upper(table["outsider"].worst_case)


def test_the_figure_is_that_of_a_gaussian_of_the_same_noise() -> None:
    resolved = resolve(num_clients=200)
    shares = resolved.exposure.bounds.honest_shares
    ours = helpers.upper(rows(resolved)["server"].worst_case)
    reference = spent(dp.SelfComposedEvent(dp.GaussianEvent(sigma_of(resolved)), 3), 1e-3)
    assert shares == 200 - 50 - 20
    assert reference < ours < 1.02 * reference  # rounding inflates the bound by at most 1 %


def test_planned_uses_expected_dropout_and_scheduled_rounds() -> None:
    spare = helpers.privacy(spare_releases=2)
    resolved = resolve(privacy=spare, aggregation=helpers.ideal(expected_dropout=0.05))
    table = rows(resolved)
    event = dp.SelfComposedEvent(helpers.mechanism_of(resolved).event(40 - 2 - 4), 3)
    assert helpers.upper(table["server"].planned) == pytest.approx(spent(event, 1e-3))
    assert helpers.upper(table["server"].planned) < helpers.upper(table["server"].worst_case)
    assert table["server"].max_releases == 5


def test_realised_is_the_worst_client_of_what_happened() -> None:
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
            sizes = [len(ids) for ids in survivors if client in ids]
            events = tuple(helpers.mechanism_of(resolved).event(size - c) for size in sizes)
            by_client.append(spent(dp.ComposedEvent(events), 1e-3) if events else 0)
        got = helpers.upper(rows(resolved, ledger)[adversary].realised)
        assert got == pytest.approx(max(by_client), rel=1e-6)
    happened, worst = so_far(exposure, ledger, 3)
    assert happened is not None
    assert worst is not None
    assert happened < worst <= helpers.upper(rows(resolved)["server"].worst_case)


def test_a_malicious_servers_word_on_survivors_does_not_count() -> None:
    resolved = resolve()
    exposure = dataclasses.replace(resolved.exposure, server="malicious")
    ledger = dp.Ledger(
        40, max_releases=3, min_survivors=30, neighboring=dp.NeighboringRelation.ZERO_OUT
    )
    ledger.charge(0, 0, range(40))
    ledger.release(0, 0, range(40), exposure.event("server", 40))
    realised = {row.adversary: row.realised for row in statement(exposure, ledger).rows}
    for adversary, shares in [("server", 30 - 4), ("participants", 40 - 4), ("outsider", 40)]:
        expected = spent(helpers.mechanism_of(resolved).event(shares), 1e-3)
        assert helpers.upper(realised[adversary]) == pytest.approx(expected, rel=1e-6)


def test_a_smaller_delta_is_a_row_of_its_own_and_calibrates_nothing() -> None:
    plain = resolve()
    both = resolve(privacy=helpers.privacy(report_deltas=(1e-5,)))
    assert both.noise_multiplier == pytest.approx(plain.noise_multiplier)
    table = both.privacy.rows
    assert [row.delta for row in table] == [1e-3] * 3 + [1e-5] * 3
    assert helpers.upper(table[3].worst_case) > helpers.upper(table[0].worst_case)


def test_protocol_failure_is_charged_to_the_servers_delta_alone() -> None:
    near = helpers.secure(security_bits=12)
    resolved = resolve(aggregation=near, privacy=helpers.privacy(delta=2.0**-11))
    table = rows(resolved)
    event = dp.SelfComposedEvent(helpers.mechanism_of(resolved).event(26), 3)
    server, participants = table["server"].worst_case, table["participants"].worst_case
    assert helpers.upper(server) == pytest.approx(spent(event, 2.0**-12), rel=1e-6)
    assert helpers.upper(participants) == pytest.approx(spent(event, 2.0**-11), rel=1e-6)


def test_a_protocol_that_fails_more_often_than_delta_gives_no_server_figure() -> None:
    resolved = resolve(
        aggregation=helpers.secure(security_bits=5),
        privacy=helpers.privacy(against="participants"),
    )
    server = rows(resolved)["server"]
    assert server.worst_case is server.planned is None
    assert server.reason is not None
    assert "not proven" in server.reason
    assert rows(resolved)["participants"].worst_case is not None


@pytest.mark.parametrize("aggregation", [fl.Plain(), helpers.ideal(), helpers.secure()])
def test_central_noise_claims_nothing_against_the_server(
    aggregation: fl.Plain | fl.Ideal | fl.Secure,
) -> None:
    resolved = resolve(
        privacy=helpers.privacy(mechanism="gaussian", against="participants"),
        aggregation=aggregation,
    )
    table = rows(resolved)
    assert table["server"].worst_case is None
    assert table["server"].reason is not None
    assert "central noise" in table["server"].reason
    assert helpers.upper(table["participants"].worst_case) == pytest.approx(8.0, rel=1e-4)


def test_without_privacy_or_with_seeded_secrets_no_row_is_a_number() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"privacy": fl.NotPrivate(1.0)}, "not private"),
        ({"seeded_secrets": True}, "seeded_secrets"),
    ]
    for overrides, words in cases:
        table = resolve(**overrides).privacy
        assert {row.adversary for row in table.rows} == set(ADVERSARIES)
        for row in table.rows:
            assert row.planned is row.realised is row.worst_case is None
            assert row.reason is not None
            assert words in row.reason
        assert table.assumptions == ()


def test_rows_serialise_as_the_summary_holds_them() -> None:
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


@pytest.mark.slow
def test_the_realised_noise_in_the_mean_is_what_the_statement_counts() -> None:
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
    expected = (sigma_of(resolved) * 0.5) ** 2 * 40 / 26 / 40**2
    assert means.var() == pytest.approx(expected, rel=0.09)


@pytest.mark.parametrize(
    ("server", "words"), [("semi_honest", "one that follows"), ("malicious", "one that deviates")]
)
def test_the_statement_says_which_server_it_is_about(server: str, words: str) -> None:
    told = statement(resolve(aggregation=helpers.secure(server=server)).exposure, None).assumptions
    (about,) = [line for line in told if "the server of the server rows" in line]
    assert words in about
    assert f"server = {server}" in about


@pytest.mark.parametrize("aggregation", [helpers.ideal(), helpers.secure()])
def test_the_statement_says_that_test_data_are_public(aggregation: fl.Ideal | fl.Secure) -> None:
    told = statement(resolve(aggregation=aggregation).exposure, None).assumptions
    assert any("test data are public" in line for line in told)


@pytest.mark.parametrize(("graph", "told"), [("sparse", 1), ("complete", 0)])
def test_a_sparse_graph_is_that_of_a_member_which_signed_one_roster(graph: str, told: int) -> None:
    """How many it signed it alone can count: the statement says what more than one costs."""
    lines = statement(resolve(aggregation=helpers.secure(graph=graph)).exposure, None).assumptions
    about = [line for line in lines if "masking graph's seed" in line]
    assert len(about) == told
    assert all("at most R times as much if it signed R" in line for line in about)
