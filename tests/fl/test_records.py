"""The unit is one record: clipped, sampled and counted by itself; what the figures rest on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import optax
import pytest
from numpy.typing import NDArray

import dp
import fl
from fl.cohort import drawn
from fl.records import RecordRunner, records_at_once
from fl.train import start
from tests.fl import helpers
from tests.fl.helpers import flat

MODEL = fl.models.logistic(13, 2)
SGD = fl.fedsgd(MODEL.loss, server_optimizer=optax.sgd(2.0))
SIZES = (90, 60, 1, 0)  # four hospitals, one with one patient, one with none
Floats = NDArray[np.float64]


def hospitals(sizes: tuple[int, ...] = SIZES, seed: int = 0) -> fl.FederatedDataset:
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(sizes)), sizes)
    y = rng.integers(0, 2, len(ids)).astype(np.int32)
    x = (0.5 * rng.normal(size=(len(ids), 13)) + 0.5 * (2 * y[:, None] - 1)).astype(np.float32)
    fields = {"x": x, "y": y}
    return fl.FederatedDataset.from_arrays(
        fields, ids, test=fields, num_clients=len(sizes), num_classes=2, name="hospitals"
    )


DATA = hospitals()


def record_plan(*, data_privacy: dict[str, Any] | None = None, **overrides: Any) -> fl.Plan:
    privacy = helpers.privacy(**{"unit": "record", "record_sampling": 0.2, **(data_privacy or {})})
    settings: dict[str, Any] = {
        "algorithm": SGD,
        "privacy": privacy,
        "aggregation": helpers.ideal(corrupt=0.25, dropout=0.0),
    }
    return helpers.plan(**{**settings, **overrides})


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
def test_secure_and_ideal_give_the_same_bits(mechanism: str) -> None:
    privacy = {"mechanism": mechanism}
    models = [
        helpers.params_bytes(
            fl.train(
                record_plan(aggregation=make, seeded_secrets=True, data_privacy=privacy),
                MODEL, DATA,
            ).params
        )
        for make in (
            helpers.ideal(corrupt=0.25, dropout=0.0), helpers.secure(corrupt=0.25, dropout=0.0)
        )
    ]  # fmt: skip
    assert models[0] == models[1]


def test_it_learns_at_a_moderate_epsilon() -> None:
    data = hospitals((400, 300, 200, 100))
    plan = record_plan(rounds=20, data_privacy={"epsilon": 2.0, "delta": 1e-5})
    assert fl.train(plan, MODEL, data).metrics["accuracy"] > 0.9


def test_the_figure_is_that_of_sampled_records_under_honest_shares() -> None:
    resolved = fl.resolve(record_plan(rounds=10), DATA)
    for row in resolved.privacy.rows:
        shares = 4 if row.adversary == "outsider" else 3
        event = dp.RecordSampledEvent(0.2, helpers.mechanism_of(resolved).event(shares))
        independent = dp.epsilon(
            dp.SelfComposedEvent(event, 10), 1e-3, neighboring=dp.NeighboringRelation.ZERO_OUT,
            accountant="rdp",
        )  # fmt: skip
        assert helpers.upper(row.worst_case) == pytest.approx(independent.upper, rel=1e-6)
    assert resolved.privacy.unit == "record"
    assert 8.0 * (1 - 1e-4) < helpers.upper(resolved.privacy.rows[0].worst_case) <= 8.0
    assert any("every record joins" in note for note in resolved.privacy.assumptions)


def test_sampling_records_costs_less_noise_than_taking_all() -> None:
    sampled, everything = (
        fl.resolve(record_plan(rounds=20, data_privacy={"record_sampling": q}), DATA)
        for q in (0.2, 1.0)
    )
    assert sampled.noise_multiplier is not None
    assert everything.noise_multiplier is not None
    assert sampled.noise_multiplier < 0.5 * everything.noise_multiplier
    assert not any("every record joins" in note for note in everything.privacy.assumptions)


def test_the_mean_is_that_of_clipped_gradients_of_single_records() -> None:
    """All records, hardly any noise: against the gradients by hand, over all records expected."""
    plan = record_plan(
        rounds=1, data_privacy={"record_sampling": 1.0, "epsilon": 1e5}, seeded_secrets=True
    )
    (finished,) = fl.rounds(plan, MODEL, DATA)
    total = np.zeros(28)
    for x, y in zip(DATA.fields["x"], DATA.fields["y"], strict=True):
        error = np.full(2, 0.5) - np.eye(2)[y]  # softmax at zero
        gradient = np.concatenate([error, np.outer(np.asarray(x, np.float64), error).ravel()])
        total += gradient * min(1.0, 0.5 / np.linalg.norm(gradient))
    by_hand = -2.0 * total / len(DATA.fields["y"])
    np.testing.assert_allclose(flat(finished.params), by_hand, atol=0.01)
    assert np.abs(by_hand).max() > 0.1


def rows_of(data: fl.FederatedDataset, client: int, sampling: float, seed: int) -> list[Any]:
    sent = SGD.broadcast(SGD.init(MODEL.init(helpers.KEY)))
    runner = RecordRunner(SGD, data, 0, 0.3, sampling)
    coins = np.random.default_rng(seed).bytes
    return list(runner.rows(sent, 0, client, coins))


def test_every_record_is_bounded_alone_and_joins_by_its_coin() -> None:
    data = hospitals((197, 10))
    everybody = rows_of(data, 0, 1.0, 0)
    assert len(everybody) == 197
    assert all(np.linalg.norm(row) <= 0.3 * (1 + 1e-6) for row in everybody)
    some = rows_of(data, 0, 0.25, 1)
    assert 0 < len(some) < len(everybody)
    joined = {row.tobytes() for row in some}
    assert joined < {row.tobytes() for row in everybody}
    assert joined != {row.tobytes() for row in rows_of(data, 0, 0.25, 2)}


def test_how_many_records_are_computed_together_changes_last_bits_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = hospitals((23, 10))
    together = rows_of(data, 0, 1.0, 0)
    monkeypatch.setattr(fl.records, "_MOST_FLOATS", 5 * 28)
    assert records_at_once(28) == 5
    few = rows_of(data, 0, 1.0, 0)
    assert len(few) == 23
    np.testing.assert_allclose(few, together, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("dim", "records"), [(28, 64), (1 << 16, 16), (1_663_370, 4)])
def test_few_records_of_a_large_model_are_in_memory(dim: int, records: int) -> None:
    assert records_at_once(dim) == records


def test_coins_fall_with_the_probability() -> None:
    """1e5 coins at 0.3: five standard errors are 0.0072 (false alarms below 1e-6)."""
    coins = np.random.default_rng(0).bytes
    assert drawn(100_000, 0.3, coins).mean() == pytest.approx(0.3, abs=0.0073)
    assert drawn(1000, 1.0, coins).all()


def coins_of(plan: fl.Plan, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The first bytes of every client's coins, in each round of a run."""
    found: list[bytes] = []

    def spied(
        self: RecordRunner, broadcast: Any, round_index: int, client: int, coins: Any
    ) -> Iterator[Any]:
        found.append(coins(32))
        return iter(())

    with monkeypatch.context() as patch:
        patch.setattr(RecordRunner, "rows", spied)
        list(fl.rounds(plan, MODEL, DATA))
    return found


