"""Correlated noise in a run: what is released, resumed, refused and stated."""

import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import optax
import pytest

import dp
import fl
from fl import engine as engine_module
from fl.correlated import correlated_noise
from fl.encoding import PrivateEncoding, round_rotation
from fl.secure import seeded_stream
from fl.store import Store
from fl.streams import SERVER
from fl.train import start
from fl.training import Training
from fl.types import Purpose
from tests.fl import helpers

MECHANISMS = ("tree", "banded", "blt")
each = pytest.mark.parametrize("mechanism", MECHANISMS)
BANDED_FIRST = ["banded", *(pytest.param(m, marks=pytest.mark.slow) for m in ("tree", "blt"))]
STILL = helpers.algorithm(client_optimizer=optax.sgd(0.0), server_optimizer=optax.sgd(1.0))


def privacy(mechanism: str, **overrides: Any) -> fl.Privacy:
    return helpers.privacy(mechanism=mechanism, against="participants", **overrides)


def plan(mechanism: str = "banded", **overrides: Any) -> fl.Plan:
    settings: dict[str, Any] = {
        "rounds": 6,
        "cohort": fl.cohort.cyclic(4),
        "privacy": privacy(mechanism),
    }
    return helpers.plan(**{**settings, **overrides})


def mechanism_of(resolved: fl.plan.Resolved) -> dp.matrix.CorrelatedMechanism:
    found = resolved.exposure.mechanism
    assert isinstance(found, dp.matrix.CorrelatedMechanism)
    return found


def expected_noise(resolved: fl.plan.Resolved, skipped: tuple[int, ...] = ()) -> list[np.ndarray]:
    """The noise of every round of a seeded run, on the parameters' scale."""
    mechanism, seed = mechanism_of(resolved), resolved.plan.seed
    stream, rotation = mechanism.stream(), round_rotation(resolved.messages.dim, seed, 0)
    assert isinstance(resolved.encoding, PrivateEncoding)
    found = []
    for index in range(resolved.plan.rounds):
        draw = mechanism.draw(seeded_stream(seed, Purpose.CENTRAL_NOISE, index, SERVER))
        if index in skipped:
            stream.skip(draw)
            found.append(np.zeros(resolved.messages.dim))
            continue
        error = mechanism.discretizer.decode(stream.advance(draw), rotation)
        found.append(error / resolved.encoding.denominator)
    return found


def flat(params: fl.types.PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]).astype(float)


@each
@pytest.mark.parametrize("aggregation", [fl.Plain(), helpers.ideal(dropout=0.0, corrupt=0.0)])
def test_clients_that_send_nothing_leave_the_noise_of_all_rounds(
    mechanism: str, aggregation: Any
) -> None:
    """Also that all rounds share one rotation: else prefix sums would not be those of the noise."""
    given = plan(mechanism, algorithm=STILL, aggregation=aggregation, seeded_secrets=True)
    resolved = fl.resolve(given, helpers.small_data())
    begin = flat(start(given, helpers.MODEL, helpers.small_data()).state.params)
    prefix = np.zeros(resolved.messages.dim)
    rounds = list(fl.rounds(given, helpers.MODEL, helpers.small_data()))
    for finished, error in zip(rounds, expected_noise(resolved), strict=True):
        prefix += error
        np.testing.assert_allclose(begin - flat(finished.params), prefix, atol=1e-5)
    assert np.abs(prefix).max() > 1e-3


@pytest.mark.parametrize("mechanism", BANDED_FIRST)
def test_ideal_and_secure_give_the_same_model(mechanism: str) -> None:
    data = helpers.small_data()
    settings = {"corrupt": 0.0, "dropout": 0.25}
    models = [
        fl.train(plan(mechanism, aggregation=a, seeded_secrets=True), helpers.MODEL, data).params
        for a in (helpers.ideal(**settings), helpers.secure(graph="complete", **settings))
    ]
    assert helpers.params_bytes(models[0]) == helpers.params_bytes(models[1])


