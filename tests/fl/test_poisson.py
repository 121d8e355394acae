"""Secret cohorts: what is claimed, to whom, and that nothing public shows them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dp
import fl
from fl import training as training_module
from fl.cohort import SIZE_FAILURE
from fl.train import start
from tests.fl import helpers

N, Q, ROUNDS = 200, 0.5, 6
DATA = helpers.small_data(N, examples=2)


def poisson_plan(*, private: dict[str, Any] | None = None, **overrides: Any) -> fl.Plan:
    settings: dict[str, Any] = {
        "cohort": fl.cohort.poisson(Q),
        "rounds": ROUNDS,
        "privacy": helpers.privacy(**private or {}),
    }
    return helpers.plan(**{**settings, **overrides})


def central(**overrides: Any) -> fl.Plan:
    return poisson_plan(
        private={"mechanism": "gaussian", "against": "outsider"},
        aggregation=fl.Plain(),
        **overrides,
    )


def rows(statement: fl.Statement) -> dict[str, fl.Row]:
    return {row.adversary: row for row in statement.rows}


def test_bounds_hold_for_every_size_that_a_run_admits() -> None:
    resolved = fl.resolve(poisson_plan(), DATA)
    low, high = resolved.sizes
    bounds = resolved.exposure.bounds
    assert 0 < low < N * Q < high < N
    for n in range(low, high + 1):
        survivors = n - n // 4
        assert survivors >= bounds.min_survivors
        assert survivors - n // 10 >= bounds.honest_shares
    mechanism = resolved.exposure.mechanism
    assert isinstance(mechanism, dp.DistributedMechanism)
    assert mechanism.num_clients == high
    assert isinstance(resolved.encoding, fl.encoding.PrivateEncoding)
    assert resolved.encoding.denominator == N * Q


def test_the_server_and_participants_compose_every_release_without_amplification() -> None:
    resolved = fl.resolve(poisson_plan(), DATA)
    table, exposure = rows(resolved.privacy), resolved.exposure
    mechanism = exposure.mechanism
    assert isinstance(mechanism, dp.DistributedMechanism)
    event = dp.SelfComposedEvent(mechanism.event(exposure.bounds.honest_shares), ROUNDS)
    independent = dp.epsilon(
        event, 1e-3, neighboring=dp.NeighboringRelation.ZERO_OUT, accountant="rdp"
    )
    for adversary in ("server", "participants"):
        assert helpers.upper(table[adversary].worst_case) == pytest.approx(
            independent.upper, rel=1e-4
        )
        assert table[adversary].max_releases == ROUNDS


def test_noise_shares_give_an_outsider_a_secret_number_of_participations() -> None:
    """Never the sampled Gaussian's formula, which the growing variance rules out."""
    resolved = fl.resolve(poisson_plan(), DATA)
    table, exposure = rows(resolved.privacy), resolved.exposure
    mechanism = exposure.mechanism
    assert isinstance(mechanism, dp.DistributedMechanism)
    release = mechanism.event(exposure.bounds.min_survivors)
    independent = dp.epsilon_with_failures(
        dp.SecretParticipationEvent(release, ROUNDS, Q, ROUNDS), 1e-3,
        neighboring=dp.NeighboringRelation.ZERO_OUT, accountant="rdp",
        failure_prob=SIZE_FAILURE, total_variation=exposure.total_variation("outsider", 0, 0),
    )  # fmt: skip
    everything = dp.epsilon(
        dp.SelfComposedEvent(release, ROUNDS), 1e-3, neighboring=dp.NeighboringRelation.ZERO_OUT,
        accountant="rdp",
    )  # fmt: skip
    got = helpers.upper(table["outsider"].worst_case)
    assert got == pytest.approx(independent.upper, rel=1e-6)
    assert got < everything.upper
    sampled = dp.epsilon(
        dp.SelfComposedEvent(dp.RecordSampledEvent(Q, release), ROUNDS), 1e-3,
        neighboring=dp.NeighboringRelation.ZERO_OUT, accountant="rdp",
    )  # fmt: skip
    assert got > sampled.upper


def test_noise_is_sized_against_an_outsider_too() -> None:
    resolved = fl.resolve(poisson_plan(private={"against": "outsider"}), DATA)
    assert helpers.upper(rows(resolved.privacy)["outsider"].worst_case) == pytest.approx(
        8.0, rel=1e-3
    )