def test_coins_are_secret_fresh_and_each_clients_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 draws of a run, and those of a second run: all differ unless secrets are seeded."""
    first, second = (coins_of(record_plan(), monkeypatch) for _ in range(2))
    assert len({*first, *second}) == len(first) + len(second) == 24
    seeded = [coins_of(record_plan(seeded_secrets=True), monkeypatch) for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert len(set(seeded[0])) == 12


def test_an_attempt_that_is_repeated_draws_fresh_coins(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = record_plan(rounds=1, data_privacy={"spare_releases": 1})
    training = start(plan, MODEL, DATA)
    seen: list[bytes] = []

    def spied(
        self: RecordRunner, broadcast: Any, round_index: int, client: int, coins: Any
    ) -> Iterator[Any]:
        seen.append(coins(32))
        return iter(())

    def crash(*args: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(RecordRunner, "rows", spied)
    with monkeypatch.context() as patch:
        patch.setattr(type(training), "_apply", crash)
        with pytest.raises(RuntimeError):
            training.step()
    training.step()
    assert len(set(seen)) == 8
    assert [len(clients) for _, _, clients in training.store.charges()] == [4, 4]


def test_roundings_of_all_records_add_little_to_the_noise() -> None:
    """3,000 records of noise multiplier 1: their rounding is below 1 % of the noise's variance."""
    data = hospitals((2000, 1000, 0, 0))
    mechanism = helpers.mechanism_of(fl.resolve(record_plan(), data))
    steps = mechanism.discretizer.clip_norm / mechanism.discretizer.granularity
    assert 0.01 * steps**2 * (1 + 1e-9) >= 3000 / 4
    rng, rotation = np.random.default_rng(0), fl.encoding.round_rotation(28, 0, 0)
    row = np.full(28, 0.01)
    exact = rotation.apply(row) / mechanism.discretizer.granularity
    rounded = sum(mechanism.discretizer.encode(row, rotation, rng.bytes) for _ in range(3000))
    assert np.abs(rounded - 3000 * exact).max() < 6 * np.sqrt(3000 / 4)