@each
def test_a_round_that_aborts_uses_its_row_and_adds_no_noise(
    mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(masked: Any, ids: Any, seed: int, index: int) -> dict[str, tuple[int, ...]]:
        return {"share_keys": tuple(ids)[:2]} if index in (1, 2) else {}

    monkeypatch.setattr("fl.training.draw_dropouts", gone)
    aggregation = helpers.ideal(corrupt=0.0, dropout=0.25)
    given = plan(mechanism, algorithm=STILL, aggregation=aggregation, seeded_secrets=True)
    rounds = list(fl.rounds(given, helpers.MODEL, helpers.small_data()))
    assert [r.reason is None for r in rounds] == [True, False, False, True, True, True]
    noise = expected_noise(fl.resolve(given, helpers.small_data()), skipped=(1, 2))
    moved = flat(rounds[2].params) - flat(rounds[-1].params)
    np.testing.assert_allclose(moved, sum(noise[3:]), atol=1e-5)
    assert helpers.params_bytes(rounds[0].params) == helpers.params_bytes(rounds[2].params)


class CrashError(Exception):
    pass


def crash(*args: object, **kwargs: object) -> NoReturn:
    raise CrashError


CRASHES: list[tuple[Any, str]] = [
    (engine_module, "attempt_round"),  # charged, nothing sent
    (Store, "release"),  # summed, noise drawn, neither on record
    (PrivateEncoding, "decode"),  # on record, not read
    (Training, "_apply"),  # released, not stepped
    (Store, "finish_round"),  # stepped, not recorded
]
crashes = pytest.mark.parametrize(("owner", "name"), CRASHES, ids=[name for _, name in CRASHES])


def crashed(given: fl.Plan, out: Path, owner: Any, name: str, rounds: int = 2) -> None:
    training = start(given, helpers.MODEL, helpers.small_data(), out=out)
    for _ in range(rounds):
        training.step()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(CrashError):
            training.step()
    training.store.close()


@crashes
@each
def test_a_seeded_run_resumes_to_the_same_bits(
    tmp_path: Path, mechanism: str, owner: Any, name: str
) -> None:
    data, given = helpers.small_data(), plan(mechanism, seeded_secrets=True)
    whole = fl.train(given, helpers.MODEL, data)
    crashed(given, tmp_path, owner, name)
    resumed = list(fl.rounds(given, helpers.MODEL, data, out=tmp_path, resume=True))
    assert [r.index for r in resumed] == [2, 3, 4, 5]
    assert helpers.params_bytes(resumed[-1].params) == helpers.params_bytes(whole.params)


@crashes
@pytest.mark.parametrize("rounds", [0, 2])
def test_secret_noise_is_drawn_once_for_every_row_whatever_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, rounds: int
) -> None:
    """A round whose noise is on record is lost, not run again; others are, with spare releases."""
    given = plan("banded", privacy=privacy("banded", spare_releases=1), algorithm=STILL)
    drawn: list[int] = []
    advance = dp.matrix.NoiseStream.advance

    def counted(self: Any, draw: Any) -> Any:
        drawn.append(self.row)
        return advance(self, draw)

    monkeypatch.setattr(dp.matrix.NoiseStream, "advance", counted)
    crashed(given, tmp_path, owner, name, rounds)
    before = len(drawn)
    training = start(given, helpers.MODEL, helpers.small_data(), out=tmp_path, resume=True)
    model = helpers.params_bytes(training.state.params)
    finished = training.step()
    assert finished is not None
    assert finished.index == rounds
    lost = name in ("decode", "_apply", "finish_round")
    assert (finished.reason is not None) == lost
    if lost:
        assert "counts as released" in str(finished.reason)
        assert helpers.params_bytes(finished.params) == model
        assert len(drawn) == before  # nothing is drawn for it again
    rest = list(itertools.takewhile(lambda r: r is not None, iter(training.step, None)))
    assert [r.index for r in rest] == list(range(rounds + 1, 6))
    training.close()
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        rows = db.execute("select round, count(*) from releases group by round").fetchall()
        kept = db.execute("select round from noise").fetchall()
    db.close()
    assert rows == [(index, 1) for index in range(6)]  # no row is in two releases
    assert kept == [(5,)]


def test_noise_goes_on_where_the_store_left_it(tmp_path: Path) -> None:
    """Bit for bit: the state that a resumed run takes up is the one that was committed."""
    given = plan("tree", algorithm=STILL)
    training = start(given, helpers.MODEL, helpers.small_data(), out=tmp_path)
    for _ in range(3):
        training.step()
    state = training._books._noise.to_bytes()  # type: ignore[union-attr]
    training.store.close()
    again = start(given, helpers.MODEL, helpers.small_data(), out=tmp_path, resume=True)
    assert again._books._noise.to_bytes() == state  # type: ignore[union-attr]
    again.close()