def test_central_noise_is_amplified_for_the_outsider_alone() -> None:
    resolved = fl.resolve(central(), DATA)
    table, mechanism = rows(resolved.privacy), resolved.exposure.mechanism
    assert isinstance(mechanism, dp.CentralMechanism)
    sampled = dp.SelfComposedEvent(dp.PoissonSampledEvent(Q, mechanism.event()), ROUNDS)
    plain = dp.SelfComposedEvent(mechanism.event(), ROUNDS)
    for adversary, event, failure in [
        ("outsider", sampled, SIZE_FAILURE), ("participants", plain, 0.0)
    ]:  # fmt: skip
        independent = dp.epsilon_with_failures(
            event, 1e-3, neighboring=dp.NeighboringRelation.ZERO_OUT, accountant="rdp",
            failure_prob=failure, total_variation=ROUNDS * mechanism.total_variation(),
        )  # fmt: skip
        assert helpers.upper(table[adversary].worst_case) == pytest.approx(
            independent.upper, rel=1e-9
        )
    assert helpers.upper(table["outsider"].worst_case) < 0.7 * helpers.upper(
        table["participants"].worst_case
    )
    assert resolved.exposure.protocol_failure("outsider") == SIZE_FAILURE
    assert resolved.exposure.protocol_failure("participants") == 0.0
    assert any("secret coin" in note for note in resolved.privacy.assumptions)


@pytest.mark.parametrize("make", [helpers.ideal, helpers.secure])
def test_masked_rounds_of_random_size_run(make: Any) -> None:
    plan = poisson_plan(aggregation=make(simulate_dropout={"mask_input": 0.1}), rounds=2)
    training = start(plan, helpers.MODEL, DATA)
    sizes = []
    while (r := training.step()) is not None:
        assert r.reason is None
        sizes.append(len(r.survivors))
        assert r.epsilon == r.epsilon_worst_case
    assert len(sizes) == 2
    server = rows(training.statement())["server"]
    assert server.realised is None
    assert server.worst_case is not None


def test_ideal_and_secure_agree_where_cohorts_are_seeded() -> None:
    ideal, secure = (
        helpers.params_bytes(
            fl.train(
                poisson_plan(aggregation=make(), rounds=2, seeded_secrets=True),
                helpers.MODEL, DATA,
            ).params
        )
        for make in (helpers.ideal, helpers.secure)
    )  # fmt: skip
    assert ideal == secure


def test_a_cohort_out_of_bounds_releases_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "invited", lambda *args: [1, 2, 3])
    training = start(central(rounds=1), helpers.MODEL, DATA)
    r = training.step()
    assert r is not None
    assert r.reason is not None
    assert r.survivors == ()
    assert training.store.charges() == []


def test_attempts_end_where_the_figures_do() -> None:
    training = start(central(), helpers.MODEL, DATA)
    assert training.resolved.max_attempts == ROUNDS
    exhausted = training._books.refusal([], 0)
    assert exhausted is not None
    assert "all 0 attempts that the figures cover" in exhausted


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"private": {"spare_releases": 1}}, "spare_releases"),
        ({"aggregation": helpers.ideal(beyond=True)}, "beyond"),
        ({"cohort": fl.cohort.poisson(0.01)}, "cohort"),
        ({"cohort": fl.cohort.fixed(50, 1)}, "max_participations"),
        ({"cohort": fl.cohort.separated(50, 9)}, "min_separation"),
    ],
)
def test_cohorts_that_a_plan_cannot_keep_are_refused(overrides: Any, field: str) -> None:
    with pytest.raises(fl.PlanError) as caught:
        fl.resolve(poisson_plan(**overrides), DATA)
    assert caught.value.faults[0].startswith(f"{field}: ")


@pytest.mark.parametrize("schedule", [fl.cohort.fixed(6, 2), fl.cohort.separated(4, 3)])
def test_public_draws_run_and_bound_releases(schedule: fl.cohort.Cohort) -> None:
    data = helpers.small_data(12)
    training = start(helpers.plan(cohort=schedule, rounds=4), helpers.MODEL, data)
    while training.step() is not None:
        pass
    assert training.stopped_early is None
    assert training.next_round == 4
    assert training.resolved.exposure.max_releases == 2
    charged = np.concatenate([clients for _, _, clients in training.store.charges()])
    assert np.bincount(charged).max() <= 2


def members_of(plan: fl.Plan) -> list[tuple[int, ...]]:
    return [r.survivors for r in fl.rounds(plan, helpers.MODEL, DATA)]


def test_cohorts_come_from_the_operating_system_and_not_from_the_seed() -> None:
    first, second = members_of(central(rounds=3)), members_of(central(rounds=3))
    assert len(set(first + second)) == 6
    seeded = [members_of(central(rounds=3, seeded_secrets=True)) for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert len(set(seeded[0])) == 3


def test_a_run_of_secret_cohorts_is_resumed_within_its_attempts(tmp_path: Path) -> None:
    plan = central(rounds=3)
    training = start(plan, helpers.MODEL, DATA, out=tmp_path)
    training.step()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(training), "_apply", crash)
        with pytest.raises(CrashError):
            training.step()
    training.store.close()
    resumed = start(plan, helpers.MODEL, DATA, out=tmp_path, resume=True)
    assert resumed.step() is not None  # the second round again: the third attempt
    assert resumed.step() is None
    assert resumed.stopped_early is not None
    assert "all 3" in resumed.stopped_early  # attempts; or some client's releases, its maximum
    assert resumed.store.total_attempts() == 3
    resumed.store.close()


class CrashError(Exception):
    pass


def crash(*args: object) -> None:
    raise CrashError