def test_a_record_moves_the_integers_by_its_own_bound_at_most() -> None:
    """One record's message replaced by zero, all else alike: the difference of the segments."""
    resolved = fl.resolve(record_plan(), DATA)
    mechanism, encoding = helpers.mechanism_of(resolved), resolved.encoding
    assert isinstance(encoding, fl.encoding.PrivateEncoding)
    rows = rows_of(DATA, 0, 1.0, 0)
    rotation = fl.encoding.round_rotation(28, 0, 0)

    def sums(rows: list[Any]) -> NDArray[np.int64]:
        value = fl.encoding.RecordValue(rows)
        segments = encoding.encode(value, rotation, lambda purpose: np.random.default_rng(7).bytes)
        return dp.unwrap(segments["update"], mechanism.modulus_bits)

    whole = sums(rows)
    for k in (0, 17, 89):
        moved = whole - sums([*rows[:k], np.zeros_like(rows[k]), *rows[k + 1 :]])
        assert 0 < int(moved @ moved) <= mechanism.discretizer.l2_sq


@pytest.mark.slow
def test_the_noise_in_the_mean_is_what_the_statement_counts() -> None:
    """No records at all: 300 rounds x 28 coordinates, five standard errors are 8 %."""
    data = hospitals((0, 0, 0, 0))
    plan = record_plan(rounds=300, eval_every=300)
    previous, steps = np.zeros(28), []
    for r in fl.rounds(plan, MODEL, data):
        steps.append(flat(r.params) - previous)
        previous = flat(r.params)
    sigma = fl.resolve(plan, data).noise_multiplier
    assert sigma is not None
    expected = (2.0 * sigma * 0.5) ** 2 * 4 / 3  # four shares, of which three count
    assert np.array(steps).var() == pytest.approx(expected, rel=0.08)


def test_records_that_are_not_finite_count_as_zero() -> None:
    x = np.array(DATA.fields["x"])
    x[[3, 95, 150]] = np.nan  # one of each hospital, of the third its only one
    data = fl.FederatedDataset.from_arrays(
        {"x": x, "y": DATA.fields["y"]}, np.repeat(np.arange(4), SIZES), num_clients=4,
        num_classes=2,
    )  # fmt: skip
    for finished in fl.rounds(record_plan(), MODEL, data):
        assert finished.survivors == (0, 1, 2, 3)
        assert np.isfinite(flat(finished.params)).all()


def test_the_public_denominator_is_the_records_expected() -> None:
    resolved = fl.resolve(record_plan(), DATA)
    assert isinstance(resolved.encoding, fl.encoding.PrivateEncoding)
    assert resolved.encoding.denominator == pytest.approx(0.2 * sum(SIZES))


def test_the_modulus_holds_all_records_of_a_cohort() -> None:
    resolved = fl.resolve(record_plan(), DATA)
    mechanism = helpers.mechanism_of(resolved)
    assert 2 ** (mechanism.modulus_bits - 1) > sum(SIZES) * mechanism.discretizer.linf


def test_realised_counts_the_rounds_there_were() -> None:
    training = start(record_plan(rounds=4), MODEL, DATA)
    training.step()
    early = training.statement().rows[0]
    assert helpers.upper(early.realised) < helpers.upper(early.worst_case)
    while training.step() is not None:
        pass
    assert helpers.upper(training.statement().rows[0].realised) == pytest.approx(
        helpers.upper(early.worst_case), rel=1e-6
    )


def test_central_noise_protects_records_from_participants() -> None:
    plan = record_plan(
        aggregation=fl.Plain(),
        data_privacy={"mechanism": "gaussian", "against": "participants"},
    )
    server, participants, _ = fl.train(plan, MODEL, DATA).privacy.rows
    assert server.worst_case is None
    assert helpers.upper(participants.worst_case) == pytest.approx(8.0, rel=1e-4)


@pytest.mark.parametrize(
    ("privacy", "overrides", "field"),
    [
        ({"record_sampling": None}, {}, "record_sampling"),
        ({"record_sampling": 0.0}, {}, "record_sampling"),
        ({"record_sampling": 1.5}, {}, "record_sampling"),
        ({"accountant": "zcdp"}, {}, "accountant"),
        ({"unit": "client"}, {}, "record_sampling"),
        (
            {},
            {
                "algorithm": fl.scaffold(
                    MODEL.loss, client_lr=0.1, server_optimizer=optax.sgd(1.0), batch_size=None,
                    local_epochs=1, participation=1.0,
                )
            },
            "algorithm",
        ),
    ],
)  # fmt: skip
def test_plans_without_a_proof_are_refused(
    privacy: dict[str, Any], overrides: dict[str, Any], field: str
) -> None:
    with pytest.raises(fl.PlanError) as caught:
        fl.resolve(record_plan(data_privacy=privacy, **overrides), DATA)
    assert caught.value.faults[0].startswith(f"{field}: ")