def test_a_state_that_is_missing_or_of_other_noise_is_refused(tmp_path: Path) -> None:
    given = plan("banded")
    training = start(given, helpers.MODEL, helpers.small_data(), out=tmp_path)
    training.step()
    training.store.close()
    other = correlated_noise(fl.resolve(plan("tree"), helpers.small_data()))
    assert other is not None
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute("update noise set state = ?", (other.to_bytes(),))
    db.close()
    with pytest.raises(fl.StoreError, match="state of this plan's noise"):
        start(given, helpers.MODEL, helpers.small_data(), out=tmp_path, resume=True)
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute("delete from noise")
    db.close()
    with pytest.raises(fl.StoreError, match="the state after round 0"):
        start(given, helpers.MODEL, helpers.small_data(), out=tmp_path, resume=True)


def test_large_states_are_files_that_go_with_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl.store.INLINE_BYTES", 100)
    given = plan("banded")
    training = start(given, helpers.MODEL, helpers.small_data(), out=tmp_path)
    training.step()
    training.step()
    assert sorted(path.name for path in tmp_path.glob("noise-*")) == ["noise-1.npz"]
    training.store.close()
    resumed = start(given, helpers.MODEL, helpers.small_data(), out=tmp_path, resume=True)
    resumed.close()
    (tmp_path / "noise-1.npz").write_bytes(b"other")
    with pytest.raises(fl.StoreError, match="the file that was written"):
        start(given, helpers.MODEL, helpers.small_data(), out=tmp_path, resume=True)


@each
def test_the_statement_composes_all_rounds_into_one_event(mechanism: str) -> None:
    resolved = fl.resolve(plan(mechanism), helpers.small_data())
    found = mechanism_of(resolved)
    told = found.strategy.participation
    assert (told.rounds, told.separation, told.most) == (6, 3, 2)
    rows = {row.adversary: row for row in resolved.privacy.rows}
    assert rows["server"].worst_case is None
    assert "central noise" in str(rows["server"].reason)
    alone = dp.epsilon(
        found.event(), 1e-3, neighboring=dp.NeighboringRelation.ZERO_OUT, accountant="rdp"
    )
    for adversary in ("participants", "outsider"):
        worst = rows[adversary].worst_case
        assert worst is not None
        assert alone.upper <= worst.upper <= alone.upper * (1 + 1e-6)
        assert worst.upper <= 8.0
    assert any(
        "at most 2 of them, at least 3 apart" in note for note in resolved.privacy.assumptions
    )


def test_runs_over_the_same_clients_compose() -> None:
    given = plan("banded", algorithm=STILL)
    one = fl.resolve(given, helpers.small_data()).privacy.rows[1].worst_case
    both = fl.sweep(given, helpers.MODEL, helpers.small_data(), seeds=(0, 1))
    together = both.privacy.rows[1].worst_case
    assert one is not None
    assert together is not None
    mechanism = mechanism_of(fl.resolve(given, helpers.small_data()))
    twice = dp.epsilon(
        dp.SelfComposedEvent(mechanism.event(), 2), 1e-3,
        neighboring=dp.NeighboringRelation.ZERO_OUT, accountant="rdp",
    )  # fmt: skip
    assert together.upper >= twice.upper > 1.3 * one.upper


def test_realised_grows_to_the_worst_case_and_never_beyond() -> None:
    training = start(plan("banded"), helpers.MODEL, helpers.small_data())
    seen = []
    while (finished := training.step()) is not None:
        assert finished.epsilon is not None
        seen.append(finished.epsilon)
    row = training.statement().rows[1]
    assert row.realised is not None
    assert row.worst_case is not None
    # Everybody took part once in rounds 0 to 2, and again in 3 to 5.
    assert seen[0] == seen[2] < seen[3] == seen[5] == row.realised.upper
    assert row.realised.upper <= row.worst_case.upper


COHORTS: list[tuple[fl.cohort.Cohort, tuple[int, int]]] = [
    (fl.cohort.full(), (1, 8)),
    (fl.cohort.cyclic(4), (3, 3)),
    (fl.cohort.cyclic(5), (2, 4)),
    (fl.cohort.fixed(4, 3), (1, 3)),
    (fl.cohort.separated(3, 4), (4, 2)),
]


@pytest.mark.parametrize(("cohort", "told"), COHORTS, ids=str)
def test_cohorts_keep_the_separation_that_is_counted(
    cohort: fl.cohort.Cohort, told: tuple[int, int]
) -> None:
    given = plan("banded", rounds=8, cohort=cohort)
    found = mechanism_of(fl.resolve(given, helpers.small_data())).strategy.participation
    assert (found.separation, found.most) == told
    for seed in range(20):
        rounds: dict[int, list[int]] = {}
        for index in range(8):
            for client in cohort.members(index, 12, seed).tolist():
                rounds.setdefault(client, []).append(index)
        for taken in rounds.values():
            assert len(taken) <= found.most
            assert all(b - a >= found.separation for a, b in itertools.pairwise(taken))


REFUSED: list[tuple[str, Callable[[], fl.Plan]]] = [
    ("against", lambda: plan(privacy=helpers.privacy(mechanism="banded"))),
    ("cohort", lambda: plan(cohort=fl.cohort.poisson(0.5))),
    ("unit", lambda: plan(privacy=privacy("tree", unit="record", record_sampling=1.0))),
    ("bands", lambda: plan(privacy=privacy("tree", bands=3))),
    ("bands", lambda: plan(privacy=privacy("banded", bands=0))),
    ("privacy", lambda: plan(privacy=privacy("banded", bands=7))),
    ("buffers", lambda: plan(privacy=privacy("banded", buffers=3))),
    ("buffers", lambda: plan(privacy=privacy("blt", buffers=13))),
    ("wrap_probability", lambda: plan(privacy=privacy("blt", wrap_probability=0.1))),
    ("privacy", lambda: plan(rounds=5000)),
]


@pytest.mark.parametrize(
    ("field", "make"), REFUSED, ids=[f"{k}-{f}" for k, (f, _) in enumerate(REFUSED)]
)
def test_what_correlated_noise_does_not_support_is_refused(
    field: str, make: Callable[[], fl.Plan]
) -> None:
    with pytest.raises(fl.PlanError, match=f"(?m)^{field}|{field}=|{field}:|{field} "):
        fl.resolve(make(), helpers.small_data())


def test_jobs_and_settings_reach_the_strategy() -> None:
    for given, size in (({"bands": 2}, 2), ({}, 3)):
        found = fl.resolve(plan(privacy=privacy("banded", **given)), helpers.small_data())
        strategy = mechanism_of(found).strategy
        assert isinstance(strategy, dp.matrix.BandedStrategy)
        assert strategy.bands == size
    found = fl.resolve(plan(privacy=privacy("blt", buffers=2)), helpers.small_data())
    strategy = mechanism_of(found).strategy
    assert isinstance(strategy, dp.matrix.BltStrategy)
    assert len(strategy.decays) == 2
    job = fl.Job(
        dataset="digits", clients=40, partition="iid", cohort="10", rounds=8, algorithm="dp_ftrl",
        server_momentum=0.5, aggregation="plain", mechanism="banded", bands=3, against="outsider",
        epsilon=8.0, delta=1e-3, clip_norm=0.5,
    )  # fmt: skip
    built, _, data = job.build()
    assert built.algorithm.name == "dp_ftrl"
    strategy = mechanism_of(fl.resolve(built, data)).strategy
    assert isinstance(strategy, dp.matrix.BandedStrategy)
    assert (strategy.bands, strategy.participation.separation) == (3, 4)


@pytest.mark.parametrize("nesterov", [pytest.param(False, marks=pytest.mark.slow), True])
def test_dp_ftrl_is_momentum_on_the_sums_of_updates(nesterov: bool) -> None:
    """In exact arithmetic the steps of SGD with momentum; kept as prefix sums from the start."""
    settings: dict[str, Any] = {"batch_size": None, "local_epochs": 2}
    ftrl = fl.dp_ftrl(
        helpers.MODEL.loss, client_optimizer=optax.sgd(0.5), learning_rate=0.7, momentum=0.8,
        nesterov=nesterov, **settings,
    )  # fmt: skip
    sgd = helpers.algorithm(server_optimizer=optax.sgd(0.7, momentum=0.8, nesterov=nesterov))
    data, private = helpers.small_data(), plan("tree", seeded_secrets=True).privacy
    runs = [
        fl.train(
            plan("tree", algorithm=algorithm, privacy=private, seeded_secrets=True),
            helpers.MODEL,
            data,
        )
        for algorithm in (ftrl, sgd)
    ]
    np.testing.assert_allclose(flat(runs[0].params), flat(runs[1].params), atol=1e-4)
    with pytest.raises(fl.PlanError, match="momentum"):
        fl.dp_ftrl(
            helpers.MODEL.loss, client_optimizer=optax.sgd(0.5), learning_rate=1.0, momentum=1.0,
            **settings,
        )  # fmt: skip
    with pytest.raises(fl.PlanError, match="learning_rate"):
        fl.dp_ftrl(
            helpers.MODEL.loss, client_optimizer=optax.sgd(0.5), learning_rate=0.0, **settings
        )
